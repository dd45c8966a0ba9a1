"""Kernels against the machine: which limit holds for whom, and what a summary weighs by."""

from typing import Any

import pytest

from veltair.bench.roofline import Limits, Measured, Timed, rows, summary
from veltair.compiler.schedules.winograd import Winograd

ABOUT: dict[str, Any] = {"machine": "here", "seed": 0}
LIMITS = {(1, "fp32"): Limits(100.0, 20.0), (2, "fp32"): Limits(200.0, 30.0), (1, "bf16"): Limits(200.0, 20.0)}
FLOPS = 100_000_000  # a millisecond at the peak of one core


def ours(ms: float, algorithm: str = "direct", precision: str = "fp32", cold: int = 1_000) -> Timed:
    return Timed(algorithm, precision, True, (ms / 1e3,) * 3, cold)


def peer(ms: float, precision: str = "fp32") -> Timed:
    return Timed("OpenVINO 1", precision, False, (ms / 1e3,) * 3)


def measured(*timed: Timed, cores: int = 1, flops: int = FLOPS, count: int = 1) -> Measured:
    return Measured("conv", flops, count, cores, timed)


def test_a_kernel_with_much_work_a_byte_is_held_against_the_peak() -> None:
    [row] = rows(measured(ours(1.05)), LIMITS, None, ABOUT)
    assert (row.metric, row.unit, row.against, row.met) == ("fp32 direct", "GFLOP/s", "FMA peak", True)
    assert row.ratio == pytest.approx(1 / 1.05)
    [slow] = rows(measured(ours(1.2)), LIMITS, None, ABOUT)
    assert slow.met is False


def test_a_kernel_that_waits_for_its_weights_is_told_in_bytes_and_held_against_nothing() -> None:
    [row] = rows(measured(ours(2.0, cold=30_000_000)), LIMITS, None, ABOUT)  # 1.5 ms of bandwidth, 1 ms of work
    assert (row.metric, row.unit, row.met) == ("fp32 direct, memory-bound", "GB/s", None)
    assert row.value == pytest.approx(15.0)
    assert row.ratio == pytest.approx(0.75)


def test_an_algorithm_with_fewer_multiplications_may_pass_the_peak_and_is_no_target() -> None:
    made = rows(measured(ours(1.1), ours(0.5, "winograd")), LIMITS, None, ABOUT)
    assert [(row.metric, row.met) for row in made] == [("fp32 direct", True), ("fp32 winograd, effective", None)]
    assert made[1].ratio == pytest.approx(2.0)


def test_a_peer_is_met_by_the_best_form_of_its_own_precision() -> None:
    made = rows(
        measured(ours(1.0), ours(0.5, "winograd"), ours(0.4, "direct", "bf16"), peer(1.0), peer(1.0, "bf16")), LIMITS, None, ABOUT
    )
    held = {row.against: (row.metric, row.ratio) for row in made if str(row.against).startswith("OpenVINO")}
    assert held == {
        "OpenVINO 1 fp32": ("fp32, best (winograd)", pytest.approx(2.0)),
        "OpenVINO 1 bf16": ("bf16, best (direct)", pytest.approx(2.5)),
    }


@pytest.mark.parametrize(("ms", "met"), [(0.5, True), (0.56, False)])
def test_two_cores_should_take_half_the_time_of_one(ms: float, met: bool) -> None:
    made = rows(measured(ours(ms), cores=2), LIMITS, measured(ours(1.0)), ABOUT)
    [row] = [row for row in made if row.metric == "fp32 direct, speed-up"]
    assert (row.value, row.target, row.met) == (pytest.approx(1 / ms), ">= 1.90x", met)


def test_forms_of_one_algorithm_are_each_held_against_themselves() -> None:
    kernels = [Winograd(1, 4, 16, 56, 56, 4, 16, (1, 1, 1, 1), m, 4) for m in (4, 2)]
    alone, shared = ([ours(ms, k.variety) for k, ms in zip(kernels, each, strict=True)] for each in ((1.0, 1.6), (0.5, 0.8)))
    made = rows(measured(*shared, cores=2), LIMITS, measured(*alone), ABOUT)
    assert [row.value for row in made if row.metric.endswith("speed-up")] == [pytest.approx(2.0), pytest.approx(2.0)]


def test_the_summary_weighs_kernels_by_the_time_they_take_in_the_models() -> None:
    good, bad = measured(ours(1.0), count=3), measured(ours(2.0), flops=FLOPS, count=1)
    waits = measured(ours(9.0, cold=10**9), count=100)
    made = {row.metric: row for row in summary([good, bad, waits], {(1, "fp32"): LIMITS[1, "fp32"]}, ABOUT)}
    assert made["share of compute-bound time at 90% of the peak"].value == pytest.approx(3 / 5)
    assert made["share of the peak, mean over time"].value == pytest.approx((3 * 1.0 + 2 * 0.5) / 5)


def test_what_has_no_kernel_in_a_precision_has_no_summary_of_it() -> None:
    assert summary([measured(ours(1.0))], {(1, "bf16"): LIMITS[1, "bf16"]}, ABOUT) == []
