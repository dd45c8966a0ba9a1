"""The default policy's textbook cases, as whole action lists."""

from core_build import answered, arrived, machine, model, scheduler, variant

from veltair.core.actions import Alternative, Complete, Dispatch, Drop, Refuse
from veltair.core.events import Event, ModelLoaded, PressureChanged, RequestCancelled, TimerFired, UnitFinished
from veltair.core.policies import make_policy
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, LayerBlock, Lease, LeaseId, Model, ModelName, RequestId
from veltair.simulate.virtual import play

LONG = model("long", [1_000] * 18)
TIGHT = model("tight", [1_000])


def unit(request: str, lease: int, cores: tuple[int, ...], blocks: range, us: int, why: str, *lost: tuple[str, str]) -> Dispatch:
    held = Lease(LeaseId(lease), tuple(CoreId(c) for c in cores))
    chosen, rejected = (0,) * len(blocks), tuple(Alternative(what, reason) for what, reason in lost)
    return Dispatch(RequestId(request), held, blocks.start, blocks.stop, chosen, us, 0.0, why, rejected)


def played(core: Scheduler, *facts: tuple[int, Event]) -> list[object]:
    return [core.handle(event, now_us) for now_us, event in facts][-1]  # type: ignore[return-value]


def test_an_idle_machine_runs_a_whole_model_as_one_unit() -> None:
    core = scheduler("veltair", LONG, TIGHT)
    assert core.handle(arrived("a", "long", 0, 60_000), 0) == [unit("a", 1, (0,), range(18), 18_000, "earliest deadline")]


def test_where_all_are_alike_whole_models_run_even_when_others_wait() -> None:
    core = scheduler("veltair", LONG, model("like", [1_000] * 16), cores=1)
    core.handle(arrived("a", "like", 0, 45_000), 0)
    core.handle(arrived("b", "long", 10, 60_000), 10)
    assert core.handle(UnitFinished(LeaseId(1), 16_000), 16_000) == [
        answered("a", 16_080),
        unit("b", 2, (0,), range(18), 18_000, "earliest deadline"),
    ]


def test_a_long_model_yields_often_once_a_tight_tenant_was_seen() -> None:
    core = scheduler("veltair", LONG, TIGHT, cores=1)
    core.handle(arrived("t", "tight", 0, 5_000), 0)
    core.handle(UnitFinished(LeaseId(1), 1_000), 1_000)
    fine = ("the whole rest", "requests with 4.0 ms slack come lately")
    assert core.handle(arrived("a", "long", 1_000, 60_000), 1_000) == [
        unit("a", 2, (0,), range(2), 2_000, "earliest deadline", fine)
    ]


def test_a_tight_request_goes_first_at_the_next_block_and_the_set_aside_one_goes_on_where_it_was() -> None:
    core = scheduler("veltair", LONG, TIGHT, cores=1)
    core.handle(arrived("t1", "tight", 0, 5_000), 0)
    core.handle(UnitFinished(LeaseId(1), 1_000), 1_000)
    core.handle(arrived("a", "long", 1_000, 60_000), 1_000)
    assert core.handle(arrived("t2", "tight", 2_000, 5_000), 2_000) == []  # a unit cannot be interrupted
    assert core.handle(UnitFinished(LeaseId(2), 2_000), 3_000) == [
        unit("t2", 3, (0,), range(1), 1_000, "earliest deadline", ("request a", "its deadline is 54.0 ms later"))
    ]
    answer, goes_on = core.handle(UnitFinished(LeaseId(3), 1_000), 4_000)
    assert isinstance(answer, Complete)
    assert isinstance(goes_on, Dispatch)
    assert (goes_on.request_id, goes_on.first_block, goes_on.end_block) == ("a", 2, 4)


def test_a_request_is_not_set_aside_for_one_like_itself_that_can_wait() -> None:
    core = scheduler("veltair", LONG, TIGHT, model("like", [1_000] * 16), cores=1)
    core.handle(arrived("t1", "tight", 0, 5_000), 0)
    core.handle(UnitFinished(LeaseId(1), 1_000), 1_000)
    core.handle(arrived("a", "long", 1_000, 60_000), 1_000)
    core.handle(arrived("b", "like", 1_500, 56_000), 1_500)  # due earlier than a
    [goes_on] = core.handle(UnitFinished(LeaseId(2), 2_000), 3_000)
    assert isinstance(goes_on, Dispatch)
    assert (goes_on.request_id, goes_on.reason) == ("a", "goes on")
    assert goes_on.rejected[0] == Alternative(
        "request b", "its deadline is earlier, but it can wait for the 16.0 ms left of this one"
    )


