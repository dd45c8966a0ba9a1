"""What the stage does with the core's decisions: batches run as one and are answered one by one, and time that runs out counts.

Units of one core that are foretold to be short run on the thread that brings the request, so these tests need no other
thread: what happens while a unit runs is done by `Gate`, from within it.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_answer, tiny_inputs, write_rows_bundle

from veltair.bundle.store import open_bundle
from veltair.config import TenantQos
from veltair.core.events import ModelLoaded
from veltair.core.plans import Accepted, Refused, UnitPlan
from veltair.core.policies.protocol import Policy
from veltair.core.scheduler import Scheduler
from veltair.core.state import Job, Ledger, Unit
from veltair.core.values import CoreId, Machine
from veltair.engine.flights import Answer
from veltair.engine.intake import Checked
from veltair.engine.program import Arena, Program
from veltair.engine.stage import RETURN_US, Stage
from veltair.errors import EngineFailed
from veltair.observe import records
from veltair.wire.frames import tensor_headers, tensors_from
from veltair.wire.messages import Failure, Infer, InferReply, decode_server_message

UNIT_US = 50


class Batches(Policy):
    """Runs as many requests at once as it was told, one block a unit; whoever came too late for one waits until his deadline."""

    name = "batches"
    work_conserving = False

    def __init__(self, size: int) -> None:
        self._size = size
        self._queue: list[Job] = []

    def admit(self, job: Job, ledger: Ledger, now_us: int) -> Accepted:
        return Accepted(now_us + UNIT_US)

    def wait(self, job: Job, ledger: Ledger, now_us: int, after: Unit | None) -> None:
        self._queue.append(job)

    def hopeless(self, ledger: Ledger, now_us: int) -> list[tuple[Job, str]]:
        return [(job, "too late") for job in self._waiting() if now_us > job.deadline_us]

    def wake_us(self, ledger: Ledger) -> int | None:
        return min((job.deadline_us + 1 for job in self._waiting()), default=None)

    def next_unit(self, ledger: Ledger, now_us: int) -> UnitPlan | None:
        begun = [job for job in self._waiting() if job.next_block]
        fresh = [job for job in self._waiting() if not job.next_block][: self._size]
        if not begun and len(fresh) < self._size:
            return None
        first, *riders = begun[:1] or fresh
        self._queue = [job for job in self._queue if job is not first and job not in riders]
        return UnitPlan(
            job=first,
            cores=1,
            wanted_cores=1,
            end_block=first.next_block + 1,
            variants=(0,),
            table_us=UNIT_US,
            predicted_us=UNIT_US,
            traffic_bytes=0,
            pressure=0.0,
            reason="enough are here",
            riders=tuple(riders),
        )

    def _waiting(self) -> list[Job]:
        return [job for job in self._queue if job.waits]


class Gate:
    """Stands in front of every unit: notes its arena, then does what the test wants to happen meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arenas: list[tuple[Program, Arena]] = []
        self.meanwhile: list[Callable[[], object]] = []  # one a unit
        original = Program.run

        def run(program: Program, arena: Arena, *unit: Any) -> tuple[int, ...]:
            self.arenas.append((program, arena))
            if self.meanwhile:
                self.meanwhile.pop(0)()
            return original(program, arena, *unit)

        monkeypatch.setattr(Program, "run", run)


