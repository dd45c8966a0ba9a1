"""Several requests of one model in one run, where that was compiled, saves cores, and nobody misses his deadline for it."""

from collections.abc import Sequence

from veltair.core.cores import fewest_cores
from veltair.core.predict import ModelCosts
from veltair.core.state import Job

WORTH = 0.95  # of the core time that they would take one by one, at most: weights are read once, but all wait for the last


def riders_for(job: Job, alike: Sequence[Job], pressure: float, correction: float, now_us: int) -> tuple[Job, ...]:
    """Whom to take along, of those that wait as `job` does, nothing of it run yet; in their order. As many as it is worth for."""
    for count in sorted(job.costs.batches, reverse=True):
        riders = alike[: count - 1]
        if len(riders) < count - 1:
            continue
        budget_us = min(member.deadline_us for member in (job, *riders)) - now_us
        cores, us = fewest_cores(job.costs.batches[count].by_cores(pressure), 0, budget_us, correction)
        in_time = us * correction <= budget_us
        if in_time and cores * us <= WORTH * count * _core_us(job.costs, pressure, budget_us, correction):
            return tuple(riders)
    return ()


def _core_us(costs: ModelCosts, pressure: float, budget_us: int, correction: float) -> int:
    cores, us = fewest_cores(costs.by_cores(pressure), 0, budget_us, correction)
    return cores * us
