"""A virtual clock around the scheduler core: performs what it decides in no time at all, and tells it how that went.

Pure: events in, history out. Equal times are handled in the order in which they were put in, so a run is a function of
its arguments.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from veltair.core.actions import Action, Complete, Dispatch, Drop, Refuse
from veltair.core.events import Event, ModelLoaded, RequestArrived, TimerFired, UnitFailed, UnitFinished
from veltair.core.scheduler import Scheduler
from veltair.core.values import Model, ModelName, Request, RequestId, TenantId

HANDOVER_US = 50  # between the end of a unit and the start of the next on that core, as measured in the engine's prototype

RunUnit = Callable[[Dispatch, Model], "int | str"]
"""What a unit does in this world: its time in microseconds, or the message with which it fails."""


def as_measured(unit: Dispatch, model: Model) -> int:
    """A world in which tables are true."""
    blocks = model.blocks[unit.first_block : unit.end_block]
    cores = len(unit.lease.cores)
    return sum(b.variants[v].table.latency_us(cores, unit.pressure) for b, v in zip(blocks, unit.variants, strict=True))


@dataclass(frozen=True, slots=True)
class Step:
    """One call of `handle`: the fact, its time and what was decided."""

    now_us: int
    event: Event
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended: an answer at `finished_us`, or the code of the error it got then."""

    request: Request
    finished_us: int
    error: str | None = None

    @property
    def in_time(self) -> bool:
        return self.error is None and self.finished_us <= self.request.deadline_us

    @property
    def latency_us(self) -> int:
        return self.finished_us - self.request.arrived_us


@dataclass(slots=True)
class Run:
    """What happened, request by request, in the order of the answers."""

    outcomes: list[Outcome] = field(default_factory=list)
    units: int = 0
    busy_core_us: int = 0

    def attainment(self) -> dict[TenantId, float]:
        """Share of each tenant's requests that were answered in time. Refused and dropped ones count as missed."""
        asked: dict[TenantId, int] = {}
        met: dict[TenantId, int] = {}
        for outcome in self.outcomes:
            tenant = outcome.request.tenant
            asked[tenant] = asked.get(tenant, 0) + 1
            met[tenant] = met.get(tenant, 0) + outcome.in_time
        return {tenant: met[tenant] / asked[tenant] for tenant in asked}


def play(
    scheduler: Scheduler,
    timeline: Iterable[tuple[int, Event]],
    *,
    run_unit: RunUnit = as_measured,
    handover_us: int = HANDOVER_US,
    watch: Callable[[Step], None] | None = None,
) -> Run:
    """Hand `timeline` (absolute times, any order) to the scheduler and run what it dispatches until nothing is left."""
    coming: list[tuple[int, int, Event]] = [(at_us, i, event) for i, (at_us, event) in enumerate(timeline)]
    heapq.heapify(coming)
    entered = len(coming)
    run = Run()
    loaded: dict[ModelName, Model] = {}
    under_way: dict[RequestId, tuple[Request, Model | None]] = {}
    now_us = 0
    while coming or scheduler.wake_us is not None:
        wake_us = scheduler.wake_us
        event: Event
        if wake_us is not None and (not coming or wake_us < coming[0][0]):
            now_us, event = max(wake_us, now_us), TimerFired()
        else:
            now_us, _, event = heapq.heappop(coming)
        if isinstance(event, ModelLoaded):
            loaded[event.model.name] = event.model
        elif isinstance(event, RequestArrived):
            under_way[event.request.id] = event.request, loaded.get(event.request.model)
        actions = scheduler.handle(event, now_us)
        for action in actions:
            match action:
                case Dispatch():
                    model = under_way[action.request_id][1]
                    assert model is not None, f"{action.request_id} was dispatched without a loaded model"
                    done = run_unit(action, model)
                    took_us = done if isinstance(done, int) else action.predicted_us
                    ended = UnitFinished(action.lease.id, took_us) if isinstance(done, int) else UnitFailed(action.lease.id, done)
                    entered += 1
                    heapq.heappush(coming, (now_us + took_us + handover_us, entered, ended))
                    run.units += 1
                    run.busy_core_us += (took_us + handover_us) * len(action.lease.cores)
                case Complete(request_id):
                    run.outcomes.append(Outcome(under_way[request_id][0], now_us))
                case Refuse(request_id, code) | Drop(request_id, code):
                    run.outcomes.append(Outcome(under_way[request_id][0], now_us, code))
        if watch is not None:
            watch(Step(now_us, event, tuple(actions)))
    return run
