"""What the rivals' decisions have in common: whom they came from compiles one variant and knows no pressure."""

from collections.abc import Sequence

from veltair.core.actions import Alternative
from veltair.core.plans import UnitPlan
from veltair.core.predict import ModelCosts
from veltair.core.state import Job


def plan_alone(
    job: Job,
    *,
    cores: int,
    wanted_cores: int,
    end_block: int,
    reason: str,
    rejected: Sequence[Alternative] = (),
    correction: float = 1.0,
    riders: Sequence[Job] = (),
) -> UnitPlan:
    """The blocks up to `end_block` as they are fastest on an otherwise idle machine, whatever runs beside them."""
    costs = job.costs.batches[1 + len(riders)] if riders else job.costs
    line, first = costs.fastest(cores, 0.0), job.next_block
    table_us = line.span_us(first, end_block)
    return UnitPlan(
        job=job,
        cores=cores,
        wanted_cores=wanted_cores,
        end_block=end_block,
        variants=line.variants[first:end_block],
        table_us=table_us,
        predicted_us=max(1, round(table_us * correction)),
        traffic_bytes=line.span_bytes(first, end_block),
        pressure=0.0,
        reason=reason,
        rejected=tuple(rejected),
        riders=tuple(riders),
    )


def fastest_within(costs: ModelCosts, first_block: int, at_most: int) -> int:
    """The measured core count up to `at_most` (which holds one) that ends the rest soonest; of equals the fewest cores."""
    return costs.by_cores(0.0).within(first_block, at_most)


def in_cores(cores: int) -> str:
    return "1 core" if cores == 1 else f"{cores} cores"


def in_ms(us: float) -> str:
    return f"{us / 1000:.1f} ms"
