"""How much load a policy carries: attainment over a ladder of loads, then bisection to the largest one that is kept.

All policies see the same arrivals at the same load and seed (common random numbers), so what differs between them is theirs
and not chance. The largest load is found for each seed on its own; the spread of the seeds gives the interval.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from veltair.core.policies.protocol import Policy
from veltair.simulate.result import LargestLoad
from veltair.simulate.setting import Arriving, Setting, serve
from veltair.simulate.virtual import Outcome, Run

LADDER = tuple(i / 10 for i in range(1, 11))  # shares of capacity
MORE = (1.2, 1.4, 1.7, 2.0, 2.5, 3.0)  # batches and closed loops can carry more than the sum of single requests says
RESOLUTION = 0.01  # of the load: attainment of a few thousand requests is not more certain than that

# Student's t, two-sided 95 %, for 1, 2, .. degrees of freedom.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What one policy did with one seed: attainment by tenant at each share of capacity of the ladder, and the largest load."""

    rungs: dict[float, dict[str, float]]
    largest_per_s: float


def attainment(setting: Setting, run: Run, per_s: float) -> dict[str, float]:
    """Share of each tenant's requests behind the warm-up that were answered in time. 1 where none came."""
    counted_from_us = setting.counted_from_us(per_s)
    asked = {tenant.name: 0 for tenant in setting.workload.tenant}
    met = dict(asked)
    for outcome in run.outcomes:
        if outcome.request.arrived_us >= counted_from_us:
            asked[outcome.request.tenant] += 1
            met[outcome.request.tenant] += outcome.in_time
    return {name: met[name] / asked[name] if asked[name] else 1.0 for name in asked}


def is_kept(setting: Setting, shares: dict[str, float]) -> bool:
    """Every tenant has its percentile of requests in time."""
    return all(shares[tenant.name] >= tenant.percentile for tenant in setting.workload.tenant)


def find(
    setting: Setting, policy: str | Callable[[], Policy], seed: int, step: Callable[[float], None] = lambda share: None
) -> Found:
    """Climb the ladder, then halve the gap between the last rung that was kept and the first that was not.

    `step` is told the share of the work that is done. Rungs beyond the ladder are tried only while all were kept.
    """
    rungs: dict[float, dict[str, float]] = {}
    steps = len(LADDER) + 5
    for number, share in enumerate(LADDER):
        per_s = share * setting.capacity_per_s
        rungs[share] = attainment(setting, serve(setting, policy, per_s, seed), per_s)
        step((number + 1) / steps)
    low, high = 0.0, math.inf
    for share in LADDER:
        if not is_kept(setting, rungs[share]):
            high = share
            break
        low = share
    for share in MORE:
        if high < math.inf:
            break
        low, high = (share, high) if _keeps(setting, policy, share, seed) else (low, share)
    while high - low > RESOLUTION * high and high > LADDER[0] * RESOLUTION:
        middle = (low + high) / 2
        low, high = (middle, high) if _keeps(setting, policy, middle, seed) else (low, middle)
    step(1.0)
    return Found(rungs, low * setting.capacity_per_s)


def combine(setting: Setting, per_seed_per_s: Sequence[float]) -> LargestLoad:
    """Mean and 95 % interval (Student's t). One seed has no spread to tell an interval from: then it is the mean alone."""
    mean, half = fmean(per_seed_per_s), 0.0
    if (count := len(per_seed_per_s)) > 1:
        t = _T95[count - 2] if count - 2 < len(_T95) else 1.96
        half = t * stdev(per_seed_per_s) / math.sqrt(count)
    return LargestLoad(
        per_s=mean,
        low_per_s=max(0.0, mean - half),
        high_per_s=mean + half,
        of_capacity=mean / setting.capacity_per_s,
        per_seed_per_s=tuple(per_seed_per_s),
    )


def _keeps(setting: Setting, policy: str | Callable[[], Policy], share: float, seed: int) -> bool:
    """Stops a run as soon as some tenant has missed more than it may: the result is certain then."""
    per_s = share * setting.capacity_per_s
    counted_from_us = setting.counted_from_us(per_s)
    percentile = {tenant.name: tenant.percentile for tenant in setting.workload.tenant}
    missed = dict.fromkeys(percentile, 0)

    def lost(outcome: Outcome, come: Arriving) -> bool:
        name = outcome.request.tenant
        if outcome.in_time or name not in come.counted or outcome.request.arrived_us < counted_from_us:
            return False
        missed[name] += 1
        return missed[name] > (1 - percentile[name]) * come.counted[name]

    run = serve(setting, policy, per_s, seed, until=lost)
    return not run.stopped and is_kept(setting, attainment(setting, run, per_s))
