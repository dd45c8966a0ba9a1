"""Where a client's frames go: ZeroMQ, or Python functions in place of a server."""

import math
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

import zmq
from zmq.utils.monitor import parse_monitor_message

from veltair.errors import BadMessage, RequestError, ServerUnreachable, UnknownModel
from veltair.wire.frames import Array, Buffer, frames_of, tensor_headers, tensors_from
from veltair.wire.messages import (
    Cancel,
    ClientMessage,
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
    decode_client_message,
)

HEARTBEAT_MS = 500  # how often a silent peer is asked, and three times that until it is taken for lost
COPY_BELOW_BYTES = 65_536  # below, copying a frame is cheaper than sharing its memory with ZeroMQ's thread


class Gone(Enum):
    """In place of frames: what became of a connection."""

    LOST = "lost"  # it stood, and what was under way on it is lost
    UNREACHED = "unreached"  # nobody listens there (yet); what was sent waits for the connection


class Transport(Protocol):
    """Carries frames to and from endpoints. All calls come from one thread, none but `wait` blocks."""

    def send(self, endpoint: str, frames: list[Buffer]) -> None: ...

    def receive(self) -> list[tuple[str, list[Buffer] | Gone]]:
        """All that has arrived, by endpoint."""
        ...

    def wait(self, timeout_s: float | None) -> None:
        """Until there may be something to receive."""
        ...

    def files(self) -> Sequence[int]:
        """Descriptors that become readable when there is something to receive; read `receive` after every `send`, too."""
        ...

    def forget(self, endpoint: str) -> None: ...

    def reaches(self, local: str) -> bool:
        """Whether the local way to an engine that the directory named exists here: it does not from another machine."""
        ...

    def close(self) -> None: ...


