"""Who cost whom how much: the excess of each answered request over its solo time, split over its causes.

Rules of the split
1. Solo is what the request would have taken alone on this machine: the fastest that the tables in the log allow, on any number
   of cores, at no pressure, in the precision its tenant permits. The excess is the measured latency less that.
2. Waiting is laid at the door of those who held cores meanwhile, moment by moment, in proportion to the cores they held: other
   tenants, and other requests of its own. While nobody held any, or its model's weights were on the way, it waited by itself.
3. Running beside others: a unit's slowdown is its measured time less its variants' quiet time on these cores. As much of it
   as the tables explain by the pressure it felt is shared in proportion to the pressure: what each co-runner moves over memory
   as a share of the bandwidth, and what outsiders pressed. What more there is, hand-overs included, falls to outsiders as far
   as the CPU time that they used would explain it, had they used it on these cores: who shares a core waits for whole slices.
4. In a batch, the time beyond that of one request is shared among the other members.
5. What is left is its own: fewer cores or other variants than it would have alone, hand-overs, and times that stray. It may be
   below nought, since kernels may be quicker than their tables. No other part is, and all add up to the excess exactly.

Logs without tables (of veltair before they were written down, or with a hole) are split by rules 2 and 5 alone; solo is then
what was predicted of the units. Refused and dropped requests have no latency to split, but the time that they held cores counts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from veltair.core.values import Precision
from veltair.observe.read import Run
from veltair.observe.records import (
    Arrived,
    Completed,
    Dispatched,
    Dropped,
    Finished,
    PressureTold,
    Record,
    Refused,
    Started,
    WeightsLoaded,
)
from veltair.observe.tables import Tables, UnitTimes


@dataclass(frozen=True, slots=True)
class Split:
    """One answered request. Tenants are by name; its own stands for other requests of its own."""

    at_us: int  # of the answer
    request: str
    tenant: str
    model: str
    latency_us: int
    solo_us: int
    waited_us: Mapping[str, int]  # while these held cores
    slowed_us: Mapping[str, int]  # by these, who ran beside it or in its batch
    outsiders_us: int
    self_us: int
    chosen_us: int  # of `self_us`, by the tables: for other cores and variants than it would have alone

    @property
    def excess_us(self) -> int:
        return self.latency_us - self.solo_us


@dataclass(slots=True)
class Costs:
    """A row of the matrix: what a tenant's answered requests took beyond their solo time, and by whom."""

    tenant: str
    requests: int = 0
    solo_us: int = 0
    excess_us: int = 0
    waited_us: Counter[str] = field(default_factory=Counter)
    slowed_us: Counter[str] = field(default_factory=Counter)
    outsiders_us: int = 0
    self_us: int = 0
    chosen_us: int = 0

    def add(self, split: Split) -> None:
        self.requests += 1
        self.solo_us += split.solo_us
        self.excess_us += split.excess_us
        self.waited_us.update(split.waited_us)
        self.slowed_us.update(split.slowed_us)
        self.outsiders_us += split.outsiders_us
        self.self_us += split.self_us
        self.chosen_us += split.chosen_us

    def by_us(self, tenant: str) -> int:
        return self.waited_us[tenant] + self.slowed_us[tenant]

    @property
    def noisiest(self) -> str | None:
        """The other tenant that cost it most; None where nobody cost it anything."""
        others = sorted((self.waited_us.keys() | self.slowed_us.keys()) - {self.tenant})
        worst = max(others, key=self.by_us, default=None)
        return worst if worst is not None and self.by_us(worst) > 0 else None


def attribute(run: Run) -> list[Split]:
    """Every answered request of a run, in the order of the answers."""
    attribution = Attribution(run.started)
    return [split for record in run.records if (split := attribution.take(record)) is not None]


def matrix(splits: Iterable[Split], tenants: Sequence[str] = ()) -> dict[str, Costs]:
    """A row for each of `tenants` and whoever else was answered, in that order."""
    rows = {tenant: Costs(tenant) for tenant in tenants}
    for split in splits:
        rows.setdefault(split.tenant, Costs(split.tenant)).add(split)
    return rows


_Sums = dict[str, float]


