"""The default policy's two halves, as whole action lists: adaptive scheduling alone, and adaptive compilation alone."""

from core_build import answered, arrived, scheduler, unit, variant

from veltair.core.events import PressureChanged, UnitFinished
from veltair.core.values import LayerBlock, LeaseId, Model, ModelName

LEVELS = (0.0, 1.0)
QUICK_ALONE, STEADY = variant({1: (1_000, 3_000)}, levels=LEVELS), variant({1: (1_200, 1_200)}, levels=LEVELS)
LONG = Model(ModelName("long"), tuple(LayerBlock(f"long.{i}", (QUICK_ALONE, STEADY)) for i in range(18)))
TIGHT = Model(ModelName("tight"), (LayerBlock("tight.0", (STEADY,)),))


def test_adaptive_scheduling_alone_cuts_units_and_keeps_the_variants_of_a_quiet_machine() -> None:
    core = scheduler("veltair-as", LONG, TIGHT, cores=1)
    assert core.handle(arrived("t", "tight", 0, 6_200), 0) == [unit("t", 1, (0,), range(1), 1_200, "earliest deadline")]
    assert core.handle(UnitFinished(LeaseId(1), 1_200), 1_200) == [answered("t", 1_206)]
    assert core.handle(PressureChanged(0.5), 2_000) == []
    fine = ("the whole rest", "requests with 5.0 ms slack come lately")
    assert core.handle(arrived("a", "long", 2_000, 90_000), 2_000) == [
        unit("a", 2, (0,), range(1), 2_000, "earliest deadline", fine, pressure=0.5)
    ]


def test_adaptive_compilation_alone_runs_whole_models_as_the_variants_that_pressure_asks_for() -> None:
    core = scheduler("veltair-ac", LONG, TIGHT, cores=1)
    core.handle(arrived("t", "tight", 0, 6_200), 0)
    assert core.handle(UnitFinished(LeaseId(1), 1_200), 1_200) == [answered("t", 1_206)]
    assert core.handle(PressureChanged(0.5), 2_000) == []
    quiet = ("variants fastest on a quiet machine", "36000 us in place of 21600 at pressure 0.50")
    assert core.handle(arrived("a", "long", 2_000, 90_000), 2_000) == [
        unit("a", 2, (0,), range(18), 21_600, "earliest deadline", quiet, pressure=0.5, variant=1)
    ]
