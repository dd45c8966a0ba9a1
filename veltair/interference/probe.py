"""The probe: a small piece of work that waits for memory, timed to learn how crowded the memory path is.

It reads data that no cache holds: the next part of a ring that is larger than the last-level cache, so what ran before it does
not matter, only who uses the memory path now. It is done in NumPy, which lets go of the GIL meanwhile, and takes 0.1 to 0.2 ms.

What it takes on a quiet machine is a distribution (`Quiet`); how many times as long it takes now is its slowdown. A virtual
machine that was suspended in between reads as an absurd time: such are discarded and counted, never learnt.
"""

import math
import time
from collections.abc import Sequence

import msgspec
import numpy as np

from veltair.interference.machine import Machine

READ_BYTES = 2 << 20  # of a run: about 0.1 ms at the 20 GB/s of one core
WAKING_BYTES = 256 << 10  # read before the clock starts: a core that just slept reads a quarter slower, at first
REST_S = 2e-3
RING_OF_CACHE = 2.0  # of the last-level cache: the next part has been driven out when its turn comes
MOST_RING_BYTES = 256 << 20
ABSURD = 100.0  # times the median: nobody on a machine slows another that much, a hypervisor does by not running it
WIDE = 0.25  # median absolute deviation over the median; a quiet machine stays under a tenth


class Quiet(msgspec.Struct, frozen=True):
    """What the probe takes while nothing else runs."""

    median_us: float
    p95_us: float
    mad_us: float  # median absolute deviation
    samples: int
    discarded: int = 0  # readings that could not be true

    @property
    def spread(self) -> float:
        return self.mad_us / self.median_us

    @property
    def disturbed(self) -> bool:
        """Too wide for a machine on which nothing else ran."""
        return self.spread > WIDE


class Gauge:
    """Turns the probe's times into slowdowns, and counts those that cannot be true."""

    def __init__(self, quiet: Quiet) -> None:
        self._quiet = quiet
        self.discarded = 0

    def slowdown(self, us: float) -> float | None:
        """How many times as long as on a quiet machine; None for a reading that is NaN or absurd."""
        if not 0.0 < us < ABSURD * self._quiet.median_us:
            self.discarded += 1
            return None
        return us / self._quiet.median_us


class Probe:
    """The work itself. One thread at a time. Holds the ring: twice the last-level cache, up to 256 MiB."""

    def __init__(self, machine: Machine) -> None:
        wanted = min(RING_OF_CACHE * machine.last_level_cache_bytes, MOST_RING_BYTES)
        parts = max(2, math.ceil(wanted / READ_BYTES))
        self._ring = np.ones((parts, (WAKING_BYTES + READ_BYTES) // 4), np.int32)  # written, so that its pages are there
        self._sink = np.zeros((), np.int32)
        self._next = 0

    def run(self) -> float:
        """Do it once; microseconds of CPU time. Waiting for a core, because somebody computes there, is no waiting for memory."""
        waking, part = np.split(self._ring[self._next], [WAKING_BYTES // 4])
        self._next = (self._next + 1) % len(self._ring)
        np.maximum.reduce(waking, out=self._sink)
        start = time.thread_time_ns()
        np.maximum.reduce(part, out=self._sink)
        return (time.thread_time_ns() - start) / 1e3

    def for_seconds(self, seconds: float) -> list[float]:
        """Microseconds of runs for so long, at least one, each after a rest: as in service, where it runs in idle slots.

        Back to back they would feel less: caches and address translation then stay the probe's own.
        """
        end = time.perf_counter() + seconds
        times: list[float] = []
        while not times or time.perf_counter() < end:
            time.sleep(REST_S)
            times.append(self.run())
        return times


def plausible(times: Sequence[float]) -> list[float]:
    """Those that can be true: finite, positive, and not more than ABSURD times the median of such."""
    finite = [us for us in times if math.isfinite(us) and us > 0.0]
    most = ABSURD * float(np.median(finite)) if finite else 0.0
    return [us for us in finite if us <= most]


def quiet_of(times: Sequence[float]) -> Quiet:
    """The distribution of times, in microseconds. Raises ValueError where not one of them can be true."""
    kept = plausible(times)
    if not kept:
        raise ValueError(f"none of {len(times)} times of the probe can be true")
    median, p95 = np.percentile(kept, [50, 95])
    mad = np.median(np.abs(np.array(kept) - median))
    return Quiet(round(float(median), 2), round(float(p95), 2), round(float(mad), 2), len(kept), len(times) - len(kept))
