"""When requests come. Each tenant draws from generators of its own, so that adding one does not move the others' arrivals.

More load is the same story told faster: the same random numbers at every load, and a burst or a busy hour at the same time.
"""

import csv
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from veltair.core.events import Event, RequestArrived
from veltair.core.values import ModelName, Request, RequestId, TenantId
from veltair.errors import ConfigError
from veltair.simulate.virtual import Outcome
from veltair.simulate.workload import Bursts, Closed, Diurnal, Poisson, Replay, Tenant, Uniform

MINUTE_S = 60.0


def times_s(tenant: Tenant, per_s: float, end_s: float, seed: int, folder: Path) -> Iterator[float]:
    """Arrivals of an open loop within 0..end_s, ascending, `per_s` of them a second on average."""
    rng = random.Random(f"{seed}/{tenant.name}")
    match tenant.process:
        case Poisson():
            return _at_intensity(rng, _even(per_s), end_s)
        case Uniform():
            return _every(1 / per_s, rng.random() / per_s, end_s)
        case Bursts() as bursts:
            return _at_intensity(rng, _bursting(bursts, per_s, random.Random(f"{seed}/{tenant.name}/bursts")), end_s)
        case Diurnal() as day:
            return _thinned(rng, per_s, day, end_s)
        case Replay(file):
            return _replayed(read_recorded(folder / file, random.Random(f"{seed}/{tenant.name}/minutes")), per_s, end_s)
        case Closed():
            raise AssertionError("the arrivals of a closed loop follow from its answers")


def _every(gap_s: float, first_s: float, end_s: float) -> Iterator[float]:
    at_s = first_s
    while at_s < end_s:
        yield at_s
        at_s += gap_s


def _even(per_s: float) -> Iterator[tuple[float, float]]:
    while True:
        yield math.inf, per_s


def _bursting(bursts: Bursts, per_s: float, rng: random.Random) -> Iterator[tuple[float, float]]:
    """Lengths of the two states in turn and the rate in each, `per_s` on average."""
    cycle_s = bursts.calm_s + bursts.burst_s
    calm_per_s = per_s * cycle_s / (bursts.calm_s + bursts.factor * bursts.burst_s)
    bursting = rng.random() < bursts.burst_s / cycle_s
    while True:
        mean_s, rate = (bursts.burst_s, bursts.factor * calm_per_s) if bursting else (bursts.calm_s, calm_per_s)
        yield rng.expovariate(1 / mean_s), rate
        bursting = not bursting


def _at_intensity(rng: random.Random, pieces: Iterator[tuple[float, float]], end_s: float) -> Iterator[float]:
    """A Poisson process whose rate is constant on each piece (length, rate): unit gaps, stretched by the rate they fall into."""
    begin_s, (length_s, rate) = 0.0, next(pieces)
    at_s = 0.0
    while True:
        work = rng.expovariate(1.0)
        while (at_s + work / rate) > begin_s + length_s:
            work -= (begin_s + length_s - at_s) * rate
            begin_s += length_s
            at_s = begin_s
            length_s, rate = next(pieces)
        at_s += work / rate
        if at_s >= end_s:
            return
        yield at_s


def _thinned(rng: random.Random, per_s: float, day: Diurnal, end_s: float) -> Iterator[float]:
    """Lewis and Shedler, Simulation of Nonhomogeneous Poisson Processes by Thinning (1979)."""
    most = 1 + day.swing
    at_s = 0.0
    while (at_s := at_s + rng.expovariate(most * per_s)) < end_s:
        now = 1 + day.swing * math.sin(2 * math.pi * (at_s / day.period_s + day.phase))
        if rng.random() * most < now:
            yield at_s


@dataclass(frozen=True, slots=True)
class Recorded:
    at_s: tuple[float, ...]  # ascending, from 0
    length_s: float

    @property
    def per_s(self) -> float:
        return len(self.at_s) / self.length_s


def _replayed(recorded: Recorded, per_s: float, end_s: float) -> Iterator[float]:
    faster = per_s / recorded.per_s
    begin_s = 0.0
    while begin_s < end_s:
        for at_s in recorded.at_s:
            due_s = begin_s + at_s / faster
            if due_s >= end_s:
                return
            yield due_s
        begin_s += recorded.length_s / faster


