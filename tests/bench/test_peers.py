"""The peers run the very file they are given, and agree on it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from veltair.bench.peers import fixed, onnx_runtime, openvino

WEIGHT = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """y = x @ W for any number of rows."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", width]) for n, width in (("x", 4), ("y", 3))]
    graph = helper.make_graph([node], "product", ports[:1], ports[1:], [numpy_helper.from_array(WEIGHT, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(tmp_path / "product.onnx"))
    return tmp_path / "product.onnx"


def test_a_file_with_open_shapes_is_fixed_and_left_as_it_was(product: Path) -> None:
    before = product.read_bytes()
    copy = fixed(product, {"x": (2, 4)})
    assert [d.dim_value for d in onnx.load(str(copy)).graph.input[0].type.tensor_type.shape.dim] == [2, 4]
    assert product.read_bytes() == before
    assert fixed(product, {}) == product
    assert fixed(copy, {"x": (2, 4)}) == copy


def test_onnx_runtime_gives_what_numpy_gives(product: Path) -> None:
    x = np.ones((2, 4), np.float32)
    peer = onnx_runtime(fixed(product, {"x": (2, 4)}), 1)
    np.testing.assert_allclose(peer.run({"x": x})["y"], x @ WEIGHT, rtol=1e-6)
    assert (peer.name, peer.precision) == ("ONNX Runtime", "fp32")


def test_openvino_gives_what_numpy_gives(product: Path) -> None:
    pytest.importorskip("openvino")
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(openvino(fixed(product, {"x": (2, 4)}), 1, "fp32").run({"x": x})["y"], x @ WEIGHT, rtol=1e-5)
