"""Where requests run: the thin shell around the scheduler core. Facts go in under one lock, decisions come out as deeds.

Threads: the I/O thread brings arrivals and cancellations; lanes run units and bring their ends. Whoever brings a fact
also performs what was decided: a lane that finishes a unit runs the next one itself, with no hop to another thread.

Under the lock: the core, the ledger of flights, the idle lanes, the log. Outside of it: kernels, copies, encoding.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import assert_never

from veltair.core.actions import Action, Alarm, Complete, Dispatch, Drop, EvictWeights, LoadWeights, Refuse
from veltair.core.events import (
    DrainStarted,
    Event,
    PressureChanged,
    RequestArrived,
    RequestCancelled,
    TimerFired,
    UnitFailed,
    UnitFinished,
)
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, LeaseId, ModelName, Request, RequestId, TenantId
from veltair.engine.flights import Answer, Flight, Ride, Task, completed, failure_of, reply_of, ride_of, set_off
from veltair.engine.intake import Checked
from veltair.engine.lanes import Lane, ThisThread
from veltair.engine.program import Program
from veltair.errors import EngineFailed, RequestError
from veltair.interference.sampler import Outside
from veltair.observe import records
from veltair.wire.frames import Buffer
from veltair.wire.messages import Infer, InferReply, encode

RETURN_US = 700  # from the last kernel's end to the client's hands on a busy machine: part of what the deadline must cover
SHORT_US = 150  # about two hand-overs between threads: a unit predicted to be shorter runs where its request arrived
MOST_ENDED = 256  # units that nobody has asked for: more than a look's worth


_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """A unit that has run, for whoever compares its time with what was foretold."""

    program: Program
    dispatch: Dispatch
    decided_us: int
    kernels_us: int  # the whole way, less hand-overs


@dataclass(slots=True)
class _Deeds:
    """What a decision asks for, to be done after the lock is released."""

    answers: list[Answer] = field(default_factory=list)
    completed: dict[Ride, list[tuple[Flight, InferReply]]] = field(default_factory=dict)  # outputs are still in the arena
    given: list[tuple[Lane[Task], Task]] = field(default_factory=list)
    mine: Task | None = None
    ring: bool = False  # the timer's time has come nearer than its thread knows


class Stage:
    """`answer` is called from any thread; it must not block. `broken` is told of an error that the engine cannot survive.

    `ring` wakes the thread that calls `tick`, where it is to come sooner than it was told.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        cores: Iterable[CoreId],
        clock: Callable[[], int],
        answer: Callable[[Answer], None],
        log: Callable[[records.Record], None],
        broken: Callable[[Exception], None],
        ring: Callable[[], None],
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._answer = answer
        self._log = log
        self._ring = ring
        self._lock = threading.Lock()
        self._flights: dict[RequestId, Flight] = {}
        self._by_client: dict[tuple[bytes, str], RequestId] = {}
        self._rides: dict[RequestId, Ride] = {}  # under way, by the first of each
        self._told_wake_us: int | None = None  # what `tick` said last
        self._in_flight: dict[LeaseId, Task] = {}
        self._ended: deque[Ended] = deque(maxlen=MOST_ENDED)
        self._arrivals = 0
        self._gave_up = False
        self._this_thread = ThisThread()
        self._idle = [Lane(number, self._work, broken) for number, _ in enumerate(cores)]  # leases never outnumber cores
        for lane in self._idle:
            lane.start()

    @property
    def waiting(self) -> int:
        return self._scheduler.waiting

    @property
    def running(self) -> int:
        return self._scheduler.running

    @property
    def under_way(self) -> int:
        return len(self._flights)

    @property
    def adrift(self) -> tuple[ModelName, ...]:
        """Models whose times are far from their tables."""
        return tuple(self._scheduler.adrift)

    @property
    def absurd(self) -> int:
        """Measured times that cannot be those of a unit: nothing was learnt from them."""
        return self._scheduler.absurd

    @property
    def idle_cores(self) -> int:
        return self._scheduler.idle_cores

    @property
    def in_flight(self) -> list[Task]:
        """Units that run now."""
        with self._lock:
            return list(self._in_flight.values())

    def take_ended(self) -> list[Ended]:
        """Units that have ended since the last call, as many as are kept."""
        return [self._ended.popleft() for _ in range(len(self._ended))]

    def arrive(self, client: bytes, infer: Infer, checked: Checked) -> None:
        """Raises RequestError where the client already has a request of this id under way."""
        with self._lock:
            if (client, infer.request_id) in self._by_client:
                raise RequestError(f"request id {infer.request_id!r} is already under way; give every request its own id")
            now_us = self._clock()
            self._arrivals += 1
            request = Request(
                RequestId(f"r{self._arrivals}"),
                TenantId(infer.tenant),
                ModelName(infer.model),
                now_us,
                now_us + checked.budget_us - _return_us(checked.budget_us),
                checked.promise.precision,
                checked.promise.priority,
                checked.promise.weight,
            )
            self._flights[request.id] = Flight(request, client, infer.request_id, checked.program, checked.inputs)
            self._by_client[client, infer.request_id] = request.id
            promised = (request.precision, request.priority, request.weight)
            self._log(records.Arrived(now_us, request.id, infer.tenant, infer.model, request.deadline_us, *promised))
            deeds = self._decide(RequestArrived(request), now_us)
        here = next((given for given in deeds.given if _is_short(given[1])), None)
        if here is None:
            self._do(deeds)
            return
        deeds.given.remove(here)
        self._do(deeds)
        self._run_here(*here)

    def _run_here(self, lane: Lane[Task], task: Task) -> None:
        """Short units on the calling thread, in the name of an idle lane, which takes over as soon as one is longer."""
        following: Task | None = task
        while following is not None and _is_short(following):
            following = self._work(lane, following, self._this_thread)
        if following is not None:
            lane.give(following)

    def cancel(self, client: bytes, wire_id: str) -> None:
        with self._lock:
            request_id = self._by_client.get((client, wire_id))
            deeds = self._decide(RequestCancelled(request_id), self._clock()) if request_id is not None else _Deeds()
        self._do(deeds)

    def tick(self) -> int | None:
        """Tell the core where the time it waits for has come. Returns in how many microseconds to call again at the latest."""
        with self._lock:
            now_us, wake_us = self._clock(), self._scheduler.wake_us
            deeds = _Deeds()
            if wake_us is not None and now_us >= wake_us:
                self._log(records.Woken(now_us))
                deeds = self._decide(TimerFired(), now_us)
                wake_us = self._scheduler.wake_us
            self._told_wake_us = wake_us
        self._do(deeds)
        return None if wake_us is None or self._gave_up else max(0, wake_us - now_us)

    def feel(self, outside: Outside) -> None:
        """The pressure of processes that are not ours has changed."""
        with self._lock:
            now_us = self._clock()
            self._log(records.PressureTold(now_us, outside.pressure, outside.error, outside.cores, outside.held))
            deeds = self._decide(PressureChanged(outside.pressure, outside.held), now_us)
            deeds.ring = self._wakes_sooner()
        self._do(deeds)

    def drain(self) -> None:
        with self._lock:
            now_us = self._clock()
            self._log(records.DrainBegan(now_us))
            deeds = self._decide(DrainStarted(), now_us)
        self._do(deeds)

    def give_up(self, error: RequestError) -> None:
        """Answer everything that is under way with `error`. Units that run go on, but nobody waits for them any more."""
        with self._lock:
            self._gave_up = True
            flights = list(self._flights.values())
            for flight in flights:
                self._close(flight)
                request = flight.request
                self._log(records.Dropped(self._clock(), request.id, request.tenant, request.model, error.code, str(error)))
        for flight in flights:
            self._answer(failure_of(flight, error.code, str(error)))

    def _work(self, lane: Lane[Task], task: Task, hands: ThisThread | None = None) -> Task | None:
        (hands or lane).take_cores(task.dispatch.lease.cores)
        event, record = self._run(task)
        with self._lock:
            task.ride.running = False
            del self._in_flight[task.dispatch.lease.id]
            if record.failed is None:
                self._ended.append(Ended(task.ride.program, task.dispatch, task.decided_us, record.measured_us))
            self._log(record)
            self._end_if_over(task.ride)  # everybody in it may have been answered while it ran
            deeds = self._decide(event, record.at_us, lane)
            deeds.ring = hands is None and self._wakes_sooner()
        self._do(deeds)
        return deeds.mine

    def _run(self, task: Task) -> tuple[UnitFinished | UnitFailed, records.Finished]:
        ride, dispatch = task.ride, task.dispatch
        lease = dispatch.lease.id
        arena = ride.board()
        try:
            block_us = ride.program.run(arena, dispatch.first_block, dispatch.end_block, dispatch.variants)
        except EngineFailed as error:
            return UnitFailed(lease, str(error)), records.Finished(self._clock(), lease, ride.id, 0, failed=str(error))
        now_us = self._clock()
        # What the core foretells is when a unit is over, so it learns from the whole way, hand-over included.
        return UnitFinished(lease, now_us - task.decided_us), records.Finished(now_us, lease, ride.id, sum(block_us), block_us)

    def _wakes_sooner(self) -> bool:
        wake_us = self._scheduler.wake_us
        return wake_us is not None and (self._told_wake_us is None or wake_us < self._told_wake_us)

    def _decide(self, event: Event, now_us: int, lane: Lane[Task] | None = None) -> _Deeds:
        """Under the lock. `lane` is the one that calls: it becomes idle, and is the first to be given a unit."""
        deeds = _Deeds()
        if lane is not None:
            self._idle.append(lane)
        if self._gave_up:
            return deeds
        tasks = []
        for action in self._scheduler.handle(event, now_us):
            task = self._note(action, now_us, deeds)
            if task is not None:
                tasks.append(task)
        if lane is not None and tasks:
            deeds.mine = next((task for task in tasks if task.dispatch.lease.cores == lane.cores), tasks[0])
            tasks.remove(deeds.mine)
            self._idle.remove(lane)
        deeds.given = [(self._idle_lane(task.dispatch.lease.cores), task) for task in tasks]
        return deeds

    def _note(self, action: Action, now_us: int, deeds: _Deeds) -> Task | None:
        """Bring the ledger and the log up to date with one action."""
        if isinstance(action, Dispatch):
            ride = self._rides.get(action.request_id) or self._begin(action, now_us)
            self._log(set_off(ride, action, now_us, self._scheduler.waiting))
            task = self._in_flight[action.lease.id] = Task(ride, action, now_us)
            return task
        if isinstance(action, Alarm):
            self._log(records.Drifted(now_us, action.model, action.over, action.ratio))
            _logger.warning("%s", _told(action))
            return None
        assert not isinstance(action, LoadWeights | EvictWeights), "an engine's models are all resident: it has no budget"
        flight = self._flights[action.request_id]
        request = flight.request
        who = (request.id, request.tenant, request.model)
        self._close(flight)
        match action:
            case Complete():
                assert flight.ride is not None, f"{request.id} completes, but no unit of it ran"
                self._rides.pop(flight.ride.id, None)
                self._log(completed(flight, action, now_us))
                deeds.completed.setdefault(flight.ride, []).append((flight, reply_of(flight, flight.ride, action, now_us)))
            case Refuse(_, code, reason, earliest_deadline_us):
                earliest_us = None if earliest_deadline_us is None else earliest_deadline_us - now_us
                self._log(records.Refused(now_us, *who, code, reason, earliest_us))
                deeds.answers.append(failure_of(flight, code, reason, None if earliest_us is None else _budget_for(earliest_us)))
            case Drop(_, code, reason):
                self._log(records.Dropped(now_us, *who, code, reason))
                deeds.answers.append(failure_of(flight, code, reason))
                if flight.ride is not None:
                    self._end_if_over(flight.ride)
            case _:
                assert_never(action)
        return None

    def _begin(self, dispatch: Dispatch, now_us: int) -> Ride:
        ride = ride_of(tuple(self._flights[member] for member in (dispatch.request_id, *dispatch.riders)), now_us)
        self._rides[ride.id] = ride
        return ride

    def _end_if_over(self, ride: Ride) -> None:
        if ride.over and not ride.running and self._rides.pop(ride.id, None) is not None:
            ride.leave()

    def _do(self, deeds: _Deeds) -> None:
        """Outside of the lock: wake lanes first, since the copies below take longer."""
        for lane, task in deeds.given:
            lane.give(task)
        for ride, replies in deeds.completed.items():
            arena = ride.arena
            assert arena is not None, "a request completes only after a unit of it ran"
            for flight, reply in replies:
                frames: list[Buffer] = [encode(reply), *ride.program.output_bytes(arena, ride.members.index(flight))]
                deeds.answers.append(Answer(flight.client, frames))
            ride.leave()
        for answer in deeds.answers:
            self._answer(answer)
        if deeds.ring:
            self._ring()

    def _idle_lane(self, cores: tuple[CoreId, ...]) -> Lane[Task]:
        lane = next((lane for lane in self._idle if lane.cores == cores), self._idle[-1])  # it need not set its cores again
        self._idle.remove(lane)
        return lane

    def _close(self, flight: Flight) -> None:
        """It is answered, or will be in a moment."""
        flight.answered = True
        del self._flights[flight.request.id]
        del self._by_client[flight.client, flight.wire_id]


def _return_us(budget_us: int) -> int:
    return min(RETURN_US, budget_us // 10)


def _budget_for(us: int) -> int:
    """One that leaves so much for the scheduler."""
    return us + min(RETURN_US, -(-us // 9))


def _is_short(task: Task) -> bool:
    return task.dispatch.predicted_us <= SHORT_US and len(task.dispatch.lease.cores) == 1


def _told(alarm: Alarm) -> str:
    if alarm.over:
        return f"the times of {alarm.model} are near its tables again ({alarm.ratio:.2f} of them)"
    remedy = "if nothing else runs on its cores, compile it here, or run: veltair calibrate --deep BUNDLES"
    return f"most units of {alarm.model} take far from what its tables say (lately {alarm.ratio:.2f} of it); {remedy}"
