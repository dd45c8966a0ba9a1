"""Small constructors for the scheduler's tests."""

from collections.abc import Sequence
from math import exp

from veltair.core.actions import Alternative, Complete, Dispatch
from veltair.core.events import ModelLoaded, RequestArrived
from veltair.core.policies import make_policy
from veltair.core.promises import FIRST
from veltair.core.scheduler import Scheduler
from veltair.core.values import (
    CoreId,
    Footprint,
    LatencyTable,
    LayerBlock,
    Lease,
    LeaseId,
    Machine,
    Model,
    ModelName,
    Precision,
    Request,
    RequestId,
    TenantId,
    Variant,
)


def machine(cores: int = 2) -> Machine:
    return Machine(tuple(CoreId(i) for i in range(cores)), bandwidth_bytes_per_us=10_000.0)


def variant(
    rows: dict[int, tuple[int, ...]],
    traffic_bytes: int = 0,
    levels: tuple[float, ...] = (0.0,),
    precision: Precision = "fp32",
) -> Variant:
    return Variant("v", LatencyTable(levels, rows), Footprint(traffic_bytes, 0), precision)


def model(name: str, blocks_us: Sequence[int], two_cores_us: Sequence[int] | None = None) -> Model:
    """One variant a block, untouched by pressure; a second row where `two_cores_us` is given."""
    twos = two_cores_us or [None] * len(blocks_us)
    rows = [{1: (one,)} if two is None else {1: (one,), 2: (two,)} for one, two in zip(blocks_us, twos, strict=True)]
    return Model(ModelName(name), tuple(LayerBlock(f"{name}.{i}", (variant(row),)) for i, row in enumerate(rows)))


def arrived(
    id_: str,
    model_name: str,
    at_us: int,
    qos_us: int,
    tenant: str = "",
    permits: Precision = "fp32",
    priority: int = 0,
    weight: float = 1.0,
) -> RequestArrived:
    """The tenant is named like the model, if not otherwise."""
    who, what = TenantId(tenant or model_name), ModelName(model_name)
    return RequestArrived(Request(RequestId(id_), who, what, at_us, at_us + qos_us, permits, priority, weight))


def scheduler(policy: str, *models: Model, cores: int = 2) -> Scheduler:
    core = Scheduler(machine(cores), make_policy(policy))
    for each in models:
        assert core.handle(ModelLoaded(each), 0) == []
    return core


def answered(id_: str, predicted_us: int) -> Complete:
    """The first answer of its kind: the interval around what was foretold is what it is before anything was learnt."""
    return Complete(RequestId(id_), predicted_us, round(predicted_us * exp(-FIRST)), round(predicted_us * exp(FIRST)))


def unit(
    request: str,
    lease: int,
    cores: Sequence[int],
    blocks: range,
    us: int,
    why: str,
    *lost: tuple[str, str],
    riders: str = "",
    pressure: float = 0.0,
    variant: int = 0,
) -> Dispatch:
    """The same variant of each block; `riders` by names with a space between them."""
    held = Lease(LeaseId(lease), tuple(CoreId(core) for core in cores))
    rejected = tuple(Alternative(what, reason) for what, reason in lost)
    others = tuple(RequestId(name) for name in riders.split())
    chosen = (variant,) * len(blocks)
    return Dispatch(RequestId(request), held, blocks.start, blocks.stop, chosen, us, pressure, why, rejected, others)
