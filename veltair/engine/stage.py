"""Where requests run: the thin shell around the scheduler core. Facts go in under one lock, decisions come out as deeds.

Threads: the I/O thread brings arrivals and cancellations; lanes run units and bring their ends. Whoever brings a fact
also performs what was decided: a lane that finishes a unit runs the next one itself, with no hop to another thread.

Under the lock: the core, the ledger of flights, the idle lanes, the log. Outside of it: kernels, copies, encoding.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import assert_never

from veltair.core.actions import Action, Complete, Dispatch, Drop, EvictWeights, LoadWeights, Refuse
from veltair.core.events import DrainStarted, Event, RequestArrived, RequestCancelled, UnitFailed, UnitFinished
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, ModelName, Request, RequestId, TenantId
from veltair.engine.intake import Checked
from veltair.engine.lanes import Lane, ThisThread
from veltair.engine.program import Arena, Program
from veltair.errors import EngineFailed, RequestError
from veltair.observe import records
from veltair.wire.frames import Array, Buffer, frames_of
from veltair.wire.messages import Failure, Infer, InferReply, encode

RETURN_US = 700  # from the last kernel's end to the client's hands on a busy machine: part of what the deadline must cover
SHORT_US = 150  # about two hand-overs between threads: a unit predicted to be shorter runs where its request arrived


@dataclass(slots=True)
class Flight:
    """One accepted request on its way through the engine."""

    request: Request
    client: bytes  # the ROUTER's name of the peer
    wire_id: str
    program: Program
    inputs: dict[str, Array] | None  # until its first unit writes them into the arena
    variants: list[str]
    arena: Arena | None = None
    first_run_us: int = 0
    units: int = 0
    cores: int = 0
    running: bool = False
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A unit on its way to a lane."""

    flight: Flight
    dispatch: Dispatch
    decided_us: int


@dataclass(frozen=True, slots=True)
class Answer:
    client: bytes
    frames: list[Buffer]


@dataclass(slots=True)
class _Deeds:
    """What a decision asks for, to be done after the lock is released."""

    answers: list[Answer] = field(default_factory=list)
    completed: list[tuple[Flight, InferReply]] = field(default_factory=list)  # outputs are still in the arena
    given: list[tuple[Lane[Task], Task]] = field(default_factory=list)
    mine: Task | None = None


