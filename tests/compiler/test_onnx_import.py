"""What cannot be compiled is refused with an error that names the thing, the value and the remedy."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from veltair.compiler import onnx_file, onnx_import
from veltair.compiler.gate import Reference
from veltair.compiler.onnx_import import load
from veltair.errors import CompileError, DynamicShape, ModelTooLarge, NotAnOnnxModel, UnknownInput, UnsupportedOperator

from .small import assert_equal, line_of, model_of, reference, run_line, save

X = np.ones((2, 3), np.float32)
DYNAMIC = {"x": (TensorProto.FLOAT, ["batch", 3])}


def relu(inputs: object = None) -> onnx.ModelProto:
    return model_of([("Relu", "x", "y")], inputs or {"x": X})  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [b"", b"hello, I am a text file\n", b"\x00" * 64, b"\x7fELF\x02\x01\x01", b"{}"])
def test_a_file_that_is_no_onnx_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(data)
    with pytest.raises(NotAnOnnxModel, match=r"notes\.txt.*export the model to ONNX"):
        load(path, {})


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotAnOnnxModel, match=r"gone\.onnx: cannot be read .*give the path"):
        load(tmp_path / "gone.onnx", {})
    with pytest.raises(NotAnOnnxModel, match="cannot be read"):
        load(tmp_path, {})


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_model_is_a_compile_error(tmp_path: Path, share: float) -> None:
    path = save(
        model_of([("MatMul", "x w", "h"), ("Relu", "h", "y")], {"x": X}, "y", {"w": np.ones((3, 4), np.float32)}), tmp_path
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CompileError, match=r"small\.onnx"):
        load(path, {})


def test_an_unknown_operator_is_named_with_its_node(tmp_path: Path) -> None:
    model = relu()
    model.graph.node[0].op_type = "Frobnicate"
    with pytest.raises(UnsupportedOperator, match=r"'n0_Relu' uses operator 'Frobnicate'.*replace it"):
        load(save(model, tmp_path), {})


def test_an_operator_of_a_foreign_domain_is_named(tmp_path: Path) -> None:
    model = relu()
    model.graph.node[0].domain = "com.example"
    with pytest.raises(UnsupportedOperator, match=r"'Relu', unknown in domain 'com.example'"):
        load(save(model, tmp_path), {})


def test_an_operator_newer_than_the_opset_is_named(tmp_path: Path) -> None:
    model = relu()
    model.graph.node[0].op_type = "Gelu"  # since 20
    with pytest.raises(UnsupportedOperator, match="'Gelu', unknown in ONNX opset 17"):
        load(save(model, tmp_path), {})


def test_functions_of_the_models_own_are_read_as_what_they_consist_of(tmp_path: Path) -> None:
    model = relu()
    model.graph.node[0].op_type, model.graph.node[0].domain = "Twice", "mine"
    parts = [helper.make_node("Add", ["a", "a"], ["b"]), helper.make_node("Relu", ["b"], ["c"])]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    model.functions.append(helper.make_function("mine", "Twice", ["a"], ["c"], parts, opsets))
    model.opset_import.append(opsets[1])
    assert [node.op for node in load(save(model, tmp_path), {}).graph.nodes] == ["Add", "Relu"]


def test_control_flow_is_named(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(X))],
        "branch",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [2, 3])],
    )
    model = relu()
    model.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    model.graph.node.append(helper.make_node("If", ["flag"], ["z"], name="choice", then_branch=branch, else_branch=branch))
    with pytest.raises(UnsupportedOperator, match=r"'choice' is control flow \(If\).*unrolled"):
        load(save(model, tmp_path), {})


def test_a_quantised_model_is_refused(tmp_path: Path) -> None:
    constants = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    steps = [("QuantizeLinear", "x s z", "q"), ("DequantizeLinear", "q s z", "y")]
    with pytest.raises(UnsupportedOperator, match=r"'n0_QuantizeLinear' is quantised.*fp32"):
        load(save(model_of(steps, {"x": X}, "y", constants), tmp_path), {})


def test_a_dynamic_shape_asks_for_input(tmp_path: Path) -> None:
    path = save(relu(DYNAMIC), tmp_path)
    with pytest.raises(DynamicShape, match=r"'x' has the dynamic shape .*--input x=1x3"):
        load(path, {})
    assert load(path, {"x": (5, 3)}).graph.shapes["y"] == (5, 3)


def test_an_input_without_any_shape_asks_for_input(tmp_path: Path) -> None:
    model = relu()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(DynamicShape, match="--input x="):
        load(save(model, tmp_path), {})


@pytest.mark.parametrize("given", [(5, 4), (5,), (5, 3, 1), (0, 3), (-1, 3)])
def test_a_shape_that_contradicts_the_model_is_refused(tmp_path: Path, given: tuple[int, ...]) -> None:
    with pytest.raises(DynamicShape, match="'x'.*" + "x".join(map(str, given))):
        load(save(relu(DYNAMIC), tmp_path), {"x": given})


def test_a_shape_for_an_input_the_model_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownInput, match="no input 'image'; its inputs are x"):
        load(save(relu(), tmp_path), {"image": (1, 3)})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, bad: float) -> None:
    weights = np.ones((3, 4), np.float32)
    weights[1, 2] = bad
    with pytest.raises(CompileError, match="'w' holds 1 inf or NaN"):
        load(save(model_of([("MatMul", "x w", "y")], {"x": X}, "y", {"w": weights}), tmp_path), {})


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    model = model_of([("MatMul", "x w", "y")], {"x": X}, "y", {"w": np.ones((3, 4000), np.float32)})
    path = tmp_path / "small.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="small.data", size_threshold=16)
    assert load(path, {}).graph.constants["w"].shape == (3, 4000)
    (tmp_path / "small.data").unlink()
    with pytest.raises(NotAnOnnxModel, match=r"small\.onnx.*external data.*keep the data file"):
        load(path, {})


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_another_precision_than_fp32_is_named(tmp_path: Path, kind: int) -> None:
    with pytest.raises(CompileError, match=r"'x' is float(16|64).*export the model in fp32"):
        load(save(relu({"x": (kind, [2, 3])}), tmp_path), {})


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    model = relu()
    model.graph.output.append(onnx.ValueInfoProto(name="x", type=model.graph.input[0].type))
    with pytest.raises(CompileError, match=r"'x' is an input and an output.*Identity"):
        load(save(model, tmp_path), {})


def test_a_model_without_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="takes no inputs"):
        load(save(model_of([("Relu", "c", "y")], {}, "y", {"c": X}), tmp_path), {})


def test_a_model_that_onnx_runtime_refuses_is_a_compile_error(tmp_path: Path) -> None:
    model = relu()
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(CompileError, match=r"small\.onnx"):
        load(save(model, tmp_path), {})


def test_a_shape_that_depends_on_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DynamicShape, match="NonZero node 'n0_NonZero'"):
        load(save(model_of([("NonZero", "x", "y")], {"x": X}), tmp_path), {})


def external(folder: Path, weights: Any) -> Path:
    """A model whose weights lie in small.data."""
    model = model_of([("MatMul", "x w", "y")], {"x": X}, "y", {"w": weights})
    path = folder / "small.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="small.data", size_threshold=16)
    return path


def test_the_digest_covers_external_data(tmp_path: Path) -> None:
    weights = np.ones((3, 4000), np.float32)
    first = load(external(tmp_path, weights), {}).source
    graph_file = (tmp_path / "small.onnx").read_bytes()
    data = bytearray((tmp_path / "small.data").read_bytes())
    data[5] ^= 1
    (tmp_path / "small.data").write_bytes(data)
    assert (tmp_path / "small.onnx").read_bytes() == graph_file
    assert load(tmp_path / "small.onnx", {}).source != first


def test_external_data_that_was_cut_off_or_lies_elsewhere_is_named(tmp_path: Path) -> None:
    path = external(tmp_path, np.ones((3, 4000), np.float32))
    (tmp_path / "small.data").write_bytes(b"1234")
    with pytest.raises(NotAnOnnxModel, match=r"'small\.data' has 4 bytes, 'w' ends at 48000"):
        load(path, {})
    model = onnx.load(str(path), load_external_data=False)
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == "location").value = "../small.data"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(NotAnOnnxModel, match=r"'\.\./small\.data' leads out of its folder"):
        load(path, {})


@pytest.mark.parametrize("offloaded_bytes", [1 << 28, 0])
def test_large_constants_are_mapped_from_a_file_that_goes_with_the_import(
    tmp_path: Path, offloaded_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of a model that carries them itself, and is too large to be handed over in memory."""
    monkeypatch.setattr(onnx_import, "_OFFLOADED_BYTES", offloaded_bytes)
    weights = np.arange(12_000, dtype=np.float32).reshape(3, 4000)
    imported = load(save(model_of([("MatMul", "x w", "y")], {"x": X}, "y", {"w": weights}), tmp_path), {})
    folder, array = imported.folded.parent, imported.graph.constants["w"]
    assert sorted(file.name for file in folder.iterdir()) == ["folded.data", "folded.onnx"]
    assert not array.flags.owndata
    assert not array.flags.writeable
    assert Reference(imported.folded, ()).run({"x": X})["y"].shape == (2, 4000)
    del imported
    assert not folder.exists()
    np.testing.assert_array_equal(array, weights)


