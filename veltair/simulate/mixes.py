"""The four mixes of an ideal queue (the ready workloads `queue-*`) in plain numbers, and Poisson arrivals over them."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from veltair.core.events import Event, ModelLoaded, RequestArrived
from veltair.core.values import (
    Footprint,
    LatencyTable,
    LayerBlock,
    Model,
    ModelName,
    Request,
    RequestId,
    TenantId,
    Variant,
)
from veltair.simulate.workload import read_workload

BLOCK_US = 1_000


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant with one model of equal blocks. `share` is of the mix's requests."""

    name: str
    service_us: int
    qos_us: int
    share: float

    def model(self, two_core_speedup: float | None = None) -> Model:
        """`two_core_speedup` adds a measured row for two cores; without it every request stays on one core."""
        blocks = max(1, round(self.service_us / BLOCK_US))
        block_us = self.service_us // blocks
        rows = {1: (block_us,)} if two_core_speedup is None else {1: (block_us,), 2: (round(block_us / two_core_speedup),)}
        variant = Variant("only", LatencyTable((0.0,), rows), Footprint(0, 0))
        return Model(ModelName(self.name), tuple(LayerBlock(f"block{i}", (variant,)) for i in range(blocks)))


Mix = Sequence[Tenant]


def _mix(name: str) -> Mix:
    workload = read_workload(f"queue-{name}")
    service_ms = {model.name: model.service_ms or 0.0 for model in workload.model}
    return tuple(Tenant(t.name, round(service_ms[t.model] * 1000), t.qos_us, t.share or 0.0) for t in workload.tenant)


MIXES: dict[str, Mix] = {name: _mix(name) for name in ("light", "medium", "heavy", "mixed")}


def capacity_per_s(mix: Mix, cores: int) -> float:
    """Requests a second that would keep every core busy, each request on one core."""
    return cores * 1e6 / sum(t.service_us * t.share for t in mix)


def timeline(
    mix: Mix, per_s: float, seconds: float, seed: int, two_core_speedup: float | None = None
) -> Iterator[tuple[int, Event]]:
    """All models loaded at 0, then Poisson arrivals of the mix."""
    for tenant in mix:
        yield 0, ModelLoaded(tenant.model(two_core_speedup))
    rng = random.Random(seed)
    now_us, n, shares = 0.0, 0, [t.share for t in mix]
    while (now_us := now_us + rng.expovariate(per_s) * 1e6) < seconds * 1e6:
        tenant, n, at_us = rng.choices(mix, shares)[0], n + 1, math.floor(now_us)
        name = RequestId(f"{tenant.name}-{n}")
        yield at_us, RequestArrived(Request(name, TenantId(tenant.name), ModelName(tenant.name), at_us, at_us + tenant.qos_us))