class Engine:
    """A stage on one core with a clock of its own, and what came out of it."""

    def __init__(self, program: Program, policy: Policy) -> None:
        self.now_us = 1_000
        self.program = program
        self.log: list[records.Record] = []
        self.answers: dict[str, Any] = {}
        self.tensors: dict[str, Any] = {}
        self.has_answered = threading.Semaphore(0)
        self.rings = 0
        scheduler = Scheduler(Machine((CoreId(0),)), policy)
        scheduler.handle(ModelLoaded(program.bundle.model), 0)
        self.stage = Stage(scheduler, [CoreId(0)], lambda: self.now_us, self._took, self.log.append, self._broke, self._rang)

    def ask(self, wire_id: str, seed: int = 0, budget_us: int = 100_000) -> None:
        inputs = tiny_inputs(seed)
        promise = TenantQos("shop", "rows", 100_000, 0.95)
        infer = Infer(wire_id, "shop", "rows", tensor_headers(inputs))
        self.stage.arrive(b"client", infer, Checked(self.program, inputs, budget_us, promise))

    def _took(self, answer: Answer) -> None:
        message = decode_server_message(answer.frames[0])
        assert message.request_id not in self.answers
        self.answers[message.request_id] = message
        if isinstance(message, InferReply):
            self.tensors[message.request_id] = tensors_from(message.tensors, answer.frames[1:])
        self.has_answered.release()

    def _rang(self) -> None:
        self.rings += 1

    def _broke(self, error: Exception) -> None:
        raise error


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows_bundle(tmp_path_factory.mktemp("rows") / "rows")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
def pairs(rows: Path, gate: Gate) -> Iterator[Engine]:
    engine = Engine(Program(open_bundle(rows)), Batches(2))
    yield engine
    assert engine.stage.under_way == 0
    for program, arena in gate.arenas:  # in the pool again, each once
        assert list(program._pool).count(arena) == 1


def assert_answered(engine: Engine, wire_id: str, seed: int) -> None:
    assert isinstance(engine.answers[wire_id], InferReply), engine.answers[wire_id]
    outputs = engine.tensors[wire_id]
    np.testing.assert_allclose(outputs["y"], tiny_answer(**tiny_inputs(seed)), rtol=1e-5, atol=1e-5)


def assert_failed(engine: Engine, wire_id: str, code: str) -> None:
    assert isinstance(engine.answers[wire_id], Failure)
    assert engine.answers[wire_id].code == code


def test_the_scheduler_is_told_of_the_batches_that_stack_requests(rows: Path) -> None:
    model = open_bundle(rows).model
    assert {count: len(batch.blocks) for count, batch in model.batches.items()} == {2: 2, 4: 1}


@pytest.mark.parametrize("size", [2, 4])
def test_each_of_a_batch_gets_the_answer_that_it_would_get_alone(rows: Path, gate: Gate, size: int) -> None:
    engine = Engine(Program(open_bundle(rows)), Batches(size))
    for seed in range(size):
        engine.ask(f"w{seed}", seed)
    for seed in range(size):
        assert_answered(engine, f"w{seed}", seed)
    assert {program.requests for program, _ in gate.arenas} == {size}
    assert engine.answers["w0"].variants == (f"of {size}",) * (2 if size == 2 else 1)
    assert engine.answers["w0"].low_us <= engine.answers["w0"].predicted_us <= engine.answers["w0"].high_us


def test_the_log_names_who_rides_along(pairs: Engine) -> None:
    for seed in (1, 2):
        pairs.ask(f"w{seed}", seed)
    units = [record for record in pairs.log if isinstance(record, records.Dispatched)]
    assert [(unit.request, unit.riders, unit.first_block, unit.variants) for unit in units] == [
        ("r1", ("r2",), 0, ("of 2",)),
        ("r1", ("r2",), 1, ("of 2",)),
    ]
    assert [record.request for record in pairs.log if isinstance(record, records.Completed)] == ["r1", "r2"]


@pytest.mark.parametrize("unit", [0, 1])
@pytest.mark.parametrize(("gone", "left"), [("w1", "w2"), ("w2", "w1")])
def test_who_is_cancelled_in_a_batch_leaves_the_other_alone(pairs: Engine, gate: Gate, gone: str, left: str, unit: int) -> None:
    gate.meanwhile = [lambda: None] * unit + [lambda: pairs.stage.cancel(b"client", gone)]
    pairs.ask("w1", 1)
    pairs.ask("w2", 2)
    assert_failed(pairs, gone, "cancelled")
    assert_answered(pairs, left, int(left[1]))


def test_a_batch_that_nobody_waits_for_any_more_ends_with_its_unit(pairs: Engine, gate: Gate) -> None:
    def cancel() -> None:
        for wire_id in ("w1", "w2"):
            pairs.stage.cancel(b"client", wire_id)
        program, arena = gate.arenas[0]
        assert arena not in program._pool  # the kernels still write into it

    gate.meanwhile = [cancel]
    pairs.ask("w1", 1)
    pairs.ask("w2", 2)
    assert len(gate.arenas) == 1
    for wire_id in ("w1", "w2"):
        assert_failed(pairs, wire_id, "cancelled")


