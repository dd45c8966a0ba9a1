"""The last seconds of a run, tenant by tenant: what `veltair top` shows. Fed with records, it forgets what is older."""

import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from veltair.observe.attribution import Attribution, Costs, Split
from veltair.observe.follow import Follower
from veltair.observe.records import Arrived, Completed, Dispatched, Drifted, Dropped, Finished, Record, Refused, Started
from veltair.observe.summary import percentile_us

Key = tuple[str, str]  # tenant, model


@dataclass(frozen=True, slots=True)
class TenantNow:
    """One tenant's requests for one model, within the window. Times are of answers, shares 0..1; None where nothing tells."""

    tenant: str
    model: str
    qos_us: int | None  # None: promised nothing, which only a damaged log shows
    percentile: float | None
    rate_per_s: float  # of arrivals
    ended: int
    in_qos: float | None  # of those that ended; refused and dropped ones are not
    met: bool | None
    refused: int
    dropped: int
    p50_us: int | None
    p95_us: int | None
    cores: float  # held on average
    pressure: float | None  # that its units began under, mean
    costs: Costs  # of its answers
    noisiest: str | None  # the other tenant that cost it most
    noisiest_us: int  # and how much of each answer's latency

    @property
    def noisiest_share(self) -> float | None:
        """Of the excess."""
        total = self.costs.excess_us
        return self.costs.by_us(self.noisiest) / total if self.noisiest is not None and total > 0 else None


@dataclass(frozen=True, slots=True)
class Now:
    policy: str
    machine: str
    at_us: int  # end of the window, since the engine's start
    wall_time_s: float  # the same by the calendar
    window_us: int
    cores: int
    busy: float  # cores under lease on average
    waiting: int
    running: int
    outside_pressure: float  # of processes that are not ours, as the scheduler was told
    outside_cores: float  # that those use
    outside_held: tuple[int, ...]  # CPUs that those have most of
    sources: tuple[str, ...]  # which tell of them
    adrift: tuple[str, ...]  # models whose times are far from their tables
    tenants: tuple[TenantNow, ...]


@dataclass(slots=True, eq=False)
class _Unit:
    key: Key
    cores: int
    since_us: int
    pressure: float
    end_us: int | None = None


@dataclass(slots=True, eq=False)
class _Window:
    arrived: deque[int] = field(default_factory=deque)
    ended: deque[tuple[int, Record]] = field(default_factory=deque)
    splits: deque[Split] = field(default_factory=deque)

    def forget(self, before_us: int) -> None:
        while self.arrived and self.arrived[0] < before_us:
            self.arrived.popleft()
        while self.ended and self.ended[0][0] < before_us:
            self.ended.popleft()
        while self.splits and self.splits[0].at_us < before_us:
            self.splits.popleft()


