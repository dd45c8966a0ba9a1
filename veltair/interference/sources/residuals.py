"""Residuals of our own units: how much longer they took than their tables say, where it is memory that they wait for.

A unit whose table rises with pressure is a probe that costs nothing, and the only one while all cores are busy. Of several
units, each with its rise s under full pressure and its excess r over the quiet time, the pressure that fits best is
sum(s r) / sum(s s). Tables are a few percent off anyway, so an excess counts from what the model is used to while nobody else
is seen. A unit slower than even full pressure explains was not slowed by the memory path: such are discarded and counted.
"""

import math

from veltair.interference.sources import UNSURE, Own, Pressed

STRAY = 0.05  # of a unit's time, one standard deviation
LEAST_UNITS = 20  # of a model, while alone, before its usual excess is known
GAIN = 0.05
UNEXPLAINED = 1.25  # times the excess under full pressure, and a stray
ABSURD = 100.0  # times the quiet time: a suspended machine
MOST_ERROR = UNSURE  # beyond it nothing is said


class Residuals:
    name = "residuals"
    error = MOST_ERROR

    def __init__(self) -> None:
        self.discarded = 0
        self._usual: dict[str, tuple[int, float]] = {}  # by model: units seen, measured over quiet

    def read(self, now_us: int, own: Own) -> Pressed | None:
        """Learns from units that ran while nobody else was seen, and weighs all of them."""
        fit = weight = 0.0
        for unit in own.ran:
            if not 0 < unit.quiet_us <= unit.full_us or not 0 < unit.measured_us < ABSURD * unit.quiet_us:
                self.discarded += 1
                continue
            seen, usual = self._usual.get(unit.model, (0, 1.0))
            ratio = unit.measured_us / unit.quiet_us
            if own.alone:
                gain = max(GAIN, 1.0 / (1 + seen))
                self._usual[unit.model] = seen + 1, usual + gain * (ratio - usual)
            if seen < LEAST_UNITS:
                continue
            rise, excess = unit.full_us / unit.quiet_us - 1.0, ratio / usual - 1.0
            if excess > UNEXPLAINED * rise + 2 * STRAY:
                self.discarded += 1
                continue
            fit += rise * excess
            weight += rise * rise
        if weight == 0.0 or (error := STRAY / math.sqrt(weight)) > MOST_ERROR:
            return None
        return Pressed(now_us, fit / weight, error)

    def close(self) -> None:
        """Nothing is held."""
