"""What a client says and understands, without a socket or a clock: Client and AsyncClient drive this same object.

Theory of operation: a call begins with `infer` or `ask`. What is to be done comes back as steps: frames to send to an
endpoint, an endpoint to forget, an answer to deliver. The shell performs them, and tells what it received, which peer it
lost, and the time. A request for inference is sent straight to the engine that the directory named; if that engine is
lost, the directory is asked again and the request is sent again as long as its deadline allows: inference is idempotent.

    infer ──▶ (where is it?) ──▶ sent ──▶ answered
                   ▲               │ peer lost, time left
                   └───────────────┘
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import msgspec

from veltair.client.transport import Gone
from veltair.errors import BadDeadline, EngineFailed, RequestError, RequestTimeout, ServerUnreachable, request_error
from veltair.wire.frames import Array, Buffer, frames_of, tensor_headers, tensors_from
from veltair.wire.messages import (
    Cancel,
    Failure,
    GetHealth,
    Health,
    Infer,
    InferReply,
    ListModels,
    Locate,
    Location,
    ModelInfo,
    Models,
    ServerMessage,
    TensorHeader,
    decode_server_message,
)

MAX_SENDS = 4  # a request that ends four engines is itself the trouble
# A directory may name an engine that was just lost, because it has not noticed yet: sent there at once, a request would use up
# its sends within microseconds. The pause grows fourfold with each; an engine that is well is back after the first.
FIRST_PAUSE_US = 10_000


@dataclass(frozen=True, slots=True)
class Reply:
    """An answered request. Times count from receipt by the engine; `variants` has one name a block.

    `interval_ms` was foretold on arrival: the latency lies within nine times out of ten. None: the server told none.
    """

    outputs: dict[str, Array]
    latency_ms: float
    predicted_ms: float
    queued_ms: float
    variants: tuple[str, ...]
    cores: int
    units: int
    interval_ms: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Send:
    endpoint: str
    frames: list[Buffer]


@dataclass(frozen=True, slots=True)
class Forget:
    """Close the connection to this endpoint; what it may still say is of no interest."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class Answered:
    request_id: str
    value: "Reply | tuple[ModelInfo, ...] | Health | RequestError"


Step = Send | Forget | Answered


@dataclass(slots=True)
class _Pending:
    request_id: str
    timeout_us: int  # how long the caller waits, for the message
    expires_us: int
    question: ListModels | GetHealth | None = None  # for the directory; else a request for inference
    model: str = ""
    inputs: Mapping[str, Array] = field(default_factory=dict)
    headers: tuple[TensorHeader, ...] = ()
    deadline_us: int | None = None  # absolute; None: the tenant's QoS
    sent_to: str = ""  # the engine; "" while the directory is asked
    sends: int = 0
    ask_again_us: int | None = None  # the directory, after a pause

    @property
    def next_tick_us(self) -> int:
        return self.expires_us if self.ask_again_us is None else min(self.expires_us, self.ask_again_us)


