"""Who goes together: only where it was compiled, saves cores, and costs nobody his deadline; and what becomes of each."""

from dataclasses import replace

from core_build import answered, arrived, model, scheduler, unit, variant
from hypothesis import given, settings
from hypothesis import strategies as st

from veltair.core.actions import Complete, Dispatch, Drop
from veltair.core.events import Event, ModelLoaded, RequestCancelled, UnitFailed, UnitFinished
from veltair.core.scheduler import Scheduler
from veltair.core.values import LayerBlock, LeaseId, Model, ModelName, RequestId
from veltair.simulate.virtual import play

BUSY = model("busy", [5_000])
ONE = model("m", [6_000, 4_000])
PAIR = model("m x2", [7_000, 5_000])
IN_PAIRS = replace(ONE, batches={2: PAIR})
IN_THREES = replace(ONE, batches={2: PAIR, 3: model("m x3", [8_000, 6_000])})


def crowd(core: Scheduler, *qos_us: int, busy: int = 1) -> None:
    """Requests a, b, .. that wait until the units of `busy` others end, which take their cores first."""
    for i in range(busy):
        core.handle(arrived(f"busy{i}", "busy", 0, 90_000), 0)
    for name, qos in zip("abcdefgh", qos_us, strict=False):
        assert core.handle(arrived(name, "m", 0, qos), 0) == []


def after_the_busy(core: Scheduler) -> Dispatch:
    return next(a for a in core.handle(UnitFinished(LeaseId(1), 5_000), 5_000) if isinstance(a, Dispatch))


def test_two_that_wait_for_the_same_model_go_together() -> None:
    core = scheduler("veltair", IN_PAIRS, BUSY, cores=1)
    crowd(core, 60_000, 70_000)
    assert core.handle(UnitFinished(LeaseId(1), 5_000), 5_000) == [
        answered("busy0", 5_025),
        unit(
            "a",
            2,
            (0,),
            range(2),
            12_000,
            "earliest deadline, 1 alike with it",
            ("request b", "its deadline is 10.0 ms later"),
            riders="b",
        ),
    ]
    both = core.handle(UnitFinished(LeaseId(2), 12_000), 17_000)
    assert [(type(action), action.request_id) for action in both if isinstance(action, Complete)] == [
        (Complete, "a"),
        (Complete, "b"),
    ]
    assert len(both) == 2
    assert (core.waiting, core.running) == (0, 0)


def test_as_many_go_together_as_wait_and_there_is_a_form_for() -> None:
    core = scheduler("veltair", IN_THREES, BUSY, cores=1)
    crowd(core, 60_000, 70_000, 80_000, 90_000)
    assert after_the_busy(core).riders == ("b", "c")


def test_an_idle_machine_makes_nobody_wait_for_company() -> None:
    core = scheduler("veltair", IN_PAIRS, cores=1)
    [start] = core.handle(arrived("a", "m", 0, 60_000), 0)
    assert isinstance(start, Dispatch)
    assert start.riders == ()


def test_without_a_batched_form_each_goes_alone() -> None:
    core = scheduler("veltair", ONE, BUSY, cores=1)
    crowd(core, 60_000, 70_000)
    assert after_the_busy(core).riders == ()


def test_a_batch_that_saves_no_cores_is_not_formed() -> None:
    core = scheduler("veltair", replace(ONE, batches={2: model("m x2", [12_000, 7_500])}), BUSY, cores=1)
    crowd(core, 60_000, 70_000)
    assert after_the_busy(core).riders == ()


def test_whoever_cannot_wait_for_the_other_goes_alone() -> None:
    core = scheduler("veltair", IN_PAIRS, BUSY, cores=1)
    crowd(core, 16_500, 70_000)  # together they would be done at 17 ms
    assert after_the_busy(core).riders == ()


def test_whoever_has_begun_takes_nobody_along() -> None:
    tight = model("tight", [1_000])
    core = scheduler("veltair", IN_PAIRS, tight, cores=1)
    core.handle(arrived("t", "tight", 0, 4_000), 0)
    core.handle(UnitFinished(LeaseId(1), 1_000), 1_000)
    [first] = core.handle(arrived("a", "m", 1_000, 60_000), 1_000)
    assert isinstance(first, Dispatch)
    assert first.end_block == 1
    core.handle(arrived("b", "m", 1_000, 60_000), 1_000)
    [second] = core.handle(UnitFinished(first.lease.id, 6_000), 7_000)
    assert isinstance(second, Dispatch)
    assert (second.request_id, second.first_block, second.riders) == ("a", 1, ())


def test_a_third_that_is_due_between_two_does_not_miss_its_deadline_for_their_batch() -> None:
    core = scheduler(
        "veltair", replace(model("m", [10_000]), batches={2: model("m x2", [18_000])}), BUSY, model("o", [10_000]), cores=1
    )
    crowd(core, 27_000, 100_000)
    core.handle(arrived("between", "o", 0, 30_000), 0)  # must start at 20 ms; together a and b would run until 23
    assert after_the_busy(core).riders == ()


