"""What a model's kernels compute, found in the model and posed again as a file of its own."""

from pathlib import Path

import numpy as np
import pytest

from veltair.bench.peers import onnx_runtime
from veltair.bench.problems import Problem, as_onnx, problems_of
from veltair.compiler.schedules.conv import Window
from veltair.models.onnx_graph import GraphWriter

THREE = Window((3, 3), (2, 2), (1, 1), (1, 1, 1, 1))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two equal convolutions with different tails, a strided one, and a product."""
    writer = GraphWriter("net")
    rng = np.random.default_rng(0)

    def conv(x: str, name: str, size: int, channels: int, **attributes: object) -> str:
        weights = writer.weight(f"{name}.w", rng.random((channels, channels, size, size), np.float32))
        return writer.node("Conv", [x, weights], name, **attributes)

    first = writer.node("Relu", [conv("x", "a", 1, 20)], "relu")
    second = conv(first, "b", 1, 20)
    third = conv(second, "c", 3, 20, strides=[2, 2], pads=[1, 1, 1, 1])
    pooled = writer.node("Flatten", [writer.node("GlobalAveragePool", [third], "pooled")], "flat")
    product = writer.node("MatMul", [pooled, writer.weight("w", rng.random((20, 32), np.float32))], "y")
    return writer.save(
        tmp_path_factory.mktemp("net") / "net.onnx", {"x": ("float32", (1, 20, 8, 8))}, {product: ("float32", (1, 32))}
    )


def test_equal_problems_are_one_with_all_its_calls_and_the_most_work_comes_first(net: Path) -> None:
    found = problems_of({"net": (net, {}), "again": (net, {})})
    assert {problem.label: wanted.calls for problem, wanted in found.items()} == {
        "conv 3x3/2 20->20 at 8x8": {"net": 1, "again": 1},
        "conv 1x1 20->20 at 1x64": {"net": 2, "again": 2},
        "gemm 1x20 by 32": {"net": 1, "again": 1},
    }
    work = [problem.flops * wanted.count for problem, wanted in found.items()]
    assert work == sorted(work, reverse=True)


def test_work_is_counted_without_the_padding_of_a_layout(net: Path) -> None:
    for problem, wanted in problems_of({"net": (net, {})}).items():
        exact = {"conv 3x3/2 20->20 at 8x8": 2 * 20 * 4 * 4 * 20 * 9, "conv 1x1 20->20 at 1x64": 2 * 20 * 64 * 20}
        assert problem.flops == exact.get(problem.label, 2 * 20 * 32)
        assert wanted.forms[0].precision == "fp32"
        assert wanted.forms[0].algorithm == "direct"


@pytest.mark.parametrize(
    "problem",
    [Problem((1, 3, 6, 5), (4, 3, 3, 3), THREE), Problem((2, 5), (5, 7)), Problem((1, 4, 1, 9), (2, 4, 1, 1), Window((1, 1)))],
)
def test_a_problems_file_has_a_node_for_each_copy_with_weights_of_its_own(problem: Problem, tmp_path: Path) -> None:
    path = as_onnx(problem, 3, tmp_path / "problem.onnx", seed=0)
    outputs = onnx_runtime(path, 1).run({"x": np.ones(problem.data, np.float32)})
    assert {output.shape for output in outputs.values()} == {problem.output}
    assert not np.allclose(outputs["y0"], outputs["y1"])
    assert len(outputs) == 3
