"""The probe in idle slots: where one of our cores has nothing to do, a piece of work that waits for memory is timed.

It takes at most half a percent of a core: the longer a run took, the later is the next. What our own units press with is known,
roughly, and taken off. A run scatters, on a machine with much bandwidth by more than a stream on another core slows it; so a
reading is not cut to 0..1, or noise would pass for pressure, and says how much it may be off. Whoever follows readings makes
of many uncertain ones a certain one.
"""

import math
import time
from collections.abc import Callable

from veltair.errors import SourceUnavailable
from veltair.interference.probe import Gauge, Probe
from veltair.interference.profile import HostProfile
from veltair.interference.sources import Own, Pressed

MOST_SHARE = 0.005  # of one core
BESIDES_US = 20.0  # of a run: waking up
LEAST_ERROR = 0.05
MOST_ERROR = 2.0  # of one run: a second of them, some twenty, would not tell a stream from nothing
OWN_ERROR = 0.5  # of our own pressure: it is modelled, not measured
SIGMA = 1.4826  # a normal distribution's standard deviation over its median absolute deviation

Took = tuple[float, float]  # microseconds: of what is timed, and of CPU altogether


def timed(probe: Probe) -> Callable[[], Took]:
    def run() -> Took:
        before_ns = time.thread_time_ns()
        return probe.run(), (time.thread_time_ns() - before_ns) / 1e3

    return run


class Probing:
    name = "probe"

    def __init__(self, profile: HostProfile | None, why_none: str, run: Callable[[], Took] | None = None) -> None:
        """`run` stands in for the probe in tests. Raises SourceUnavailable without a profile, or where that tells too little."""
        if profile is None:
            raise SourceUnavailable(why_none)
        self._profile = profile
        self._most_felt = 1.0 + max((rung.slowdown_median - 1.0 for rung in profile.rungs("stream")), default=0.0)
        self._scatter = SIGMA * profile.probe.spread
        self._most_pressure = profile.pressure(self._most_felt)
        error = self._most_pressure * self._scatter / (self._most_felt - 1.0) if self._most_pressure else math.inf
        if error > MOST_ERROR:
            raise SourceUnavailable(
                f"a stream on all other cores slows the probe by {self._most_felt - 1.0:.1%} here, and it scatters by "
                f"{self._scatter:.1%}: it would not tell one from nothing; choose another source, or calibrate on a quieter host"
            )
        self.error = max(LEAST_ERROR, error)
        self._gauge = Gauge(profile.probe)
        self._run = run or timed(Probe(profile.machine))
        self._next_us = 0

    @property
    def discarded(self) -> int:
        return self._gauge.discarded

    def read(self, now_us: int, own: Own) -> Pressed | None:
        if own.idle_cores == 0 or now_us < self._next_us:
            return None
        took_us, cpu_us = self._run()
        slowdown = self._gauge.slowdown(took_us)
        if slowdown is None:
            self._next_us = now_us + round(self._profile.probe.median_us / MOST_SHARE)
            return None
        self._next_us = now_us + round((cpu_us + BESIDES_US) / MOST_SHARE)
        return Pressed(now_us, self._pressure(slowdown) - own.pressure, max(self.error, OWN_ERROR * own.pressure))

    def close(self) -> None:
        """Nothing is held but memory."""

    def _pressure(self, slowdown: float) -> float:
        """By the rungs, and beyond them on a line through the one that was felt most."""
        if 1.0 < slowdown < self._most_felt:
            return self._profile.pressure(slowdown)
        return self._most_pressure * (slowdown - 1.0) / (self._most_felt - 1.0)