class Stage:
    """`answer` is called from any thread; it must not block. `broken` is told of an error that the engine cannot survive."""

    def __init__(
        self,
        scheduler: Scheduler,
        cores: Iterable[CoreId],
        clock: Callable[[], int],
        answer: Callable[[Answer], None],
        log: Callable[[records.Record], None],
        broken: Callable[[Exception], None],
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._answer = answer
        self._log = log
        self._lock = threading.Lock()
        self._flights: dict[RequestId, Flight] = {}
        self._by_client: dict[tuple[bytes, str], RequestId] = {}
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
                now_us + checked.budget_us - min(RETURN_US, checked.budget_us // 10),
                checked.precision,
            )
            names = [""] * len(checked.program.bundle.manifest.blocks)
            self._flights[request.id] = Flight(request, client, infer.request_id, checked.program, checked.inputs, names)
            self._by_client[client, infer.request_id] = request.id
            self._log(records.Arrived(now_us, request.id, infer.tenant, infer.model, request.deadline_us))
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

    def drain(self) -> None:
        with self._lock:
            deeds = self._decide(DrainStarted(), self._clock())
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
            self._answer(_failure(flight, error.code, str(error)))

    def _work(self, lane: Lane[Task], task: Task, hands: ThisThread | None = None) -> Task | None:
        flight, dispatch = task.flight, task.dispatch
        (hands or lane).take_cores(dispatch.lease.cores)
        event, record = self._run(flight, dispatch, task.decided_us)
        with self._lock:
            flight.running = False
            self._log(record)
            if flight.answered:  # dropped while it ran
                self._release(flight)
            deeds = self._decide(event, record.at_us, lane)
        self._do(deeds)
        return deeds.mine

    def _run(self, flight: Flight, dispatch: Dispatch, decided_us: int) -> tuple[UnitFinished | UnitFailed, records.Finished]:
        lease, program = dispatch.lease.id, flight.program
        if flight.arena is None:  # not on arrival: who only waits should hold its inputs and no more
            flight.arena = program.new_arena()
            program.write_inputs(flight.arena, flight.inputs or {})
            flight.inputs = None
        try:
            block_us = program.run(flight.arena, dispatch.first_block, dispatch.end_block, dispatch.variants)
        except EngineFailed as error:
            return UnitFailed(lease, str(error)), records.Finished(self._clock(), lease, flight.request.id, 0, failed=str(error))
        now_us = self._clock()
        record = records.Finished(now_us, lease, flight.request.id, sum(block_us), block_us)
        # What the core foretells is when a unit is over, so it learns from the whole way, hand-over included.
        return UnitFinished(lease, now_us - decided_us), record

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
        assert not isinstance(action, LoadWeights | EvictWeights), "an engine's models are all resident: it has no budget"
        flight = self._flights[action.request_id]
        request = flight.request
        who = (request.id, request.tenant, request.model)
        match action:
            case Dispatch():
                self._log(self._dispatched(action, flight, now_us))
                return Task(flight, action, now_us)
            case Complete(_, predicted_us):
                self._close(flight)
                latency_us = now_us - request.arrived_us
                self._log(records.Completed(now_us, *who, latency_us, predicted_us, request.deadline_us))
                queued_us = flight.first_run_us - request.arrived_us
                outputs = flight.program.output_headers
                reply = InferReply(
                    flight.wire_id,
                    outputs,
                    predicted_us,
                    latency_us,
                    queued_us,
                    flight.units,
                    tuple(flight.variants),
                    flight.cores,
                )
                deeds.completed.append((flight, reply))
            case Refuse(_, code, reason, earliest_deadline_us):
                self._close(flight)
                earliest_us = None if earliest_deadline_us is None else earliest_deadline_us - now_us
                self._log(records.Refused(now_us, *who, code, reason, earliest_us))
                deeds.answers.append(_failure(flight, code, reason, earliest_us))
            case Drop(_, code, reason):
                self._close(flight)
                self._log(records.Dropped(now_us, *who, code, reason))
                deeds.answers.append(_failure(flight, code, reason))
                if not flight.running:
                    self._release(flight)
            case _:
                assert_never(action)
        return None

    def _dispatched(self, dispatch: Dispatch, flight: Flight, now_us: int) -> records.Dispatched:
        blocks = flight.program.bundle.manifest.blocks[dispatch.first_block : dispatch.end_block]
        names = tuple(block.variants[number].name for block, number in zip(blocks, dispatch.variants, strict=True))
        flight.variants[dispatch.first_block : dispatch.end_block] = names
        flight.first_run_us = flight.first_run_us if flight.units else now_us
        flight.units += 1
        flight.cores = max(flight.cores, len(dispatch.lease.cores))
        flight.running = True
        request = flight.request
        return records.Dispatched(
            now_us,
            request.id,
            request.tenant,
            request.model,
            dispatch.lease.id,
            dispatch.lease.cores,
            dispatch.first_block,
            dispatch.end_block,
            names,
            dispatch.predicted_us,
            dispatch.pressure,
            dispatch.reason,
            tuple(records.RejectedChoice(choice.what, choice.why) for choice in dispatch.rejected),
            self._scheduler.waiting,
        )

    def _do(self, deeds: _Deeds) -> None:
        """Outside of the lock: wake lanes first, since the copies below take longer."""
        for lane, task in deeds.given:
            lane.give(task)
        for flight, reply in deeds.completed:
            assert flight.arena is not None, "a request completes only after a unit of it ran"
            frames: list[Buffer] = [encode(reply), *flight.program.output_bytes(flight.arena)]
            self._release(flight)
            self._answer(Answer(flight.client, frames))
        for answer in deeds.answers:
            self._answer(answer)

    def _idle_lane(self, cores: tuple[CoreId, ...]) -> Lane[Task]:
        lane = next((lane for lane in self._idle if lane.cores == cores), self._idle[-1])  # it need not set its cores again
        self._idle.remove(lane)
        return lane

    def _close(self, flight: Flight) -> None:
        """It is answered, or will be in a moment."""
        flight.answered = True
        del self._flights[flight.request.id]
        del self._by_client[flight.client, flight.wire_id]

    def _release(self, flight: Flight) -> None:
        if flight.arena is not None:
            flight.program.release(flight.arena)
            flight.arena = None


def _is_short(task: Task) -> bool:
    return task.dispatch.predicted_us <= SHORT_US and len(task.dispatch.lease.cores) == 1


def _failure(flight: Flight, code: str, message: str, earliest_us: int | None = None) -> Answer:
    return Answer(flight.client, frames_of(Failure(flight.wire_id, code, message, earliest_us), {}))
