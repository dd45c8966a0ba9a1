"""How many cores a unit gets: the fewest that keep its request's deadline, more where cores would idle.

Tables are measured and not monotone (a published ResNet-50 is slower on 64 cores than on 56), so only core counts that
were measured are considered, and wider must prove itself.
"""

from veltair.core.predict import LinesByCores, ModelCosts

WORTH_WIDENING = 0.75  # speed-up a core: below it the idle cores serve better whoever comes next


def fewest_cores(lines: LinesByCores, first_block: int, budget_us: float, correction: float) -> tuple[int, int]:
    """The fewest that end the rest within `budget_us`, and its uncorrected time; if none do, those that end it soonest."""
    best_cores, best_us = 0, 0
    for cores, line in lines:
        us = line.rest_us(first_block)
        if us * correction <= budget_us:
            return cores, us
        if not best_cores or us < best_us:
            best_cores, best_us = cores, us
    return best_cores, best_us


def widen(costs: ModelCosts, first_block: int, cores: int, at_most: int, pressure: float) -> int:
    """The soonest end on `cores`..`at_most` idle ones, if each core more is worth it."""
    least = costs.narrowest
    alone_us = costs.fastest(least, pressure).rest_us(first_block)
    best, best_us = cores, costs.fastest(cores, pressure).rest_us(first_block)
    for wider in costs.core_counts:
        us = costs.fastest(wider, pressure).rest_us(first_block)
        if cores < wider <= at_most and us < best_us and alone_us * least >= WORTH_WIDENING * wider * us:
            best, best_us = wider, us
    return best


def most_measured(costs: ModelCosts, cores: int) -> int:
    """The widest measured core count that is no wider than `cores`, of which there are enough: a table has no row between."""
    return max(c for c in costs.core_counts if c <= cores)
