"""The four tenant mixes that order and granularity are judged by, and Poisson arrivals over them."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from veltair.core.events import Event, ModelLoaded, RequestArrived
from veltair.core.policies.protocol import Policy
from veltair.core.scheduler import Scheduler
from veltair.core.values import (
    CoreId,
    Footprint,
    LatencyTable,
    LayerBlock,
    Machine,
    Model,
    ModelName,
    Request,
    RequestId,
    TenantId,
    Variant,
)
from veltair.simulate.virtual import Run, play

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

MIXES: dict[str, Mix] = {
    "light": (Tenant("a1", 1_000, 5_000, 0.4), Tenant("b8", 8_000, 20_000, 0.3), Tenant("c9", 9_000, 25_000, 0.3)),
    "medium": (Tenant("a16", 16_000, 45_000, 0.34), Tenant("b18", 18_000, 50_000, 0.33), Tenant("c15", 15_000, 45_000, 0.33)),
    "heavy": (Tenant("a20", 20_000, 60_000, 0.5), Tenant("b25", 25_000, 75_000, 0.5)),
    "mixed": (Tenant("a1", 1_000, 5_000, 0.5), Tenant("b9", 9_000, 20_000, 0.3), Tenant("c18", 18_000, 60_000, 0.2)),
}


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


def serve(
    mix: Mix,
    load: float,
    policy: Policy,
    *,
    cores: int = 2,
    seconds: float = 60,
    seed: int = 0,
    two_core_speedup: float | None = None,
) -> Run:
    """One run of the mix at `load`, a share of capacity."""
    machine = Machine(tuple(CoreId(i) for i in range(cores)))
    arrivals = timeline(mix, load * capacity_per_s(mix, cores), seconds, seed, two_core_speedup)
    return play(Scheduler(machine, policy), arrivals)


def largest_load(
    mix: Mix,
    policy: Callable[[], Policy],
    *,
    kept: float = 0.95,
    steps: int = 8,
    seconds: float = 60,
    seed: int = 0,
    two_core_speedup: float | None = None,
) -> float:
    """The largest load, by bisection, at which every tenant has `kept` of its requests answered in time."""
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        run = serve(mix, middle, policy(), seconds=seconds, seed=seed, two_core_speedup=two_core_speedup)
        low, high = (middle, high) if min(run.attainment().values()) >= kept else (low, middle)
    return low
