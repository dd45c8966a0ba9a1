"""No activation is turned from one layout into another where its maker or its reader can do without."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from veltair.compiler.fallback import fallback
from veltair.compiler.line import Line
from veltair.compiler.lower import Lowering
from veltair.compiler.onnx_import import load
from veltair.compiler.operators import HANDLERS
from veltair.compiler.schedules.move import Move
from veltair.compiler.simplify import simplify
from veltair.models import MODELS

from .small import HOST, assert_equal, line_of, model_of, reference, run_line, save
from .zoo import f, ints

LAYOUT_MOVES = {"pack", "unpack", "repack", "transpose", "relayout"}

# What stays, by model. PP-OCR's recogniser passes from convolutions to a transformer on rows and back, twice: a
# convolution writes blocks of channels, of which the row kernels (products, in bf16 too, and sums along a row) want
# rows. Each passage is one move of 19 KB, a microsecond or two of some nine thousand. The mean over channels, part of
# a layer norm that the export writes out around a transpose, reads its operand plain.
ALLOWED = {"ocr-rec": Counter(relayout=4, unpack=1)}


def layout_moves(line: Line) -> Counter[str]:
    return Counter(c.kernel.how for c in line.calls if isinstance(c.kernel, Move) and c.kernel.how in LAYOUT_MOVES)


@pytest.mark.parametrize("name", [name for name, source in MODELS.items() if source.weights == "real"])
def test_no_activation_of_a_demo_model_changes_its_layout_alone(name: str, tmp_path: Path) -> None:
    source = MODELS[name]
    if missing := source.missing():
        pytest.skip(f"needs {', '.join(need.package for need in missing)}")
    graph = simplify(load(source.export(tmp_path), dict(source.input_shapes)).graph)
    line = Lowering(graph, HOST, HANDLERS, fallback).run()
    assert layout_moves(line) <= ALLOWED.get(name, Counter())
    assert not any(call.kernel.kind == "fallback" for call in line.calls)


def run(steps: list[tuple[Any, ...]], inputs: dict[str, Any], folder: Path, opset: int = 17, **constants: Any) -> Line:
    model = model_of(steps, inputs, constants=constants, opset=opset)
    line = line_of(save(model, folder))
    assert_equal(run_line(line, inputs), reference(model, inputs))
    return line


def test_rows_are_written_as_the_convolution_behind_a_transpose_reads_them(tmp_path: Path) -> None:
    steps = [
        ("Add", "x s", "h"),
        ("Transpose", "h", "t", {"perm": [0, 2, 1]}),
        ("Unsqueeze", "t axis", "u"),
        ("Conv", "u w", "y"),
    ]
    line = run(steps, {"x": f(1, 9, 32)}, tmp_path, s=f(1, 1, 32), axis=ints(3), w=f(16, 32, 3, 1))
    assert [call.kernel.kind for call in line.calls if call.label != "unpack"] == ["elementwise", "conv"]


def test_packed_channels_become_rows_in_one_move(tmp_path: Path) -> None:
    steps = [
        ("Conv", "x w", "h"),
        ("Reshape", "h flat", "r"),
        ("Transpose", "r", "t", {"perm": [0, 2, 1]}),
        ("MatMul", "t m", "y"),
    ]
    line = run(steps, {"x": f(1, 16, 3, 5)}, tmp_path, w=f(24, 16, 1, 1), flat=ints(1, 24, 15), m=f(24, 32))
    assert layout_moves(line) == Counter(relayout=1, pack=1)  # the input is packed for the convolution


def test_an_index_map_that_each_reader_sees_through_is_never_made(tmp_path: Path) -> None:
    steps = [
        ("Split", "x", "a b", {"axis": 2}),
        ("Transpose", "b", "t", {"perm": [0, 2, 1]}),
        ("MatMul", "a t", "s"),
        ("Softmax", "s", "p", {"axis": -1}),
        ("MatMul", "p b", "y"),
    ]
    line = run(steps, {"x": f(2, 6, 32)}, tmp_path, opset=13)
    assert [call.kernel.kind for call in line.calls] == ["attention"]


def test_what_is_seen_through_by_one_reader_is_made_for_another(tmp_path: Path) -> None:
    steps = [("Transpose", "x", "t", {"perm": [0, 2, 1]}), ("MatMul", "x t", "s"), ("Softmax", "s", "p", {"axis": -1}),
             ("MatMul", "p x", "o"), ("ReduceSum", "t axes", "z", {"keepdims": 0}), ("Add", "o z", "y")]  # fmt: skip
    run(steps, {"x": f(1, 6, 6)}, tmp_path, axes=ints(1))


def test_a_pad_before_a_window_becomes_the_windows_own(tmp_path: Path) -> None:
    steps = [
        ("Pad", "x p", "h"),
        ("Conv", "h w", "c", {"pads": [1, 0, 1, 0]}),
        ("Pad", "c q low", "d"),
        ("MaxPool", "d", "y", {"kernel_shape": [2, 2]}),
    ]
    low, p, q = np.float32(-np.inf), ints(0, 0, 0, 1, 0, 0, 0, 1), ints(0, 0, 0, 0, 0, 0, 1, 1)
    line = run(steps, {"x": f(1, 16, 5, 6)}, tmp_path, w=f(16, 16, 3, 3), p=p, q=q, low=low)
    assert not any(isinstance(call.kernel, Move) and call.kernel.how == "pad" for call in line.calls)


def test_a_pad_with_another_value_stays(tmp_path: Path) -> None:
    line = run([("Pad", "x p v", "h"), ("Conv", "h w", "y")], {"x": f(1, 16, 5, 6)}, tmp_path, w=f(16, 16, 3, 3),
               p=ints(0, 0, 1, 1, 0, 0, 1, 1), v=np.float32(2))  # fmt: skip
    assert any(isinstance(call.kernel, Move) and call.kernel.how == "pad" for call in line.calls)


@pytest.mark.parametrize(
    ("op", "shape", "attrs", "opset", "constants"),
    [
        ("Mish", (3, 33), {}, 18, {}),
        ("Celu", (3, 33), {"alpha": 0.5}, 17, {}),
        ("Gelu", (3, 33), {"approximate": "tanh"}, 20, {}),
        ("ReduceL2", (3, 4, 5), {"axes": [1], "keepdims": 0}, 13, {}),
        ("ReduceMean", (3, 4, 5, 6), {"axes": [0, 2], "keepdims": 1}, 13, {}),
        ("ReduceMax", (3, 4, 5, 6), {"axes": [1, 3], "keepdims": 0}, 13, {}),
        ("InstanceNormalization", (2, 6, 5, 7), {}, 17, {"g": f(6), "b": f(6)}),
        ("Softmax", (2, 21, 37), {"axis": 1}, 17, {}),
        ("LayerNormalization", (2, 3, 4, 8), {"axis": 2}, 17, {"g": f(4, 8)}),
        ("SpaceToDepth", (1, 3, 4, 6), {"blocksize": 2}, 17, {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_composed_operators_need_no_fallback(
    op: str, shape: tuple[int, ...], attrs: dict[str, Any], opset: int, constants: dict[str, Any], tmp_path: Path
) -> None:
    line = run([(op, " ".join(["x", *constants]), "y", attrs)], {"x": f(*shape)}, tmp_path, opset, **constants)
    assert not any(call.kernel.kind == "fallback" for call in line.calls)


def test_group_norm_needs_no_fallback(tmp_path: Path) -> None:
    steps = [("GroupNormalization", "x g b", "y", {"num_groups": 2})]
    line = run(steps, {"x": f(2, 6, 5, 7)}, tmp_path, 21, g=f(6), b=f(6))
    assert not any(call.kernel.kind == "fallback" for call in line.calls)
