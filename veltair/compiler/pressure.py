"""Pressure on what a measurement runs beside, and the probe that feels what the measured exerts.

Antagonists (`veltair.interference.ladder`) press on memory bandwidth or on the last-level cache. The probe is another process,
which times a short read of cached data over and over: how much longer that takes while something runs is the pressure it
exerts on whoever shares the machine with it.
"""

import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from veltair.interference.ladder import Antagonists
from veltair.interference.machine import this_machine
from veltair.interference.profile import Kind

Resource = Literal["bandwidth", "cache"]

RATED_S = 0.02  # of full pressure, to tell its rate
PROBE_SHARE = 0.75  # of the last-level cache: what another fills of it, or moves past it, the probe must fetch again
PROBE_SLICE_BYTES = 256 << 10
RING = 1 << 16  # newest samples of the probe: some seconds


@dataclass(frozen=True, slots=True)
class Pressure:
    """What a measurement runs under; level 0 of either resource is a quiet machine."""

    resource: Resource
    level: float  # 0..1: share of the time (bandwidth), share of the last-level cache (cache)


@contextmanager
def antagonist(pressure: Pressure, core: int) -> Iterator[float]:
    """Press on `core` meanwhile; yields the bytes per microsecond that were reached before (0 on a quiet machine)."""
    if pressure.level <= 0.0:
        yield 0.0
        return
    kind: Kind = "stream" if pressure.resource == "bandwidth" else "cache"
    with Antagonists([core], this_machine()) as antagonists:
        antagonists.press(kind)
        rate = antagonists.bytes_per_us(RATED_S)
        antagonists.press(kind, pressure.level)
        yield rate


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
        with mmap.mmap(file.fileno(), 0) as memory, _process(file.name, str(core)) as child:
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


def _feel(path: str) -> None:
    data = np.ones(int(PROBE_SHARE * this_machine().last_level_cache_bytes) // 4, np.float32)
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
    """`FILE CORE`: until killed, or until the parent is gone."""
    path, core = arguments
    os.sched_setaffinity(0, {int(core)})
    _feel(path)


if __name__ == "__main__":
    main(sys.argv[1:])
