"""Load over the wire with as little work per request as can be: the generator shares its cores with the server.

Tensors are encoded once, before the first request is due; a request is then one small header and frames that are there.
One thread, one socket per engine. `select` waits with microsecond resolution, which zmq's own poll (ms) does not.
"""

import os
import select
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
import zmq

from veltair.bench.inputs import inputs_of
from veltair.bench.openloop import Answer
from veltair.bench.scenario import Scenario
from veltair.errors import ServerUnreachable, request_error
from veltair.models.source import Tensors
from veltair.wire.messages import (
    Failure,
    Infer,
    InferReply,
    ListModels,
    Locate,
    Location,
    Models,
    TensorHeader,
    decode_server_message,
    encode,
)

ASK_TIMEOUT_S = 10.0
COPY_BELOW_BYTES = 65_536

Reply = TypeVar("Reply", Models, Location)


class MonotonicClock:
    def now_us(self) -> int:
        return time.monotonic_ns() // 1000


class WireTransport:
    """The tenants of one scenario against the server at `endpoint`. Raises ServerUnreachable, UnknownModel on making."""

    def __init__(self, scenario: Scenario, endpoint: str) -> None:
        self._endpoint = endpoint
        self._context = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._by_fd: dict[int, zmq.Socket[bytes]] = {}
        self._prefix = f"load{os.getpid():x}{time.monotonic_ns() & 0xFFFFFF:x}-"
        self._asked = 0
        try:
            self._prepare(scenario)
        except BaseException:
            self.close()
            raise

    def _prepare(self, scenario: Scenario) -> None:
        served = self._ask(ListModels(self._next_id()), Models).models
        self._payloads = [[_encoded(inputs) for inputs in cycle] for cycle in inputs_of(scenario, served)]
        self._names = [(tenant.name, tenant.model) for tenant in scenario.tenant]
        self._turn = [0] * len(self._names)
        self._engines = [
            self._socket(self._ask(Locate(self._next_id(), tenant, model), Location).endpoint) for tenant, model in self._names
        ]
        self._by_fd = {socket.FD: socket for socket in set(self._engines)}

    def send(self, ticket: int, tenant: int, budget_us: int) -> None:
        cycle = self._payloads[tenant]
        headers, frames, copy = cycle[self._turn[tenant] % len(cycle)]
        self._turn[tenant] += 1
        name, model = self._names[tenant]
        header = encode(Infer(f"{self._prefix}{ticket}", name, model, headers, budget_us))
        self._engines[tenant].send_multipart([header, *frames], zmq.NOBLOCK, copy=copy)

    def receive(self, timeout_us: int) -> Iterable[Answer]:
        answers = self._arrived()
        if not answers and timeout_us:
            select.select(self._by_fd, (), (), timeout_us / 1e6)
            answers = self._arrived()
        return answers

    def _arrived(self) -> list[Answer]:
        """All that is there: a zmq descriptor only signals again once everything before has been taken."""
        answers = []
        for socket in self._by_fd.values():
            while int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                message = decode_server_message(socket.recv_multipart(zmq.NOBLOCK)[0])
                if isinstance(message, InferReply | Failure) and message.request_id.startswith(self._prefix):
                    ticket = int(message.request_id[len(self._prefix) :])
                    answers.append(Answer(ticket, message.code if isinstance(message, Failure) else None))
        return answers

    def _ask(self, question: ListModels | Locate, kind: type[Reply]) -> Reply:
        """One question to the directory, while no load runs."""
        socket = self._socket(self._endpoint)
        socket.send(encode(question))
        deadline_s = time.monotonic() + ASK_TIMEOUT_S
        while (left_s := deadline_s - time.monotonic()) > 0 and socket.poll(int(left_s * 1000) + 1):
            reply = decode_server_message(socket.recv_multipart()[0])
            if isinstance(reply, Failure) and reply.request_id == question.request_id:
                raise request_error(reply.code, reply.message)
            if isinstance(reply, kind) and reply.request_id == question.request_id:
                return reply
        raise ServerUnreachable(
            f"no answer from {self._endpoint!r} within {ASK_TIMEOUT_S:g} s; is `veltair serve` of this version running there?"
        )

    def _next_id(self) -> str:
        self._asked += 1
        return f"{self._prefix}ask{self._asked}"

    def _socket(self, endpoint: str) -> zmq.Socket[bytes]:
        if endpoint not in self._sockets:
            socket = self._context.socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SNDHWM, 0)  # an open loop never waits for the server
            socket.setsockopt(zmq.RCVHWM, 0)
            self._sockets[endpoint] = socket
            try:
                socket.connect(endpoint)
            except zmq.ZMQError as e:
                raise ServerUnreachable(f"endpoint {endpoint!r} is not an address ({e}); write e.g. tcp://127.0.0.1:7340") from e
        return self._sockets[endpoint]

    def close(self) -> None:
        for socket in self._sockets.values():
            socket.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _encoded(inputs: Tensors) -> tuple[tuple[TensorHeader, ...], Sequence[memoryview], bool]:
    """Headers, frames, and whether zmq should copy them: of small ones the copy costs less than sharing memory."""
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in inputs.items()}
    headers = tuple(TensorHeader(name, tensor.dtype.name, tensor.shape) for name, tensor in tensors.items())
    frames = [tensor.reshape(-1).view(np.uint8).data for tensor in tensors.values()]
    return headers, frames, all(frame.nbytes < COPY_BELOW_BYTES for frame in frames)
