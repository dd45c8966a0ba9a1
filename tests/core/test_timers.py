"""Time: what must be given up is given up when nothing else happens, and no clock that stumbles does harm."""

from core_build import arrived, model, scheduler
from hypothesis import given
from hypothesis import strategies as st

from veltair.core.actions import Dispatch, Drop
from veltair.core.events import RequestCancelled, TimerFired, UnitFinished
from veltair.core.values import LeaseId, RequestId

TEN_MS = model("m", [10_000])


def test_whoever_can_no_longer_be_met_is_dropped_at_that_moment_though_nothing_else_happens() -> None:
    core = scheduler("veltair", TEN_MS, cores=1)
    core.handle(arrived("runs", "m", 0, 60_000), 0)
    assert core.wake_us is None  # nobody waits
    core.handle(arrived("waits", "m", 0, 25_000), 0)
    assert core.wake_us == 15_001  # the unit hangs: it needs ten of the 25 ms
    assert core.handle(TimerFired(), 15_000) == []
    assert core.handle(TimerFired(), 15_001) == [
        Drop(RequestId("waits"), "deadline_missed", "needed to go on 0.0 ms ago, 0 blocks done")
    ]
    assert core.wake_us is None


def test_the_earliest_of_those_that_wait_is_the_one_to_wake_for() -> None:
    core = scheduler("veltair", TEN_MS, cores=1)
    core.handle(arrived("runs", "m", 0, 60_000), 0)
    core.handle(arrived("later", "m", 0, 60_000), 0)
    assert core.wake_us == 50_001
    core.handle(arrived("sooner", "m", 0, 30_000), 0)
    assert core.wake_us == 20_001
    core.handle(RequestCancelled(RequestId("sooner")), 10)
    assert core.wake_us == 50_001


def test_looking_at_the_time_to_wake_changes_nothing() -> None:
    looked, not_looked = (scheduler("veltair", TEN_MS, cores=1) for _ in range(2))
    for core in (looked, not_looked):
        core.handle(arrived("runs", "m", 0, 60_000), 0)
        core.handle(arrived("waits", "m", 0, 25_000), 0)
    assert [looked.wake_us for _ in range(5)] == [15_001] * 5
    assert looked.handle(UnitFinished(LeaseId(1), 10_000), 10_000) == not_looked.handle(UnitFinished(LeaseId(1), 10_000), 10_000)


def test_a_timer_without_cause_does_nothing() -> None:
    core = scheduler("veltair", TEN_MS)
    assert core.handle(TimerFired(), 1_000) == []


def test_time_never_goes_back() -> None:
    core = scheduler("veltair", TEN_MS, cores=1)
    core.handle(TimerFired(), 50_000)
    [start] = core.handle(arrived("r", "m", 49_000, 12_000), 49_990)  # read before the timer, told after it
    assert isinstance(start, Dispatch)
    assert core.handle(arrived("s", "m", 49_000, 80_000), 0) == []
    assert core.wake_us == 49_000 + 80_000 - 10_000 + 1


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 5_000)), max_size=40))
def test_a_fact_that_comes_late_is_decided_upon_as_if_it_came_now(steps: list[tuple[int, int]]) -> None:
    """Lanes read the clock before they take the lock."""
    late, on_time = (scheduler("veltair", TEN_MS, cores=2) for _ in range(2))
    now_us = 0
    for i, (passed_us, late_us) in enumerate(steps):
        now_us += passed_us
        fact = arrived(f"r{i}", "m", now_us, 25_000 + late_us)
        assert late.handle(TimerFired(), now_us) == on_time.handle(TimerFired(), now_us)
        assert late.handle(fact, now_us - late_us) == on_time.handle(fact, now_us)
        assert late.wake_us == on_time.wake_us
