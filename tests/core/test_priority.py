"""Whose tenant has the higher priority goes first and is never turned away for those below; they lose time, not answers."""

from core_build import answered, arrived, model, scheduler, unit

from veltair.core.actions import Dispatch, Drop, Refuse
from veltair.core.events import ModelLoaded, UnitFinished
from veltair.core.values import LeaseId, RequestId
from veltair.simulate.virtual import play

LONG = model("long", [1_000] * 20)
SHORT = model("short", [2_000])


def test_a_higher_priority_goes_first_at_the_next_block_boundary_although_its_deadline_is_later() -> None:
    core = scheduler("veltair", LONG, SHORT, cores=1)
    core.handle(arrived("first", "short", 0, 5_000), 0)
    core.handle(arrived("low", "short", 0, 20_000), 0)
    assert core.handle(arrived("high", "short", 0, 90_000, "vip", priority=1), 0) == []  # a unit cannot be interrupted
    assert core.handle(UnitFinished(LeaseId(1), 2_000), 2_000) == [
        answered("first", 2_010),
        unit("high", 2, (0,), range(1), 2_000, "earliest deadline", ("request low", "its tenant's priority is lower")),
    ]


def test_a_long_model_of_lower_priority_is_set_aside_between_two_blocks_and_goes_on_later() -> None:
    core = scheduler("veltair", LONG, SHORT, cores=1)
    core.handle(arrived("seen", "short", 0, 6_000, "vip", priority=1), 0)
    core.handle(UnitFinished(LeaseId(1), 2_000), 2_000)
    [begins] = core.handle(arrived("low", "long", 2_000, 90_000), 2_000)
    assert isinstance(begins, Dispatch)
    assert (begins.first_block, begins.end_block) == (0, 2)
    core.handle(arrived("high", "short", 3_000, 90_000, "vip", priority=1), 3_000)
    [jumps] = core.handle(UnitFinished(begins.lease.id, 2_000), 4_000)
    assert isinstance(jumps, Dispatch)
    assert (jumps.request_id, jumps.reason) == ("high", "higher priority")
    _answer, goes_on = core.handle(UnitFinished(jumps.lease.id, 2_000), 6_000)
    assert isinstance(goes_on, Dispatch)
    assert (goes_on.request_id, goes_on.first_block) == ("low", 2)


def test_nobody_is_refused_because_one_of_lower_priority_would_miss_its_deadline() -> None:
    core = scheduler("veltair", model("m", [10_000]), cores=1)
    core.handle(arrived("runs", "m", 0, 60_000), 0)
    core.handle(arrived("low", "m", 0, 21_000), 0)
    [refusal] = core.handle(arrived("like", "m", 0, 20_900), 0)  # of the same priority, it would be: low is due right behind it
    assert isinstance(refusal, Refuse)
    assert core.handle(arrived("high", "m", 0, 40_000, "vip", priority=1), 0) == []
    assert core.waiting == 2


def test_nor_because_many_of_lower_priority_wait_farther_behind_than_is_looked_at_one_by_one() -> None:
    core = scheduler("veltair", model("m", [1_000]), cores=1)
    for i in range(60):  # they fill the machine until the last is due
        core.handle(arrived(f"low{i}", "m", 0, 1_000 * (i + 1) + 500), 0)
    waiting = core.waiting
    assert waiting >= 55
    assert core.handle(arrived("high", "m", 0, 30_000, "vip", priority=1), 0) == []
    assert core.waiting == waiting + 1


def test_a_lower_priority_that_lost_its_time_is_told_so_and_not_forgotten() -> None:
    core = scheduler("veltair", model("m", [10_000]), cores=1)
    core.handle(arrived("runs", "m", 0, 60_000), 0)
    core.handle(arrived("low", "m", 0, 21_000), 0)
    core.handle(arrived("high", "m", 0, 40_000, "vip", priority=1), 0)
    [_answer, jumps, *_] = core.handle(UnitFinished(LeaseId(1), 10_000), 10_000)
    assert isinstance(jumps, Dispatch)
    assert jumps.request_id == "high"
    assert core.wake_us is not None
    assert core.wake_us <= 11_002  # low needs ten of the 21 ms
    late = core.handle(UnitFinished(jumps.lease.id, 10_000), 20_000)
    assert Drop(RequestId("low"), "deadline_missed", "needed to go on 9.0 ms ago, 0 blocks done") in late


def test_under_a_flood_of_higher_priority_everybody_below_is_still_answered_once() -> None:
    core = scheduler("veltair", cores=2)
    asked = [arrived(f"high{i}", "short", i * 1_000, 8_000, "vip", priority=1) for i in range(400)]
    asked += [arrived(f"low{i}", "long", i * 10_000, 60_000) for i in range(40)]
    loaded = [(0, ModelLoaded(each)) for each in (LONG, SHORT)]
    run = play(core, [*loaded, *((event.request.arrived_us, event) for event in asked)])
    assert sorted(o.request.id for o in run.outcomes) == sorted(event.request.id for event in asked)
    high = [o for o in run.outcomes if o.request.tenant == "vip"]
    # Two cores carry them with a unit of the others in the way now and then.
    assert sum(o.in_time for o in high) >= 0.98 * len(high)
