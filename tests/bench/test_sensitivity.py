"""What is read off measured tables: by layer, by kind, and what choosing anew at each level is worth."""

import pytest

from tests.bench.bundles import block, manifest, variant
from veltair.bench.rows import Row
from veltair.bench.sensitivity import (
    At,
    Changes,
    Loss,
    balance,
    best_fixed,
    bound_by,
    bytes_per_flop,
    changes,
    free,
    impossible,
    kinds_of,
    layers_of,
    loss,
    of_kind,
    places,
    quietest,
    that_have,
    total_us,
)
from veltair.bench.sensitivity_rows import ALL, kind_rows, layer_rows, memory_rows, worth_rows
from veltair.bundle.format import CallSpec

ONE = At(1)
FRAGILE = variant("fast", (100, 150, 240), algorithm="winograd")  # the best on a quiet machine alone
STURDY = variant("direct", (120, 130, 140))
COARSE = variant("bf16", (60, 70, 200), precision="bf16")
STEADY = variant("direct", (50, 50, 50))
CROSSING = block("00-conv", FRAGILE, STURDY, COARSE)
NET = manifest(CROSSING, block("01-conv", STEADY))
ABOUT = {"machine": "a machine", "seed": 0}


def test_the_best_variant_changes_where_another_one_is_faster_under_pressure() -> None:
    [crossing, steady] = layers_of(NET)
    assert changes(crossing, "fp32", ONE) == Changes(points=2, changed=2, worth=2)
    assert changes(crossing, "bf16", ONE) == Changes(points=2, changed=1, worth=1)  # 200 against 140
    assert changes(steady, "bf16", ONE) == Changes(points=2, changed=0, worth=0)


def test_a_change_that_gains_less_than_medians_repeat_to_is_worth_nothing() -> None:
    [layer] = layers_of(manifest(block("00", variant("direct", (100, 101, 121)), variant("wide", (101, 100, 100)))))
    assert changes(layer, "fp32", ONE) == Changes(points=2, changed=2, worth=1)


def test_what_is_faster_under_pressure_than_without_it_tells_how_often_tables_err() -> None:
    layers = layers_of(manifest(block("00", variant("direct", (100, 97, 101)), variant("bf16", (50, 40, 30), precision="bf16"))))
    assert impossible(layers, "fp32", ONE) == (1, 2)
    assert impossible(layers, "bf16", ONE) == (3, 4)


def test_parts_of_a_layer_are_one_choice() -> None:
    hasty, later = variant("direct", (10, 10, 10)), variant("wide", (30, 30, 30))
    parts = [block("00", hasty, later), block("01", variant("direct", (90, 90, 90)), later, continues=True)]
    [layer] = layers_of(manifest(*parts))
    assert layer.us(0, ONE) == (100, 100, 100)
    assert quietest([layer], "fp32", ONE) == [1]  # though the first part alone would be faster as 0


def test_free_choice_is_the_best_of_each_layer_at_each_level() -> None:
    layers = layers_of(NET)
    assert free(layers, "fp32", ONE) == [150, 180, 190]
    assert free(layers, "bf16", ONE) == [110, 120, 190]
    assert total_us(layers, quietest(layers, "fp32", ONE), ONE) == [150, 200, 290]


def test_the_best_single_choice_loses_less_in_the_mean_than_any_other_and_than_what_is_fastest_on_a_quiet_machine() -> None:
    layers = layers_of(NET)
    fixed = best_fixed(layers, "fp32", ONE)
    assert fixed == [1, 0]
    assert loss(layers, fixed, "fp32", ONE) == Loss(pytest.approx((20 / 150) / 3), pytest.approx(20 / 150))
    quiet = loss(layers, quietest(layers, "fp32", ONE), "fp32", ONE)
    assert quiet == Loss(pytest.approx((20 / 180 + 100 / 190) / 3), pytest.approx(100 / 190))


def test_a_model_of_one_kind_falls_back_on_exact_variants_where_a_layer_has_none_of_it() -> None:
    layers = layers_of(NET)
    assert kinds_of(layers) == ["winograd fp32", "direct fp32", "direct bf16"]
    assert [len(that_have(layers, kind)) for kind in kinds_of(layers)] == [1, 2, 1]
    assert of_kind(layers, "direct bf16", ONE) == [2, 0]
    assert of_kind(layers, "lean fp32", ONE) == [0, 0]


