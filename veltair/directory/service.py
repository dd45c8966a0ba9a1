"""The directory process: answers "where is this model?", lists models, tells the health, and keeps an engine running.

Everything happens on one thread around one poll: the ROUTER clients ask, the engine's output, the DEALER that asks the
engine how it is, and a pipe for signals. Requests for inference never come here.
"""

import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import assert_never

import msgspec
import zmq

from veltair import host
from veltair.config import EngineSettings, ServeConfig
from veltair.core.policies import make_policy
from veltair.core.values import CoreId
from veltair.directory.registry import Registry, open_registry
from veltair.directory.supervisor import Supervisor
from veltair.errors import AddressInUse, BadMessage, Draining, RequestError, ServerError
from veltair.wire.messages import (
    Cancel,
    EngineHealth,
    Failure,
    GetHealth,
    Health,
    Infer,
    ListModels,
    Locate,
    Location,
    Models,
    decode_client_message,
    decode_server_message,
    encode,
)

VERSION = version("veltair")  # read once: it takes a millisecond
HEALTH_INTERVAL_S = 1.0
EXIT_GRACE_S = 5.0  # beyond the drain timeout, for an engine that does not come back from a kernel
LINGER_MS = 1_000

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """What the server says of itself once it serves."""

    endpoint: str
    policy: str
    cores: tuple[int, ...]
    models: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what an operator should know
    log: str = ""  # path of the decision log, "" for none
    outside: str = ""  # the sources of pressure by other processes


def serve(
    artifacts: Path | str, config: ServeConfig | None = None, *, on_ready: Callable[[Ready], object] = lambda _: None
) -> None:
    """Serve the bundles in `artifacts` until SIGTERM or SIGINT, then drain and return.

    `on_ready` is called once the engine serves. Signals are only listened to in a process's main thread.
    Raises ConfigError, BundleError, AddressInUse and, where the engine cannot start, what it told.
    """
    config = config or ServeConfig()
    registry = open_registry(Path(artifacts), config)
    make_policy(config.policy)  # a mistyped name ends here, not in the engine
    cores, notes = choose_cores(config)
    settings = EngineSettings(
        endpoint=engine_endpoint(config.endpoint),
        bundles=tuple(str(bundle.absolute()) for bundle in registry.bundles),
        policy=config.policy,
        cores=cores,
        drain_timeout_s=config.drain_timeout_s,
        tenants=registry.promises,
        log=None if config.log is None else str(config.log.absolute()),
        source=config.interference.source,
        times=config.interference.times,
        profile=None if config.interference.profile is None else str(config.interference.profile.absolute()),
    )
    context = zmq.Context()
    try:
        router = bind(context, config.endpoint)
        ready = Ready(
            config.endpoint, config.policy, cores, tuple(model.name for model in registry.models), notes, settings.log or ""
        )
        with _Signals() as signals:
            _Directory(context, router, registry, Supervisor(settings), signals, ready, on_ready).run(config.drain_timeout_s)
    finally:
        context.destroy(LINGER_MS)