def read_recorded(path: Path, rng: random.Random) -> Recorded:
    """A column `at_s` of seconds, or columns `minute` and `requests` (spread over their minute at random).

    Raises ConfigError with the number of the line.
    """
    where = f"arrivals {str(path)!r}"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{where} cannot be read: {e}; name a CSV file") from e
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    if "at_s" in header:
        at_s = sorted(_number(where, number, row, header, "at_s") for number, row in rows[1:])
        if len(at_s) < 2 or at_s[0] == at_s[-1]:
            raise ConfigError(f"{where}: a column of timestamps needs two different ones at least")
        length_s = (at_s[-1] - at_s[0]) * len(at_s) / (len(at_s) - 1)  # a mean gap behind the last, before it begins again
        return Recorded(tuple(at - at_s[0] for at in at_s), length_s)
    if "minute" in header and "requests" in header:
        counts = {_number(where, n, row, header, "minute"): _number(where, n, row, header, "requests") for n, row in rows[1:]}
        first, last = min(counts, default=0.0), max(counts, default=0.0)
        drawn = [(m - first + rng.random()) * MINUTE_S for m, count in sorted(counts.items()) for _ in range(round(count))]
        if not drawn:
            raise ConfigError(f"{where}: there is no request in it")
        return Recorded(tuple(sorted(drawn)), (last - first + 1) * MINUTE_S)
    raise ConfigError(f"{where}, line 1: the header must have a column at_s, or minute and requests; it has {', '.join(header)}")


def _number(where: str, line: int, row: list[str], header: list[str], column: str) -> float:
    at = header.index(column)
    text = row[at].strip() if at < len(row) else ""
    try:
        value = float(text)
    except ValueError as e:
        raise ConfigError(f"{where}, line {line}: {column} = {text!r} is not a number") from e
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{where}, line {line}: {column} = {text} must be 0 or more")
    return value


@dataclass(slots=True)
class Tickets:
    """Makes a tenant's requests, one after the other: their names, models and deadlines."""

    tenant: Tenant
    seed: int
    made: int = 0
    _next_model: Callable[[], str] = field(init=False)

    def __post_init__(self) -> None:
        models = self.tenant.models
        if len(models) == 1:
            self._next_model = lambda: models[0]
            return
        rng = random.Random(f"{self.seed}/{self.tenant.name}/models")
        chances = list(accumulate((i + 1) ** -self.tenant.popularity for i in range(len(models))))
        self._next_model = lambda: rng.choices(models, cum_weights=chances)[0]

    def next(self, at_us: int) -> RequestArrived:
        self.made += 1
        tenant = self.tenant
        return RequestArrived(
            Request(
                RequestId(f"{tenant.name}-{self.made}"),
                TenantId(tenant.name),
                ModelName(self._next_model()),
                at_us,
                at_us + tenant.qos_us,
                tenant.precision,
                tenant.priority,
                tenant.weight,
            )
        )


class ClosedLoop:
    """The clients of one tenant: each sends its next request a while after the answer to the one before."""

    def __init__(self, tenant: Tenant, closed: Closed, clients: int, seed: int, end_us: int) -> None:
        self._tickets = Tickets(tenant, seed)
        self._think_us = closed.think_ms * 1000
        self._rngs = [random.Random(f"{seed}/{tenant.name}/{client}") for client in range(clients)]
        self._client_of: dict[RequestId, int] = {}
        self._end_us = end_us

    def first(self) -> Iterator[tuple[int, Event]]:
        for client in range(len(self._rngs)):
            due = self._next(client, 0)
            if due is not None:
                yield due

    def follow_up(self, outcome: Outcome) -> tuple[int, Event] | None:
        client = self._client_of.pop(outcome.request.id)
        return self._next(client, outcome.finished_us)

    def _next(self, client: int, now_us: int) -> tuple[int, Event] | None:
        at_us = now_us + math.ceil(self._rngs[client].expovariate(1 / self._think_us))
        if at_us >= self._end_us:
            return None
        event = self._tickets.next(at_us)
        self._client_of[event.request.id] = client
        return at_us, event
