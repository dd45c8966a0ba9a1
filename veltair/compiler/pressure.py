"""Pressure made on purpose, and the probe that feels it.

An antagonist is a process of its own on a core of its own that presses on one shared resource: on memory bandwidth by
copying between arrays that no cache holds, for a share of the time; on the last-level cache by reading again and again an
array that fills a share of it. The probe is another process, which times a short read of cached data over and over: how
much longer that takes while something runs is the pressure it exerts on whoever shares the machine with it.
"""

import mmap
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Resource = Literal["bandwidth", "cache"]

STREAM_BYTES = 64 << 20  # of each of the two arrays: past any last-level cache of a core's share
SLICES = 32  # of them, between which a duty cycle may rest
DEFAULT_CACHE_BYTES = 16 << 20  # where the system does not tell
PROBE_SHARE = 0.75  # of the last-level cache: what another fills of it, or moves past it, the probe must fetch again
PROBE_SLICE_BYTES = 256 << 10
RING = 1 << 16  # newest samples of the probe: some seconds


@dataclass(frozen=True, slots=True)
class Pressure:
    """What a measurement runs under; level 0 of either resource is a quiet machine."""

    resource: Resource
    level: float  # 0..1: share of the time (bandwidth), share of the last-level cache (cache)


def last_level_cache_bytes() -> int:
    """Size of the largest cache of the first CPU."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        if match := re.fullmatch(r"(\d+)K", path.read_text().strip()):
            sizes.append(int(match[1]) << 10)
    return max(sizes) or DEFAULT_CACHE_BYTES


@contextmanager
def antagonist(pressure: Pressure, core: int) -> Iterator[float]:
    """Press on `core` meanwhile; yields the bytes per microsecond that were reached before (0 on a quiet machine)."""
    if pressure.level <= 0.0:
        yield 0.0
        return
    with _process(pressure.resource, str(pressure.level), str(core)) as child:
        yield float(child.readline() or 0.0)


@dataclass(frozen=True, slots=True)
class Samples:
    """What a probe measured: end and duration of each read, in nanoseconds of the monotonic clock."""

    end_ns: npt.NDArray[np.int64]
    took_ns: npt.NDArray[np.int64]

    def between(self, intervals: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
        """Durations of the reads that lie wholly inside one of the `intervals` (start, end), which must ascend."""
        if not intervals or not len(self.end_ns):
            return np.empty(0, np.int64)
        starts, ends = np.array(intervals, np.int64).T
        place = np.searchsorted(starts, self.end_ns, side="right") - 1
        inside = (place >= 0) & (self.end_ns <= ends[place]) & (self.end_ns - self.took_ns >= starts[place])
        found: npt.NDArray[np.int64] = self.took_ns[inside]
        return found


class Probe:
    """A running probe, to be read at any time."""

    def __init__(self, ring: npt.NDArray[np.int64]) -> None:
        self._ring = ring

    def close(self) -> None:
        """Let go of the ring: a mapping cannot be closed while an array looks at it."""
        self._ring = np.zeros(2 * (RING + 1), np.int64)

    def read(self) -> Samples:
        """All samples that are still in the ring, oldest first."""
        count = int(self._ring[0])
        order = np.arange(max(0, count - RING + 1), count) % RING
        rows = self._ring[2:].reshape(RING, 2)[order]
        return Samples(rows[:, 0].copy(), rows[:, 1].copy())

    def quiet_ns(self, seconds: float) -> float:
        """The median over `seconds` from now."""
        start = time.monotonic_ns()
        time.sleep(seconds)
        took = self.read().between([(start, time.monotonic_ns())])
        return statistics.median(took.tolist()) if len(took) else 0.0


@contextmanager
def probe(core: int) -> Iterator[Probe]:
    """Run the probe on `core` meanwhile."""
    with tempfile.NamedTemporaryFile(prefix="veltair-probe-") as file:
        file.truncate(8 * 2 * (RING + 1))
        with mmap.mmap(file.fileno(), 0) as memory, _process("probe", file.name, str(core)) as child:
            child.readline()  # its arrays are made
            feeler = Probe(np.frombuffer(memory, np.int64))
            try:
                yield feeler
            finally:
                feeler.close()


@contextmanager
def _process(*arguments: str) -> Iterator[Any]:
    """This module as a process, killed at the end; yields what it prints."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "veltair.compiler.pressure", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process.stdout
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _stream(level: float) -> None:
    source, sink = np.ones(STREAM_BYTES // 8, np.float64), np.zeros(STREAM_BYTES // 8, np.float64)
    start = time.perf_counter()
    for _ in range(3):
        np.copyto(sink, source)
    print(3 * 2 * source.nbytes / (time.perf_counter() - start) / 1e6, flush=True)
    part = len(source) // SLICES
    while os.getppid() > 1:  # an orphan ends by itself
        for k in range(SLICES):
            start = time.perf_counter()
            np.copyto(sink[k * part : (k + 1) * part], source[k * part : (k + 1) * part])
            busy = time.perf_counter() - start
            if level < 1.0:
                time.sleep(busy * (1.0 - level) / level)


def _fill_cache(level: float) -> None:
    data = np.ones(int(level * last_level_cache_bytes()) // 4, np.float32)
    slices = np.array_split(data, SLICES)
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        for part in slices:
            part.dot(part)
        rates.append(data.nbytes / (time.perf_counter() - start) / 1e6)
    print(max(rates), flush=True)
    while os.getppid() > 1:
        for part in slices:
            part.dot(part)


def _feel(path: str) -> None:
    data = np.ones(int(PROBE_SHARE * last_level_cache_bytes()) // 4, np.float32)
    slices = np.array_split(data, max(1, data.nbytes // PROBE_SLICE_BYTES))
    with open(path, "r+b") as file:
        ring = np.frombuffer(mmap.mmap(file.fileno(), 0), np.int64)
    rows = ring[2:].reshape(RING, 2)
    print("ready", flush=True)
    count = 0
    while os.getppid() > 1:
        for part in slices:
            start = time.monotonic_ns()
            part.dot(part)
            end = time.monotonic_ns()
            rows[count % RING] = end, end - start
            count += 1
            ring[0] = count


def main(arguments: Sequence[str]) -> None:
    """`bandwidth LEVEL CORE`, `cache LEVEL CORE` or `probe FILE CORE`: until killed, or until the parent is gone."""
    what, value, core = arguments
    os.sched_setaffinity(0, {int(core)})
    if what == "bandwidth":
        _stream(float(value))
    elif what == "cache":
        _fill_cache(float(value))
    else:
        _feel(value)


if __name__ == "__main__":
    main(sys.argv[1:])
