"""A virtual clock around the scheduler core: performs what it decides, and tells it how that went.

Pure: events in, history out. At equal times the timeline comes before what the world brings forth, and each of the two in
the order in which it was put in, so a run is a function of its arguments. Like the engine, it tells the core how long a unit took
from the decision to the return of its cores, hand-over included.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import itemgetter

from veltair.core.actions import Action, Alarm, Complete, Dispatch, Drop, EvictWeights, LoadWeights, Refuse
from veltair.core.events import (
    Event,
    ModelLoaded,
    PressureChanged,
    RequestArrived,
    TimerFired,
    UnitFailed,
    UnitFinished,
    WeightsLoaded,
)
from veltair.core.scheduler import Scheduler
from veltair.core.values import LeaseId, Model, ModelName, Request, RequestId, TenantId
from veltair.simulate.world import Fixed, RunUnit, World, as_measured

HANDOVER_US = 50  # between the end of a unit and the start of the next on that core, as measured in the engine's prototype


@dataclass(frozen=True, slots=True)
class Step:
    """One call of `handle`: the fact, its time and what was decided."""

    now_us: int
    event: Event
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended: an answer at `finished_us`, or the code of the error it got then.

    `running_us` of its latency it had cores, in `units` units on `cores` cores each on average; `core_us` is its part of the
    leased core time (of a batch, an equal one). The answer was foretold to come within `low_us`..`high_us` after arrival.
    """

    request: Request
    finished_us: int
    error: str | None = None
    refused: bool = False
    running_us: int = 0
    units: int = 0
    unit_cores: int = 0
    core_us: float = 0.0
    low_us: int = 0
    high_us: int = 0

    @property
    def in_time(self) -> bool:
        return self.error is None and self.finished_us <= self.request.deadline_us

    @property
    def latency_us(self) -> int:
        return self.finished_us - self.request.arrived_us


@dataclass(frozen=True, slots=True)
class Span:
    """A unit that ended: its decision, and when its cores returned."""

    begin_us: int
    end_us: int
    unit: Dispatch
    request: Request


@dataclass(slots=True)
class Run:
    """What happened, request by request, in the order of the answers."""

    outcomes: list[Outcome] = field(default_factory=list)
    units: int = 0
    busy_core_us: int = 0
    decisions: int = 0  # events handed in
    conflicts: int = 0  # units that got fewer cores than they wanted
    moved_weights: list[tuple[int, LoadWeights | EvictWeights]] = field(default_factory=list)  # when, and what
    alarms: int = 0  # models whose times drifted from their tables
    ended_us: int = 0
    stopped: bool = False  # before all was answered, because `until` said so

    @property
    def loads(self) -> int:
        return sum(isinstance(action, LoadWeights) for _, action in self.moved_weights)

    @property
    def evictions(self) -> int:
        return len(self.moved_weights) - self.loads

    def attainment(self) -> dict[TenantId, float]:
        """Share of each tenant's requests that were answered in time. Refused and dropped ones count as missed."""
        asked: dict[TenantId, int] = {}
        met: dict[TenantId, int] = {}
        for outcome in self.outcomes:
            tenant = outcome.request.tenant
            asked[tenant] = asked.get(tenant, 0) + 1
            met[tenant] = met.get(tenant, 0) + outcome.in_time
        return {tenant: met[tenant] / asked[tenant] for tenant in asked}


@dataclass(slots=True)
class _Flight:
    request: Request
    model: Model | None
    running_us: int = 0
    units: int = 0
    unit_cores: int = 0
    core_us: float = 0.0

    def ended(self, finished_us: int, error: str | None = None, refused: bool = False, low: int = 0, high: int = 0) -> Outcome:
        return Outcome(
            self.request,
            finished_us,
            error,
            refused,
            self.running_us,
            self.units,
            self.unit_cores,
            self.core_us,
            low,
            high,
        )


def play(
    scheduler: Scheduler,
    timeline: Iterable[tuple[int, Event]],
    *,
    run_unit: RunUnit = as_measured,
    world: World | None = None,
    told: Callable[[Event], Event] | None = None,
    handover_us: int = HANDOVER_US,
    follow_up: Callable[[Outcome], tuple[int, Event] | None] | None = None,
    until: Callable[[Outcome], bool] | None = None,
    span_ended: Callable[[Span], None] | None = None,
    watch: Callable[[Step], None] | None = None,
) -> Run:
    """Hand `timeline` (absolute times, any order) to the scheduler and run what it dispatches until nothing is left.

    Units take what `world` says; without one, the times of `run_unit` whatever else runs. `told` gives what the scheduler hears
    of an event, where that is not the truth. `follow_up` gives what an outcome leads to (the next request of a client that waits
    for its answers), and `until` ends the run early when it returns True.
    """
    return _Play(scheduler, world or Fixed(run_unit), told, handover_us, follow_up, until, span_ended, watch).run(timeline)


