"""One at a time on each worker, batches that keep all deadlines, and an early no."""

from dataclasses import replace

from core_build import answered, arrived, model, scheduler, unit

from veltair.core.actions import Complete, Drop, Refuse
from veltair.core.events import RequestCancelled, TimerFired, UnitFinished
from veltair.core.scheduler import Scheduler
from veltair.core.values import LeaseId, RequestId

PAIRED = replace(model("paired", [2_000]), batches={2: model("paired x2", [3_000]), 4: model("paired x4", [5_000])})
SHORT = model("short", [1_000], [600])
ON_ONE = "on a worker of 1 core"


def one_busy_worker() -> Scheduler:
    core = scheduler("clockwork", PAIRED, SHORT, cores=1)
    assert core.handle(arrived("a", "short", 0, 5_000), 0) == [
        unit("a", 1, (0,), range(1), 1_000, f"must start soonest, within 4.0 ms, {ON_ONE}")
    ]
    return core


def test_what_would_be_late_even_as_the_next_one_is_refused_at_once() -> None:
    # Predictions are cautious, by half a percent before anything was measured.
    assert one_busy_worker().handle(arrived("n", "short", 0, 1_500), 0) == [
        Refuse(
            RequestId("n"), "deadline_unmeetable", "a worker is free in 1.0 ms and takes 1.0 ms: 0.5 ms too late", 2_005
        )
    ]  # fmt: skip


def test_who_waits_past_the_last_moment_to_start_is_given_up_then() -> None:
    core = one_busy_worker()
    assert core.handle(arrived("b", "short", 0, 2_100), 0) == []
    assert core.wake_us == 1_096
    assert core.handle(TimerFired(), 1_096) == [Drop(RequestId("b"), "deadline_missed", "needed to start 0.0 ms ago")]


def test_the_largest_batch_that_keeps_the_first_deadline_runs_as_one() -> None:
    core = one_busy_worker()
    for i, qos_us in enumerate([6_500, 6_600, 6_700, 6_800, 20_000]):
        core.handle(arrived(f"m{i}", "paired", 0, qos_us), 0)
    core.handle(arrived("s", "short", 0, 30_000), 0)
    within = f"must start soonest, within 0.5 ms with 3 more like it, {ON_ONE}"
    assert core.handle(UnitFinished(LeaseId(1), 1_000), 1_000) == [
        answered("a", 1_005),
        unit("m0", 2, (0,), range(1), 5_000, within, ("request m4", "can start later"), riders="m1 m2 m3"),
    ]
    *answers, next_ = core.handle(UnitFinished(LeaseId(2), 5_000), 6_000)
    assert [(type(a), a.request_id) for a in answers] == [(Complete, f"m{i}") for i in range(4)]  # type: ignore[union-attr]
    later = ("request s", "can start later")
    assert next_ == unit("m4", 3, (0,), range(1), 2_000, f"must start soonest, within 12.0 ms, {ON_ONE}", later)


def test_a_batch_that_would_be_late_is_a_smaller_one_and_whoever_left_the_line_is_not_in_it() -> None:
    core = one_busy_worker()
    for i, qos_us in enumerate([4_500, 6_600, 6_700, 6_800, 20_000]):
        core.handle(arrived(f"m{i}", "paired", 0, qos_us), 0)
    core.handle(RequestCancelled(RequestId("m1")), 500)
    late = ("a batch of 4", "1.5 ms too late for m0")
    assert core.handle(UnitFinished(LeaseId(1), 1_000), 1_000)[1:] == [
        unit("m0", 2, (0,), range(1), 3_000, f"must start soonest, within 0.5 ms with 1 more like it, {ON_ONE}",
             late, ("request m3", "can start later"), riders="m2")
    ]  # fmt: skip


def test_a_worker_is_as_wide_as_the_tightest_kind_of_request_needs_alone() -> None:
    core = scheduler("clockwork", SHORT)
    on_both = "must start soonest, within 0.1 ms, on a worker of 2 cores"
    assert core.handle(arrived("a", "short", 0, 700), 0) == [unit("a", 1, (0, 1), range(1), 600, on_both)]
    assert core.handle(arrived("b", "short", 0, 9_000), 0) == []