def test_lean_and_small_variants_are_kinds_of_their_own_whatever_their_algorithm() -> None:
    light = [variant("lean", (1, 1, 1), algorithm="winograd"), variant("bf16-lean", (1, 1, 1), precision="bf16")]
    assert kinds_of(layers_of(manifest(block("00", *light, variant("small", (1, 1, 1)))))) == [
        "lean fp32", "lean bf16", "small fp32",
    ]  # fmt: skip


def test_a_place_is_looked_at_where_every_variant_was_measured() -> None:
    both = variant("direct", (9, 9, 9), (5, 5, 5), cache_us=(9, 9, 12))
    assert list(places(manifest(block("00", both)))) == [At(1), At(2), At(1, "cache")]
    assert list(places(manifest(block("00", both, STEADY)))) == [At(1)]
    assert layers_of(manifest(block("00", both)))[0].us(0, At(1, "cache")) == (9, 9, 12)


def test_memory_bounds_a_layer_that_needs_more_bytes_a_flop_than_a_core_can_have() -> None:
    call = {name: CallSpec(f"{name}_0", (0, tensor)) for name, tensor in (("gemm", 0), ("depthwise", 2), ("conv", 2))}
    computing = block(
        "00-conv", variant("direct", (100, 100, 100), traffic_bytes=10_000, calls=(call["conv"],)), flops=10_000_000
    )
    moving = block(
        "01-conv",
        variant("direct", (50, 60, 70), traffic_bytes=900_000, calls=(call["gemm"], call["depthwise"])),
        flops=1_000_000,
    )
    net = manifest(computing, moving)
    assert balance([net]) == pytest.approx(20_000 / 100_000)
    quick, slow = layers_of(net)
    assert (bytes_per_flop(quick), bytes_per_flop(slow)) == (0.001, 0.9)
    assert (bound_by(quick, net), bound_by(slow, net)) == ([], ["gemm of one row", "depthwise"])
    assert {row.case for row in memory_rows([net], ABOUT)} == {"net/01-conv (gemm of one row, depthwise), 1 core"}


def test_a_product_of_several_rows_is_no_product_of_one() -> None:
    wide = block("00", variant("direct", (1, 1, 1), calls=(CallSpec("gemm_0", (0, 1)),)))
    assert bound_by(layers_of(manifest(wide))[0], manifest(wide)) == []


def value(rows: list[Row], case: str, metric: str) -> tuple[float | None, str]:
    [row] = [row for row in rows if (row.case, row.metric) == (case, metric)]
    return row.value, row.unit


def test_rows_tell_slowdowns_by_kind_and_layers_that_change() -> None:
    rows = list(kind_rows([NET], ABOUT))
    assert value(rows, "net, winograd fp32, 1 core", "bandwidth 1") == (pytest.approx(290 / 150), "x")
    assert value(rows, "net, winograd fp32, 1 core", "layers that have it") == (1, "of 2")
    assert value(rows, "net, winograd fp32, 1 core", "these layers, bandwidth 1") == (pytest.approx(2.4), "x")
    assert {row.case.partition(",")[0] for row in layer_rows([NET], ABOUT)} == {"net/00-conv"}


def test_times_on_all_cores_measured_are_said_to_be_modelled() -> None:
    [one, two] = {row.case for row in kind_rows([manifest(block("00", variant("direct", (9, 9, 9), (5, 5, 5))))], ABOUT)}
    assert sorted((one, two)) == ["net, direct fp32, 1 core", "net, direct fp32, 2 cores (modelled)"]


def test_points_of_all_models_are_counted_and_losses_averaged() -> None:
    rows = list(worth_rows([NET, manifest(block("00", STEADY), name="other")], ABOUT))
    case = "fp32 permitted, 1 core, bandwidth"
    assert value(rows, f"net, {case}", "best changes") == (2, "of 4")
    assert value(rows, f"{ALL}, {case}", "best changes") == (2, "of 6")
    of_net, _ = value(rows, f"net, {case}", "quiet one: mean loss")
    of_all, _ = value(rows, f"{ALL}, {case}", "quiet one: mean loss")
    assert of_net is not None
    assert of_all == pytest.approx(of_net / 2)
    assert {row.case for row in rows if "bf16" in row.case and "other" in row.case} == set()