class Conversation:
    """One client's requests under way. `now_us` is any clock that does not go back."""

    def __init__(self, directory: str, tenant: str, reaches: Callable[[str], bool] = lambda local: False) -> None:
        self._directory = directory
        self._tenant = tenant
        self._reaches = reaches
        self._pending: dict[str, _Pending] = {}
        self._engines: dict[str, str] = {}  # model -> endpoint
        self._lost_us: dict[str, int] = {}  # when connections to engines broke last
        self._directory_answered = False

    def infer(
        self, request_id: str, model: str, inputs: Mapping[str, Array], deadline_ms: float | None, timeout_ms: float, now_us: int
    ) -> list[Step]:
        """Raises BadDeadline or BadTensor for what no server would take."""
        deadline_us = None if deadline_ms is None else now_us + _microseconds("deadline_ms", deadline_ms)
        headers = tensor_headers(inputs)
        pending = self._begin(request_id, timeout_ms, now_us)
        pending.model, pending.inputs, pending.headers, pending.deadline_us = model, inputs, headers, deadline_us
        return self._send(pending, now_us)

    def ask(self, message: ListModels | GetHealth, timeout_ms: float, now_us: int) -> list[Step]:
        pending = self._begin(message.request_id, timeout_ms, now_us)
        pending.question = message
        return self._send(pending, now_us)

    def took_in(self, endpoint: str, what: "list[Buffer] | Gone", now_us: int) -> list[Step]:
        """What a transport's `receive` gave."""
        match what:
            case Gone.LOST:
                return self.lost(endpoint, now_us)
            case Gone.UNREACHED:
                return self.unreached(endpoint, now_us)
            case _:
                return self.received(endpoint, what, now_us)

    def received(self, endpoint: str, frames: list[Buffer], now_us: int) -> list[Step]:
        """Answers to requests that are no longer under way are passed over."""
        if endpoint == self._directory:
            self._directory_answered = True
        try:
            message: ServerMessage = decode_server_message(frames[0])
        except msgspec.MsgspecError:
            return []  # a newer server's message: whoever waits for it gets a timeout, which names both versions' remedy
        pending = self._pending.get(message.request_id)
        if pending is None:
            return []
        match message:
            case Location(_, engine, local):
                nearest = local if local and self._reaches(local) else _reachable(engine, self._directory)
                return self._located(pending, nearest, now_us)
            case Failure(_, code, text, earliest_us):
                error = request_error(code, text, None if earliest_us is None else earliest_us / 1000)
                return self._answer(pending, error)
            case InferReply():
                return self._answer(pending, _reply(message, frames[1:]))
            case Models(_, models):
                return self._answer(pending, models)
            case Health():
                return self._answer(pending, message)
            case _:
                assert_never(message)

    def lost(self, endpoint: str, now_us: int) -> list[Step]:
        """The connection to `endpoint` broke. ZeroMQ connects to the directory again by itself; what it was asked is lost."""
        if endpoint == self._directory:
            return [step for p in list(self._pending.values()) if not p.sent_to for step in self._send(p, now_us)]
        for model in [model for model, engine in self._engines.items() if engine == endpoint]:
            del self._engines[model]
        self._lost_us[endpoint] = now_us
        steps: list[Step] = [Forget(endpoint)]
        for pending in [p for p in self._pending.values() if p.sent_to == endpoint]:
            pending.sent_to = ""
            steps += self._send(pending, now_us)
        return steps

    def unreached(self, endpoint: str, now_us: int) -> list[Step]:
        """Nobody listens there: a directory may be about to start; an engine has ended since the directory named it.

        What was sent there stays with ZeroMQ, which tries again ten times a second; each time the directory is asked, too.
        """
        steps: list[Step] = []
        for pending in [p for p in self._pending.values() if p.sent_to == endpoint]:
            self._engines.pop(pending.model, None)
            steps += self._send(pending, now_us)
        return steps

    def tick(self, now_us: int) -> list[Step]:
        steps: list[Step] = []
        for pending in [p for p in self._pending.values() if now_us >= p.expires_us]:
            if pending.sent_to:
                steps.append(Send(pending.sent_to, frames_of(Cancel(pending.request_id), {})))
            steps += self._answer(pending, self._timeout(pending))
        for pending in [p for p in self._pending.values() if p.ask_again_us is not None and now_us >= p.ask_again_us]:
            pending.ask_again_us = None
            steps += self._send(pending, now_us)
        return steps

    def next_tick_us(self) -> int | None:
        return min((p.next_tick_us for p in self._pending.values()), default=None)

    def cancel(self, request_id: str) -> list[Step]:
        """The caller no longer waits."""
        pending = self._pending.pop(request_id, None)
        if pending is None or not pending.sent_to:
            return []
        return [Send(pending.sent_to, frames_of(Cancel(request_id), {}))]

    def _begin(self, request_id: str, timeout_ms: float, now_us: int) -> _Pending:
        timeout_us = _microseconds("timeout_ms", timeout_ms)
        pending = self._pending[request_id] = _Pending(request_id, timeout_us, now_us + timeout_us)
        return pending

    def _located(self, pending: _Pending, engine: str, now_us: int) -> list[Step]:
        if not pending.model:
            return []
        lost_us = self._lost_us.get(engine)
        if lost_us is not None and not pending.sent_to:
            again_us = lost_us + (FIRST_PAUSE_US << 2 * pending.sends)
            if now_us < again_us:
                pending.ask_again_us = again_us if pending.deadline_us is None else min(again_us, pending.deadline_us)
                return []
        self._engines[pending.model] = engine
        if pending.sent_to == engine:  # on its way already
            return []
        moved: list[Step] = [Forget(pending.sent_to)] if pending.sent_to else []
        pending.sent_to = ""
        return moved + self._send(pending, now_us)

    def _send(self, pending: _Pending, now_us: int) -> list[Step]:
        if pending.question is not None:
            return [Send(self._directory, frames_of(pending.question, {}))]
        too_late = pending.deadline_us is not None and now_us >= pending.deadline_us
        if too_late or pending.sends >= MAX_SENDS:
            why = "its deadline has passed" if too_late else f"it was sent {pending.sends} times"
            return self._answer(pending, EngineFailed(f"no engine finished request {pending.request_id}, and {why}; try again"))
        engine = self._engines.get(pending.model)
        if engine is None:
            return [Send(self._directory, frames_of(Locate(pending.request_id, self._tenant, pending.model), {}))]
        budget_us = None if pending.deadline_us is None else max(1, pending.deadline_us - now_us)
        pending.sent_to = engine
        pending.sends += 1
        message = Infer(pending.request_id, self._tenant, pending.model, pending.headers, budget_us)
        return [Send(engine, frames_of(message, pending.inputs))]

    def _answer(self, pending: _Pending, value: Any) -> list[Step]:
        del self._pending[pending.request_id]
        return [Answered(pending.request_id, value)]

    def _timeout(self, pending: _Pending) -> RequestError:
        waited = f"{pending.timeout_us / 1000:g} ms"
        if not self._directory_answered:
            return ServerUnreachable(
                f"nothing answers at {self._directory} within {waited}; check that `veltair serve` runs there"
            )
        where = f"the engine at {pending.sent_to}" if pending.sent_to else f"the directory at {self._directory}"
        return RequestTimeout(f"no answer from {where} within {waited}; give a longer timeout_ms or a deadline")


def _microseconds(name: str, value_ms: float) -> int:
    if isinstance(value_ms, bool) or not isinstance(value_ms, int | float) or not math.isfinite(value_ms) or value_ms <= 0:
        raise BadDeadline(f"{name} = {value_ms!r} must be a finite number above 0; give the milliseconds from now")
    return max(1, round(value_ms * 1000))


def _reachable(engine: str, directory: str) -> str:
    """An engine that listens on all addresses names none; it is where its directory is."""
    if engine.startswith("tcp://0.0.0.0:"):
        return directory.rsplit(":", 1)[0] + ":" + engine.rsplit(":", 1)[1]
    return engine


def _reply(message: InferReply, frames: list[Buffer]) -> Reply | RequestError:
    try:
        outputs = tensors_from(message.tensors, frames)
    except RequestError as error:
        return error
    times_ms = (message.latency_us / 1000, message.predicted_us / 1000, message.queued_us / 1000)
    low_us, high_us = message.low_us, message.high_us
    interval_ms = None if low_us is None or high_us is None else (low_us / 1000, high_us / 1000)
    return Reply(outputs, *times_ms, message.variants, message.cores, message.units, interval_ms)
