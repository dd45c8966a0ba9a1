"""How far a foretold finish may be trusted: an interval that holds nine times out of ten, whatever the predictions are like.

The share of requests that end before a bound is held at its goal by moving the bound, a step down for each that ended
before it and a step up, in proportion, for each that did not (Gibbs and Candes, Adaptive Conformal Inference Under
Distribution Shift, NeurIPS 2021, with one bound at each end). So the coverage comes out right in the long run without any
assumption on why predictions err: load that came later, tables that stray, neighbours.
"""

from dataclasses import dataclass
from math import exp, log

from veltair.core.residuals import ABSURD_RATIO
from veltair.core.state import Kind

COVERAGE = 0.9
OUTSIDE = (1 - COVERAGE) / 2  # at each end
STEP = 0.05  # of the logarithm of measured over foretold; a hundred requests move a bound from nothing to a factor of twelve
FIRST = 0.1  # before anything was seen


@dataclass(slots=True)
class _Bounds:
    low: float = -FIRST
    high: float = FIRST


class Promises:
    """Bounds on measured over foretold latency, for each kind of request."""

    def __init__(self) -> None:
        self._bounds: dict[Kind, _Bounds] = {}

    def interval_us(self, kind: Kind, arrived_us: int, finish_us: int) -> tuple[int, int]:
        """Around a foretold finish; absolute, as that is."""
        bounds, us = self._bounds.get(kind, _Bounds()), finish_us - arrived_us
        return arrived_us + round(us * exp(bounds.low)), arrived_us + round(us * exp(bounds.high))

    def learn(self, kind: Kind, foretold_us: int, measured_us: int) -> None:
        if foretold_us <= 0 or not 0 < measured_us <= ABSURD_RATIO * foretold_us:  # a suspended machine teaches nothing
            return
        bounds, seen = self._bounds.setdefault(kind, _Bounds()), log(measured_us / foretold_us)
        bounds.low += STEP * (OUTSIDE - (seen < bounds.low))
        bounds.high += STEP * ((seen > bounds.high) - OUTSIDE)
        bounds.high = max(bounds.high, bounds.low)
