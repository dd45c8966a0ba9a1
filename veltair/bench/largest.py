"""The largest load at which every tenant keeps its share of requests in QoS: which load to try next, and what was found.

On a shared machine one probe says little: the same arrivals at one load fare very differently from one minute to the next. So no
single probe decides. All of them together tell, for each tenant, where the share that it misses crosses what it
may miss: a logistic curve over the log of the load, as psychometric functions are fitted (Watson and Pelli, "QUEST: a Bayesian
adaptive psychometric method", Perception & Psychophysics 1983), near the crossing above all. The next probe goes to where it is
thought to be, or a little beside it, so that the slope is learnt as well. The answer is that of the tenant that is worst off.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import lgamma

import numpy as np
from numpy.typing import NDArray

from veltair.bench.result import PolicyResult, TenantResult

Floats = NDArray[np.float64]
PARTS = ("sent", "missed", "may_miss")  # of a probe

BESIDE = (1.0, 1.08, 0.93, 1.0, 1.04, 0.97)  # where the next probes go, around the crossing so far
STEP_UP, STEP_DOWN = 1.5, 0.7  # from the probe before, at most
OVERLOADED_STEP = 0.5  # downwards, while all that was tried was far too much
REACH = np.log(40.0)  # of the start, either way
LEAST_SHARE = 1 / 20  # of the start; who cannot carry that carries nothing
GRID = 0.01  # of the log of the load
SLOPES = np.geomspace(2.0, 100.0, 12)  # of the log odds of a miss, per log of the load
LIKELY_SLOPE, SLOPE_SD = np.log(8.0), 1.0  # of its log
START_SD = 1.0  # of the log of the load
ALIKE = 0.02  # requests of one probe share its minute: the odds that two of them differ are that much less than by chance
NEAR = 0.25  # of the log of the load: a probe so far from the crossing counts 0.6, one twice as far 0.14
LAPSE = 0.1  # of probes meet a machine that stands still for a moment, and may have missed anything, whatever the load
MOST_MISS = 0.2  # beyond that it is overload, and by how much says nothing of where it began
LEAST_MISS = 1e-3  # no tenant is promised more than this
RESAMPLED = 200
MIDDLE = (5.0, 95.0)  # percentiles


@dataclass(frozen=True, slots=True)
class Probe:
    """`load` in requests a second, of all tenants together; then for each tenant what it sent, missed, and may miss of it."""

    load: float
    sent: tuple[int, ...]
    missed: tuple[float, ...]
    may_miss: tuple[float, ...]  # a share

    @property
    def kept(self) -> bool:
        return all(missed <= sent * may for sent, missed, may in zip(self.sent, self.missed, self.may_miss, strict=True))

    @property
    def overloaded(self) -> bool:
        return any(missed >= sent * MOST_MISS > 0 for sent, missed in zip(self.sent, self.missed, strict=True))


def probe_of(load: float, tenants: Sequence[TenantResult]) -> Probe:
    return Probe(
        load,
        tuple(t.sent for t in tenants),
        tuple((1.0 - (1.0 if t.in_qos is None else t.in_qos)) * t.sent for t in tenants),
        tuple(max(1.0 - t.percentile, LEAST_MISS) for t in tenants),
    )


@dataclass(slots=True)
class LargestLoad:
    """One search of so many probes, or twice as many where none was kept yet. Ask `next_load`, measure there, `tell`; until it is
    None."""

    start: float
    probes: int = 8
    seen: list[Probe] = field(default_factory=list)

    def tell(self, probe: Probe) -> None:
        self.seen.append(probe)

    def next_load(self) -> float | None:
        if not self.seen:
            return self.start
        last, enough = self.seen[-1].load, self.probes * (1 if any(probe.kept for probe in self.seen) else 2)
        if len(self.seen) >= enough or last < self.start * LEAST_SHARE:
            return None
        load = (self.answer() or last * STEP_DOWN) * BESIDE[len(self.seen) % len(BESIDE)]
        step_down = OVERLOADED_STEP if all(probe.overloaded for probe in self.seen) else STEP_DOWN
        return min(max(load, last * step_down), last * STEP_UP)

    def answer(self) -> float:
        """Requests a second; 0 where that is next to nothing, or far below all that was tried."""
        load = Curves(self).crossing(np.ones(len(self.seen)))
        least = max(self.start * LEAST_SHARE, min(probe.load for probe in self.seen) * OVERLOADED_STEP)
        return load if load >= least else 0.0


class Curves:
    """The tenants' curves of one search. Made once, asked for any weights of its probes."""

    def __init__(self, search: LargestLoad) -> None:
        self._logs = np.log([probe.load for probe in search.seen])
        self._grid = np.log(search.start) + np.arange(-REACH, REACH + GRID, GRID)
        self._prior = -0.5 * ((self._grid - np.log(search.start)) / START_SD) ** 2
        by_tenant = (np.array([getattr(probe, what) for probe in search.seen], dtype=float).T for what in PARTS)
        self._tenants = [self._likelihoods(*parts) for parts in zip(*by_tenant, strict=True) if parts[0].any()]

    def _likelihoods(self, sent: Floats, missed: Floats, may_miss: Floats) -> Floats:
        """The log likelihood of each probe, by slope and crossing (slopes x grid x probes)."""
        counts = 1.0 / (1.0 + (np.maximum(sent, 1.0) - 1.0) * ALIKE)  # how much less all of them say than if they were apart
        at_crossing = np.log(may_miss / (1.0 - may_miss))
        apart = self._logs[None, None, :] - self._grid[None, :, None]
        missed = np.minimum(missed, MOST_MISS * sent)
        odds = np.minimum(at_crossing + SLOPES[:, None, None] * apart, np.log(MOST_MISS / (1.0 - MOST_MISS)))
        log_miss, log_keep = -np.logaddexp(0.0, -odds), -np.logaddexp(0.0, odds)
        told, of = counts * missed, counts * sent
        ways = np.array([lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) for k, n in zip(told, of, strict=True)])
        calm = ways + told * log_miss + (of - told) * log_keep
        return np.asarray(np.logaddexp(np.log(1 - LAPSE) + calm, np.log(LAPSE) - np.log(of + 1)))

    def crossing(self, weights: Floats) -> float:
        """`weights` says how often each probe counts."""
        return float(np.exp(min(self._of_tenant(likelihoods, weights) for likelihoods in self._tenants)))

    def _of_tenant(self, likelihoods: Floats, weights: Floats) -> float:
        found = self._median(likelihoods, weights)
        near = np.exp(-0.5 * ((self._logs - found) / NEAR) ** 2)
        return self._median(likelihoods, weights * near) if near @ weights >= 1.0 else found

    def _median(self, likelihoods: Floats, weights: Floats) -> float:
        """Of the log of the crossing, after all that was seen."""
        slope_prior = -0.5 * ((np.log(SLOPES) - LIKELY_SLOPE) / SLOPE_SD) ** 2
        log_posterior = likelihoods @ weights + slope_prior[:, None] + self._prior
        posterior = np.exp(log_posterior - log_posterior.max()).sum(axis=0)
        mass = np.cumsum(posterior)
        return float(np.interp(0.5 * mass[-1], mass, self._grid))


