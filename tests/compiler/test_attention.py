"""Attention in the forms that exporters write becomes one kernel, and no query, key or value is transposed for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .small import HASWELL, HOST, OLDEST, assert_equal, line_of, model_of, reference, run_line, save
from .zoo import f, ints

Steps = list[tuple[Any, ...]]


def separate(tokens: int, heads: int, size: int, *, masked: bool = True) -> tuple[Steps, dict[str, Any], dict[str, Any]]:
    """Three linear layers, as in BERT: q, k and v split into heads, keys transposed, scores divided and masked."""
    width = heads * size
    steps: Steps = []
    for part in "qkv":
        steps += [
            ("MatMul", f"x w{part}", f"{part}0"),
            ("Add", f"{part}0 b{part}", f"{part}1"),
            ("Reshape", f"{part}1 split", f"{part}2"),
            ("Transpose", f"{part}2", part, {"perm": [0, 2, 3, 1] if part == "k" else [0, 2, 1, 3]}),
        ]
    steps += [
        ("MatMul", "q k", "s0"),
        ("Div", "s0 root", "s1"),
        ("Add", "s1 mask", "s2") if masked else ("Identity", "s1", "s2"),
        ("Softmax", "s2", "p", {"axis": -1}),
        ("MatMul", "p v", "o"),
        ("Transpose", "o", "t", {"perm": [0, 2, 1, 3]}),
        ("Reshape", "t merge", "y"),
    ]
    inputs = {"x": f(1, tokens, width)}
    if masked:
        inputs["mask"] = np.where(np.arange(tokens) < tokens - 2, 0, -1e9).astype(np.float32).reshape(1, 1, 1, tokens)
    constants = {
        **{f"w{part}": f(width, width) * 0.2 for part in "qkv"},
        **{f"b{part}": f(width) for part in "qkv"},
        "split": ints(1, tokens, heads, size),
        "merge": ints(1, tokens, width),
        "root": np.float32(size**0.5),
    }
    return steps, inputs, constants


def check(steps: Steps, inputs: dict[str, Any], constants: dict[str, Any], folder: Path, target: Any = HOST, **how: Any) -> Any:
    model = model_of(steps, inputs, constants=constants)
    line = line_of(save(model, folder), target)
    for candidate in range(3 if target is HOST else 1):
        assert_equal(run_line(line, inputs, target, candidate=candidate), reference(model, inputs), **how)
    return line


def kinds(line: Any) -> list[str]:
    return [call.kernel.kind for call in line.calls]


@pytest.mark.parametrize(
    ("tokens", "heads", "size"), [(32, 2, 16), (40, 4, 12), (7, 2, 8), (1, 2, 16), (16, 1, 64), (197, 2, 16)], ids=str
)
def test_separate_layers_become_three_products_and_one_attention(tokens: int, heads: int, size: int, tmp_path: Path) -> None:
    assert kinds(check(*separate(tokens, heads, size, masked=tokens > 2), tmp_path)) == ["gemm"] * 3 + ["attention"]


@pytest.mark.parametrize("target", [HASWELL, OLDEST], ids=["8 lanes", "4 lanes"])
@pytest.mark.parametrize(("tokens", "heads", "size"), [(24, 2, 16), (10, 2, 15)], ids=str)
def test_narrower_registers_compute_the_same(tokens: int, heads: int, size: int, target: Any, tmp_path: Path) -> None:
    check(*separate(tokens, heads, size), tmp_path, target)


def merged(tokens: int, heads: int, size: int) -> tuple[Steps, dict[str, Any], dict[str, Any]]:
    """One linear layer for all three, cut apart by slices; the queries are scaled before the product (PP-OCR)."""
    width = heads * size
    steps: Steps = [("MatMul", "x w", "a"), ("Add", "a b", "c"), ("Reshape", "c split", "all")]
    for k, part in enumerate("qkv"):
        steps += [
            ("Slice", f"all s{k} s{k + 1} axis", f"{part}0"),
            ("Squeeze", f"{part}0 axis", f"{part}1"),
            ("Transpose", f"{part}1", f"{part}2", {"perm": [0, 2, 3, 1] if part == "k" else [0, 2, 1, 3]}),
        ]
    steps += [
        ("Mul", "q2 scale", "q3"),
        ("MatMul", "q3 k2", "s"),
        ("Softmax", "s", "p", {"axis": 3}),
        ("MatMul", "p v2", "o"),
        ("Transpose", "o", "t", {"perm": [0, 2, 1, 3]}),
        ("Reshape", "t merge", "y"),
    ]
    constants = {
        "w": f(width, 3 * width) * 0.2,
        "b": f(3 * width),
        "split": ints(1, tokens, 3, heads, size),
        "merge": ints(1, tokens, width),
        "axis": ints(2),
        "scale": np.array([0.25], np.float32),
        **{f"s{k}": ints(k) for k in range(4)},
    }
    return steps, {"x": f(1, tokens, width)}, constants


def test_one_merged_layer_is_read_by_slices(tmp_path: Path) -> None:
    assert kinds(check(*merged(40, 4, 15), tmp_path)) == ["gemm", "attention"]


def test_tokens_before_the_batch_as_multihead_attention_writes_them(tmp_path: Path) -> None:
    tokens, heads, size = 12, 2, 16
    width = heads * size
    steps: Steps = [
        ("Transpose", "x", "xt", {"perm": [1, 0, 2]}),
        ("MatMul", "xt w", "a"),
        ("Reshape", "a split", "c"),
        ("Unsqueeze", "c zero", "d"),
        ("Transpose", "d", "e", {"perm": [3, 1, 2, 0, 4]}),
        ("Squeeze", "e three", "all"),
    ]
    for k, part in enumerate("qkv"):
        steps += [
            ("Gather", f"all i{k}", f"{part}0", {"axis": 0}),
            ("Reshape", f"{part}0 heads", f"{part}1"),
            ("Transpose", f"{part}1", f"{part}2", {"perm": [1, 2, 3, 0] if part == "k" else [1, 2, 0, 3]}),
        ]
    steps += [
        ("Mul", "q2 scale", "q3"),
        ("Mul", "k2 scale", "k3"),
        ("MatMul", "q3 k3", "s"),
        ("Softmax", "s", "p", {"axis": -1}),
        ("MatMul", "p v2", "o"),
        ("Transpose", "o", "t", {"perm": [2, 0, 1, 3]}),
        ("Reshape", "t merge", "y"),
    ]
    constants = {
        "w": f(width, 3 * width) * 0.2,
        "split": ints(tokens, 1, 3, width),
        "zero": ints(0),
        "three": ints(3),
        "heads": ints(tokens, 1, heads, size),
        "merge": ints(tokens, width),
        "scale": np.float32(0.5),
        **{f"i{k}": np.array(k, np.int64) for k in range(3)},
    }
    assert kinds(check(steps, {"x": f(1, tokens, width)}, constants, tmp_path)) == ["gemm", "attention"]


def test_rows_that_are_masked_whole_give_zeros_where_the_model_says_so(tmp_path: Path) -> None:
    steps: Steps = [
        ("MatMul", "q k", "s"),
        ("Where", "m zero low", "h"),
        ("Add", "s h", "i"),
        ("Softmax", "i", "p", {"axis": -1}),
        ("IsNaN", "p", "n"),
        ("Where", "n zero p", "r"),
        ("MatMul", "r v", "y"),
    ]
    mask = np.ones((1, 1, 6, 10), np.bool_)
    mask[..., 2, :] = False
    mask[..., 4, 3:] = False
    inputs = {"q": f(2, 3, 6, 8), "k": f(2, 3, 8, 10), "v": f(2, 3, 10, 16), "m": mask}
    constants = {"zero": np.float32(0), "low": np.float32(-np.inf)}
    assert "attention" in kinds(check(steps, inputs, constants, tmp_path))


def test_scores_that_are_needed_elsewhere_stay_separate(tmp_path: Path) -> None:
    steps: Steps = [("MatMul", "q k", "s"), ("Softmax", "s", "p", {"axis": -1}), ("MatMul", "p v", "y")]
    inputs = {"q": f(2, 5, 8), "k": f(2, 8, 10), "v": f(2, 10, 16)}
    model = model_of(steps, inputs, "y p")
    line = line_of(save(model, tmp_path))
    assert_equal(run_line(line, inputs), reference(model, inputs))
    assert "attention" not in kinds(line)


def test_an_operator_behind_the_result_is_fused(tmp_path: Path) -> None:
    steps: Steps = [
        ("MatMul", "q k", "s"),
        ("Softmax", "s", "p", {"axis": -1}),
        ("MatMul", "p v", "o"),
        ("Add", "o b", "r"),
        ("Relu", "r", "y"),
    ]
    line = check(steps, {"q": f(2, 5, 8), "k": f(2, 8, 10), "v": f(2, 10, 16)}, {"b": f(16)}, tmp_path)
    assert kinds(line) == ["attention"]