def test_a_product_of_more_axes_keeps_them(tmp_path: Path) -> None:
    """ONNX Runtime would make it a Gemm between Reshapes, and a bias behind those cannot be fused at batch 2."""
    rng = np.random.default_rng(4)
    tokens, weights = rng.standard_normal((2, 5, 8)).astype(np.float32), rng.standard_normal((8, 16)).astype(np.float32)
    model = model_of([("MatMul", "x w", "h"), ("Add", "h b", "y")], {"x": tokens}, "y", {"w": weights, "b": weights[0]})
    path = save(model, tmp_path)
    assert [node.op for node in load(path, {}).graph.nodes] == ["MatMul", "Add"]
    assert [call.label for call in line_of(path).calls] == ["MatMul+Add"]


def test_nothing_is_left_behind_by_an_import_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with pytest.raises(DynamicShape):
        load(save(model_of([("NonZero", "x", "y")], {"x": X}), tmp_path), {})
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("outside", [False, True])
def test_a_model_larger_than_memory_is_refused_before_it_is_read(
    tmp_path: Path, outside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = np.ones((3, 4000), np.float32)
    path = external(tmp_path, weights) if outside else save(
        model_of([("MatMul", "x w", "y")], {"x": X}, "y", {"w": weights}), tmp_path
    )  # fmt: skip
    monkeypatch.setattr(onnx_file, "available_bytes", lambda: 40_000)
    with pytest.raises(ModelTooLarge, match=r"small\.onnx: its constants take .* GiB .*larger machine"):
        load(path, {})


NEWEST = onnx.defs.onnx_opset_version()


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21, NEWEST])
def test_opsets_from_7_to_the_newest_are_read(tmp_path: Path, opset: int) -> None:
    imported = load(save(model_of([("Relu", "x", "y")], {"x": X}, opset=opset), tmp_path), {})
    assert imported.graph.opset == opset
    assert imported.source.startswith("small.onnx sha256:")


