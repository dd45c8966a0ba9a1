"""A long layer in parts: one variant for all of it, whatever changes between them."""

import pytest
from core_build import arrived, model, scheduler

from veltair.core.actions import Dispatch
from veltair.core.events import PressureChanged, UnitFinished
from veltair.core.layers import begun_extra_us
from veltair.core.predict import ModelCosts
from veltair.core.scheduler import Scheduler
from veltair.core.state import Job
from veltair.core.values import (
    Footprint,
    LatencyTable,
    LayerBlock,
    LeaseId,
    Model,
    ModelName,
    Request,
    RequestId,
    TenantId,
    Variant,
)

LEVELS = (0.0, 1.0)


def variant(name: str, quiet_us: int, pressed_us: int, traffic_bytes: int = 0) -> Variant:
    return Variant(name, LatencyTable(LEVELS, {1: (quiet_us, pressed_us)}), Footprint(traffic_bytes, 0))


def layer(*times: tuple[tuple[int, int], tuple[int, int]]) -> tuple[LayerBlock, ...]:
    """The parts of one layer, each with the quiet and pressed times of its variants a and b."""
    return tuple(LayerBlock(f"part {i}", (variant("a", *a), variant("b", *b)), continues=i > 0) for i, (a, b) in enumerate(times))


def only(actions: list[object]) -> Dispatch:
    """The whole action list is this one dispatch."""
    (dispatch,) = actions
    assert isinstance(dispatch, Dispatch)
    return dispatch


def test_the_variant_of_a_layer_is_the_best_for_its_parts_together() -> None:
    # block by block it would be a, then b, which leaves out what neither of the two parts computes
    parts = Model(ModelName("long"), layer(((1_000, 1_000), (1_200, 1_200)), ((2_000, 2_000), (1_500, 1_500))))
    core = scheduler("veltair", parts)
    found = only(core.handle(arrived("r", "long", 0, 50_000), 0))  # type: ignore[arg-type]
    assert (found.variants, found.predicted_us) == ((1, 1), 2_700)


def begun_quietly() -> Scheduler:
    """One core; a request whose layer of six parts was begun with variant a, then set aside for a tight one."""
    parts = layer(*[((1_000, 3_000), (1_500, 1_600))] * 6)
    core = scheduler("veltair", Model(ModelName("long"), parts), model("tight", [1_000]), cores=1)
    core.handle(arrived("t", "tight", 0, 5_000), 0)
    core.handle(UnitFinished(LeaseId(1), 1_000), 1_000)
    first = only(core.handle(arrived("r", "long", 1_000, 90_000), 1_000))  # type: ignore[arg-type]
    assert (first.variants, first.end_block) == ((0, 0), 2)
    return core


def test_a_layer_goes_on_as_it_was_begun_when_pressure_has_made_another_variant_faster() -> None:
    core = begun_quietly()
    core.handle(PressureChanged(1.0), 2_000)
    second = only(core.handle(UnitFinished(LeaseId(2), 2_000), 3_000))  # type: ignore[arg-type]
    assert second.first_block == 2
    assert set(second.variants) == {0}
    assert second.predicted_us == 3_000 * len(second.variants)


def test_without_new_pressure_the_prediction_stays_the_plan_s() -> None:
    core = begun_quietly()
    second = only(core.handle(UnitFinished(LeaseId(2), 2_000), 3_000))  # type: ignore[arg-type]
    assert (second.variants, second.predicted_us) == ((0, 0), 2_000)


def test_a_part_must_have_the_variants_of_the_part_before_it() -> None:
    first, second = layer(((1, 1), (1, 1)), ((1, 1), (1, 1)))
    with pytest.raises(ValueError, match="'part 1' continues a layer, so it needs the variants of the block before it"):
        Model(ModelName("m"), (first, LayerBlock("part 1", second.variants[:1], continues=True)))
    with pytest.raises(ValueError, match="'part 1' continues a layer"):
        Model(ModelName("m"), (second,))


def test_what_a_layer_still_takes_is_counted_for_the_variant_that_it_goes_on_with() -> None:
    costs = ModelCosts(Model(ModelName("long"), layer(*[((1_000, 4_000), (1_500, 2_000))] * 6)), most_cores=1)
    job = Job(Request(RequestId("r"), TenantId("t"), ModelName("long"), 0, 50_000), costs, order=1)
    assert begun_extra_us(job, costs, 1, 1.0) == 0  # nothing is begun
    job.next_block, job.last_variant = 2, 0
    assert begun_extra_us(job, costs, 1, 0.0) == 0  # a is the fastest
    assert begun_extra_us(job, costs, 1, 1.0) == 4 * (4_000 - 2_000)