def test_a_unit_that_fails_fails_everybody_in_its_batch(pairs: Engine, gate: Gate) -> None:
    def fail() -> None:
        raise EngineFailed("kernel 'k' failed")

    gate.meanwhile = [lambda: None, fail]
    pairs.ask("w1", 1)
    pairs.ask("w2", 2)
    for wire_id in ("w1", "w2"):
        assert_failed(pairs, wire_id, "engine_failed")
    pairs.ask("w3", 3)
    pairs.ask("w4", 4)
    assert_answered(pairs, "w3", 3)
    assert_answered(pairs, "w4", 4)


def test_inputs_of_a_cancelled_rider_are_written_all_the_same(pairs: Engine, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a kernel would look up rows by whatever numbers the arena held before."""
    original = Program.new_arena

    def cancel_and_go_on(program: Program) -> Arena:
        pairs.stage.cancel(b"client", "w2")
        arena = original(program)
        arena.bytes[:] = 0xFF
        return arena

    monkeypatch.setattr(Program, "new_arena", cancel_and_go_on)
    pairs.ask("w1", 1)
    pairs.ask("w2", 2)
    assert_answered(pairs, "w1", 1)
    _, arena = gate.arenas[0]
    assert arena.views["ids"][1] == tiny_inputs(2)["ids"][0]


@pytest.mark.parametrize("takes_us", [9, 500, 6_299, 6_300, 6_301, 80_000])
def test_a_refused_one_that_asks_again_with_the_earliest_budget_it_was_told_is_accepted(rows: Path, takes_us: int) -> None:
    class Takes(Batches):
        def admit(self, job: Job, ledger: Ledger, now_us: int) -> Accepted | Refused:
            done_us = now_us + takes_us
            return Accepted(done_us) if done_us <= job.deadline_us else Refused("takes longer", done_us)

    engine = Engine(Program(open_bundle(rows)), Takes(1))
    engine.ask("w1", budget_us=takes_us // 2)
    assert_failed(engine, "w1", "deadline_unmeetable")
    earliest_us = engine.answers["w1"].earliest_us
    assert earliest_us <= takes_us + RETURN_US
    engine.ask("w2", budget_us=earliest_us)
    assert_answered(engine, "w2", 0)


def test_who_can_no_longer_be_served_is_told_so_although_nothing_happens(pairs: Engine) -> None:
    pairs.ask("w1", budget_us=10_000)
    left_us = 10_000 - RETURN_US
    assert pairs.stage.tick() == left_us + 1
    pairs.now_us += left_us
    assert pairs.stage.tick() == 1
    assert pairs.answers == {}
    pairs.now_us += 1
    assert pairs.stage.tick() is None
    assert_failed(pairs, "w1", "deadline_missed")


def test_who_waits_beside_a_unit_that_overruns_is_told_before_it_ends(pairs: Engine, gate: Gate) -> None:
    def run_late() -> None:
        pairs.ask("w3", budget_us=5_000)
        pairs.now_us += 6_000
        pairs.stage.tick()
        assert_failed(pairs, "w3", "deadline_missed")

    gate.meanwhile = [run_late]
    pairs.ask("w1", 1)
    pairs.ask("w2", 2)
    assert_answered(pairs, "w1", 1)
    assert_answered(pairs, "w2", 2)


def test_a_lane_that_leaves_somebody_waiting_rings_for_the_timer(rows: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("veltair.engine.stage.SHORT_US", 0)  # so that units run on lanes
    engine = Engine(Program(open_bundle(rows)), Batches(1))
    gate.meanwhile = [lambda: engine.ask("w2", 2)]
    engine.ask("w1", 1)
    for _ in range(2):
        assert engine.has_answered.acquire(timeout=10)
    assert_answered(engine, "w2", 2)
    assert engine.rings == 1


def test_a_lane_does_not_ring_for_a_time_that_the_timer_knows(rows: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("veltair.engine.stage.SHORT_US", 0)
    engine = Engine(Program(open_bundle(rows)), Batches(1))
    gate.meanwhile = [lambda: (engine.ask("w2", 2), engine.stage.tick())]
    engine.ask("w1", 1)
    for _ in range(2):
        assert engine.has_answered.acquire(timeout=10)
    assert engine.rings == 0
