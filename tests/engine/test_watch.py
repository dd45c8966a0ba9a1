"""The watch of a running stage: outsiders reach the scheduler and the log, and our own units are not taken for outsiders."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_inputs

from veltair.bundle.store import open_bundle
from veltair.config import TenantQos
from veltair.core.events import ModelLoaded
from veltair.core.policies import make_policy
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, Machine
from veltair.engine.flights import Answer
from veltair.engine.intake import Checked
from veltair.engine.program import Program
from veltair.engine.stage import Stage
from veltair.engine.watch import LULL_S, PERIOD_S, Watch
from veltair.errors import EngineFailed, SourceUnavailable
from veltair.interference.sampler import Sampler
from veltair.interference.sources import Own, Pressed, Reading, Spread, Used
from veltair.interference.sources.choose import OPEN, Surroundings, open_groups
from veltair.observe import records
from veltair.wire.frames import tensor_headers
from veltair.wire.messages import Infer

WITHIN_S = 10
BANDWIDTH = 20_000.0
QUIET_US, FULL_US = 30, 60  # of the tiny model, whole, by its tables


class Outsider:
    """A source that reads the pressure an outsider makes, set by the test, and keeps what it heard of ourselves."""

    name = "probe"
    error = 0.05
    discarded = 0

    def __init__(self) -> None:
        self.pressure = 0.0
        self.uses: Used | None = None  # in place of the pressure
        self.heard: list[Own] = []
        self.read_often = threading.Event()

    def read(self, now_us: int, own: Own) -> Reading | None:
        self.heard.append(own)
        if len(self.heard) >= 3:
            self.read_often.set()
        return self.uses or Pressed(now_us, self.pressure, 0.05)

    def close(self) -> None:
        """Nothing is held."""


class Engine:
    """A stage on one core or more, watched when told to, on a clock of its own."""

    def __init__(self, program: Program, outsider: Any, cores: int = 1) -> None:
        self.now_us = 1_000
        self.log: list[records.Record] = []
        self.answered = threading.Semaphore(0)
        self.errors: list[Exception] = []
        self.rings = 0
        ours = tuple(map(CoreId, range(cores)))
        scheduler = Scheduler(Machine(ours, BANDWIDTH), make_policy("veltair"))
        scheduler.handle(ModelLoaded(program.bundle.model), 0)
        clock = lambda: self.now_us  # noqa: E731 - the test moves it
        self.stage = Stage(scheduler, ours, clock, self._took, self.log.append, self.errors.append, self._rang)
        openers = {**OPEN, "probe": lambda here: outsider}
        sampler = Sampler(open_groups("probe", Surroundings(BANDWIDTH), openers))
        self.watch = Watch(sampler, self.stage, {program: program.bundle.model}, clock, BANDWIDTH, self.errors.append)
        self._program = program

    def ask(self, wire_id: str) -> None:
        """Runs on the thread of the test, since the unit is short, and is answered when this returns."""
        inputs = tiny_inputs()
        infer = Infer(wire_id, "shop", "tiny", tensor_headers(inputs))
        self.stage.arrive(b"client", infer, Checked(self._program, inputs, 100_000, TenantQos("shop", "tiny", 100_000, 0.95)))
        assert self.answered.acquire(timeout=WITHIN_S)

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.now_us += 20_000
            self.watch.look()

    def told(self) -> list[float]:
        return [record.pressure for record in self.log if isinstance(record, records.PressureTold)]

    def dispatched_at(self) -> list[float]:
        return [record.pressure for record in self.log if isinstance(record, records.Dispatched)]

    def _took(self, answer: Answer) -> None:
        self.answered.release()

    def _rang(self) -> None:
        self.rings += 1


@pytest.fixture
def program(artifacts: Path) -> Program:
    return Program(open_bundle(artifacts / "tiny"))


@pytest.fixture
def outsider() -> Outsider:
    return Outsider()


@pytest.fixture
def engine(program: Program, outsider: Outsider) -> Iterator[Engine]:
    engine = Engine(program, outsider)
    yield engine
    assert engine.errors == []


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """While a unit runs."""
    original = Program.run

    def run(program: Program, *unit: Any) -> tuple[int, ...]:
        happens()
        return original(program, *unit)

    monkeypatch.setattr(Program, "run", run)


def test_an_outsider_reaches_the_scheduler_and_goes_again(engine: Engine, outsider: Outsider) -> None:
    engine.ask("w1")
    engine.look(5)
    assert engine.told() == []
    outsider.pressure = 0.75
    engine.look(5)
    engine.ask("w2")
    outsider.pressure = 0.0
    engine.look(10)
    engine.ask("w3")
    assert engine.told() == [0.75, 0.0]
    assert engine.dispatched_at() == [0.0, 0.75, 0.0]


def test_it_looks_less_often_while_nobody_is_about(engine: Engine, outsider: Outsider) -> None:
    engine.look(3)
    assert engine.watch.period_s == LULL_S
    outsider.pressure = 0.75
    engine.look()
    assert engine.watch.period_s == PERIOD_S
    engine.look(5)
    assert engine.watch.period_s == PERIOD_S
    outsider.pressure = 0.0
    engine.look(20)
    assert engine.watch.period_s == LULL_S


def test_units_keep_off_the_cpu_that_it_holds(program: Program, outsider: Outsider) -> None:
    engine = Engine(program, outsider, cores=2)
    engine.ask("w1")
    outsider.uses = Used(0, 1.0, Spread(1.0, {CoreId(0): 0.9, CoreId(1): 0.1}))
    engine.look(3)
    engine.ask("w2")
    assert engine.watch.health().held == (0,)
    outsider.uses = Used(0, 0.0, Spread(0.0, {}))
    engine.look(3)
    engine.ask("w3")
    held = [record.held for record in engine.log if isinstance(record, records.PressureTold)]
    assert (held[0], held[-1]) == ((0,), ())
    assert [record.cores for record in engine.log if isinstance(record, records.Dispatched)] == [(0,), (1,), (0,)]
    assert engine.errors == []


def test_predictions_rise_with_it(engine: Engine, outsider: Outsider) -> None:
    engine.ask("w1")
    outsider.pressure = 1.0
    engine.look(5)
    engine.ask("w2")
    first, second = (record.predicted_us for record in engine.log if isinstance(record, records.Dispatched))
    assert second > 1.5 * first


def test_units_come_with_what_their_tables_say(engine: Engine, outsider: Outsider) -> None:
    engine.ask("w1")
    engine.look()
    [unit] = outsider.heard[-1].ran
    assert (unit.model, unit.quiet_us, unit.full_us) == ("tiny", QUIET_US, FULL_US)
    assert unit.measured_us >= 0
    engine.look()
    assert outsider.heard[-1].ran == []  # each is told once


def test_units_begun_before_a_change_are_not_compared(
    engine: Engine, outsider: Outsider, monkeypatch: pytest.MonkeyPatch
) -> None:
    outsider.pressure = 1.0
    meanwhile(monkeypatch, lambda: engine.look(3))
    engine.ask("w1")
    assert engine.told() == [1.0]
    engine.look()
    assert outsider.heard[-1].ran == []


def test_what_runs_is_known_to_press_and_to_hold_its_core(
    engine: Engine, outsider: Outsider, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch, engine.look)
    engine.ask("w1")
    engine.look()
    during, after = outsider.heard
    assert during.idle_cores == 0
    assert during.pressure == pytest.approx(2 * 4096 / QUIET_US / BANDWIDTH, rel=0.1)
    assert (after.idle_cores, after.pressure) == (1, 0.0)
    assert after.cpu_ns > during.cpu_ns


def test_a_failed_unit_is_compared_with_nothing(engine: Engine, outsider: Outsider, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(program: Program, *unit: Any) -> tuple[int, ...]:
        raise EngineFailed("kernel 'k' failed")

    monkeypatch.setattr(Program, "run", fail)
    engine.ask("w1")
    engine.look()
    assert outsider.heard[-1].ran == []


def test_health_says_what_is_known_and_by_whom(engine: Engine, outsider: Outsider) -> None:
    outsider.pressure = 0.5
    engine.look(5)
    health = engine.watch.health()
    assert (health.pressure, health.sources, health.discarded) == (0.5, ("probe",), 0)
    assert 0.0 < health.error < 0.2


def test_the_thread_looks_by_itself_until_it_is_closed(engine: Engine, outsider: Outsider) -> None:
    engine.watch.start()
    assert outsider.read_often.wait(WITHIN_S)
    engine.watch.close()
    assert not engine.watch.is_alive()


def test_a_source_that_goes_does_not_harm_the_engine(program: Program) -> None:
    class Vanishing(Outsider):
        def read(self, now_us: int, own: Own) -> Reading | None:
            raise SourceUnavailable("gone")

    engine = Engine(program, Vanishing())
    engine.look(3)
    engine.ask("w1")
    assert engine.watch.health().refused == ("probe: gone",)


def test_an_error_of_ours_is_told_and_ends_the_thread(program: Program) -> None:
    class Wrong(Outsider):
        def read(self, now_us: int, own: Own) -> Reading | None:
            raise ZeroDivisionError("a bug")

    engine = Engine(program, Wrong())
    engine.watch.start()
    engine.watch.join(WITHIN_S)
    assert isinstance(engine.errors[0], ZeroDivisionError)