class _Play:
    def __init__(
        self,
        scheduler: Scheduler,
        world: World,
        told: Callable[[Event], Event] | None,
        handover_us: int,
        follow_up: Callable[[Outcome], tuple[int, Event] | None] | None,
        until: Callable[[Outcome], bool] | None,
        span_ended: Callable[[Span], None] | None,
        watch: Callable[[Step], None] | None,
    ) -> None:
        self._scheduler, self._world, self._told, self._handover_us = scheduler, world, told, handover_us
        self._follow_up, self._until, self._span_ended, self._watch = follow_up, until, span_ended, watch
        self._coming: list[tuple[int, int, Event | LeaseId]] = []  # heap; a lease's number stands for the end of its unit
        self._entered = 0
        self._run = Run()
        self._loaded: dict[ModelName, Model] = {}
        self._flights: dict[RequestId, _Flight] = {}
        self._units: dict[LeaseId, tuple[int, Dispatch, tuple[_Flight, ...]]] = {}
        self._ends: dict[LeaseId, int] = {}  # an entry of the heap with another time is out of date
        self._failing: dict[LeaseId, str] = {}

    def run(self, timeline: Iterable[tuple[int, Event]]) -> Run:
        ahead = sorted(timeline, key=itemgetter(0))
        ahead.reverse()
        scheduler, coming, run = self._scheduler, self._coming, self._run
        conflicts_before, now_us, wake_us = scheduler.conflicts, 0, scheduler.wake_us
        while not run.stopped:
            next_us = coming[0][0] if coming else None
            if ahead and (next_us is None or ahead[-1][0] <= next_us):
                next_us = ahead[-1][0]
            event: Event | LeaseId
            if wake_us is not None and (next_us is None or wake_us < next_us):
                now_us, event = max(wake_us, now_us), TimerFired()
            elif next_us is None:
                break
            elif ahead and ahead[-1][0] <= next_us:
                now_us, event = ahead.pop()
            else:
                now_us, _, event = heapq.heappop(coming)
                if isinstance(event, int):
                    if self._ends.get(event) != now_us:
                        continue
                    event = self._unit_ended(event, now_us)
            if isinstance(event, RequestArrived):
                self._flights[event.request.id] = _Flight(event.request, self._loaded.get(event.request.model))
            elif isinstance(event, ModelLoaded):
                self._loaded[event.model.name] = event.model
            elif isinstance(event, PressureChanged):
                self._world.pressed(event.pressure, event.held)
            heard = event if self._told is None else self._told(event)
            actions = scheduler.handle(heard, now_us)
            wake_us = scheduler.wake_us
            run.decisions += 1
            for action in actions:
                self._perform(action, now_us)
            for lease_id, end_us in self._world.shifted(now_us):
                self._end_at(lease_id, end_us)
            if self._watch is not None:
                self._watch(Step(now_us, heard, tuple(actions)))
        run.conflicts, run.ended_us = scheduler.conflicts - conflicts_before, now_us
        return run

    def _perform(self, action: Action, now_us: int) -> None:
        match action:
            case Dispatch():
                self._start(action, now_us)
            case Complete(request_id, _, low_us, high_us):
                self._answer(self._flights.pop(request_id).ended(now_us, low=low_us, high=high_us))
            case Refuse(request_id, code):
                self._answer(self._flights.pop(request_id).ended(now_us, code, refused=True))
            case Drop(request_id, code):
                self._answer(self._flights.pop(request_id).ended(now_us, code))
            case LoadWeights(name):
                self._run.moved_weights.append((now_us, action))
                self._enter(now_us + self._loaded[name].load_us, WeightsLoaded(name))
            case EvictWeights():
                self._run.moved_weights.append((now_us, action))
            case Alarm():
                self._run.alarms += not action.over

    def _start(self, unit: Dispatch, now_us: int) -> None:
        members = (unit.request_id, *unit.riders)
        # Of a batch, those that were answered meanwhile are gone; the first's model is kept with the unit before.
        flights = tuple(self._flights[member] for member in members if member in self._flights)
        model = flights[0].model
        assert model is not None, f"{unit.request_id} was dispatched without a loaded model"
        took = self._world.start(unit, model.batches[len(members)] if unit.riders else model, self._handover_us, now_us)
        if isinstance(took, str):
            self._failing[unit.lease.id] = took
            took = unit.predicted_us + self._handover_us
        self._units[unit.lease.id] = now_us, unit, flights
        self._end_at(unit.lease.id, now_us + took)
        self._run.units += 1

    def _unit_ended(self, lease_id: LeaseId, now_us: int) -> UnitFinished | UnitFailed:
        self._world.ended(lease_id, now_us)
        del self._ends[lease_id]
        begin_us, unit, flights = self._units.pop(lease_id)
        us, cores = now_us - begin_us, len(unit.lease.cores)
        self._run.busy_core_us += us * cores
        for flight in flights:
            flight.running_us += us
            flight.units += 1
            flight.unit_cores += cores
            flight.core_us += us * cores / len(flights)
        if self._span_ended is not None:
            self._span_ended(Span(begin_us, now_us, unit, flights[0].request))
        failure = self._failing.pop(lease_id, None)
        return UnitFinished(lease_id, us) if failure is None else UnitFailed(lease_id, failure)

    def _answer(self, outcome: Outcome) -> None:
        self._run.outcomes.append(outcome)
        if self._follow_up is not None and (following := self._follow_up(outcome)) is not None:
            self._enter(*following)
        if self._until is not None and self._until(outcome):
            self._run.stopped = True

    def _end_at(self, lease_id: LeaseId, end_us: int) -> None:
        if self._ends.get(lease_id) != end_us:
            self._ends[lease_id] = end_us
            self._enter(end_us, lease_id)

    def _enter(self, at_us: int, event: Event | LeaseId) -> None:
        self._entered += 1
        heapq.heappush(self._coming, (at_us, self._entered, event))
