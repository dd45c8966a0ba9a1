"""Pressure made on purpose: antagonists, each a process on a core of its own, and the ladder of levels they climb.

One kind presses on one thing that cores share:

- `stream` copies between arrays that no cache holds: memory bandwidth. Its level is a share of the time, in turns of some
  microseconds, so that whoever is slowed by it feels an even pressure and not now all, now nothing.
- `cache` reads again and again an array that fills a share of the last-level cache, its level.
- `compute` multiplies matrices that its own cache holds: clock frequency, and whatever siblings share. A share of the time.

The processes live through all levels: they read what to do from memory that they share with whoever started them, and tell
there how much they have moved. An orphan ends by itself.
"""

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from veltair.errors import ProfileError
from veltair.interference.machine import Machine
from veltair.interference.probe import READ_BYTES
from veltair.interference.profile import Kind

Work = Literal["rest", "cache", "stream", "compute", "read"]  # read: bandwidth is measured with it, nobody's pressure

_QUARTERS = (0.25, 0.5, 0.75, 1.0)
LADDER: tuple[tuple[Kind, float], ...] = (
    *(("cache", level) for level in _QUARTERS),
    *(("stream", level) for level in _QUARTERS),
    *(("compute", level) for level in (0.5, 1.0)),
)

_WORKS: tuple[Work, ...] = ("rest", "cache", "stream", "compute", "read")
_PIECE_BYTES = 128 << 10  # moved in one turn: about 10 us
_LEAST_STREAM_BYTES, _MOST_STREAM_BYTES = 8 << 20, 64 << 20  # of each of the two arrays
_SIDE = 128  # of the matrices: two of 64 KiB; a product takes some 40 us
_LONGEST_TURN_NS = 200_000  # what takes longer was not run all the time, which is no reason to rest
_POLL_S = 1e-3  # how soon one at rest notices
_LINE = 8  # int64 in a cache line: no two write to the same one
_PER_MILLE = 1000
_PACED = ("stream", "compute")


