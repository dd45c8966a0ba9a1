"""The I/O thread's loop over a real socket, with a policy that says when it wants to be asked again."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from tiny import tiny_inputs

from veltair.bundle.store import open_bundle
from veltair.config import TenantQos
from veltair.core.events import ModelLoaded
from veltair.core.policies.fcfs import Fcfs
from veltair.core.scheduler import Scheduler
from veltair.core.state import Job, Ledger, Unit
from veltair.core.values import CoreId, Machine
from veltair.engine.intake import Intake
from veltair.engine.program import Program
from veltair.engine.service import Outbox, Service, WakeUp, microseconds_since_start
from veltair.engine.stage import Stage
from veltair.wire.frames import frames_of, tensor_headers
from veltair.wire.messages import Failure, Infer, InferReply, decode_server_message

WITHIN_MS = 10_000  # for what should take milliseconds
BUDGET_US = 20_000


class Strict(Fcfs):
    """First come, first served, and who waits at his deadline is dropped at once."""

    def __init__(self) -> None:
        super().__init__()
        self._accepted: list[Job] = []

    def wait(self, job: Job, ledger: Ledger, now_us: int, after: Unit | None) -> None:
        super().wait(job, ledger, now_us, after)
        self._accepted.append(job)

    def hopeless(self, ledger: Ledger, now_us: int) -> list[tuple[Job, str]]:
        return [(job, "too late") for job in self._accepted if job.waits and now_us > job.deadline_us]

    def wake_us(self, ledger: Ledger) -> int | None:
        return min((job.deadline_us + 1 for job in self._accepted if job.waits), default=None)


class Stopped:
    """Holds the first unit until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.let_go = threading.Event()
        original = Program.run

        def run(program: Program, *unit: Any) -> tuple[int, ...]:
            assert self.let_go.wait(WITHIN_MS / 1e3)
            return original(program, *unit)

        monkeypatch.setattr(Program, "run", run)
        monkeypatch.setattr("veltair.engine.stage.SHORT_US", 0)  # units run on lanes: the I/O thread is not the one that is held


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Stopped:
    return Stopped(monkeypatch)


@pytest.fixture
def client(artifacts: Path, stopped: Stopped) -> Iterator["zmq.Socket[bytes]"]:
    """Speaks to a service on one core, in a thread of this process; both are gone afterwards."""
    program = Program(open_bundle(artifacts / "tiny"))
    scheduler = Scheduler(Machine((CoreId(0),)), Strict())
    scheduler.handle(ModelLoaded(program.bundle.model), 0)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
        router.bind("inproc://engine")
        dealer.connect("inproc://engine")
        dealer.setsockopt(zmq.RCVTIMEO, WITHIN_MS)
        started: list[Service] = []

        def serve() -> None:
            wake_up = WakeUp()
            outbox = Outbox(wake_up)
            ring = wake_up.ring
            stage = Stage(scheduler, [CoreId(0)], microseconds_since_start(), outbox.put, lambda _: None, outbox.broken, ring)
            intake = Intake({"tiny": program}, [TenantQos("shop", "tiny", BUDGET_US, 0.95)])
            started.append(Service(router, intake, stage, outbox, wake_up, "strict"))
            ready.set()
            started[0].run(WITHIN_MS / 1e3)
            wake_up.close()

        ready = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        assert ready.wait(WITHIN_MS / 1e3)
        yield dealer
        stopped.let_go.set()
        started[0].on_signal(15, None)
        dealer.send(b"anything, so that it looks up")
        thread.join(WITHIN_MS / 1e3)
        assert not thread.is_alive()


def ask(client: "zmq.Socket[bytes]", request_id: str) -> None:
    inputs = tiny_inputs()
    client.send_multipart(frames_of(Infer(request_id, "shop", "tiny", tensor_headers(inputs)), inputs))


def test_who_waits_in_vain_is_answered_while_nothing_else_happens(client: "zmq.Socket[bytes]", stopped: Stopped) -> None:
    ask(client, "runs")
    ask(client, "waits")
    refusal = decode_server_message(client.recv_multipart()[0])
    assert isinstance(refusal, Failure)
    assert (refusal.request_id, refusal.code) == ("waits", "deadline_missed")
    assert not stopped.let_go.is_set()  # so no unit has ended, and nobody has asked for anything
    stopped.let_go.set()
    answer = decode_server_message(client.recv_multipart()[0])
    assert isinstance(answer, InferReply)
    assert answer.request_id == "runs"