def test_one_that_has_the_time_between_them_lets_the_batch_go_first() -> None:
    core = scheduler(
        "veltair", replace(model("m", [10_000]), batches={2: model("m x2", [18_000])}), BUSY, model("o", [10_000]), cores=1
    )
    crowd(core, 27_000, 100_000)
    core.handle(arrived("between", "o", 0, 40_000), 0)
    assert after_the_busy(core).riders == ("b",)


def test_a_batch_that_is_in_time_only_on_more_cores_than_are_idle_is_not_formed() -> None:
    pair = Model(ModelName("m x2"), (LayerBlock("b", (variant({1: (18_000,), 2: (8_000,)}),)),))
    core = scheduler("veltair", replace(model("m", [10_000]), batches={2: pair}), BUSY, model("long", [50_000]), cores=2)
    core.handle(arrived("busy", "busy", 0, 90_000), 0)
    core.handle(arrived("long", "long", 0, 90_000), 0)
    core.handle(arrived("a", "m", 0, 16_000), 0)
    core.handle(arrived("b", "m", 0, 40_000), 0)
    assert after_the_busy(core).riders == ()  # on the one idle core it would take until 23 ms


def test_a_batched_form_that_needs_more_cores_than_are_idle_is_passed_over() -> None:
    pair = Model(ModelName("m x2"), (LayerBlock("b", (variant({2: (5_000,)}),)),))
    core = scheduler("veltair", replace(model("m", [10_000]), batches={2: pair}), BUSY, model("long", [50_000]), cores=2)
    core.handle(arrived("busy", "busy", 0, 90_000), 0)
    core.handle(arrived("long", "long", 0, 90_000), 0)
    core.handle(arrived("a", "m", 0, 60_000), 0)
    core.handle(arrived("b", "m", 0, 70_000), 0)
    assert after_the_busy(core).riders == ()


def in_flight() -> Scheduler:
    """a carries b and c, on the only core; their unit is number 2."""
    core = scheduler("veltair", IN_THREES, BUSY, cores=1)
    crowd(core, 60_000, 70_000, 80_000)
    after_the_busy(core)
    return core


def cancelled(name: str) -> Drop:
    return Drop(RequestId(name), "cancelled", "cancelled by the client")


def test_a_rider_that_is_cancelled_is_answered_at_once_and_the_others_when_the_unit_ends() -> None:
    core = in_flight()
    assert core.handle(RequestCancelled(RequestId("b")), 6_000) == [cancelled("b")]
    assert [a.request_id for a in core.handle(UnitFinished(LeaseId(2), 14_000), 19_000) if isinstance(a, Complete)] == ["a", "c"]


def test_a_carrier_that_is_cancelled_still_carries_the_others() -> None:
    core = in_flight()
    assert core.handle(RequestCancelled(RequestId("a")), 6_000) == [cancelled("a")]
    assert core.running == 1
    assert [a.request_id for a in core.handle(UnitFinished(LeaseId(2), 14_000), 19_000) if isinstance(a, Complete)] == ["b", "c"]


def test_a_batch_for_nobody_stops_at_its_next_block_and_answers_nobody_twice() -> None:
    core = in_flight()
    for name in "cab":
        assert core.handle(RequestCancelled(RequestId(name)), 6_000) == [cancelled(name)]
    assert core.idle_cores == 0
    assert core.handle(UnitFinished(LeaseId(2), 14_000), 19_000) == []
    assert (core.waiting, core.running, core.idle_cores) == (0, 0, 1)


def test_when_the_unit_of_a_batch_fails_each_of_its_requests_is_told() -> None:
    core = in_flight()
    core.handle(RequestCancelled(RequestId("b")), 6_000)
    assert core.handle(UnitFailed(LeaseId(2), "kernel returned -1"), 7_000) == [
        Drop(RequestId("a"), "engine_failed", "kernel returned -1"),
        Drop(RequestId("c"), "engine_failed", "kernel returned -1"),
    ]


@settings(max_examples=60, deadline=None)
@given(
    cores=st.integers(1, 3),
    asked=st.lists(
        st.tuples(st.integers(0, 40_000), st.sampled_from(["m", "busy", "o"]), st.integers(11_000, 90_000)),
        min_size=4,
        max_size=25,
    ),
)
def test_whoever_was_accepted_is_in_time_whether_batches_form_or_not(cores: int, asked: list[tuple[int, str, int]]) -> None:
    core = scheduler("veltair", cores=cores)
    events: list[tuple[int, Event]] = [(0, ModelLoaded(each)) for each in (IN_THREES, BUSY, model("o", [1_000] * 9))]
    events += [(at, arrived(f"r{i}", name, at, qos)) for i, (at, name, qos) in enumerate(asked)]
    run = play(core, events, handover_us=0)
    assert len(run.outcomes) == len(asked)
    late = [o for o in run.outcomes if not o.refused and not o.in_time]
    assert not late
