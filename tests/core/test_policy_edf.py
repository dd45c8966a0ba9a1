"""Whole models by deadline; the hopeless are dropped."""

from core_build import answered, arrived, model, scheduler, unit

from veltair.core.actions import Drop
from veltair.core.events import TimerFired, UnitFinished
from veltair.core.values import LeaseId, RequestId

LONG = model("long", [1_000] * 3, [600] * 3)
SHORT = model("short", [1_000])
ON_ONE = "earliest deadline, whole model on 1 core"


def test_the_earliest_deadline_goes_first_and_what_cannot_be_met_is_dropped_when_that_is_known() -> None:
    core = scheduler("edf", LONG, SHORT, cores=1)
    assert core.handle(arrived("a", "long", 0, 60_000), 0) == [unit("a", 1, (0,), range(3), 3_000, ON_ONE)]
    for name, of, qos_us in (("b", "long", 50_000), ("c", "short", 4_500), ("d", "short", 3_500)):
        assert core.handle(arrived(name, of, 0, qos_us), 0) == []
    assert core.wake_us == 2_501
    assert core.handle(TimerFired(), 2_501) == [Drop(RequestId("d"), "deadline_missed", "needed to start 0.0 ms ago")]
    assert core.handle(UnitFinished(LeaseId(1), 3_000), 3_000) == [
        answered("a", 3_000),
        unit("c", 2, (0,), range(1), 1_000, ON_ONE, ("request b", "its deadline is 45.5 ms later")),
    ]


def test_it_takes_more_cores_where_one_would_be_late_and_makes_do_with_fewer_where_they_are_busy() -> None:
    core = scheduler("edf", LONG, SHORT)
    both = "earliest deadline, whole model on 2 cores"
    assert core.handle(arrived("a", "long", 0, 2_000), 0) == [unit("a", 1, (0, 1), range(3), 1_800, both)]
    core.handle(UnitFinished(LeaseId(1), 1_800), 1_800)
    core.handle(arrived("b", "short", 1_800, 9_000), 1_800)
    assert core.handle(arrived("c", "long", 1_800, 2_000), 1_800) == [
        unit("c", 3, (1,), range(3), 3_000, ON_ONE, ("2 cores", "conflict: 1 idle"))
    ]
    assert core.conflicts == 1
