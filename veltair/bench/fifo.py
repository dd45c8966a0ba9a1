"""The server that users have without veltair, at its best: one queue, a worker per core, nothing on the wire.

Requests are handed over in memory, in the process of the generator, first come, first served; nothing is refused. Each worker
is one thread that sits on its own core (left to themselves two workers often share one, which costs half of the machine)
and runs a whole model there with one thread. ONNX Runtime and OpenVINO both run in the thread that calls them then.
"""

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from veltair.bench.openloop import Answer
from veltair.models.source import Tensors

WARMUP_RUNS, TIMED_RUNS = 3, 5

Run = Callable[[Tensors], object]


@dataclass(frozen=True, slots=True)
class _Task:
    ticket: int
    tenant: int
    inputs: Tensors


@dataclass(frozen=True, slots=True)
class _Ready:
    solo_us: tuple[float, ...]  # per tenant


class FifoServer:
    """A `Transport`. `load` is called once on every worker and gives what runs there, per tenant.

    Whatever a worker raises is raised by `receive`, or here while it loads.
    """

    def __init__(self, cores: Sequence[int], load: Callable[[], Sequence[Run]], inputs: Sequence[Sequence[Tensors]]) -> None:
        self._inputs = inputs
        self._turn = [0] * len(inputs)
        self._out = 0  # handed to the workers and not heard of
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._done: SimpleQueue[int | _Ready | Exception] = SimpleQueue()
        self._workers = [
            threading.Thread(target=self._work, args=(core, load), name=f"fifo-{core}", daemon=True) for core in cores
        ]
        solo: list[tuple[float, ...]] = []
        for worker in self._workers:  # one after the other: they are timed alone
            worker.start()
            ready = self._done.get()
            if not isinstance(ready, _Ready):
                self.close()
                raise ready if isinstance(ready, Exception) else AssertionError(ready)
            solo.append(ready.solo_us)
        self.solo_us = tuple(statistics.fmean(of_tenant) for of_tenant in zip(*solo, strict=True))

    def send(self, ticket: int, tenant: int, budget_us: int) -> None:
        cycle = self._inputs[tenant]
        self._tasks.put(_Task(ticket, tenant, cycle[self._turn[tenant] % len(cycle)]))
        self._turn[tenant] += 1
        self._out += 1

    def receive(self, timeout_us: int) -> Iterable[Answer]:
        answers: list[Answer] = []
        try:
            answers.append(_answer(self._done.get(timeout=timeout_us / 1e6) if timeout_us else self._done.get_nowait()))
            while True:
                answers.append(_answer(self._done.get_nowait()))
        except Empty:
            self._out -= len(answers)
            return answers

    def forget(self) -> None:
        """Drop what waits, and let what runs end unheard: the next run begins on an idle server."""
        while not self._tasks.empty():
            try:
                self._tasks.get_nowait()
            except Empty:  # a worker was faster
                break
            self._out -= 1
        while self._out:
            _answer(self._done.get())
            self._out -= 1

    def close(self) -> None:
        for worker in self._workers:
            if worker.ident is not None:
                self._tasks.put(None)
        for worker in self._workers:
            if worker.ident is not None:
                worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _work(self, core: int, load: Callable[[], Sequence[Run]]) -> None:
        try:
            os.sched_setaffinity(0, (core,))  # 0 is this thread; what it starts inherits the core
            runs = load()
            self._done.put(_Ready(tuple(_solo_us(run, cycle[0]) for run, cycle in zip(runs, self._inputs, strict=True))))
            while (task := self._tasks.get()) is not None:
                runs[task.tenant](task.inputs)
                self._done.put(task.ticket)
        except Exception as error:
            self._done.put(error)


def _answer(done: int | _Ready | Exception) -> Answer:
    if isinstance(done, Exception):
        raise done
    assert isinstance(done, int)
    return Answer(done)


def _solo_us(run: Run, inputs: Tensors) -> float:
    for _ in range(WARMUP_RUNS):
        run(inputs)
    times = []
    for _ in range(TIMED_RUNS):
        start_ns = time.perf_counter_ns()
        run(inputs)
        times.append((time.perf_counter_ns() - start_ns) / 1000)
    return statistics.median(times)