@dataclass(slots=True, eq=False)
class _Open:
    """A request under way."""

    tenant: str
    model: str
    precision: Precision
    queue: _Sums | None  # as these integrals stood when it began to wait; None: it runs
    waited: _Sums = field(default_factory=dict)
    slowed: _Sums = field(default_factory=dict)
    outsiders: float = 0.0
    predicted_us: int = 0  # of its units
    single_us: int | None = 0  # of its units, quiet, without riders; None: no table tells


@dataclass(slots=True, eq=False)
class _Unit:
    cores: tuple[int, ...]
    members: tuple[_Open, ...]
    owners: Mapping[str, float]  # shares, 1 in all
    since_us: int
    times: UnitTimes | None
    press: float  # share of the bandwidth
    pressed: _Sums  # this and the next are integrals as they stood when it began
    outside: float
    used: float


class Attribution:
    """Takes the records of one run in their order, and gives each request's split when it is answered.

    Holds what is under way, and a few sums a tenant: an endless log costs no memory. A log with holes is split too: what was
    lost falls to the request itself, and a core that is leased again is free of its former unit.
    """

    def __init__(self, started: Started) -> None:
        self._tables = Tables(started.core)
        self._now_us = started.at_us
        self._open: dict[str, _Open] = {}
        self._units: dict[int, _Unit] = {}
        self._lease_on: dict[int, int] = {}  # core to lease
        self._held: _Sums = {}  # cores now, by tenant; of a unit that is a batch, each member's tenant holds its part
        self._press: _Sums = {}  # share of the bandwidth now
        self.outside_pressure = self.outside_cores = 0.0  # as last told
        self.outside_held: tuple[int, ...] = ()
        # Integrals until now, in microseconds. The difference of two moments is what happened between them.
        self._queue: _Sums = {}  # whose fault it was to wait
        self._pressed: _Sums = {}  # times pressure
        self._outside = 0.0  # times their pressure
        self._used = 0.0  # times the cores that they use

    @property
    def waiting(self) -> int:
        """Requests under way that hold no cores now."""
        return sum(request.queue is not None for request in self._open.values())

    def take(self, record: Record) -> Split | None:
        self._advance(record.at_us)
        match record:
            case Arrived(_, request, tenant):
                self._open[request] = _Open(tenant, record.model, record.precision, dict(self._queue))
            case Dispatched():
                self._dispatched(record)
            case Finished():
                self._finished(record)
            case Completed():
                return self._completed(record)
            case Refused() | Dropped():
                self._open.pop(record.request, None)
            case WeightsLoaded():
                self._waits_anew(record.model)
            case PressureTold():
                self.outside_pressure, self.outside_cores, self.outside_held = record.pressure, record.cores, record.held
            case _:
                pass
        return None

    def _advance(self, at_us: int) -> None:
        """Lanes read the clock before they write: a record may be a few microseconds older than the one before."""
        past_us = at_us - self._now_us
        if past_us <= 0:
            return
        self._now_us = at_us
        if self._units:
            cores = sum(self._held.values())
            for tenant, held in self._held.items():
                self._queue[tenant] = self._queue.get(tenant, 0.0) + past_us * held / cores
            for tenant, press in self._press.items():
                self._pressed[tenant] = self._pressed.get(tenant, 0.0) + past_us * press
        self._outside += past_us * self.outside_pressure
        self._used += past_us * self.outside_cores

    def _dispatched(self, record: Dispatched) -> None:
        for lease in {record.lease, *(self._lease_on.get(core, record.lease) for core in record.cores)}:
            self._leave(lease)  # its end is not in the log
        found = (self._open.get(request) for request in (record.request, *record.riders))
        members = tuple(member for member in found if member is not None)
        times = self._tables.of(record, members[0].precision if members else "fp32")
        for member in members:
            if member.queue is not None:
                _add(member.waited, _since(self._queue, member.queue), 1.0)
                member.queue = None
            member.predicted_us += record.predicted_us
            member.single_us = None if times is None or member.single_us is None else member.single_us + times.single_us
        owners = Counter(member.tenant for member in members) or Counter((record.tenant,))
        shares = {tenant: count / owners.total() for tenant, count in owners.items()}
        press = 0.0 if times is None else min(1.0, times.traffic_bytes_per_us / self._tables.bandwidth_bytes_per_us)
        sums = dict(self._pressed), self._outside, self._used
        self._units[record.lease] = _Unit(record.cores, members, shares, self._now_us, times, press, *sums)
        self._lease_on.update((core, record.lease) for core in record.cores)
        _add(self._held, shares, len(record.cores))
        _add(self._press, shares, press)

    def _leave(self, lease: int) -> _Unit | None:
        unit = self._units.pop(lease, None)
        if unit is not None:
            for core in unit.cores:
                self._lease_on.pop(core, None)
            _take(self._held, unit.owners, len(unit.cores))
            _take(self._press, unit.owners, unit.press)
        return unit

    def _finished(self, record: Finished) -> None:
        unit = self._leave(record.lease)
        if unit is None:
            return
        for member in unit.members:
            member.queue = dict(self._queue)
        took_us = self._now_us - unit.since_us
        if unit.times is None or record.failed is not None or took_us <= 0:
            return
        measured_us = min(record.measured_us, took_us)
        slowed, outsiders = self._slowdown(unit, unit.times, measured_us, took_us)
        for member in unit.members:
            _add(member.slowed, slowed, 1.0)
            member.outsiders += outsiders
        self._share_ride(unit, unit.times, measured_us)

    def _slowdown(self, unit: _Unit, times: UnitTimes, measured_us: int, took_us: int) -> tuple[_Sums, float]:
        """Rule 3, with the mean of the pressure over the unit's time. What it pressed itself is in its owners' sums: not felt."""
        felt = _since(self._pressed, unit.pressed)
        for tenant, share in unit.owners.items():
            felt[tenant] = max(0.0, felt.get(tenant, 0.0) - share * unit.press * took_us)
        outside = self._outside - unit.outside
        total = sum(felt.values()) + outside
        explained = max(0, min(measured_us, times.at(min(1.0, total / took_us))) - times.quiet_us)
        used_us = (self._used - unit.used) / len(unit.cores)
        outsiders = min(max(0, took_us - times.quiet_us - explained), used_us)
        if total > 0:
            outsiders += explained * outside / total
        return {tenant: explained * pressure / total for tenant, pressure in felt.items() if pressure > 0}, outsiders

    def _share_ride(self, unit: _Unit, times: UnitTimes, measured_us: int) -> None:
        """Rule 4."""
        added = max(0, min(times.quiet_us, measured_us) - times.single_us)
        others = len(unit.members) - 1
        if not added or others < 1:
            return
        for member in unit.members:
            for other in unit.members:
                if other is not member:
                    _add(member.slowed, {other.tenant: added / others}, 1.0)

    def _waits_anew(self, model: str) -> None:
        """Weights are there: who waited for them begins to wait for cores."""
        for request in self._open.values():
            if request.model == model and request.queue is not None and not request.predicted_us:
                request.queue = dict(self._queue)

    def _completed(self, record: Completed) -> Split:
        done = self._open.pop(record.request, None) or _Open(record.tenant, record.model, "fp32", None)
        table_us = self._tables.solo_us(record.model, done.precision)
        solo_us = done.predicted_us if table_us is None else table_us
        waited, slowed, outsiders_us = _whole(done.waited), _whole(done.slowed), round(done.outsiders)
        of_others = sum(waited.values()) + sum(slowed.values()) + outsiders_us
        return Split(
            at_us=record.at_us,
            request=record.request,
            tenant=record.tenant,
            model=record.model,
            latency_us=record.latency_us,
            solo_us=solo_us,
            waited_us=waited,
            slowed_us=slowed,
            outsiders_us=outsiders_us,
            self_us=record.latency_us - solo_us - of_others,
            chosen_us=done.single_us - table_us if done.single_us and table_us is not None else 0,
        )


NOTHING = 1e-9  # what subtracting leaves of a sum of fractions


def _add(sums: _Sums, parts: Mapping[str, float], times: float) -> None:
    for tenant, part in parts.items():
        sums[tenant] = sums.get(tenant, 0.0) + part * times


def _take(sums: _Sums, parts: Mapping[str, float], times: float) -> None:
    for tenant, part in parts.items():
        left = sums.get(tenant, 0.0) - part * times
        if left > NOTHING:
            sums[tenant] = left
        else:
            sums.pop(tenant, None)


def _since(now: _Sums, then: _Sums) -> _Sums:
    return {tenant: value - then.get(tenant, 0.0) for tenant, value in now.items() if value > then.get(tenant, 0.0)}


def _whole(parts: _Sums) -> dict[str, int]:
    return {tenant: whole for tenant, part in parts.items() if (whole := round(part)) > 0}
