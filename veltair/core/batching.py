"""Several requests of one model in one run, where that was compiled, saves cores, and nobody misses his deadline for it."""

from collections.abc import Callable, Sequence

from veltair.core.cores import fewest_cores
from veltair.core.predict import ModelCosts
from veltair.core.state import Job

WORTH = 0.95  # of the core time that they would take one by one, at most: weights are read once, but all wait for the last

Bears = Callable[[tuple[Job, ...], int, int], bool]
"""Whether the others can bear that these riders go now, on so many cores for so long by the tables."""


def riders_for(
    job: Job, alike: Sequence[Job], pressure: float, correction: float, now_us: int, idle: int, bears: Bears
) -> tuple[Job, ...]:
    """Whom to take along, of those that wait as `job` does, nothing of it run yet; in their order. As many as it is worth for."""
    for count in sorted(job.costs.batches, reverse=True):
        riders = tuple(alike[: count - 1])
        if len(riders) < count - 1:
            continue
        budget_us = min(member.deadline_us for member in (job, *riders)) - now_us
        fits = _fewest_of(job.costs.batches[count], pressure, budget_us / correction, idle)
        if fits is None:
            continue
        cores, us = fits
        if cores * us <= WORTH * count * _core_us(job.costs, pressure, budget_us, correction, idle) and bears(riders, cores, us):
            return riders
    return ()


def _fewest_of(costs: ModelCosts, pressure: float, budget_us: float, idle: int) -> tuple[int, int] | None:
    """The fewest of the idle cores that end it in time: others may be busy for longer than it can wait."""
    lines = ((cores, line.rest_us(0)) for cores, line in costs.by_cores(pressure) if cores <= idle)
    return next(((cores, us) for cores, us in lines if us <= budget_us), None)


def _core_us(costs: ModelCosts, pressure: float, budget_us: int, correction: float, idle: int) -> int:
    cores, us = fewest_cores(costs.by_cores(pressure), 0, budget_us, correction, idle)
    return cores * us