class Antagonists:
    """One process on each of `cores`, at rest until told to `press`; all end with the context.

    Raises ProfileError where one of them cannot run.
    """

    def __init__(self, cores: Sequence[int], machine: Machine) -> None:
        self._cores = tuple(cores)
        whole = machine.last_level_cache_bytes
        self._cache_bytes = whole // machine.sharing_last_level(self._cores)  # together they fill one
        self._stream_bytes = min(max(4 * whole // max(1, len(self._cores)), _LEAST_STREAM_BYTES), _MOST_STREAM_BYTES)
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Antagonists":
        descriptor = os.memfd_create("veltair-antagonists")
        try:
            os.ftruncate(descriptor, 8 * _LINE * (1 + len(self._cores)))
            self._memory = _map(descriptor)
            for place, core in enumerate(self._cores):
                self._processes.append(self._start(descriptor, place, core))
            for process, core in zip(self._processes, self._cores, strict=True):
                _wait_ready(process, core)
        except BaseException:
            self._end()
            raise
        finally:
            os.close(descriptor)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def press(self, work: Work, level: float = 1.0) -> None:
        """From now on, until told otherwise. Who rests begins within a millisecond, who works within some microseconds."""
        self._memory[0] = _order(work if level > 0.0 else "rest", level)

    def moved_bytes(self) -> int:
        """By all of them since they began."""
        return sum(self._memory[_LINE::_LINE])

    def bytes_per_us(self, seconds: float) -> float:
        """What they move together in `seconds` from now."""
        before, start = self.moved_bytes(), time.perf_counter_ns()
        time.sleep(seconds)
        return (self.moved_bytes() - before) / (time.perf_counter_ns() - start) * 1e3

    def waited_ns(self) -> float:
        """How long one of them, on average, has waited for its core, since others ran there; 0 where nobody counts it."""
        waits = [waited_ns(Path(f"/proc/{process.pid}/schedstat")) for process in self._processes]
        return sum(waits) / max(1, len(waits))

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()
        self._processes.clear()

    def _start(self, descriptor: int, place: int, core: int) -> "subprocess.Popen[str]":
        numbers = (os.getpid(), descriptor, place, core, self._stream_bytes, self._cache_bytes)
        return subprocess.Popen(
            [sys.executable, "-m", "veltair.interference.ladder", *map(str, numbers)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[descriptor],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )


def waited_ns(schedstat: Path) -> int:
    """Of a thread, by its file: nanoseconds it ran, nanoseconds it could have run and did not, time slices."""
    try:
        return int(schedstat.read_text().split()[1])
    except (OSError, IndexError):
        return 0


def _map(descriptor: int) -> "memoryview[int]":
    """Whole numbers of 64 bits: the order, and from the next cache line on, a line apart, what each process has moved."""
    return memoryview(mmap.mmap(descriptor, 0)).cast("q")


def _order(work: Work, level: float) -> int:
    """Both in one number, so that nobody reads half of it."""
    return _WORKS.index(work) * 2 * _PER_MILLE + round(level * _PER_MILLE)


def _wait_ready(process: "subprocess.Popen[str]", core: int) -> None:
    assert process.stdout is not None
    if not process.stdout.readline():
        _, said = process.communicate()
        why = (said.strip().splitlines() or ["it said nothing"])[-1]
        remedy = "free memory, or calibrate on other cores (taskset --cpu-list)"
        raise ProfileError(f"the antagonist on core {core} ended before it began: {why}; {remedy}")


class _Arrays:
    """What the kinds of work go over. Each method yields the bytes it moved after every turn, without end."""

    def __init__(self, stream_bytes: int, cache_bytes: int) -> None:
        self._source, self._sink = np.ones(stream_bytes // 4, np.int32), np.ones(stream_bytes // 4, np.int32)
        self._cached = np.ones(cache_bytes // 4, np.float32)

    def turns(self, work: Work, level: float) -> Iterator[int]:
        match work:
            case "stream":
                return self._stream()
            case "cache":
                return self._cache(level)
            case "compute":
                return self._compute()
            case "read":
                return self._read()
            case "rest":
                return self._rest()

    def _stream(self) -> Iterator[int]:
        for sink, source in cycle(list(zip(_pieces(self._sink), _pieces(self._source), strict=True))):
            np.copyto(sink, source)
            yield 2 * sink.nbytes

    def _cache(self, level: float) -> Iterator[int]:
        for piece in cycle(_pieces(self._cached[: round(level * len(self._cached))])):
            piece.dot(piece)
            yield piece.nbytes

    def _compute(self) -> Iterator[int]:
        factor, product = np.ones((_SIDE, _SIDE), np.float32), np.empty((_SIDE, _SIDE), np.float32)
        while True:
            np.matmul(factor, factor, out=product)
            yield 0

    def _read(self) -> Iterator[int]:
        most = np.zeros((), np.int32)
        for piece in cycle(_pieces(self._source, READ_BYTES)):
            np.maximum.reduce(piece, out=most)
            yield piece.nbytes

    def _rest(self) -> Iterator[int]:
        while True:
            time.sleep(_POLL_S)
            yield 0


def _pieces(array: "npt.NDArray[Any]", size: int = _PIECE_BYTES) -> "list[npt.NDArray[Any]]":
    return np.array_split(array, max(1, array.nbytes // size))


def _work(told: "memoryview[int]", parent: int, place: int, arrays: _Arrays) -> None:
    """As told, until the parent is gone. Who works a share of the time idles in between without sleeping, which is too coarse."""
    mine = _LINE * (1 + place)
    while os.getppid() == parent:
        order = told[0]
        index, per_mille = divmod(order, 2 * _PER_MILLE)
        work, level = _WORKS[index], per_mille / _PER_MILLE
        idle = (1.0 - level) / level if work in _PACED and level else 0.0  # for each moment of work
        start = time.perf_counter_ns()
        for moved in arrays.turns(work, level):
            told[mine] += moved
            if told[0] != order or os.getppid() != parent:
                break
            if idle:
                now = time.perf_counter_ns()
                until = now + idle * min(now - start, _LONGEST_TURN_NS)
                while time.perf_counter_ns() < until:
                    pass
                start = time.perf_counter_ns()


def main(arguments: Sequence[str]) -> None:
    """`PARENT DESCRIPTOR PLACE CORE STREAM_BYTES CACHE_BYTES`: work as the memory behind the descriptor says."""
    parent, descriptor, place, core, stream_bytes, cache_bytes = map(int, arguments)
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # in real time it would keep its core from who must stop it
    arrays = _Arrays(stream_bytes, cache_bytes)
    print("ready", flush=True)
    _work(_map(descriptor), parent, place, arrays)


if __name__ == "__main__":
    main(sys.argv[1:])
