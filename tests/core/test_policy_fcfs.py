"""The baseline: one worker a core, in order of arrival, whatever the deadline."""

from core_build import answered, arrived, machine, model, scheduler, variant

from veltair.core.actions import Dispatch
from veltair.core.events import ModelLoaded, UnitFinished
from veltair.core.policies import make_policy
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, LayerBlock, Lease, LeaseId, Model, ModelName, RequestId

LONG = model("long", [5_000] * 4, [2_500] * 4)
SHORT = model("short", [1_000])


def start(request: str, lease: int, core: int, blocks: int, us: int) -> Dispatch:
    reason = "first come, whole model on 1 core"
    return Dispatch(RequestId(request), Lease(LeaseId(lease), (CoreId(core),)), 0, blocks, (0,) * blocks, us, 0.0, reason)


def test_each_request_runs_whole_on_one_core_and_the_line_waits_only_until_one_is_idle() -> None:
    core = scheduler("fcfs", LONG, SHORT)
    assert core.handle(arrived("a", "long", 0, 60_000), 0) == [start("a", 1, 0, 4, 20_000)]
    assert core.handle(arrived("b", "long", 0, 60_000), 0) == [start("b", 2, 1, 4, 20_000)]
    assert core.handle(arrived("c", "short", 0, 2_000), 0) == []
    assert core.handle(arrived("d", "long", 0, 60_000), 0) == []
    # The short one is long past its deadline: a plain server runs it all the same, and before whoever came later.
    assert core.handle(UnitFinished(LeaseId(2), 20_000), 20_000) == [
        answered("b", 20_000),
        start("c", 3, 1, 1, 1_000),
    ]
    assert core.handle(UnitFinished(LeaseId(1), 20_000), 20_001) == [
        answered("a", 20_000),
        start("d", 4, 0, 4, 20_000),
    ]
    assert core.conflicts == 0


def test_the_variant_is_the_one_that_is_fastest_alone() -> None:
    slow, fast = variant({1: (900,)}), variant({1: (500,)}, traffic_bytes=10**9)
    core = Scheduler(machine(), make_policy("fcfs"))
    core.handle(ModelLoaded(Model(ModelName("m"), (LayerBlock("b", (slow, fast)),))), 0)
    [dispatch] = core.handle(arrived("r", "m", 0, 5_000), 0)
    assert isinstance(dispatch, Dispatch)
    assert dispatch.variants == (1,)


def test_the_foretold_finish_counts_the_line_ahead() -> None:
    core = scheduler("fcfs", LONG, SHORT, cores=1)
    core.handle(arrived("a", "long", 0, 60_000), 0)
    core.handle(arrived("b", "short", 0, 60_000), 0)
    core.handle(arrived("c", "short", 0, 60_000), 0)
    assert core.handle(UnitFinished(LeaseId(1), 20_000), 20_000)[0] == answered("a", 20_000)
    assert core.handle(UnitFinished(LeaseId(2), 1_000), 21_000)[0] == answered("b", 21_000)
    assert core.handle(UnitFinished(LeaseId(3), 1_000), 22_000)[0] == answered("c", 22_000)
