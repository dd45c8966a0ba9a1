"""A model for one sample takes several: each comes out as it would alone, or the node that mixes them is named."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from veltair.compiler.gate import Reference
from veltair.compiler.onnx_import import load
from veltair.errors import UnsupportedOperator

from .small import Step, model_of, save

RNG = np.random.default_rng(3)
BATCH = 4


def floats(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


PICTURE, ROWS = (1, 6, 8, 10), (1, 12, 16)
ALONE: Mapping[str, tuple[tuple[int, ...], list[Step], dict[str, Any]]] = {
    "a reshape to a row": (PICTURE, [("Reshape", "x s", "h"), ("MatMul", "h w", "y")], {"s": ints(1, 480), "w": floats(480, 5)}),
    "a reshape to one row of whatever length": (PICTURE, [("Reshape", "x s", "y")], {"s": ints(1, -1)}),
    "a flatten and a gemm": (PICTURE, [("Flatten", "x", "h"), ("Gemm", "h w b", "y")], {"w": floats(480, 3), "b": floats(3)}),
    "heads merged with the batch": (
        ROWS,
        [
            ("Reshape", "x s", "a"),
            ("Transpose", "a", "b", {"perm": [0, 2, 1, 3]}),
            ("Reshape", "b t", "h"),
            ("Transpose", "h", "k", {"perm": [0, 2, 1]}),
            ("MatMul", "h k", "m"),
            ("Softmax", "m", "p", {"axis": 2}),
            ("MatMul", "p h", "v"),
            ("Reshape", "v u", "c"),
            ("Transpose", "c", "d", {"perm": [0, 2, 1, 3]}),
            ("Reshape", "d r", "y"),
        ],
        {"s": ints(1, 12, 4, 4), "t": ints(4, 12, 4), "u": ints(1, 4, 12, 4), "r": ints(1, 12, 16)},
    ),
    "samples along the second axis for a while": (
        ROWS,
        [("Transpose", "x", "h", {"perm": [1, 0, 2]}), ("MatMul", "h w", "m"), ("Add", "m b", "a"),
         ("Reshape", "a s", "c"), ("Transpose", "c", "d", {"perm": [1, 0, 2]}), ("Reshape", "d t", "y")],
        {"w": floats(16, 8), "b": floats(12, 1, 8), "s": ints(12, 2, 4), "t": ints(1, 2, 12, 4)},
    ),
    "a token in front of all": (ROWS, [("Concat", "c x", "y", {"axis": 1})], {"c": floats(1, 1, 16)}),
    "resizing to a size": (
        PICTURE, [("Resize", "x - - s", "y", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
                                              "nearest_mode": "floor"})], {"s": ints(1, 6, 16, 20)},
    ),
    "expanding": ((1, 1, 7), [("Expand", "x s", "y")], {"s": ints(1, 5, 7)}),
    "picking a token": (ROWS, [("Gather", "x i", "y", {"axis": 1})], {"i": np.array(0, np.int64)}),
    "a mean without its axes": (PICTURE, [("ReduceMean", "x", "y", {"axes": [2, 3], "keepdims": 0})], {}),
    "padding, slicing and splitting": (
        PICTURE,
        [("Pad", "x p", "a"), ("Slice", "a f l i", "b"), ("Split", "b", "c d", {"axis": 1}), ("Mul", "c d", "y")],
        {"p": ints(0, 0, 1, 1, 0, 0, 1, 1), "f": ints(1, 2), "l": ints(5, 9), "i": ints(2, 3)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ALONE)
def test_each_sample_of_a_batch_comes_out_as_it_would_alone(case: str, tmp_path: Path) -> None:
    shape, steps, constants = ALONE[case]
    path = save(model_of(steps, {"x": np.zeros(shape, np.float32)}, "y", constants), tmp_path)
    one, four = load(path, {}), load(path, {}, batch=BATCH)
    samples = [floats(*shape) for _ in range(BATCH)]
    alone = Reference(one.folded, ())
    expected = np.concatenate([alone.run({"x": sample})["y"] for sample in samples])
    made = Reference(four.folded, ()).run({"x": np.concatenate(samples)})["y"]
    assert four.graph.shapes["y"] == made.shape
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)


MIXED: Mapping[str, tuple[list[Step], dict[str, Any], str]] = {
    "a sum over samples": ([("ReduceSum", "x a", "y", {"keepdims": 1})], {"a": ints(0)}, "'n0_ReduceSum' reduces over"),
    "a sum over all": ([("ReduceMean", "x", "y")], {}, "'n0_ReduceMean' reduces over the samples"),
    "softmax over samples": ([("Softmax", "x", "y", {"axis": 0})], {}, "'n0_Softmax' runs along the samples"),
    "picking a sample": ([("Gather", "x i", "y")], {"i": ints(0)}, "'n0_Gather' picks among the samples"),
    "a weight per sample": (
        [("Reshape", "x s", "h"), ("Mul", "h w", "y")], {"s": ints(12, 16), "w": floats(12, 1)}, "combines the samples with 'w'",
    ),
    "joining to one": ([("Concat", "x x", "y", {"axis": 0})], {}, "'n0_Concat' joins samples with each other"),
    "repeating samples": ([("Tile", "x r", "y")], {"r": ints(2, 1, 1)}, "'n0_Tile' repeats the samples"),
    "rows times rows": (
        [("Reshape", "x s", "a"), ("Transpose", "a", "b"), ("MatMul", "b a", "y")], {"s": ints(12, 16)}, "along different axes",
    ),
    "an operator that is not known": ([("Det", "x", "y")], {}, "Det node 'n0_Det' is not known to compute each sample by itself"),
    "batch norm as in training": (
        [("BatchNormalization", "x g b m v", "y a c", {"training_mode": 1})],
        {name: np.ones(12, np.float32) for name in "gbmv"},
        "'n0_BatchNormalization' normalises by the mean over the samples",
    ),
    "samples last": ([("Transpose", "x", "y")], {}, "output 'y' would hold the samples of a batch along axis 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", MIXED)
def test_a_node_that_mixes_samples_is_named(case: str, tmp_path: Path) -> None:
    steps, constants, message = MIXED[case]
    shape = (1, 12, 12) if case.startswith("an operator") else ROWS
    path = save(model_of(steps, {"x": np.zeros(shape, np.float32)}, "y", constants), tmp_path)
    with pytest.raises(UnsupportedOperator, match=message):
        load(path, {}, batch=BATCH)


def test_inputs_that_no_batch_fits_are_named(tmp_path: Path) -> None:
    path = save(model_of([("Relu", "x", "y")], {"x": floats(5, 3)}), tmp_path)
    with pytest.raises(UnsupportedOperator, match="no input starts with an axis of 1"):
        load(path, {}, batch=BATCH)


def test_an_input_without_samples_stays_one_for_all(tmp_path: Path) -> None:
    path = save(model_of([("Add", "x t", "y")], {"x": floats(1, 3, 4), "t": floats(3, 4)}), tmp_path)
    graph = load(path, {}, batch=BATCH).graph
    assert (graph.shapes["x"], graph.shapes["t"], graph.shapes["y"]) == ((4, 3, 4), (3, 4), (4, 3, 4))


def test_a_free_first_axis_is_taken_at_its_word_where_a_node_is_not_known(tmp_path: Path) -> None:
    from onnx import TensorProto

    path = save(model_of([("Det", "x", "y")], {"x": (TensorProto.FLOAT, ["n", 3, 3])}), tmp_path)
    imported = load(path, {"x": (1, 3, 3)}, batch=BATCH)
    assert (imported.graph.shapes["x"], imported.graph.shapes["y"]) == ((4, 3, 3), (4,))
