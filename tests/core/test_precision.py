"""Reduced precision is a tenant's to permit: who did not permit it gets exact variants, and promises that hold for those."""

import pytest
from core_build import arrived, machine, model, scheduler, variant

from veltair.core.actions import Complete, Dispatch, Refuse
from veltair.core.events import PressureChanged, UnitFinished
from veltair.core.policies import POLICIES
from veltair.core.predict import costs_by_precision
from veltair.core.scheduler import Scheduler
from veltair.core.values import Footprint, LatencyTable, LayerBlock, LeaseId, Model, ModelName, Precision, Variant

EXACT, REDUCED = 0, 1
LEVELS = (0.0, 1.0)
BOTH = LayerBlock(
    "both",
    (
        variant({1: (2_000, 6_000)}, traffic_bytes=20_000_000, levels=LEVELS),
        variant({1: (1_000, 1_100)}, traffic_bytes=1_000, levels=LEVELS, precision="bf16"),
    ),
)
SLOW_IN_BF16 = LayerBlock("slow in bf16", (variant({1: (500,)}), variant({1: (700,)}, precision="bf16")))
MIXED = Model(ModelName("mixed"), (BOTH, SLOW_IN_BF16))


def ran(core: Scheduler, permits: Precision, qos_us: int = 60_000) -> Dispatch:
    [dispatch] = core.handle(arrived("r", "mixed", 0, qos_us, permits=permits), 0)
    assert isinstance(dispatch, Dispatch)
    return dispatch


def ran_whole(core: Scheduler, permits: Precision) -> tuple[tuple[int, ...], int]:
    """The variant of each block and the time foretold for all, in however many units the policy runs them."""
    unit, variants, us = ran(core, permits), (), 0
    while True:
        variants, us = (*variants, *unit.variants), us + unit.predicted_us
        ended = core.handle(UnitFinished(unit.lease.id, unit.predicted_us), us)
        if not isinstance(ended[0], Dispatch):
            return variants, us
        unit = ended[0]


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("pressure", [0.0, 0.4, 1.0])
def test_an_exact_tenant_never_runs_a_bf16_variant_whatever_the_pressure(policy: str, pressure: float) -> None:
    core = scheduler(policy, MIXED)
    core.handle(PressureChanged(pressure), 0)
    assert ran_whole(core, "fp32")[0] == (EXACT, EXACT)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_tenant_that_permits_bf16_gets_it_where_it_is_faster_and_only_there(policy: str) -> None:
    assert ran_whole(scheduler(policy, MIXED), "bf16") == ((REDUCED, EXACT), 1_500)


def test_an_exact_unit_is_not_made_coarser_to_spare_a_neighbour() -> None:
    # Beside a request without slack the gentlest variants would be bf16: they are not this tenant's to run.
    tight = Model(ModelName("tight"), (LayerBlock("t", (variant({1: (1_000, 3_000)}, levels=LEVELS),)),))
    core = scheduler("veltair", MIXED, tight)
    core.handle(arrived("t", "tight", 0, 1_200), 0)
    assert set(ran(core, "fp32").variants) == {EXACT}


def test_admission_promises_what_the_permitted_variants_can_do() -> None:
    core = scheduler("veltair", MIXED, cores=1)
    [refusal] = core.handle(arrived("a", "mixed", 0, 2_000, permits="fp32"), 0)
    assert isinstance(refusal, Refuse)
    assert refusal.earliest_deadline_us is not None
    assert refusal.earliest_deadline_us >= 2_500
    start, *_ = core.handle(arrived("b", "mixed", 0, 2_000, permits="bf16"), 0)
    assert isinstance(start, Dispatch)


def test_tenants_of_one_model_and_different_permissions_are_served_side_by_side() -> None:
    core = scheduler("veltair", MIXED, cores=1)
    core.handle(arrived("a", "mixed", 0, 50_000, "exact", "fp32"), 0)
    core.handle(arrived("b", "mixed", 0, 60_000, "coarse", "bf16"), 0)
    answer, second = core.handle(UnitFinished(LeaseId(1), 2_500), 2_500)
    assert isinstance(answer, Complete)
    assert isinstance(second, Dispatch)
    assert second.variants == (REDUCED, EXACT)


def test_a_model_without_reduced_variants_has_one_set_of_tables() -> None:
    costs = costs_by_precision(model("plain", [1_000]), most_cores=2)
    assert costs["bf16"] is costs["fp32"]


def test_core_counts_measured_for_bf16_alone_are_no_choice_for_an_exact_tenant() -> None:
    wide = LayerBlock("wide", (variant({1: (2_000,)}), variant({1: (1_500,), 2: (800,)}, precision="bf16")))
    costs = costs_by_precision(Model(ModelName("m"), (wide,)), most_cores=len(machine().cores))
    assert [cores for cores, _ in costs["fp32"].by_cores(0.0)] == [1]
    assert [line.rest_us(0) for _, line in costs["bf16"].by_cores(0.0)] == [1_500, 800]


def test_a_block_without_an_exact_variant_is_rejected() -> None:
    with pytest.raises(ValueError, match="block 'b' has no fp32 variant"):
        LayerBlock("b", (variant({1: (1,)}, precision="bf16"),))


def test_a_precision_nobody_knows_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="variant 'v' has the precision 'fp8'; known: fp32, bf16"):
        Variant("v", LatencyTable((0.0,), {1: (1,)}), Footprint(0, 0), "fp8")  # type: ignore[arg-type]
