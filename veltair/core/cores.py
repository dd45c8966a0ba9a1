"""How many cores a unit gets: the fewest that keep its request's deadline, more where cores would idle.

Tables are measured and not monotone (a published ResNet-50 is slower on 64 cores than on 56), so only core counts that
were measured are considered, and wider must prove itself.
"""

from dataclasses import dataclass
from math import floor

from veltair.core.predict import ANY, LinesByCores, ModelCosts
from veltair.core.state import Job

WORTH_WIDENING = 0.6  # speed-up a core: below it the idle cores serve better whoever comes next
CROWD_GAIN = 0.02  # the last fifty units
UNSTEADY = 1.5  # arrivals come in clumps: of a machine two thirds full on average nothing is spare
SHARERS = 2  # of what is spare at most a half for one of them: never any of two cores, where it cost a tenth of the load
SELDOM = 0.05  # of the cores busy: nobody else is about


def fewest_cores(
    lines: LinesByCores, first_block: int, budget_us: float, correction: float, at_most: int = ANY
) -> tuple[int, int]:
    """The fewest that end the rest within `budget_us`, and its uncorrected time; if none of up to `at_most` (which hold the
    narrowest) do, those of them that end it soonest."""
    return lines.fewest(first_block, budget_us / correction, at_most)


def widen(costs: ModelCosts, first_block: int, cores: int, at_most: int, pressure: float) -> int:
    """The soonest end on `cores`..`at_most` idle ones, if each core more is worth it."""
    counts, negated_us = costs.by_cores(pressure).front(first_block)
    alone = costs.narrowest * -negated_us[0]
    best = cores
    for wider, us in zip(counts, negated_us, strict=True):
        if wider > at_most:
            break
        if wider > cores and alone >= WORTH_WIDENING * wider * -us:
            best = wider
    return best


@dataclass(slots=True)
class Crowd:
    """How many cores units found taken when they began, lately: what others will want again soon."""

    busy: float = 0.0

    def add(self, taken: int) -> None:
        self.busy += CROWD_GAIN * (taken - self.busy)

    def spare(self, cores: int) -> int:
        """How many of a machine's cores one request may take beyond what it needs. All, where nobody else is about."""
        return floor(max(0.0, cores - UNSTEADY * self.busy) / SHARERS) if self.comes(cores) else cores

    def comes(self, cores: int) -> bool:
        """Whether others are to be expected at all."""
        return self.busy >= SELDOM * cores


@dataclass(slots=True)
class Reserve:
    """Idle cores that one request waits with, for the moment until those are idle that it needs besides.

    Begun on too few, its first block would still run by then, whoever is next in line would take the others, and it would be
    late: what was promised to it counts on its turn.
    """

    job: Job | None = None
    until_us: int = 0

    def keeps(self, job: Job, block_us: int, free_us: int, now_us: int) -> bool:
        """Whether `job` should wait until `free_us`, when as many cores as it wants should be idle, or should have been. Asked
        anew at every event; it waits no longer than a block on few cores beyond that, if those who hold the rest overrun."""
        if self.job is job:
            return now_us < self.until_us
        if not now_us - block_us < free_us < now_us + block_us:
            return False
        self.job, self.until_us = job, free_us + block_us
        return True

    def end(self) -> None:
        self.job = None


def most_measured(costs: ModelCosts, cores: int) -> int:
    """The widest measured core count that is no wider than `cores`, of which there are enough: a table has no row between."""
    return max(c for c in costs.core_counts if c <= cores)
