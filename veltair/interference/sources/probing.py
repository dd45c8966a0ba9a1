"""The probe in idle slots: where one of our cores has nothing to do, a piece of work that waits for memory is timed.

It takes at most half a percent of a core: the longer it took, the later it runs again. Its CPU time is what counts. A probe
that had to wait for a core, because an outsider computes there, has not waited for memory. What our own units press with is
known, roughly, and taken off.
"""

import time
from collections.abc import Callable

from veltair.errors import SourceUnavailable
from veltair.interference.probe import Gauge, Probe
from veltair.interference.profile import HostProfile
from veltair.interference.sources import Own, Pressed

MOST_SHARE = 0.005  # of one core
BESIDES_US = 20.0  # of a run: touching memory, waking up
LEAST_ERROR = 0.05
OWN_ERROR = 0.5  # of our own pressure: it is modelled, not measured
SIGMA = 1.4826  # a normal distribution's standard deviation over its median absolute deviation
OVER = 1e6  # a slowdown beyond every rung


Took = tuple[float, float]  # microseconds of a run by the clock, and on a CPU


def timed(probe: Probe) -> Callable[[], Took]:
    def run() -> Took:
        before_ns = time.thread_time_ns()
        took_us = probe.run()
        return took_us, (time.thread_time_ns() - before_ns) / 1e3

    return run


class Probing:
    name = "probe"

    def __init__(self, profile: HostProfile | None, why_none: str, run: Callable[[], Took] | None = None) -> None:
        """`run` stands in for the probe in tests. Raises SourceUnavailable without a profile, or where it feels nothing."""
        if profile is None:
            raise SourceUnavailable(why_none)
        if profile.pressure(OVER) == 0.0:
            raise SourceUnavailable("the probe felt nothing of the ladder when this host was calibrated; choose another source")
        self._profile = profile
        self._gauge = Gauge(profile.probe)
        self._run = run or timed(Probe(profile.machine))
        self._next_us = 0
        self._spread = SIGMA * profile.probe.spread
        self.error = max(LEAST_ERROR, profile.pressure(1.0 + self._spread))

    @property
    def discarded(self) -> int:
        return self._gauge.discarded

    def read(self, now_us: int, own: Own) -> Pressed | None:
        if own.idle_cores == 0 or now_us < self._next_us:
            return None
        took_us, on_cpu_us = self._run()
        slowdown = self._gauge.slowdown(min(took_us, on_cpu_us))
        self._next_us = now_us + round(((slowdown or 1.0) * self._profile.probe.median_us + BESIDES_US) / MOST_SHARE)
        if slowdown is None:
            return None
        pressure, above = self._profile.pressure(slowdown), self._profile.pressure(slowdown * (1.0 + self._spread))
        error = max(LEAST_ERROR, above - pressure, OWN_ERROR * own.pressure)
        return Pressed(now_us, max(0.0, pressure - own.pressure), error)

    def close(self) -> None:
        """Nothing is held but memory."""
