"""AsyncClient: many requests in flight over one connection, for one event loop."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from veltair.client.conversation import Answered, Conversation, Forget, Reply, Send, Step
from veltair.client.sync import as_arrays, now_us
from veltair.client.transport import Transport, ZmqTransport
from veltair.config import DEFAULT_ENDPOINT
from veltair.errors import RequestError, ServerUnreachable
from veltair.wire.messages import GetHealth, Health, ListModels, ModelInfo


class AsyncClient:
    """As Client, but every call is awaited and any number may be under way. Belongs to the loop it is first used in.

    A cancelled call (asyncio.timeout, Task.cancel) cancels its request on the server too.
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
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._watched: set[int] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def infer(self, model: str, inputs: Mapping[str, Any], deadline_ms: float | None = None) -> Reply:
        """`deadline_ms` counts from now; None leaves it to the tenant's QoS. `inputs` are arrays of the model's dtypes."""
        request_id = self._next_id()
        steps = self._conversation.infer(request_id, model, as_arrays(inputs), deadline_ms, self._timeout_ms, now_us())
        reply = await self._wait(request_id, steps)
        assert isinstance(reply, Reply)
        return reply

    async def models(self) -> tuple[ModelInfo, ...]:
        message = ListModels(self._next_id())
        models = await self._wait(message.request_id, self._conversation.ask(message, self._timeout_ms, now_us()))
        assert isinstance(models, tuple)
        return models

    async def health(self) -> Health:
        message = GetHealth(self._next_id())
        health = await self._wait(message.request_id, self._conversation.ask(message, self._timeout_ms, now_us()))
        assert isinstance(health, Health)
        return health

    async def close(self) -> None:
        """Calls that are still under way end with ServerUnreachable."""
        if self._timer is not None:
            self._timer.cancel()
        self._unwatch()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ServerUnreachable("the client was closed before the answer came; await it first"))
        self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _next_id(self) -> str:
        self._calls += 1
        return f"{self._prefix}-{self._calls}"

    async def _wait(self, request_id: str, steps: list[Step]) -> object:
        self._loop = asyncio.get_running_loop()
        future = self._waiting[request_id] = self._loop.create_future()
        self._perform(steps)
        self._advance()  # ZeroMQ's descriptor only tells of changes, and sending may have used one up
        try:
            return await future
        except asyncio.CancelledError:
            self._perform(self._conversation.cancel(request_id))
            raise
        finally:
            del self._waiting[request_id]

    def _advance(self) -> None:
        """Take in what arrived and what became late, until there is nothing more."""
        assert self._loop is not None
        while arrived := self._transport.receive():
            for endpoint, what in arrived:
                self._perform(self._conversation.took_in(endpoint, what, now_us()))
        self._perform(self._conversation.tick(now_us()))
        self._watch(self._loop)

    def _perform(self, steps: list[Step]) -> None:
        for step in steps:
            match step:
                case Send(endpoint, frames):
                    self._transport.send(endpoint, frames)
                case Forget(endpoint):
                    self._unwatch()  # before its descriptors are closed; a new one may get the same number
                    self._transport.forget(endpoint)
                case Answered(request_id, value):
                    future = self._waiting.get(request_id)
                    if future is None or future.done():
                        continue
                    if isinstance(value, RequestError):
                        future.set_exception(value)
                    else:
                        future.set_result(value)

    def _unwatch(self) -> None:
        for file in self._watched:
            assert self._loop is not None
            self._loop.remove_reader(file)
        self._watched.clear()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        files = set(self._transport.files())
        for file in files - self._watched:
            loop.add_reader(file, self._advance)
        self._watched = files
        tick_us = self._conversation.next_tick_us()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if tick_us is None else loop.call_later(max(0, tick_us - now_us()) / 1e6, self._advance)
