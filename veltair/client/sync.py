"""Client: blocking calls, one at a time."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import numpy as np

from veltair.client.conversation import Answered, Conversation, Forget, Reply, Send, Step
from veltair.client.transport import Transport, ZmqTransport
from veltair.config import DEFAULT_ENDPOINT
from veltair.errors import RequestError
from veltair.wire.frames import Array
from veltair.wire.messages import GetHealth, Health, ListModels, ModelInfo


def now_us() -> int:
    return time.monotonic_ns() // 1000


def as_arrays(inputs: Mapping[str, Any]) -> dict[str, Array]:
    return {name: np.asarray(value) for name, value in inputs.items()}


class Client:
    """Asks a veltair server. Use it as a context manager, from one thread: give every thread a Client of its own.

    Every call raises a RequestError of the kind that fits, RequestTimeout or ServerUnreachable after `timeout_ms`.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        tenant: str = "default",
        timeout_ms: float = 5000,
        transport: Transport | None = None,
    ) -> None:
        self._timeout_ms = timeout_ms
        self._transport = transport if transport is not None else ZmqTransport()
        self._conversation = Conversation(endpoint, tenant, self._transport.reaches)
        self._prefix = uuid4().hex
        self._calls = 0

    def infer(self, model: str, inputs: Mapping[str, Any], deadline_ms: float | None = None) -> Reply:
        """`deadline_ms` counts from now; None leaves it to the tenant's QoS. `inputs` are arrays of the model's dtypes."""
        request_id = self._next_id()
        steps = self._conversation.infer(request_id, model, as_arrays(inputs), deadline_ms, self._timeout_ms, now_us())
        reply = self._wait(request_id, steps)
        assert isinstance(reply, Reply)
        return reply

    def models(self) -> tuple[ModelInfo, ...]:
        message = ListModels(self._next_id())
        models = self._wait(message.request_id, self._conversation.ask(message, self._timeout_ms, now_us()))
        assert isinstance(models, tuple)
        return models

    def health(self) -> Health:
        message = GetHealth(self._next_id())
        health = self._wait(message.request_id, self._conversation.ask(message, self._timeout_ms, now_us()))
        assert isinstance(health, Health)
        return health

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _next_id(self) -> str:
        self._calls += 1
        return f"{self._prefix}-{self._calls}"

    def _wait(self, request_id: str, steps: list[Step]) -> object:
        try:
            while True:
                answer = self._perform(steps, request_id)
                if answer is not None:
                    if isinstance(answer.value, RequestError):
                        raise answer.value
                    return answer.value
                steps = self._next_steps()
        except KeyboardInterrupt:
            self._perform(self._conversation.cancel(request_id), request_id)
            raise

    def _perform(self, steps: list[Step], request_id: str) -> Answered | None:
        answer = None
        for step in steps:
            match step:
                case Send(endpoint, frames):
                    self._transport.send(endpoint, frames)
                case Forget(endpoint):
                    self._transport.forget(endpoint)
                case Answered() if step.request_id == request_id:
                    answer = step
        return answer

    def _next_steps(self) -> list[Step]:
        """Wait for something to arrive or for the next timeout, and take it in."""
        tick_us = self._conversation.next_tick_us()
        self._transport.wait(None if tick_us is None else max(0, tick_us - now_us()) / 1e6)
        arrived = self._transport.receive()
        now = now_us()
        steps: list[Step] = []
        for endpoint, what in arrived:
            steps += self._conversation.took_in(endpoint, what, now)
        return steps + self._conversation.tick(now)