class Live:
    """Takes the records of one run, in their order. Memory is that of a window."""

    def __init__(self, started: Started, window_us: int) -> None:
        self.started = started
        self.last_us = started.at_us
        self._window_us = window_us
        self._attribution = Attribution(started)
        self._promised = {(tenant.name, tenant.model): tenant for tenant in started.tenants}
        self._of: dict[Key, _Window] = {key: _Window() for key in self._promised}
        self._units: deque[_Unit] = deque()
        self._in_flight: dict[int, _Unit] = {}
        self._adrift: set[str] = set()

    def take(self, record: Record) -> None:
        self.last_us = max(self.last_us, record.at_us)
        split = self._attribution.take(record)
        match record:
            case Arrived():
                self._window(record).arrived.append(record.at_us)
            case Dispatched():
                unit = _Unit((record.tenant, record.model), len(record.cores), record.at_us, record.pressure)
                self._in_flight[record.lease] = unit
                self._units.append(unit)
            case Finished():
                if (unit_over := self._in_flight.pop(record.lease, None)) is not None:
                    unit_over.end_us = record.at_us
            case Drifted(_, model, over):
                (self._adrift.discard if over else self._adrift.add)(model)
            case Completed() | Refused() | Dropped():
                window = self._window(record)
                window.ended.append((record.at_us, record))
                window.forget(self.last_us - self._window_us)
                if split is not None:
                    window.splits.append(split)
            case _:
                pass
        self._forget_units(self.last_us - self._window_us)

    def look(self, now_us: int | None = None) -> Now:
        """The window that ends at `now_us`; by default with the last record."""
        end_us = max(self.last_us, now_us or 0)
        begin_us = max(end_us - self._window_us, self.started.at_us)
        self._forget_units(begin_us)
        held: Counter[Key] = Counter()
        pressures: dict[Key, list[float]] = {}
        for unit in self._units:
            held[unit.key] += unit.cores * max(0, min(unit.end_us or end_us, end_us) - max(unit.since_us, begin_us))
            if unit.since_us >= begin_us:
                pressures.setdefault(unit.key, []).append(unit.pressure)
        span_us = max(end_us - begin_us, 1)
        return Now(
            policy=self.started.policy,
            machine=self.started.machine,
            at_us=end_us,
            wall_time_s=self.started.wall_time_s + (end_us - self.started.at_us) / 1e6,
            window_us=span_us,
            cores=len(self.started.cores),
            busy=sum(held.values()) / span_us,
            waiting=self._attribution.waiting,
            running=len(self._in_flight),
            outside_pressure=self._attribution.outside_pressure,
            outside_cores=self._attribution.outside_cores,
            outside_held=self._attribution.outside_held,
            sources=self.started.sources,
            adrift=tuple(sorted(self._adrift)),
            tenants=tuple(self._tenants(begin_us, span_us, held, pressures)),
        )

    def _tenants(self, begin_us: int, span_us: int, held: Counter[Key], pressures: dict[Key, list[float]]) -> Iterator[TenantNow]:
        for key, window in self._of.items():
            window.forget(begin_us)
            promised = self._promised.get(key)
            ended = [record for _, record in window.ended]
            answers = [record for record in ended if isinstance(record, Completed)]
            latencies = sorted(answer.latency_us for answer in answers)
            in_qos = sum(answer.at_us <= answer.deadline_us for answer in answers) / len(ended) if ended else None
            costs = Costs(key[0])
            for split in window.splits:
                costs.add(split)
            noisiest = costs.noisiest
            felt = pressures.get(key)
            yield TenantNow(
                tenant=key[0],
                model=key[1],
                qos_us=None if promised is None else promised.qos_us,
                percentile=None if promised is None else promised.percentile,
                rate_per_s=len(window.arrived) * 1e6 / span_us,
                ended=len(ended),
                in_qos=in_qos,
                met=None if in_qos is None or promised is None else in_qos >= promised.percentile,
                refused=sum(isinstance(record, Refused) for record in ended),
                dropped=sum(isinstance(record, Dropped) for record in ended),
                p50_us=percentile_us(latencies, 0.50),
                p95_us=percentile_us(latencies, 0.95),
                cores=held[key] / span_us,
                pressure=None if not felt else sum(felt) / len(felt),
                costs=costs,
                noisiest=noisiest,
                noisiest_us=0 if noisiest is None else costs.by_us(noisiest) // costs.requests,
            )

    def _window(self, record: Arrived | Completed | Refused | Dropped) -> _Window:
        return self._of.setdefault((record.tenant, record.model), _Window())

    def _forget_units(self, before_us: int) -> None:
        """In order of their beginning; one that runs long keeps those behind it a little longer."""
        while self._units and (end_us := self._units[0].end_us) is not None and end_us < before_us:
            self._units.popleft()


class Followed:
    """The last seconds of a log that grows. A restarted engine begins anew."""

    def __init__(self, follower: Follower, window_us: int) -> None:
        self._follower, self._window_us = follower, window_us
        self._live: Live | None = None

    def look(self, *, until_now: bool) -> Now | None:
        """The window that ends now, else with the last record; None while no run has begun. Raises LogError."""
        for record in self._follower.read():
            if isinstance(record, Started):
                self._live = Live(record, self._window_us)
            elif self._live is not None:
                self._live.take(record)
        if self._live is None:
            return None
        started = self._live.started
        return self._live.look(started.at_us + round((time.time() - started.wall_time_s) * 1e6) if until_now else None)
