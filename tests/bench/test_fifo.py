"""The peers' server: first come, first served, a pinned worker per core; and it is idle when the next probe begins."""

import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from veltair.bench.fifo import FifoServer, Run
from veltair.models.source import Tensors

CORE = min(os.sched_getaffinity(0))
INPUTS = [[{"x": np.full(1, number * 10 + turn)} for turn in range(2)] for number in range(2)]


class Worker:
    """What runs on a worker: writes down what it was given, and waits where it is told to."""

    def __init__(self) -> None:
        self.given: list[tuple[int, int]] = []
        self.cores: set[frozenset[int]] = set()
        self.gate = threading.Event()
        self.gate.set()

    def load(self) -> list[Run]:
        self.cores.add(frozenset(os.sched_getaffinity(0)))
        return [self.of_tenant(number) for number in range(len(INPUTS))]

    def of_tenant(self, number: int) -> Run:
        def run(inputs: Tensors) -> None:
            self.gate.wait()
            self.given.append((number, int(inputs["x"][0])))

        return run


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def server(worker: Worker) -> Iterator[FifoServer]:
    with FifoServer([CORE], worker.load, INPUTS) as server:
        worker.given.clear()  # the warm-up
        yield server
        worker.gate.set()


def received(server: FifoServer, count: int) -> list[int]:
    tickets: list[int] = []
    while len(tickets) < count:
        tickets += [answer.ticket for answer in server.receive(1_000_000)]
    return tickets


def test_requests_are_run_in_order_with_their_tenants_inputs_in_turn(server: FifoServer, worker: Worker) -> None:
    for ticket, tenant in enumerate((1, 0, 1, 1)):
        server.send(ticket, tenant, budget_us=1)
    assert received(server, 4) == [0, 1, 2, 3]
    assert worker.given == [(1, 10), (0, 0), (1, 11), (1, 10)]


def test_a_worker_sits_on_its_core_and_times_each_tenant_alone(server: FifoServer, worker: Worker) -> None:
    assert worker.cores == {frozenset({CORE})}
    assert len(server.solo_us) == len(INPUTS)
    assert min(server.solo_us) > 0


def test_nothing_there_is_no_answer(server: FifoServer) -> None:
    assert list(server.receive(0)) == []
    assert list(server.receive(100)) == []


def test_what_waits_is_forgotten_and_tickets_may_begin_anew(server: FifoServer, worker: Worker) -> None:
    worker.gate.clear()
    for ticket in range(20):
        server.send(ticket, 0, budget_us=1)
    threading.Timer(0.01, worker.gate.set).start()
    server.forget()
    assert len(worker.given) < 20
    server.send(0, 1, budget_us=1)
    assert received(server, 1) == [0]
    assert worker.given[-1][0] == 1


def test_a_model_that_cannot_be_loaded_or_run_is_heard_of() -> None:
    def broken() -> list[Run]:
        raise RuntimeError("no such file")

    with pytest.raises(RuntimeError, match="no such file"):
        FifoServer([CORE], broken, INPUTS)
    calls = []

    def fails_later() -> list[Run]:
        def run(inputs: Tensors) -> None:
            calls.append(inputs)
            if len(calls) > 8:
                raise RuntimeError("out of memory")

        return [run]

    with FifoServer([CORE], fails_later, INPUTS[:1]) as server:
        server.send(0, 0, budget_us=1)
        with pytest.raises(RuntimeError, match="out of memory"):
            list(server.receive(1_000_000))
