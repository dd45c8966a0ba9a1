"""What this machine is like this minute, as a simulation has to know it: measured while next to nothing runs.

On a shared host kernels take a tenth or a half longer in some minutes than in those in which a bundle was measured, and the
generator's and the engine's messages need cores, too. So a comparison gauges right before and right behind the run it is made
with, on the same server: how long units take over what their tables say and how far they stray, what a hand-over and the way
between client and engine take, and how much CPU a request costs beside its units.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean, median

import psutil

from veltair.bench.result import PolicyResult
from veltair.bench.run import run_scenario
from veltair.bench.scenario import Scenario
from veltair.core.actions import Dispatch
from veltair.core.values import LeaseId, Model
from veltair.errors import ServerError
from veltair.observe.read import Run
from veltair.observe.records import Completed, Dispatched, Finished
from veltair.observe.tables import Tables
from veltair.simulate.world import Contended

LEAST_UNITS = 10  # of a model, to say how long it takes
ONE_DEVIATION = 0.84  # share of a normal distribution that is below it
MOST_FOR_MESSAGES = 0.5  # of all cores


@dataclass(frozen=True, slots=True)
class Gauged:
    """`slower`: by model, a unit's time over what its table says."""

    slower: Mapping[str, float]
    strays: float  # standard deviation of the logarithm of single units' times
    handover_us: float  # of a unit: from the decision to its kernels, and from them to the next decision
    away_us: float  # of a request: from the client to the engine and back
    message_us: float  # of CPU, for a request, beside its units


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of a server's life, between two moments of calendar time."""

    begin_s: float
    end_s: float
    cpu_s: float  # of generator and server
    result: PolicyResult


def run_stretch(scenario: Scenario, endpoint: str, policy: str) -> Stretch:
    """Raises ServerUnreachable."""
    begin_s, before_s = time.time(), _cpu_s()
    result = run_scenario(scenario, endpoint, policy=policy)
    return Stretch(begin_s, time.time(), _cpu_s() - before_s, result)


def gauged(run: Run, stretches: Sequence[Stretch]) -> Gauged:
    """The mean over the stretches. Raises ServerError where too little ran in one."""
    found = [_gauged(run, stretch) for stretch in stretches]
    return Gauged(
        {model: fmean(each.slower[model] for each in found) for model in found[0].slower},
        fmean(each.strays for each in found),
        fmean(each.handover_us for each in found),
        fmean(each.away_us for each in found),
        fmean(each.message_us for each in found),
    )


class AsGauged(Contended):
    """A world that is like this minute. While all `cores` are held, messages take turns with the units on them."""

    def __init__(self, bandwidth_bytes_per_us: float, known: Gauged, cores: int, requests_per_s: float, seed: int) -> None:
        super().__init__(bandwidth_bytes_per_us, noise=known.strays, seed=seed)
        self._gauged = known
        self._idle = cores
        self._held: dict[LeaseId, int] = {}
        self._crowded = 1 / (1 - min(MOST_FOR_MESSAGES, requests_per_s * known.message_us / 1e6 / cores))

    def start(self, unit: Dispatch, model: Model, handover_us: int, now_us: int) -> int:
        self._held[unit.lease.id] = len(unit.lease.cores)
        self._idle -= len(unit.lease.cores)
        return super().start(unit, model, handover_us, now_us)

    def stretch(self, unit: Dispatch, model: Model) -> float:
        slower = super().stretch(unit, model) * self._gauged.slower.get(model.name, 1.0)
        return slower * self._crowded if self._idle == 0 else slower

    def ended(self, lease_id: LeaseId, now_us: int) -> None:
        self._idle += self._held.pop(lease_id)
        super().ended(lease_id, now_us)


def _gauged(run: Run, stretch: Stretch) -> Gauged:
    from_us, until_us = ((at_s - run.started.wall_time_s) * 1e6 + run.started.at_us for at_s in (stretch.begin_s, stretch.end_s))
    records = [record for record in run.records if from_us <= record.at_us <= until_us]
    tables = Tables(run.started.core)
    dispatched = {record.lease: record for record in records if isinstance(record, Dispatched)}
    ratios: dict[str, list[float]] = {}
    handovers_us: list[int] = []
    held_us = 0
    for record in records:
        if not isinstance(record, Finished) or record.failed is not None or record.lease not in dispatched:
            continue
        unit = dispatched[record.lease]
        times = tables.of(unit, "bf16")  # any variant counts: it did run
        if times is not None:
            table_us = times.table.latency_us(len(unit.cores), unit.pressure)
            ratios.setdefault(unit.model, []).append(record.measured_us / table_us)
            handovers_us.append(record.at_us - unit.at_us - record.measured_us)
            held_us += (record.at_us - unit.at_us) * len(unit.cores)
    missing = [t.model for t in stretch.result.tenants if len(ratios.get(t.model, ())) < LEAST_UNITS]
    if missing:
        raise ServerError(f"too few units of {missing[0]!r} ran to say how long they take now; gauge for longer")
    slower = {model: median(found) for model, found in ratios.items()}
    strays = sorted(log(each / slower[model]) for model, found in ratios.items() for each in found)
    away_us = []
    for tenant in stretch.result.tenants:
        within_us = [r.latency_us for r in records if isinstance(r, Completed) and r.tenant == tenant.name]
        if within_us and tenant.p50_ms is not None:
            away_us.append(max(0.0, tenant.p50_ms * 1000 - median(within_us)))
    requests = sum(isinstance(record, Completed) for record in records)
    return Gauged(
        slower,
        max(0.0, strays[int(ONE_DEVIATION * len(strays))]),
        median(handovers_us),
        fmean(away_us or [0.0]),
        max(0.0, stretch.cpu_s * 1e6 - held_us) / max(1, requests),
    )


def _cpu_s() -> float:
    """Of this process and those it has started, so far."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        times = process.cpu_times()
        total += times.user + times.system
    return total
