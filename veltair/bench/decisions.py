"""How many decisions a second the scheduler core takes, with a given number of requests waiting.

The line is filled, then held at its length: each unit that ends is followed by as many arrivals as requests were answered.
Only the time inside `Scheduler.handle` counts. Arrivals and times come from tables on a virtual clock.
"""

import gc
import heapq
import random
import time
from dataclasses import dataclass, field
from itertools import count

from veltair.core.actions import Action, Dispatch
from veltair.core.events import Event, ModelLoaded, RequestArrived, UnitFinished
from veltair.core.policies import make_policy
from veltair.core.scheduler import Scheduler
from veltair.core.values import (
    CoreId,
    Footprint,
    LatencyTable,
    LayerBlock,
    LeaseId,
    Machine,
    Model,
    ModelName,
    Request,
    RequestId,
    TenantId,
    Variant,
)

CORE_COUNTS = (1, 2, 4, 8)
SERIAL = 0.1  # of a block's time, on which a second core is wasted
SERVICE_US = {"short": 1_000, "middle": 9_000, "long": 18_000}  # on one core, in blocks of 1 ms, two variants each
SHARES = (0.4, 0.3, 0.3)
HANDOVER_US = 50


@dataclass(frozen=True, slots=True)
class Pace:
    decisions_per_s: float
    arrival_us: float  # mean of one decision of either kind
    end_us: float


def measure(policy: str, waiting: int, cores: int, decisions: int, seed: int) -> Pace:
    """Decisions are calls of `handle`: arrivals with their admission, ends of units with what starts in their place."""
    line = _Line(Scheduler(Machine(tuple(CoreId(i) for i in range(cores)), 200_000.0), make_policy(policy)), waiting, cores, seed)
    line.fill()
    threshold = gc.get_threshold()
    gc.collect()
    gc.freeze()  # both as an engine does
    gc.set_threshold(20_000)
    try:
        line.spent_ns = {"arrival": 0, "end": 0}
        line.taken = {"arrival": 0, "end": 0}
        while sum(line.taken.values()) < decisions:
            line.end_one()
            line.fill()
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()
    spent, taken = line.spent_ns, line.taken
    return Pace(
        sum(taken.values()) / sum(spent.values()) * 1e9,
        *(spent[kind] / max(1, taken[kind]) / 1e3 for kind in ("arrival", "end")),
    )


@dataclass
class _Line:
    scheduler: Scheduler
    waiting: int
    cores: int
    seed: int
    now_us: int = 0
    spent_ns: dict[str, int] = field(default_factory=lambda: {"arrival": 0, "end": 0})
    taken: dict[str, int] = field(default_factory=lambda: {"arrival": 0, "end": 0})

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._models = [_model(name, us) for name, us in SERVICE_US.items()]
        self._ids = count()
        self._ends: list[tuple[int, LeaseId, int]] = []
        for model in self._models:
            self.scheduler.handle(ModelLoaded(model), 0)
        mean_us = sum(us * share for us, share in zip(SERVICE_US.values(), SHARES, strict=True))
        self._line_us = self.waiting * mean_us / self.cores  # time until the whole line has run

    def fill(self) -> None:
        while self.scheduler.waiting < self.waiting:
            self._tell("arrival", self._arrival())

    def end_one(self) -> None:
        at_us, lease, us = heapq.heappop(self._ends)
        self.now_us = max(self.now_us, at_us)
        self._tell("end", UnitFinished(lease, us))

    def _arrival(self) -> Event:
        [model] = self._rng.choices(self._models, SHARES)
        service_us = SERVICE_US[model.name]
        qos_us = round((1.5 * self._line_us + 3 * service_us) * self._rng.uniform(1, 3))  # spread over the whole line
        request_id = RequestId(f"r{next(self._ids)}")
        return RequestArrived(Request(request_id, TenantId(model.name), model.name, self.now_us, self.now_us + qos_us))

    def _tell(self, kind: str, event: Event) -> None:
        start_ns = time.perf_counter_ns()
        actions = self.scheduler.handle(event, self.now_us)
        self.spent_ns[kind] += time.perf_counter_ns() - start_ns
        self.taken[kind] += 1
        self._perform(actions)

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Dispatch):
                end_us = self.now_us + action.predicted_us + HANDOVER_US
                heapq.heappush(self._ends, (end_us, action.lease.id, action.predicted_us))


def _model(name: str, service_us: int) -> Model:
    def rows(slower: float, under_pressure: float) -> dict[int, tuple[int, ...]]:
        alone = {cores: 1_000 * slower * (SERIAL + (1 - SERIAL) / cores) for cores in CORE_COUNTS}
        return {cores: (round(us), round(us * under_pressure)) for cores, us in alone.items()}

    levels = (0.0, 1.0)
    variants = (
        Variant("fast", LatencyTable(levels, rows(1.0, 1.3)), Footprint(2_000_000, 0)),
        Variant("lean", LatencyTable(levels, rows(1.05, 1.1)), Footprint(500_000, 0)),
    )
    blocks = tuple(LayerBlock(f"{name}.{i}", variants) for i in range(service_us // 1_000))
    return Model(ModelName(name), blocks)