def test_nobody_is_made_to_wait_until_its_last_moment() -> None:
    core = scheduler("veltair", LONG, TIGHT, model("like", [1_000] * 16), cores=1)
    core.handle(arrived("t1", "tight", 0, 5_000), 0)
    core.handle(UnitFinished(LeaseId(1), 1_000), 1_000)
    core.handle(arrived("a", "long", 1_000, 60_000), 1_000)
    core.handle(arrived("b", "like", 1_500, 45_000), 1_500)  # behind a it would be done 10 ms early: no room for error
    [first] = core.handle(UnitFinished(LeaseId(2), 2_000), 3_000)
    assert isinstance(first, Dispatch)
    assert (first.request_id, first.reason) == ("b", "earliest deadline")


def test_fine_units_are_over_once_the_tight_tenant_has_been_away_for_long() -> None:
    core = scheduler("veltair", LONG, TIGHT, cores=1)
    core.handle(arrived("t", "tight", 0, 5_000), 0)
    core.handle(UnitFinished(LeaseId(1), 1_000), 1_000)
    assert core.handle(arrived("a", "long", 9_000_000, 60_000), 9_000_000) == [
        unit("a", 2, (0,), range(18), 18_000, "earliest deadline")
    ]


def test_what_cannot_be_met_is_refused_with_a_deadline_that_can() -> None:
    core = scheduler("veltair", LONG, cores=1)
    core.handle(arrived("a", "long", 0, 60_000), 0)
    [refusal] = core.handle(arrived("b", "long", 0, 30_000), 0)
    assert isinstance(refusal, Refuse)
    assert (refusal.code, refusal.reason) == (
        "deadline_unmeetable",
        "would be done in 36.1 ms, 6.1 ms too late, beside 1 accepted",
    )
    assert refusal.earliest_deadline_us is not None
    assert 36_000 <= refusal.earliest_deadline_us <= 37_000
    assert core.handle(arrived("b", "long", 0, refusal.earliest_deadline_us), 0) == []  # accepted: it waits
    assert core.waiting == 1


def test_a_newcomer_that_would_cost_an_accepted_request_its_deadline_is_refused() -> None:
    core = scheduler("veltair", LONG, cores=1)
    core.handle(arrived("a", "long", 0, 60_000), 0)
    core.handle(arrived("b", "long", 0, 40_000), 0)
    [refusal] = core.handle(arrived("c", "long", 0, 39_000), 0)
    assert isinstance(refusal, Refuse)
    assert refusal.reason == "would push a request that is due in 40.0 ms past its deadline"
    assert refusal.earliest_deadline_us is not None
    assert core.handle(arrived("c", "long", 0, refusal.earliest_deadline_us), 0) == []


def test_a_deadline_in_the_past_is_refused() -> None:
    core = scheduler("veltair", TIGHT)
    [refusal] = core.handle(arrived("t", "tight", 5_000, -1_000), 5_000)
    assert isinstance(refusal, Refuse)
    assert refusal.earliest_deadline_us is not None
    assert refusal.earliest_deadline_us >= 6_000


def test_what_can_no_longer_be_met_is_dropped_at_once() -> None:
    core = scheduler("veltair", LONG, cores=1)
    core.handle(arrived("a", "long", 0, 60_000), 0)
    core.handle(arrived("b", "long", 0, 40_000), 0)
    # The unit overran by 5 ms: b would need 18 ms and has 17.
    assert core.handle(UnitFinished(LeaseId(1), 23_000), 23_000) == [
        answered("a", 18_090),
        Drop(RequestId("b"), "deadline_missed", "needed to go on 1.5 ms ago, 0 blocks done"),
    ]


def test_one_core_serves_while_it_keeps_the_deadline_and_two_where_it_does_not() -> None:
    both = model("both", [10_000], [5_500])
    core = scheduler("veltair", both)
    assert core.handle(arrived("a", "both", 0, 8_000), 0) == [unit("a", 1, (0, 1), range(1), 5_500, "earliest deadline")]


