"""How many cores a unit gets: the fewest that keep its request's deadline, more where cores would idle.

Tables are measured and not monotone (a published ResNet-50 is slower on 64 cores than on 56), so only core counts that
were measured are considered, and wider must prove itself.
"""

from veltair.core.predict import LinesByCores, ModelCosts

WORTH_WIDENING = 0.75  # speed-up a core: below it the idle cores serve better whoever comes next


def fewest_cores(lines: LinesByCores, first_block: int, budget_us: float, correction: float) -> tuple[int, int]:
    """The fewest that end the rest within `budget_us`, and its uncorrected time; if none do, those that end it soonest."""
    return lines.fewest(first_block, budget_us / correction)


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


def most_measured(costs: ModelCosts, cores: int) -> int:
    """The widest measured core count that is no wider than `cores`, of which there are enough: a table has no row between."""
    return max(c for c in costs.core_counts if c <= cores)