class ZmqTransport:
    """One DEALER an endpoint, each with a monitor that tells when its peer is gone."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._peers: dict[str, tuple[zmq.Socket[bytes], zmq.Socket[bytes]]] = {}
        self._owner: dict[zmq.Socket[bytes], tuple[str, bool]] = {}  # endpoint, and whether it is its monitor
        self._poller = zmq.Poller()
        self._files: list[int] = []
        self._ready: list[tuple[Any, int]] = []  # what `wait` saw, so that `receive` need not look again

    def send(self, endpoint: str, frames: list[Buffer]) -> None:
        peer = self._peer(endpoint)
        if any(len(frame) >= COPY_BELOW_BYTES for frame in frames):
            peer.send_multipart(frames, copy=False)
            return
        for frame in frames[:-1]:  # as send_multipart does in three times the time
            peer.send(frame, zmq.SNDMORE)
        peer.send(frames[-1])

    def receive(self) -> list[tuple[str, list[Buffer] | Gone]]:
        """At most one message a socket: polling is level-triggered, the next call brings the next."""
        arrived: list[tuple[str, list[Buffer] | Gone]] = []
        ready, self._ready = self._ready or self._poller.poll(0), []
        for peer, _ in ready:
            if peer not in self._owner:  # closed since
                continue
            endpoint, is_monitor = self._owner[peer]
            if is_monitor:
                lost = parse_monitor_message(peer.recv_multipart())["event"] == zmq.EVENT_DISCONNECTED
                arrived.append((endpoint, Gone.LOST if lost else Gone.UNREACHED))
            else:
                arrived.append((endpoint, list(peer.recv_multipart())))
        return arrived

    def wait(self, timeout_s: float | None) -> None:
        self._ready = self._poller.poll(None if timeout_s is None else math.ceil(timeout_s * 1e3))

    def files(self) -> Sequence[int]:
        return self._files

    def reaches(self, local: str) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex("\0" + local.removeprefix("ipc://@")) == 0

    def forget(self, endpoint: str) -> None:
        peer = self._peers.pop(endpoint, None)
        if peer is not None:
            self._close(*peer)

    def close(self) -> None:
        for endpoint in list(self._peers):
            self.forget(endpoint)
        self._context.term()

    def _peer(self, endpoint: str) -> "zmq.Socket[bytes]":
        if endpoint not in self._peers:
            dealer = self._context.socket(zmq.DEALER)
            dealer.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
            dealer.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * HEARTBEAT_MS)
            dealer.setsockopt(zmq.SNDHWM, 0)  # `send` must not block; what may queue is bounded by the calls' timeouts
            monitor = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED)
            try:
                dealer.connect(endpoint)
            except zmq.ZMQError as error:
                dealer.disable_monitor()
                for each in (monitor, dealer):  # one left open would keep `close` waiting for ever
                    each.close(0)
                raise ServerUnreachable(
                    f"{endpoint!r} is no endpoint: {error.strerror}; write one like tcp://127.0.0.1:7400"
                ) from error
            self._peers[endpoint] = dealer, monitor
            for each in (dealer, monitor):
                self._owner[each] = endpoint, each is monitor
                self._poller.register(each, zmq.POLLIN)
            self._note_files()
        return self._peers[endpoint][0]

    def _close(self, dealer: "zmq.Socket[bytes]", monitor: "zmq.Socket[bytes]") -> None:
        for each in (dealer, monitor):
            self._poller.unregister(each)
            del self._owner[each]
        self._note_files()
        dealer.disable_monitor()
        monitor.close(0)
        dealer.close(0)

    def _note_files(self) -> None:
        self._files = [int(each.getsockopt(zmq.FD)) for each in self._owner]


Function = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class LocalTransport:
    """Answers from Python functions, one a model: for tests of programs that use a Client, without a server.

    A function gets the inputs by name and returns the outputs; a RequestError that it raises is the client's answer.
    """

    ENGINE = "local"

    def __init__(self, models: Mapping[str, Function]) -> None:
        self._models = models
        self._arrived: deque[tuple[str, list[Buffer] | Gone]] = deque()

    def send(self, endpoint: str, frames: list[Buffer]) -> None:
        message = decode_client_message(frames[0])
        if isinstance(message, Cancel):
            return
        try:
            self._arrived.append((endpoint, self._answer(message, frames[1:])))
        except RequestError as error:
            earliest_us = None if error.earliest_ms is None else round(error.earliest_ms * 1000)
            failure = Failure(message.request_id, error.code, str(error), earliest_us)
            self._arrived.append((endpoint, frames_of(failure, {})))

    def receive(self) -> list[tuple[str, list[Buffer] | Gone]]:
        arrived = list(self._arrived)
        self._arrived.clear()
        return arrived

    def wait(self, timeout_s: float | None) -> None:
        """Every answer is there as soon as its request was sent."""

    def files(self) -> Sequence[int]:
        return []

    def reaches(self, local: str) -> bool:
        return False

    def forget(self, endpoint: str) -> None:
        """There is no connection."""

    def close(self) -> None:
        self._arrived.clear()

    def _answer(self, message: ClientMessage, frames: list[Buffer]) -> list[Buffer]:
        match message:
            case Locate(request_id):
                return frames_of(Location(request_id, self.ENGINE), {})
            case ListModels(request_id):
                infos = tuple(ModelInfo(name, (), (), 1, None, ()) for name in self._models)
                return frames_of(Models(request_id, infos), {})
            case GetHealth(request_id):
                return frames_of(Health(request_id, "serving", "local", "local", ()), {})
            case Infer():
                if message.model not in self._models:
                    raise UnknownModel(f"model {message.model!r} is not served; served: {', '.join(self._models) or 'none'}")
                outputs = dict(self._models[message.model](tensors_from(message.tensors, frames)))
                return frames_of(InferReply(message.request_id, tensor_headers(outputs), 0, 0, 0, 1, (), 1), outputs)
            case Cancel():
                raise BadMessage("a cancellation has no answer")