def test_the_older_forms_of_operators_are_read(tmp_path: Path) -> None:
    """Opset 9: Clip, Pad, Slice and ReduceSum take as attributes what came to be inputs."""
    picture = np.random.default_rng(2).standard_normal((1, 4, 6, 6)).astype(np.float32)
    steps = [
        ("Clip", "x", "a", {"min": -0.5, "max": 0.5}),
        ("Pad", "a", "b", {"pads": [0, 0, 1, 1, 0, 0, 1, 1], "value": 0.25}),
        ("Slice", "b", "c", {"starts": [1, 0], "ends": [7, 8], "axes": [2, 3]}),
        ("ReduceSum", "c", "d", {"axes": [1], "keepdims": 0}),
        ("Unsqueeze", "d", "e", {"axes": [0]}),
        ("Upsample", "e s", "y", {"mode": "nearest"}),
    ]
    model = model_of(steps, {"x": picture}, "y", {"s": np.array([1, 1, 2, 2], np.float32)}, opset=9)
    assert_equal(run_line(line_of(save(model, tmp_path)), {"x": picture}), reference(model, {"x": picture}))


def test_an_opset_that_onnx_runtime_does_not_know_yet_is_a_compile_error(tmp_path: Path) -> None:
    model = relu()
    model.opset_import[0].version = NEWEST + 50
    with pytest.raises(CompileError, match=r"small\.onnx"):
        load(save(model, tmp_path), {})
