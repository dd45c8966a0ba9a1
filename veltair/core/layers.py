"""A layer in parts is finished as it was begun.

The parts of a long layer are blocks of their own, so a request may be set aside between them. When it goes on, pressure may
have changed and with it the best variant, but another variant would leave out some of the layer's iterations and repeat
others.
"""

from dataclasses import replace

from veltair.core.plans import UnitPlan
from veltair.core.predict import ModelCosts
from veltair.core.state import Job


def begun_extra_us(job: Job, costs: ModelCosts, cores: int, pressure: float) -> int:
    """How much longer the rest of a layer takes as the variant it was begun as than as the fastest one now."""
    first = job.next_block
    if first == 0 or not costs.model.blocks[first].continues:
        return 0
    fastest, end = costs.fastest(cores, pressure), costs.model.layer_end(first)
    if fastest.variants[first] == job.last_variant:
        return 0
    return costs.as_chosen_us((job.last_variant,) * (end - first), first, cores, pressure) - fastest.span_us(first, end)


def as_begun(plan: UnitPlan) -> UnitPlan:
    """The plan, with the rest of a layer that was begun before as the variant it was begun as."""
    job, model = plan.job, plan.job.costs.model
    first = job.next_block
    if not model.blocks[first].continues or plan.variants[0] == job.last_variant:
        return plan
    count = min(model.layer_end(first), plan.end_block) - first
    begun = (job.last_variant,) * count
    planned_us = job.costs.as_chosen_us(plan.variants[:count], first, plan.cores, plan.pressure)
    begun_us = job.costs.as_chosen_us(begun, first, plan.cores, plan.pressure)
    table_us = plan.table_us + begun_us - planned_us
    return replace(
        plan,
        variants=begun + plan.variants[count:],
        table_us=table_us,
        predicted_us=max(1, round(plan.predicted_us * table_us / plan.table_us)),
    )