def test_idle_cores_are_used_where_they_are_worth_it_and_shared_where_others_wait() -> None:
    both, poor = model("both", [10_000], [5_500]), model("poor", [10_000], [9_000])
    widened = ("1 core", "would keep the deadline, but others would idle")
    alone = scheduler("veltair", both)
    assert alone.handle(arrived("a", "both", 0, 60_000), 0) == [
        unit("a", 1, (0, 1), range(1), 5_500, "earliest deadline", widened)
    ]
    assert scheduler("veltair", poor).handle(arrived("a", "poor", 0, 60_000), 0) == [
        unit("a", 1, (0,), range(1), 10_000, "earliest deadline")
    ]
    alone.handle(arrived("b", "both", 0, 60_000), 0)
    alone.handle(arrived("c", "both", 0, 60_000), 0)
    _answer, *units = alone.handle(UnitFinished(LeaseId(1), 5_500), 5_500)
    assert [u.lease.cores for u in units if isinstance(u, Dispatch)] == [(0,), (1,)]


def test_a_unit_that_gets_fewer_cores_than_its_deadline_asks_for_is_a_conflict_and_ends_when_the_rest_is_idle() -> None:
    both, single = model("both", [1_000] * 10, [550] * 10), model("single", [3_000])
    core = scheduler("veltair", both, single)
    core.handle(arrived("a", "single", 0, 60_000), 0)
    [dispatch] = core.handle(arrived("b", "both", 0, 9_000), 0)
    assert isinstance(dispatch, Dispatch)
    assert (dispatch.lease.cores, dispatch.end_block) == ((1,), 3)
    assert Alternative("2 cores", "conflict: 1 idle") in dispatch.rejected
    assert core.conflicts == 1


def test_who_would_lose_his_turn_on_too_few_cores_keeps_them_until_there_are_enough() -> None:
    long_block, single = model("long", [10_000], [5_500]), model("single", [3_000])
    core = scheduler("veltair", long_block, single)
    core.handle(arrived("a", "single", 0, 60_000), 0)
    assert core.handle(arrived("b", "long", 0, 9_000), 0) == []
    assert (core.idle_cores, core.kept_for) == (1, "b")
    [_answer, dispatch] = core.handle(UnitFinished(LeaseId(1), 3_000), 3_000)
    assert isinstance(dispatch, Dispatch)
    assert (dispatch.request_id, dispatch.lease.cores) == ("b", (0, 1))
    assert core.kept_for is None


def test_cores_are_kept_no_longer_than_a_block_beyond_the_moment_the_others_should_be_idle() -> None:
    both, single = model("both", [1_000] * 8, [550] * 8), model("single", [500])
    core = scheduler("veltair", both, single)
    core.handle(arrived("a", "single", 0, 60_000), 0)
    assert core.handle(arrived("b", "both", 0, 7_900), 0) == []
    assert core.wake_us == 1_500
    assert core.handle(TimerFired(), 1_499) == []  # a overruns
    [dispatch] = core.handle(TimerFired(), 1_500)
    assert isinstance(dispatch, Dispatch)
    assert (dispatch.request_id, dispatch.lease.cores, dispatch.end_block) == ("b", (1,), 1)
    assert core.kept_for is None


def test_under_pressure_the_variant_is_the_one_that_stands_it_best() -> None:
    quick_alone = variant({1: (1_000, 3_000)}, levels=(0.0, 1.0))
    steady = variant({1: (1_200, 1_300)}, levels=(0.0, 1.0))
    core = Scheduler(machine(), make_policy("veltair"))
    core.handle(ModelLoaded(Model(ModelName("m"), (LayerBlock("b", (quick_alone, steady)),))), 0)
    [calm] = core.handle(arrived("a", "m", 0, 50_000), 0)
    core.handle(PressureChanged(0.8), 10)
    [pressed] = core.handle(arrived("b", "m", 20, 50_000), 20)
    assert isinstance(calm, Dispatch)
    assert isinstance(pressed, Dispatch)
    assert (calm.variants, pressed.variants) == ((0,), (1,))
    assert pressed.pressure == 0.8
    assert calm.rejected == ()
    why = "2625 us in place of 1281 at pressure 0.80"
    assert pressed.rejected == (Alternative("variants fastest on a quiet machine", why),)


