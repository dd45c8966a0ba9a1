"""The engine's I/O thread: owns the socket that clients talk to, checks what comes, sends what is ready, and drains.

Only this thread touches the ROUTER (ZeroMQ sockets belong to one thread). Lanes leave answers in a deque and write one
byte into a pipe that is polled with the socket; signals arrive through the same pipe.
"""

import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from importlib.metadata import version

import msgspec
import zmq

from veltair.engine.flights import Answer
from veltair.engine.intake import Intake
from veltair.engine.stage import Stage
from veltair.engine.watch import Watch
from veltair.errors import BadMessage, Draining, EngineFailed, RequestError
from veltair.wire.frames import Buffer
from veltair.wire.messages import (
    Cancel,
    ClientMessage,
    EngineHealth,
    Failure,
    GetHealth,
    Health,
    Infer,
    decode_client_message,
    encode,
)

VERSION = version("veltair")  # reading it takes a millisecond, and the directory asks for our health many times a second
LINGER_MS = 2_000  # for answers that the peer has not taken yet when we exit

Clock = Callable[[], int]


class _Addressed(msgspec.Struct):
    """Whatever else a frame holds."""

    request_id: str = ""


_decode_addressed = msgspec.msgpack.Decoder(_Addressed).decode


def microseconds_since_start() -> Clock:
    start_ns = time.monotonic_ns()
    return lambda: (time.monotonic_ns() - start_ns) // 1000


def decode_or_refuse(header: Buffer) -> ClientMessage:
    """Raises BadMessage for what is no message of ours."""
    try:
        message: ClientMessage = decode_client_message(header)
    except msgspec.MsgspecError as error:
        size = memoryview(header).nbytes
        raise BadMessage(f"a message of {size} bytes does not decode: {error}; use veltair's client") from error
    return message


def request_id_of(header: Buffer) -> str:
    try:
        return _decode_addressed(header).request_id
    except msgspec.MsgspecError:
        return ""


