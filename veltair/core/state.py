"""What the scheduler knows: accepted requests, units in flight, and who holds which core.

`Ledger` is the only place where cores change hands. Policies read it; only the scheduler writes.
"""

from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, field

from veltair.core.predict import ModelCosts
from veltair.core.residuals import Residuals
from veltair.core.topology import choose_cores
from veltair.core.values import CoreId, Lease, LeaseId, Machine, ModelName, Precision, Request, RequestId, TenantId

USUAL_HALF_LIFE_US = 50_000  # some units long

Kind = tuple[TenantId, ModelName]  # requests of one kind are alike: same service, same QoS, as a rule


@dataclass(slots=True, eq=False)
class Job:
    """An accepted request on its way through its blocks, alone or as the first of a batch."""

    request: Request
    costs: ModelCosts  # what its tenant permits, and its own: the model may be replaced or unloaded under way
    order: int  # of arrival; breaks every tie
    foretold_us: int = 0  # absolute finish predicted on arrival
    interval_us: tuple[int, int] = (0, 0)  # absolute; it was said to finish within
    ready_us: int = 0  # its model's weights should be in by then
    loading: bool = False  # and are not yet
    next_block: int = 0
    last_variant: int = 0  # of the block before `next_block`: what a layer was begun as
    unit: "Unit | None" = None  # in flight
    riders: tuple["Job", ...] = ()  # whom it carries in its batch
    carrier: "Job | None" = None  # in whose batch it runs
    answered: bool = False  # the request is over
    closed: bool = False  # so is everybody's in its batch: nothing more of it runs
    deadline_us: int = field(init=False)  # of the batch the earliest

    def __post_init__(self) -> None:
        self.deadline_us = self.request.deadline_us

    @property
    def waits(self) -> bool:
        return self.unit is None and not self.closed and self.carrier is None and not self.loading

    @property
    def kind(self) -> Kind:
        return self.request.tenant, self.request.model

    @property
    def slack_us(self) -> int:
        """What it could afford to wait, had it the machine to itself afterwards."""
        return self.request.deadline_us - self.request.arrived_us - self.costs.best_us

    @property
    def members(self) -> tuple["Job", ...]:
        """Of its batch, itself first."""
        return (self, *self.riders)


@dataclass(slots=True, eq=False)
class Unit:
    """Consecutive blocks in flight on leased cores. `job.next_block` moves when it ends."""

    job: Job
    lease: Lease
    end_block: int
    variants: tuple[int, ...]
    started_us: int
    predicted_us: int  # corrected by residuals: what was promised
    table_us: int  # uncorrected: what residuals learn against
    traffic_bytes: int
    caught: bool = False  # an outsider came to one of its cores

    @property
    def traffic_per_s(self) -> int:
        """Bytes a second it moves while it runs; a whole number, so that sums do not depend on their order."""
        return self.traffic_bytes * 1_000_000 // max(1, self.predicted_us)

    def ends_us(self, now_us: int) -> int:
        """When it should be over; one that overruns is expected any moment."""
        return max(now_us, self.started_us + self.predicted_us)


@dataclass(slots=True, eq=False)
class Ledger:
    machine: Machine
    models: dict[ModelName, Mapping[Precision, ModelCosts]] = field(default_factory=dict)
    jobs: dict[RequestId, Job] = field(default_factory=dict)  # accepted, not yet answered
    units: dict[LeaseId, Unit] = field(default_factory=dict)
    residuals: Residuals = field(default_factory=Residuals)
    outside_pressure: float = 0.0
    traffic_per_s: int = 0  # of all units in flight, in bytes
    waiting: int = 0  # jobs that wait for cores; a batch is one
    cores: int = field(init=False)  # that may be leased
    withheld: frozenset[CoreId] = frozenset()  # those that may not, since outsiders hold them
    idle: list[CoreId] = field(init=False)  # of those that may be, in the machine's order, lowest first
    _order: dict[CoreId, int] = field(init=False)
    _next_lease: int = 0
    _usual_per_s: float = 0.0
    _usual_at_us: int = 0

    def __post_init__(self) -> None:
        self.cores = len(self.machine.cores)
        self.idle = list(self.machine.cores)
        self._order = {core: i for i, core in enumerate(self.machine.cores)}

    def lease(self, cores: int) -> Lease:
        assert 1 <= cores <= len(self.idle), f"lease of {cores} cores with {len(self.idle)} idle"
        granted = choose_cores(self.idle, cores, self.machine.places)
        for core in granted:
            self.idle.remove(core)
        self._next_lease += 1
        return Lease(LeaseId(self._next_lease), granted)

    def hold(self, unit: Unit) -> None:
        self.units[unit.lease.id] = unit
        self.traffic_per_s += unit.traffic_per_s

    def release(self, unit: Unit) -> None:
        del self.units[unit.lease.id]
        self.traffic_per_s -= unit.traffic_per_s
        for core in unit.lease.cores:
            assert core not in self.idle, f"lease {unit.lease.id} returns core {core}, which was idle"
            if core not in self.withheld:
                insort(self.idle, core, key=self._order.__getitem__)

    def withhold(self, cores: frozenset[CoreId]) -> None:
        """Lease these to nobody from now on, and all others again. Units that run on some of them go on."""
        leased = {core for unit in self.units.values() for core in unit.lease.cores}
        for unit in self.units.values():
            unit.caught = unit.caught or not cores.isdisjoint(unit.lease.cores)
        self.withheld, self.cores = cores, len(self.machine.cores) - len(cores)
        self.idle = [core for core in self.machine.cores if core not in cores and core not in leased]

    def pass_time(self, now_us: int) -> None:
        """What runs has run until now."""
        passed_us = now_us - self._usual_at_us
        if passed_us > 0:
            self._usual_per_s += (1.0 - 0.5 ** (passed_us / USUAL_HALF_LIFE_US)) * (self.traffic_per_s - self._usual_per_s)
            self._usual_at_us = now_us

    def expected_per_s(self) -> float:
        """Bytes a second that a unit is to expect from others: no less than is usual lately, for it will last a while."""
        return max(self.traffic_per_s, self._usual_per_s)

    def correction(self, job: Job, now_us: int) -> float:
        """What to multiply a table's time with to get the expected one."""
        return self.residuals.ratio(job.costs.model.name, now_us)

    def cautious_correction(self, job: Job, now_us: int) -> float:
        """The same for promises: later by as much as times of this model have strayed."""
        return self.residuals.cautious_ratio(job.costs.model.name, now_us)

    def sure_correction(self, job: Job, now_us: int) -> float:
        """The same for what must not be missed: later by more than times of this model usually stray."""
        model = job.costs.model
        return max(self.residuals.sure_ratio(model.name, now_us), self.residuals.ratio(model.name, now_us) * model.late)
