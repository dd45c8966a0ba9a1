"""The largest load at which every tenant keeps its share of requests in QoS: which load to try next, and what was found.

A probe gives a margin: the least, over tenants, of its share in QoS minus the share it was promised. The margin falls with
the load, steeply near the end of what a server can carry, so two probes on either side of 0 tell where it crosses, and the
next probe goes there. That takes half the probes of a bisection, which would only hear yes or no.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from veltair.bench.result import PolicyResult

NEAR = 0.01  # a margin this small is as good as 0: shares of a few hundred requests stray by more
RESOLUTION = 1.05  # two loads this close are one
STEPS_UP = (1.25, 1.5, 2.0)  # at most, while every load was kept
SLOPE_BELOW, SLOPE = 0.2, 0.6  # of the margin per unit of log load, below and above the crossing: for guesses, no more
STEP_DOWN = (0.5, 0.93)
WORST_MARGIN = -0.2  # beyond this a probe is given up (see `openloop.drive`), so how much was missed says nothing
EDGE = 0.2  # of a bracket's width: the next probe keeps away from its ends, where it would teach little
LEAST_SHARE = 1 / 20  # of the start; who cannot carry that carries nothing


@dataclass(frozen=True, slots=True)
class Probe:
    """`load` in requests a second, of all tenants together."""

    load: float
    margin: float

    @property
    def kept(self) -> bool:
        return self.margin >= 0


@dataclass(slots=True)
class LargestLoad:
    """One search. Ask `next_load`, measure there, `tell`; until it is None."""

    start: float
    probes: int = 6  # at most, once both sides of the crossing were seen
    seen: list[Probe] = field(default_factory=list)

    def tell(self, load: float, margin: float) -> None:
        self.seen.append(Probe(load, max(margin, WORST_MARGIN)))

    @property
    def failed(self) -> Probe | None:
        """The least load that was not kept."""
        return min((p for p in self.seen if not p.kept), key=lambda p: p.load, default=None)

    @property
    def kept(self) -> Probe | None:
        """The largest load that was kept, of those below every load that was not."""
        least = failed.load if (failed := self.failed) is not None else math.inf
        return max((p for p in self.seen if p.kept and p.load < least), key=lambda p: p.load, default=None)

    def next_load(self) -> float | None:
        kept, failed = self.kept, self.failed
        if not self.seen:
            return self.start
        if (kept is not None and kept.margin <= NEAR) or (failed is not None and failed.margin >= -NEAR):
            return None
        if failed is None:
            assert kept is not None
            most = STEPS_UP[min(len(self.seen), len(STEPS_UP)) - 1]
            return kept.load * min(math.exp(kept.margin / SLOPE_BELOW), most) if len(self.seen) < 2 * self.probes else None
        if kept is None:
            least, most = STEP_DOWN
            far = failed.margin <= WORST_MARGIN and len(self.seen) > 1  # the first guess downwards was too timid
            load = failed.load * (least if far else min(max(math.exp(failed.margin / SLOPE), least), most))
            return load if load >= self.start * LEAST_SHARE else None
        if failed.load / kept.load <= RESOLUTION or len(self.seen) >= self.probes:
            return None
        width = math.log(failed.load / kept.load)
        return kept.load * math.exp(width * min(max(_crossing(kept, failed), EDGE), 1 - EDGE))

    def answer(self) -> float:
        """Where the margin crosses 0, between the largest load kept and the least one not; 0 where none was kept."""
        kept, failed = self.kept, self.failed
        if kept is None:
            return failed.load if failed is not None and failed.margin >= -NEAR else 0.0
        if failed is None or kept.margin <= NEAR:
            return kept.load
        return kept.load * math.exp(math.log(failed.load / kept.load) * _crossing(kept, failed))


def _crossing(kept: Probe, failed: Probe) -> float:
    """How far from `kept` to `failed`, 0..1 of the log of the load."""
    return kept.margin / (kept.margin - failed.margin)


def margin(result: PolicyResult) -> float:
    """What the tenant that is worst off has above what it was promised."""
    return min((t.in_qos - t.percentile for t in result.tenants if t.in_qos is not None), default=0.0)


def probe_seconds(load: float, *, requests: int, least_s: float, most_s: float) -> float:
    """Long enough for `requests`, within bounds. By the load alone, so that all contenders meet the same arrivals at it."""
    return min(max(requests / load, least_s), most_s)


def middle(loads: Sequence[float]) -> tuple[float, float]:
    """The median over seeds, and half the distance between the extremes relative to it."""
    ordered, half = sorted(loads), len(loads) // 2
    median = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
    return median, (ordered[-1] - ordered[0]) / 2 / median if median else 0.0