class WakeUp:
    """A pipe that another thread or a signal may write into to end a poll."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def ring(self) -> None:
        try:
            os.write(self.write_end, b"\0")
        except BlockingIOError:  # full: it has been rung often enough
            return

    def clear(self) -> None:
        try:
            while len(os.read(self.read_end, 4096)) == 4096:
                continue
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self.write_end)


class Outbox:
    """Answers on their way to the I/O thread, which makes this object. `put` may be called from any thread."""

    def __init__(self, wake_up: WakeUp) -> None:
        self._answers: deque[Answer] = deque()
        self._wake_up = wake_up
        self._taker = threading.get_ident()
        self.error: Exception | None = None

    def put(self, answer: Answer) -> None:
        self._answers.append(answer)
        if threading.get_ident() != self._taker:  # who takes them looks again before it waits
            self._wake_up.ring()

    def broken(self, error: Exception) -> None:
        """A lane met an error that is no failed kernel: the engine cannot go on."""
        self.error = error
        self._wake_up.ring()

    def take(self) -> Answer | None:
        return self._answers.popleft() if self._answers else None


class Service:
    """The loop: receive, check, hand over; tell when time has run out; send what the lanes finished; end when drained."""

    def __init__(
        self,
        router: "zmq.Socket[bytes]",
        intake: Intake,
        stage: Stage,
        outbox: Outbox,
        wake_up: WakeUp,
        policy: str,
        watch: Watch | None = None,
    ) -> None:
        self._router = router
        self._intake = intake
        self._stage = stage
        self._outbox = outbox
        self._wake_up = wake_up
        self._policy = policy
        self._watch = watch
        self._signals = 0
        self._draining = False
        self._give_up_at_s = float("inf")

    def on_signal(self, number: int, frame: object) -> None:
        self._signals += 1

    def run(self, drain_timeout_s: float) -> None:
        """Returns once drained. An error of our own answers everybody and is raised; the directory starts another engine."""
        try:
            self._loop(drain_timeout_s)
        except Exception as error:
            self._stage.give_up(EngineFailed(f"the engine met an error of its own: {error!r}; try again"))
            raise
        finally:
            self._send_answers()

    def _loop(self, drain_timeout_s: float) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._wake_up.read_end, zmq.POLLIN)
        while True:
            self._send_answers()  # before anything else is looked at: theirs is the tightest deadline
            timer_us = self._stage.tick()
            self._send_answers()  # to whom time has run out for
            if self._outbox.error is not None:
                raise self._outbox.error
            if self._signals and not self._draining:
                self._draining = True
                self._give_up_at_s = time.monotonic() + drain_timeout_s
                self._stage.drain()
            if self._draining and not self._stage.under_way:
                return
            if self._signals > 1 or time.monotonic() >= self._give_up_at_s:
                self._stage.give_up(Draining("the server shut down before this request was done; ask another one"))
                return
            ready = dict(poller.poll(self._poll_ms(timer_us)))
            if self._wake_up.read_end in ready:
                self._wake_up.clear()
            if self._router in ready:
                self._receive()

    def _poll_ms(self, timer_us: int | None) -> int | None:
        """Until the timer or the end of our patience, whichever comes first. None: until something comes."""
        ms = float("inf") if timer_us is None else timer_us / 1e3
        if self._draining:
            ms = min(ms, max(0.0, (self._give_up_at_s - time.monotonic()) * 1e3))
        return math.ceil(ms) if math.isfinite(ms) else None

    def _receive(self) -> None:
        """One message a time, so that answers get out between the requests of a burst."""
        client = self._router.recv()
        frames: list[Buffer] = []
        more = self._router.getsockopt(zmq.RCVMORE)
        while more:  # as recv_multipart(copy=False) does in twice the time
            frame = self._router.recv(copy=False)
            frames.append(frame.buffer)
            more = frame.more
        try:
            self._handle(client, frames)
        except RequestError as error:
            wire_id = request_id_of(frames[0]) if frames else ""
            self._send(client, [encode(Failure(wire_id, error.code, str(error)))])

    def _handle(self, client: bytes, frames: Sequence[Buffer]) -> None:
        if not frames:
            raise BadMessage("an empty message came; use veltair's client")
        message = decode_or_refuse(frames[0])
        match message:
            case Infer():
                self._stage.arrive(client, message, self._intake.check(message, frames[1:]))
            case Cancel(request_id):
                self._stage.cancel(client, request_id)
            case GetHealth(request_id):
                self._send(client, [encode(self._health(request_id))])
            case _:
                raise BadMessage(f"{type(message).__name__} is for the directory; an engine takes Infer, Cancel and GetHealth")

    def _health(self, request_id: str) -> Health:
        state = "draining" if self._draining else "serving"
        endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        outside = None if self._watch is None else self._watch.health()
        engine = EngineHealth(
            endpoint,
            state,
            self._stage.waiting,
            self._stage.running,
            pid=os.getpid(),
            outside=outside,
            adrift=self._stage.adrift,
            absurd=self._stage.absurd,
        )
        return Health(request_id, state, VERSION, self._policy, (engine,))

    def _send_answers(self) -> None:
        while (answer := self._outbox.take()) is not None:
            self._send(answer.client, answer.frames)

    def _send(self, client: bytes, frames: Sequence[Buffer]) -> None:
        """As send_multipart does in three times the time."""
        self._router.send(client, zmq.SNDMORE)
        for frame in frames[:-1]:
            self._router.send(frame, zmq.SNDMORE)
        self._router.send(frames[-1])


def listen_to_signals(service: Service, wake_up: WakeUp) -> None:
    """SIGTERM drains, a second one ends at once. SIGINT is left to the directory: a terminal sends it to both of us."""
    signal.set_wakeup_fd(wake_up.write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, service.on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
