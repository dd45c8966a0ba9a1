"""Which variants a unit runs as: by tables, by what was measured lately, and while a model is adrift."""

from collections.abc import Mapping

import pytest
from core_build import machine
from hypothesis import given
from hypothesis import strategies as st

from veltair.core.choice import Choice
from veltair.core.predict import ModelCosts
from veltair.core.residuals import Residuals
from veltair.core.state import Job, Ledger
from veltair.core.values import (
    Footprint,
    LatencyTable,
    LayerBlock,
    Model,
    ModelName,
    Request,
    RequestId,
    TenantId,
    Variant,
)

M = ModelName("m")


def form(name: str, quiet_us: int, pressed_us: int, traffic_bytes: int) -> Variant:
    return Variant(name, LatencyTable((0.0, 1.0), {1: (quiet_us, pressed_us)}), Footprint(traffic_bytes, 0))


FAST, DIRECT = form("fast", 900, 3_000, 9_000_000), form("direct", 1_000, 1_500, 1_000_000)
COSTS = ModelCosts(Model(M, (LayerBlock("a", (FAST, DIRECT)), LayerBlock("b", (FAST, DIRECT)))), most_cores=1)


class Told(Residuals):
    """Of variants it says what it was told."""

    def __init__(self, *, adrift: bool = False, **uneven: float) -> None:
        super().__init__()
        self.told, self.drifts = uneven, adrift

    def uneven(self, model: ModelName, now_us: int) -> Mapping[str, float] | None:
        return self.told or None

    def is_adrift(self, model: ModelName) -> bool:
        return self.drifts


def chosen(choice: Choice, residuals: Residuals, pressure: float = 0.0) -> tuple[str, str]:
    """The variant of the next unit's blocks, and why those that the tables like better were not taken."""
    ledger = Ledger(machine(1), residuals=residuals, outside_pressure=pressure)
    job = Job(Request(RequestId("r"), TenantId("t"), M, 0, 100_000), COSTS, order=1)
    line, _, rejected = choice.choose(job, COSTS, 1, 2, ledger, 0)
    assert len(set(line.variants)) == 1
    return COSTS.model.blocks[0].variants[line.variants[0]].name, rejected[0].why if rejected else ""


def test_the_least_predicted_time_at_this_pressure_is_taken() -> None:
    assert chosen(Choice(), Residuals()) == ("fast", "")
    why = "3900 us in place of 2500 at pressure 0.50"
    assert chosen(Choice(), Residuals(), pressure=0.5) == ("direct", why)


def test_a_variant_that_took_longer_lately_than_its_table_says_gives_way() -> None:
    assert chosen(Choice(), Told(fast=1.4)) == ("direct", "took longer lately than they say")


def test_a_small_difference_is_no_reason_to_switch() -> None:
    assert chosen(Choice(), Told(fast=1.2)) == ("fast", "")


def test_what_was_switched_to_is_kept_until_it_gains_nothing() -> None:
    choice = Choice()
    forms = [chosen(choice, Told(fast=times))[0] for times in (1.0, 1.4, 1.2, 1.15, 1.05, 1.15, 1.2)]
    assert forms == ["fast", "direct", "direct", "direct", "fast", "fast", "fast"]


@given(st.lists(st.floats(1.15, 1.22), min_size=2, max_size=100), st.booleans())
def test_variants_of_nearly_one_time_do_not_take_turns(times: list[float], switched: bool) -> None:
    choice = Choice()
    first = chosen(choice, Told(fast=1.5 if switched else 1.0))
    assert {chosen(choice, Told(fast=each))[0] for each in times} == {first[0]}


def test_while_a_model_is_adrift_it_runs_as_what_stands_a_crowded_machine_best() -> None:
    form, why = chosen(Choice(), Told(adrift=True))
    assert form == "direct"
    assert "adrift" in why


def test_the_time_that_is_foretold_counts_what_its_variants_took_lately() -> None:
    ledger = Ledger(machine(1), residuals=Told(fast=1.1))
    job = Job(Request(RequestId("r"), TenantId("t"), M, 0, 100_000), COSTS, order=1)
    assert Choice().choose(job, COSTS, 1, 2, ledger, 0).us == pytest.approx(2 * 900 * 1.1)
