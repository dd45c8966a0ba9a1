"""The pieces decisions are made of: sums of tables, granularity, cores, pressure."""

import pytest
from core_build import arrived, machine, model, scheduler, variant

from veltair.core.actions import Dispatch
from veltair.core.cores import Crowd, fewest_cores, most_measured, widen
from veltair.core.granularity import LEAST_UNIT_US, MEMORY_US, SeenLately, is_worth_splitting, threshold_us, unit_end
from veltair.core.interference import own_pressure, pressure_now, pressure_on
from veltair.core.predict import ModelCosts
from veltair.core.state import USUAL_HALF_LIFE_US, Ledger
from veltair.core.values import LayerBlock, Model, ModelName, TenantId

M = ModelName("m")
# The whole of a published ResNet-50 by core count: 64 cores are slower than 56.
PUBLISHED = {1: 170_000, 8: 22_376, 16: 11_456, 24: 8_293, 32: 6_331, 40: 5_559, 48: 4_886, 56: 4_342, 64: 6_606}
WIDE = ModelCosts(Model(M, (LayerBlock("b", (variant({c: (us,) for c, us in PUBLISHED.items()}),)),)), most_cores=64)

LINES = WIDE.by_cores(0.0)


def kind(name: str) -> tuple[TenantId, ModelName]:
    return TenantId(name), ModelName(name)


def test_the_fastest_line_takes_the_lighter_footprint_where_times_tie() -> None:
    block = LayerBlock("b", (variant({1: (500,)}, traffic_bytes=9), variant({1: (500,)}, traffic_bytes=3)))
    costs = ModelCosts(Model(M, (block, block)), most_cores=2)
    assert costs.fastest(1, 0.0).variants == (1, 1)
    assert costs.fastest(1, 0.0).span_bytes(0, 2) == 6
    assert costs.least_rest_us(1) == 500


def test_pressure_between_two_steps_counts_as_the_higher_one() -> None:
    costs = ModelCosts(Model(M, (LayerBlock("b", (variant({1: (1_000, 2_000)}, levels=(0.0, 1.0)),)),)), most_cores=1)
    assert costs.fastest(1, 0.01).rest_us(0) == costs.fastest(1, 1 / 16).rest_us(0) > 1_000
    assert costs.fastest(1, 1.0).rest_us(0) == 2_000


def test_units_follow_the_tightest_slack_of_the_others() -> None:
    seen = SeenLately()
    assert seen.tightest_us(kind("a"), 0) is None
    seen.add(kind("a"), 4_000, 0)
    seen.add(kind("b"), 30_000, 0)
    seen.add(kind("c"), 9_000, 0)
    assert seen.tightest_us(kind("b"), 0) == 4_000
    assert seen.tightest_us(kind("a"), 0) == 9_000  # its own slack does not cut its own units
    assert threshold_us(10) == LEAST_UNIT_US  # never finer than handing over is worth


def test_what_was_not_seen_lately_is_forgotten() -> None:
    seen = SeenLately()
    seen.add(kind("a"), 4_000, 0)
    assert seen.tightest_us(kind("b"), MEMORY_US // 2) == 4_000
    assert seen.tightest_us(kind("b"), 2 * MEMORY_US) is None


def test_a_unit_ends_before_the_limit_but_holds_one_block_at_least() -> None:
    line = ModelCosts(model("m", [1_000, 1_000, 5_000, 1_000]), 1).fastest(1, 0.0)
    assert [unit_end(line, 0, limit) for limit in (8_000, 7_999, 2_500, 1)] == [4, 3, 2, 1]
    assert unit_end(line, 2, 1_000) == 3


def test_the_fewest_cores_that_keep_the_budget_are_taken_and_the_quickest_where_none_do() -> None:
    assert [fewest_cores(LINES, 0, budget, 1.0)[0] for budget in (200_000, 12_000, 6_000, 4_400, 1)] == [1, 16, 40, 56, 56]
    assert fewest_cores(LINES, 0, 12_000, 1.2) == (24, 8_293)  # a model that runs slower than its table needs more


def test_more_cores_that_are_slower_are_never_taken() -> None:
    assert widen(WIDE, 0, 1, 64, 0.0) <= 56
    assert widen(WIDE, 0, 8, 12, 0.0) == 8  # nothing was measured between 8 and 16
    assert most_measured(WIDE, 12) == 8
    assert [LINES.within(0, idle) for idle in (1, 63, 64)] == [1, 56, 56]


def test_core_counts_the_machine_does_not_have_are_not_considered() -> None:
    narrow = ModelCosts(WIDE.model, most_cores=20)
    assert fewest_cores(narrow.by_cores(0.0), 0, 1, 1.0) == (16, 11_456)


def test_pressure_is_traffic_over_time_as_a_share_of_bandwidth_and_sums_over_co_runners() -> None:
    assert own_pressure(5_000_000, 1_000, 10_000.0) == 0.5
    assert own_pressure(10**12, 1_000, 10_000.0) == 1.0
    streaming = Model(M, (LayerBlock("b", (variant({1: (1_000,)}, traffic_bytes=3_000_000),)),))
    core = scheduler("veltair", streaming, cores=3)
    felt = []
    for i in range(3):
        [dispatch] = core.handle(arrived(f"r{i}", "m", 0, 50_000), 0)
        assert isinstance(dispatch, Dispatch)
        felt.append(dispatch.pressure)
    assert felt == pytest.approx([0.0, 0.3, 0.6])
    assert machine(3).bandwidth_bytes_per_us == 10_000.0


def test_of_a_machine_that_is_two_thirds_full_nothing_is_spare_and_all_of_one_where_nobody_is_about() -> None:
    crowd = Crowd()
    assert (crowd.spare(64), crowd.spare(2), crowd.comes(64)) == (64, 2, False)
    for _ in range(500):
        crowd.add(21)
    assert (crowd.spare(64), crowd.comes(64)) == (16, True)
    for _ in range(500):
        crowd.add(43)
    assert crowd.spare(64) == 0


def test_of_two_cores_none_is_lent_where_others_come() -> None:
    crowd = Crowd()
    for _ in range(500):
        crowd.add(1)
    assert crowd.spare(2) == 0


def test_expected_is_the_pressure_that_is_usual_lately_even_where_nobody_presses_just_now() -> None:
    ledger = Ledger(machine(2))
    ledger.traffic_per_s = 5_000_000_000
    ledger.pass_time(20 * USUAL_HALF_LIFE_US)
    ledger.traffic_per_s = 0
    assert pressure_now(ledger) == 0.0
    assert pressure_on(ledger) == pytest.approx(0.5, abs=0.01)
    ledger.pass_time(21 * USUAL_HALF_LIFE_US)
    assert pressure_on(ledger) == pytest.approx(0.25, abs=0.01)


def test_more_than_usual_is_expected_to_stay() -> None:
    ledger = Ledger(machine(2))
    ledger.traffic_per_s = 5_000_000_000
    assert pressure_on(ledger) == pressure_now(ledger) == 0.5


def test_a_rest_that_is_hardly_longer_than_the_threshold_is_not_worth_a_hand_over() -> None:
    assert threshold_us(10_000) == 7_000
    assert [is_worth_splitting(us, 10_000) for us in (7_000, 8_000, 9_000, 20_000)] == [False, False, True, True]