def choose_cores(config: ServeConfig) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The configured ones, or those to take by default; and what an operator should know of them."""
    usable, quota = host.usable_cores(), host.read_quota()
    default = host.default_cores(usable, host.read_places(usable), quota)
    cores = default if config.cores is None else tuple(CoreId(core) for core in config.cores)
    note = host.quota_note(cores, usable, quota, chosen=config.cores is not None)
    if note is None:
        return cores, ()
    _logger.warning(note)
    return cores, (note,)


def engine_endpoint(endpoint: str) -> str:
    """Where an engine of this directory listens: beside it, on a port or name of its own."""
    if endpoint.startswith("tcp://"):
        return endpoint.rsplit(":", 1)[0] + ":*"
    return f"{endpoint}.engine-{os.getpid()}"


def bind(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> "zmq.Socket[bytes]":
    """Raises AddressInUse, without harm to who uses it, or ServerError."""
    if endpoint.startswith("ipc://") and _somebody_listens(endpoint):  # ZeroMQ would silently take the name over
        raise AddressInUse(f"{endpoint} is in use by another server; stop that one or choose another --endpoint")
    router = context.socket(zmq.ROUTER)
    try:
        router.bind(endpoint)
    except zmq.ZMQError as error:
        router.close(0)
        if error.errno == zmq.EADDRINUSE:
            raise AddressInUse(f"{endpoint} is in use by another server; stop that one or choose another --port") from error
        raise ServerError(f"cannot listen on {endpoint}: {error.strerror}; choose an address of this machine") from error
    return router


def _somebody_listens(endpoint: str) -> bool:
    probe = socket.socket(socket.AF_UNIX)
    try:
        probe.connect(endpoint.removeprefix("ipc://"))
    except OSError:
        return False
    finally:
        probe.close()
    return True


class _Signals:
    """Counts SIGTERM and SIGINT, and makes a pipe readable for each."""

    def __init__(self) -> None:
        self.count = 0
        self.read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> "_Signals":
        self._listens = threading.current_thread() is threading.main_thread()
        if self._listens:
            self._former = {number: signal.signal(number, self._came) for number in (signal.SIGTERM, signal.SIGINT)}
            self._former_fd = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._listens:
            signal.set_wakeup_fd(self._former_fd)
            for number, former in self._former.items():
                signal.signal(number, former)
        os.close(self.read_end)
        os.close(self._write_end)

    def clear(self) -> None:
        os.read(self.read_end, 4096)

    def _came(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


class _Directory:
    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        router: "zmq.Socket[bytes]",
        registry: Registry,
        engine: Supervisor,
        signals: _Signals,
        ready: Ready,
        on_ready: Callable[[Ready], object],
    ) -> None:
        self._context = context
        self._router = router
        self._registry = registry
        self._engine = engine
        self._signals = signals
        self._ready = ready
        self._on_ready: Callable[[Ready], object] | None = on_ready
        self._draining = False
        self._told = 0  # signals passed on
        self._parked: list[tuple[bytes, Locate]] = []  # asked while no engine served; answered when one does
        self._health = EngineHealth("", "starting")
        self._asker: zmq.Socket[bytes] | None = None

    def run(self, drain_timeout_s: float) -> None:
        kill_at_s = float("inf")
        self._engine.start(time.monotonic())
        try:
            while True:
                now_s = time.monotonic()
                if self._signals.count > self._told:
                    self._told = self._signals.count
                    if not self._draining:
                        self._draining = True
                        kill_at_s = now_s + drain_timeout_s + EXIT_GRACE_S
                        self._answer_parked()
                    self._engine.stop()
                if self._draining and self._engine.output is None:
                    return
                if now_s >= kill_at_s:
                    raise ServerError(f"the engine did not drain within {drain_timeout_s + EXIT_GRACE_S:g} s and was ended")
                self._engine.tick(now_s)
                self._poll(now_s, kill_at_s)
        finally:
            self._engine.kill()

    def _poll(self, now_s: float, kill_at_s: float) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._signals.read_end, zmq.POLLIN)
        output = self._engine.output
        if output is not None:
            poller.register(output.fileno(), zmq.POLLIN)
        if self._asker is not None:
            poller.register(self._asker, zmq.POLLIN)
        until_s = min(kill_at_s, self._engine.next_tick_s() or float("inf"), now_s + HEALTH_INTERVAL_S)
        ready = dict(poller.poll(math.ceil(max(0.0, until_s - now_s) * 1e3)))
        if self._signals.read_end in ready:
            self._signals.clear()
        if output is not None and output.fileno() in ready:
            self._hear_engine()
        if self._asker is not None and self._asker in ready:
            self._note_health(self._asker.recv_multipart())
        elif not ready and self._asker is not None:  # a quiet second
            self._asker.send(encode(GetHealth("")))
        if self._router in ready:
            self._receive()

    def _hear_engine(self) -> None:
        before = self._engine.state
        try:
            self._engine.heard(time.monotonic())
        finally:
            if self._asker is not None and self._engine.state != "serving":
                self._asker.close(0)
                self._asker = None
        if self._draining:
            self._engine.stop()
        if self._engine.state == "serving" and before != "serving":
            self._asker = self._context.socket(zmq.DEALER)
            self._asker.connect(self._engine.endpoint.replace("//0.0.0.0:", "//127.0.0.1:"))
            self._asker.send(encode(GetHealth("")))
            self._answer_parked()
            if self._on_ready is not None:
                self._on_ready(replace(self._ready, outside=self._engine.outside))
                self._on_ready = None

    def _note_health(self, frames: list[bytes]) -> None:
        message = decode_server_message(frames[0])
        if isinstance(message, Health):
            self._health = message.engines[0]

    def _receive(self) -> None:
        client, *frames = self._router.recv_multipart()
        request_id = ""
        try:
            if not frames:
                raise BadMessage("an empty message came; use veltair's client")
            try:
                message = decode_client_message(frames[0])
            except msgspec.MsgspecError as error:
                raise BadMessage(f"a message of {len(frames[0])} bytes does not decode: {error}; use veltair's client") from error
            request_id = message.request_id
            self._handle(client, message)
        except RequestError as error:
            self._send(client, Failure(request_id, error.code, str(error)))

    def _handle(self, client: bytes, message: Infer | Cancel | Locate | ListModels | GetHealth) -> None:
        match message:
            case Locate():
                self._registry.check(message.tenant, message.model)
                self._parked.append((client, message))
                self._answer_parked()
            case ListModels(request_id):
                self._send(client, Models(request_id, self._registry.models))
            case GetHealth(request_id):
                self._send(client, self._health_now(request_id))
            case Infer() | Cancel():
                raise BadMessage(f"{type(message).__name__} is for an engine; ask the directory with Locate where one is")
            case _:
                assert_never(message)

    def _answer_parked(self) -> None:
        """A client that asks while the engine restarts waits for the next one, instead of asking again and again."""
        if not self._draining and self._engine.state != "serving":
            return
        for client, locate in self._parked:
            if self._draining:
                error = Draining("the server is shutting down; ask another one")
                self._send(client, Failure(locate.request_id, error.code, str(error)))
            else:
                self._send(client, Location(locate.request_id, self._engine.endpoint, self._engine.local))
        self._parked.clear()

    def _health_now(self, request_id: str) -> Health:
        state = "draining" if self._draining else self._engine.state
        known = self._health if state == "serving" else EngineHealth("", state)
        engine = msgspec.structs.replace(
            known, endpoint=self._engine.endpoint, state=state, restarts=self._engine.restarts, pid=self._engine.pid
        )
        whole = "degraded" if state == "down" or (state == "starting" and self._engine.restarts) else state
        return Health(request_id, whole, VERSION, self._ready.policy, (engine,), self._ready.notes, self._ready.log)

    def _send(self, client: bytes, message: object) -> None:
        self._router.send_multipart([client, encode(message)])
