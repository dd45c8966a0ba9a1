"""Fission: the machine is divided anew at every layer's end, by what keeps the deadlines."""

from core_build import answered, arrived, model, scheduler, unit

from veltair.core.events import UnitFinished
from veltair.core.scheduler import Scheduler
from veltair.core.values import LeaseId

LONG = model("long", [1_000] * 3, [600] * 3)
SHORT = model("short", [1_000])
WHOLE = "a share of 2 cores; 1 core would keep its deadline"
HALF = "a share of 1 core; 1 core would keep its deadline"
SPARE = ("1 core", "others leave more")


def test_a_task_has_the_whole_machine_until_another_comes_then_each_has_what_it_needs() -> None:
    core = scheduler("planaria", LONG, SHORT)
    assert core.handle(arrived("a", "long", 0, 60_000), 0) == [unit("a", 1, (0, 1), range(1), 600, WHOLE, SPARE)]
    assert core.handle(arrived("b", "short", 100, 5_000), 100) == []  # until the layer ends
    assert core.handle(UnitFinished(LeaseId(1), 600), 600) == [
        unit("b", 2, (0,), range(1), 1_000, HALF, ("request a", "scores less: due 54.9 ms later, needs 1 core")),
        unit("a", 3, (1,), range(1, 2), 1_000, HALF),
    ]
    assert core.handle(UnitFinished(LeaseId(2), 1_000), 1_600) == [answered("b", 2_700)]
    assert core.handle(UnitFinished(LeaseId(3), 1_000), 1_600) == [unit("a", 4, (0, 1), range(2, 3), 600, WHOLE, SPARE)]


def crowded() -> Scheduler:
    """Two cores; `a` can wait, `b` needs both, `c` is lost."""
    core = scheduler("planaria", LONG)
    core.handle(arrived("a", "long", 0, 60_000), 0)
    core.handle(arrived("b", "long", 0, 2_600), 0)
    core.handle(arrived("c", "long", 0, 500), 0)
    return core


def test_where_not_all_fit_the_highest_score_goes_first_and_who_is_lost_comes_last() -> None:
    core = crowded()
    both = "a share of 2 cores; 2 cores would keep its deadline"
    beaten = ("request a", "scores less: due 57.4 ms later, needs 1 core")
    assert core.handle(UnitFinished(LeaseId(1), 600), 600) == [unit("b", 2, (0, 1), range(1), 600, both, beaten)]
    core.handle(UnitFinished(LeaseId(2), 600), 1_200)
    core.handle(UnitFinished(LeaseId(3), 600), 1_800)
    lost = ("request c", "its deadline is lost")
    assert core.handle(UnitFinished(LeaseId(4), 600), 2_400) == [
        answered("b", 3_600),
        unit("a", 5, (0, 1), range(1, 2), 600, WHOLE, SPARE, lost),
    ]
    core.handle(UnitFinished(LeaseId(5), 600), 3_000)
    assert core.handle(UnitFinished(LeaseId(6), 600), 3_600) == [
        answered("a", 1_800),
        unit("c", 7, (0, 1), range(1), 600, "a share of 2 cores; its deadline is lost", SPARE),
    ]


def test_cores_that_a_task_in_mid_layer_is_owed_are_kept_for_it() -> None:
    core = scheduler("planaria", LONG, model("shorter", [700]), model("narrow", [5_000, 1_000]), cores=3)
    core.handle(arrived("n", "narrow", 0, 60_000), 0)
    core.handle(arrived("x", "shorter", 0, 9_000), 0)
    assert core.handle(arrived("a", "long", 0, 2_500), 0) == [
        unit("a", 3, (2,), range(1), 1_000, "a share of 1 core; 2 cores would keep its deadline",
             ("2 cores", "conflict: 1 to be had"))
    ]  # fmt: skip
    assert core.handle(arrived("z", "shorter", 100, 9_000), 100) == []
    # A core is idle and `z` has a better right to one than `n`, but `a` has a better right to two.
    assert core.handle(UnitFinished(LeaseId(2), 700), 700) == [answered("x", 700)]
    assert core.handle(UnitFinished(LeaseId(3), 1_000), 1_000) == [
        unit("a", 4, (1, 2), range(1, 2), 600, "a share of 2 cores; 2 cores would keep its deadline",
             ("request z", "scores less: due 6.6 ms later, needs 1 core"))
    ]  # fmt: skip
