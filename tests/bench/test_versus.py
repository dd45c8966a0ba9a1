"""What is held against whom: like against like, the best of them is the target, and what falls short is said."""

import numpy as np
import pytest

from veltair.bench import accuracy, versus
from veltair.bench.accuracy import compared
from veltair.bench.versus import Contender, Contest, mean_rows

ROUNDS = 3


def contender(name: str, precision: str, ms: float) -> Contender:
    return Contender(name, "1", precision, name == "veltair", (ms / 1e3,) * ROUNDS)


def contest(model: str, ours: float, ort: float, openvino: float, reduced: tuple[float, float] | None = None) -> Contest:
    made = [contender("veltair", "fp32", ours), contender("ORT", "fp32", ort), contender("OpenVINO", "fp32", openvino)]
    if reduced:
        made += [contender("veltair", "bf16", reduced[0]), contender("OpenVINO", "bf16", reduced[1])]
    return Contest(model, 1, tuple(made))


def test_each_peer_of_the_same_precision_has_a_row_and_the_best_one_is_the_target() -> None:
    rows = versus.rows(contest("m", 10.0, 12.0, 9.0, (5.0, 6.0)), "here", 7)
    held = {row.against: (row.case, row.ratio, row.met) for row in rows if row.against}
    assert held == {
        "ORT 1 fp32": ("m, 1 core, fp32", pytest.approx(1.2), None),
        "OpenVINO 1 fp32": ("m, 1 core, fp32", pytest.approx(0.9), False),
        "OpenVINO 1 bf16": ("m, 1 core, bf16", pytest.approx(1.2), True),
    }
    assert {row.case: row.value for row in rows if row.unit == "ms"}["m, 1 core, bf16, OpenVINO"] == pytest.approx(6.0)


def test_a_ratio_is_the_median_of_the_rounds_and_not_of_two_runs_far_apart() -> None:
    ours = Contender("veltair", "1", "fp32", True, (0.010, 0.030, 0.011))
    peer = Contender("OpenVINO", "1", "fp32", False, (0.020, 0.060, 0.022))
    [pair] = versus.versus(Contest("m", 2, (ours, peer)))
    assert pair.ratio == pytest.approx(2.0)
    assert pair.spread == pytest.approx(0.0)


def test_the_mean_over_models_is_geometric_and_takes_the_best_peer_of_each() -> None:
    contests = [contest("a", 10.0, 40.0, 20.0), contest("b", 10.0, 5.0, 50.0)]
    mean, slower = mean_rows(contests, "here", 0)
    assert (mean.case, mean.ratio, mean.met) == ("2 models, 1 core, fp32", pytest.approx(1.0), False)
    assert (slower.value, slower.met) == (1, False)


def test_cores_and_precisions_are_not_mixed_in_a_mean() -> None:
    one = contest("a", 10.0, 20.0, 20.0, (10.0, 40.0))
    two = Contest("a", 2, one.contenders[:3])  # fp32 alone
    means = {row.case: row.value for row in mean_rows([one, two], "here", 0) if row.unit == "x"}
    assert means == {
        "1 model, 1 core, bf16": pytest.approx(4.0),
        "1 model, 1 core, fp32": pytest.approx(2.0),
        "1 model, 2 cores, fp32": pytest.approx(2.0),
    }


def test_the_worst_sample_and_output_decide_how_alike_answers_are() -> None:
    right = [{"y": np.array([[0.0, 2.0]], np.float32)}, {"y": np.array([[4.0, 0.0]], np.float32)}]
    near = [{"y": np.array([[0.0, 1.9]], np.float32)}, {"y": np.array([[3.0, 4.0]], np.float32)}]
    found = compared(near, right, 0.02)
    assert found.cosines == pytest.approx((1.0, 0.6))
    assert found.likeness.cosine == pytest.approx(0.6)
    assert found.likeness.error == pytest.approx(1.0)
    assert (found.likeness.same, found.likeness.rows) == (1, 2)


def test_reduced_precision_is_judged_by_the_gates_rule() -> None:
    turned = [{"y": np.array([[1.0, 0.1]], np.float32)}]  # by 5.7 degrees: a cosine of 0.995
    right = [{"y": np.array([[1.0, 0.0]], np.float32)}]
    cosine, winner = accuracy.rows("m", "veltair", "bf16", compared(turned, right, 0.02), "here", 0, ours=True)
    assert (cosine.target, cosine.met) == (">= 0.99 where winners are the same", True)
    assert (winner.metric, winner.met) == ("same winner, of 1 clear ones", True)
    flat = [{name: value[0] for name, value in sample.items()} for sample in (*turned, *right)]
    [cosine] = accuracy.rows("m", "veltair", "bf16", compared(flat[:1], flat[1:], 0.02), "here", 0, ours=True)
    assert (cosine.target, cosine.met) == (">= 0.999", False)


def test_other_words_are_another_answer() -> None:
    same = [{"y": np.ones((1, 2), np.float32)}]
    found = compared(same, same, 0.02, [("a cat", "a dog")])
    *_, words = accuracy.rows("m", "veltair", "bf16", found, "here", 0, ours=True)
    assert (words.metric, words.value, words.met) == ("same answer in words, share", 0.0, False)


def test_values_that_are_no_numbers_are_never_alike() -> None:
    bad = compared([{"y": np.array([np.nan, 1.0])}], [{"y": np.array([1.0, 1.0])}], 0.02)
    assert bad.likeness.cosine < 0
    assert bad.likeness.error == np.inf
    rows = accuracy.rows("m", "veltair", "bf16", bad, "here", 0, ours=True)
    assert [row.met for row in rows] == [False]


def test_peers_accuracy_is_told_and_is_no_target() -> None:
    half = compared([{"y": np.ones(2, np.float32)}], [{"y": np.full(2, 2, np.float32)}], 1e-4)
    [row] = accuracy.rows("m", "OpenVINO", "fp32", half, "here", 0, ours=False)
    assert (row.target, row.met, row.value) == (None, None, 0.5)