@dataclass(frozen=True, slots=True)
class Estimate:
    """`low`..`high` holds nine tenths of what other draws of the same rounds would have said."""

    value: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Half of that, relative."""
        return (self.high - self.low) / 2 / self.value if self.value else 0.0


def drawn_anew(search: LargestLoad, seed: int) -> Floats:
    """The answer, then those of its probes drawn anew (a bootstrap).

    Searches that were probed in turns, as often and under one seed have the same rounds drawn: a bad minute, which hit all of
    them, does not count for a difference between two.
    """
    curves, rounds = Curves(search), len(search.seen)
    draws = np.random.default_rng(seed).integers(0, rounds, size=(RESAMPLED, rounds))
    weights = (np.bincount(draw, minlength=rounds).astype(float) for draw in draws)
    return np.array([search.answer(), *(curves.crossing(each) for each in weights)])


def estimate(drawn: Floats) -> Estimate:
    """Of what `drawn_anew` gave: a load, or a ratio of two."""
    low, high = np.percentile(drawn[1:], MIDDLE)
    return Estimate(float(drawn[0]), float(low), float(high))


def margin(result: PolicyResult) -> float:
    """What the tenant that is worst off has above what it was promised."""
    return min((t.in_qos - t.percentile for t in result.tenants if t.in_qos is not None), default=0.0)


def probe_seconds(load: float, *, requests: int, least_s: float, most_s: float) -> float:
    """Long enough for `requests`, within bounds. By the load alone, so that all contenders meet the same arrivals at it."""
    return min(max(requests / load, least_s), most_s)


def middle(loads: Sequence[float]) -> tuple[float, float]:
    """The median, and half the distance between the extremes relative to it."""
    ordered, half = sorted(loads), len(loads) // 2
    median = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
    return median, (ordered[-1] - ordered[0]) / 2 / median if median else 0.0