def test_a_greedy_variant_steps_back_for_a_co_tenant_without_slack() -> None:
    # It moves a fifth of what the machine can; its own traffic does not press on itself.
    itself = variant({1: (10_000, 20_000)}, traffic_bytes=20_000_000, levels=(0.0, 1.0))
    sensitive = Model(ModelName("neighbour"), (LayerBlock("b", (itself,)),))
    greedy, modest = variant({1: (1_000,)}, traffic_bytes=8_000_000), variant({1: (1_200,)}, traffic_bytes=10)
    core = Scheduler(machine(), make_policy("veltair"))
    core.handle(ModelLoaded(sensitive), 0)
    core.handle(ModelLoaded(Model(ModelName("m"), (LayerBlock("b", (greedy, modest)),))), 0)
    core.handle(arrived("n", "neighbour", 0, 11_000), 0)
    [polite] = core.handle(arrived("a", "m", 10, 50_000), 10)
    assert isinstance(polite, Dispatch)
    assert polite.variants == (1,)
    assert Alternative("fastest variants", "would push n past its deadline") in polite.rejected
    [forced] = played(core, (1_300, UnitFinished(polite.lease.id, 1_200)), (1_400, arrived("b", "m", 1_400, 1_100)))
    assert isinstance(forced, Dispatch)
    assert forced.variants == (0,)  # it has no slack to be polite with


def test_a_model_that_runs_slower_than_its_table_is_promised_later_and_forgiven_in_time() -> None:
    core = scheduler("veltair", TIGHT)
    now_us = 0
    for i in range(60):
        [dispatch] = core.handle(arrived(f"r{i}", "tight", now_us, 50_000), now_us)
        assert isinstance(dispatch, Dispatch)
        now_us += 2_000
        core.handle(UnitFinished(dispatch.lease.id, 2_000), now_us)
    assert 1_900 <= dispatch.predicted_us <= 2_000
    [refusal] = core.handle(arrived("x", "tight", now_us, 1_500), now_us)
    assert isinstance(refusal, Refuse)
    later_us = now_us + 20_000_000
    [again] = core.handle(arrived("y", "tight", later_us, 1_500), later_us)
    assert isinstance(again, Dispatch)  # else a bad moment would shut a tenant out for good
    assert again.predicted_us == 1_001


def test_whoever_fared_worst_is_left_a_place_where_there_is_one() -> None:
    core = scheduler("veltair", model("big", [10_000]), model("small", [8_000]), cores=1)
    core.handle(arrived("b0", "big", 0, 19_900), 0)
    for i in range(10):  # refused: each could be met on an idle machine, and not here
        [refusal] = core.handle(arrived(f"s{i}", "small", 0, 9_000), 0)
        assert isinstance(refusal, Refuse)
    assert core.handle(arrived("b1", "big", 0, 30_000), 0) == []  # small has no place anyway: nothing is gained by keeping b1 out
    core.handle(RequestCancelled(RequestId("b1")), 0)
    core.handle(UnitFinished(LeaseId(1), 10_000), 10_000)
    [kept_out] = core.handle(arrived("b2", "big", 10_000, 15_000), 10_000)
    assert isinstance(kept_out, Refuse)
    assert kept_out.reason == "would not leave a place for tenant 'small', who fared worse lately"
    assert kept_out.earliest_deadline_us is not None
    [starts] = core.handle(arrived("b3", "big", 10_000, kept_out.earliest_deadline_us - 10_000), 10_000)
    assert isinstance(starts, Dispatch)


def test_who_needs_two_cores_that_end_at_the_same_moment_waits_for_the_second() -> None:
    """The first end alone leaves one core idle, on which the last of them would be late."""
    asked = [(0, arrived(f"r{i}", "wide", 0, 25_000)) for i in range(4)]
    wide = ModelLoaded(model("wide", [10_000], two_cores_us=[5_500]))
    run = play(Scheduler(machine(2), make_policy("veltair")), [(0, wide), *asked], handover_us=0)
    assert [outcome.in_time for outcome in run.outcomes] == [True] * 4


def test_where_cores_are_to_spare_a_model_whose_times_stray_gets_as_many_as_surely_do() -> None:
    """On two cores it is expected in time, as it was promised; one time in three it would not be."""
    rows = {1: (10_000,), 2: (5_500,), 4: (4_300,)}
    strays = Model(ModelName("strays"), (LayerBlock("strays.0", (variant(rows),)),))
    core = scheduler("veltair", strays, cores=8)
    cores = []
    for number in range(40):
        now_us = number * 100_000
        dispatch = core.handle(arrived(f"r{number}", "strays", now_us, 6_000), now_us)[0]
        assert isinstance(dispatch, Dispatch)
        cores.append(len(dispatch.lease.cores))
        took_us = round(dispatch.predicted_us * (0.8 if number % 2 else 1.2))
        core.handle(UnitFinished(dispatch.lease.id, took_us), now_us + took_us)
    assert (cores[0], cores[-1]) == (2, 4)
