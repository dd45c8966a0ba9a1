# ruff: noqa: E501 - one entry a line where it can be
"""The zoo: one entry for each form of an operator that a compiled model may hold. All values are drawn from a fixed seed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]

_random = np.random.default_rng(20)


def f(*shape: int) -> Any:
    return _random.standard_normal(shape, np.float32)


def positive(*shape: int) -> Any:
    return _random.random(shape, np.float32) + np.float32(0.5)


def ints(*values: Any) -> Any:
    return np.array(values, np.int64)


@dataclass(frozen=True)
class Case:
    name: str
    steps: list[tuple[Any, ...]]
    inputs: Arrays
    outputs: str = "y"
    constants: Arrays = field(default_factory=dict)
    opset: int = 17
    tolerance: float = 1e-5
    kinds: tuple[str, ...] = ()  # kernel kinds the line must consist of, where that is the point


CASES: list[Case] = []
REFUSED: list[Case] = []


def case(name: str, steps: list[tuple[Any, ...]], inputs: Arrays, outputs: str = "y", **more: Any) -> None:
    CASES.append(Case(name, steps, inputs, outputs, more.pop("constants", {}), **more))


def conv(name: str, x: Any, w: Any, *, bias: bool = True, **attrs: Any) -> None:
    constants = {"w": w, **({"b": f(w.shape[0])} if bias else {})}
    case(f"conv {name}", [("Conv", "x w b" if bias else "x w", "y", attrs)], {"x": x}, constants=constants)


def one(name: str, op: str, x: Any, attrs: dict[str, Any] | None = None, **more: Any) -> None:
    case(name, [(op, "x", "y", attrs or {})], {"x": x}, **more)


# --- convolutions ---------------------------------------------------------------------------------------------------------
conv("1x1", f(1, 32, 5, 7), f(48, 32, 1, 1))
conv("1x1 without bias", f(1, 32, 5, 7), f(16, 32, 1, 1), bias=False)
conv("1x1 strided", f(1, 16, 6, 7), f(16, 16, 1, 1), strides=[2, 2])
conv("3x3", f(1, 16, 9, 11), f(32, 16, 3, 3), pads=[1, 1, 1, 1])
conv("3x3 strided", f(1, 16, 9, 12), f(32, 16, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
conv("3x3 dilated", f(1, 16, 12, 12), f(16, 16, 3, 3), pads=[2, 2, 2, 2], dilations=[2, 2])
conv("asymmetric pads", f(1, 16, 8, 8), f(16, 16, 3, 3), pads=[0, 1, 2, 3])
conv("uneven strides", f(1, 16, 9, 10), f(16, 16, 3, 5), pads=[1, 2, 1, 2], strides=[2, 1])
conv("SAME_UPPER", f(1, 16, 7, 8), f(16, 16, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
conv("SAME_LOWER", f(1, 16, 7, 8), f(16, 16, 4, 4), auto_pad="SAME_LOWER", strides=[2, 2])
conv("VALID", f(1, 16, 7, 8), f(16, 16, 3, 3), auto_pad="VALID")
conv("image", f(1, 3, 15, 17), f(24, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
conv("batch 2", f(2, 16, 6, 6), f(16, 16, 3, 3), pads=[1, 1, 1, 1])
conv("batch 2 of 1x1", f(2, 16, 3, 5), f(16, 16, 1, 1))
conv("batch 2 of an image", f(2, 3, 8, 8), f(16, 3, 3, 3))
conv("5x5 on 1 channel", f(1, 1, 9, 9), f(6, 1, 5, 5))
for channels in (3, 5, 18, 24, 42):
    conv(f"{channels} to {channels + 1} channels", f(1, channels, 6, 7), f(channels + 1, channels, 3, 3), pads=[1, 1, 1, 1])
    conv(f"depthwise of {channels}", f(1, channels, 7, 6), f(channels, 1, 3, 3), pads=[1, 1, 1, 1], group=channels)
conv("depthwise strided", f(1, 32, 9, 9), f(32, 1, 5, 5), pads=[2, 2, 2, 2], strides=[2, 2], group=32)
conv("depthwise without padding", f(2, 16, 9, 9), f(16, 1, 3, 3), group=16)
conv("depthwise dilated", f(1, 16, 9, 9), f(16, 1, 3, 3), pads=[2, 2, 2, 2], dilations=[2, 2], group=16)
conv("depthwise SAME_UPPER", f(1, 16, 8, 9), f(16, 1, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2], group=16)
conv("depthwise that multiplies channels", f(1, 8, 6, 6), f(16, 1, 3, 3), group=8)
conv("grouped", f(1, 16, 6, 6), f(32, 4, 3, 3), pads=[1, 1, 1, 1], group=4)
conv("over one dimension", f(1, 20, 33), f(40, 20, 3), pads=[1, 1])
conv("over one dimension, strided and dilated", f(2, 16, 33), f(16, 16, 3), pads=[2, 0], strides=[2], dilations=[2])
conv("1x1 over one dimension", f(1, 16, 33), f(32, 16, 1))
conv("depthwise over one dimension", f(1, 24, 17), f(24, 1, 5), pads=[2, 2], group=24)
conv("of one column", f(1, 16, 21, 1), f(32, 16, 3, 1), pads=[1, 0, 1, 0])
conv("of one column by a wide kernel", f(1, 16, 21, 1), f(32, 16, 3, 3), pads=[1, 1, 1, 1])
conv("of one pixel", f(1, 32, 1, 1), f(16, 32, 1, 1))
conv("over three dimensions", f(1, 4, 5, 6, 7), f(8, 4, 3, 3, 3))
case("conv with weights that are an input", [("Conv", "x w", "y")], {"x": f(1, 16, 6, 6), "w": f(16, 16, 3, 3)})
case("conv with an absent bias", [("Conv", "x w -", "y")], {"x": f(1, 16, 6, 6)}, constants={"w": f(16, 16, 1, 1)})
case(
    "one kernel over a row and over a column",
    [
        ("Conv", "x w", "a", {"pads": [1, 0, 1, 0]}),
        ("Conv", "z w", "b", {"pads": [1, 0, 1, 0]}),
        ("Relu", "a", "p"),
        ("Relu", "b", "q"),
    ],
    {"x": f(1, 16, 8, 1), "z": f(1, 16, 8, 4)},
    "p q",
    constants={"w": f(16, 16, 3, 1)},
)
for channels, out in ((16, 16), (24, 1), (5, 3), (32, 20)):
    case(
        f"transposed conv {channels} to {out}, kernel 2 stride 2",
        [("ConvTranspose", "x w b", "y", {"strides": [2, 2]})],
        {"x": f(1, channels, 5, 6)},
        constants={"w": f(channels, out, 2, 2), "b": f(out)},
    )
case(
    "transposed conv in batch 2",
    [("ConvTranspose", "x w", "y", {"strides": [2, 3]})],
    {"x": f(2, 8, 4, 3)},
    constants={"w": f(8, 8, 2, 3)},
)
case(
    "transposed conv with overlap",
    [("ConvTranspose", "x w b", "y", {"strides": [2, 2], "pads": [1, 1, 1, 1]})],
    {"x": f(1, 8, 5, 5)},
    constants={"w": f(8, 4, 4, 4), "b": f(4)},
)
case(
    "transposed convs that share weights, not biases",
    [("ConvTranspose", "x w b", "p", {"strides": [2, 2]}), ("ConvTranspose", "x w c", "q", {"strides": [2, 2]})],
    {"x": f(1, 16, 3, 3)},
    "p q",
    constants={"w": f(16, 16, 2, 2), "b": f(16), "c": f(16)},
)

# --- pools ------------------------------------------------------------------------------------------------------------------
for op in ("MaxPool", "AveragePool"):
    one(f"{op} 2x2", op, f(1, 16, 8, 9), {"kernel_shape": [2, 2], "strides": [2, 2]})
    one(f"{op} 3x3 padded", op, f(1, 18, 7, 7), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]})
    one(f"{op} stride 1", op, f(2, 3, 5, 6), {"kernel_shape": [3, 3]})
    one(f"{op} ceil_mode", op, f(1, 16, 8, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})
    one(
        f"{op} ceil_mode padded",
        op,
        f(1, 16, 8, 8),
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 0], "ceil_mode": 1},
    )
    one(f"{op} SAME_UPPER", op, f(1, 16, 7, 8), {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"})
    one(f"{op} SAME_LOWER", op, f(1, 16, 7, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"})
    one(f"{op} over one dimension", op, f(1, 16, 20), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]})
    one(f"Global{op}", f"Global{op}", f(2, 20, 7, 5))
    one(f"Global{op} over one dimension", f"Global{op}", f(1, 16, 21))
one("MaxPool of very negative values", "MaxPool", f(1, 16, 4, 4) - 1e30, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})
one("MaxPool dilated", "MaxPool", f(1, 16, 9, 9), {"kernel_shape": [3, 3], "dilations": [2, 2]})
one(
    "AveragePool counts its padding",
    "AveragePool",
    f(1, 16, 7, 7),
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
)
one(
    "AveragePool counts its padding, not the ragged edge",
    "AveragePool",
    f(1, 16, 8, 8),
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1, "ceil_mode": 1},
    opset=19,
)
one("MaxPool over three dimensions", "MaxPool", f(1, 4, 5, 6, 7), {"kernel_shape": [2, 2, 2]})

# --- products ---------------------------------------------------------------------------------------------------------------
for m, k, n in ((1, 64, 64), (1, 33, 7), (13, 31, 214), (17, 64, 48), (64, 20, 16), (5, 7, 1), (3, 8, 2)):
    case(f"Gemm {m}x{k}x{n}", [("Gemm", "x w b", "y")], {"x": f(m, k)}, constants={"w": f(k, n), "b": f(n)})
gemm = {"x": f(5, 24)}
case("Gemm transB", [("Gemm", "x w b", "y", {"transB": 1})], gemm, constants={"w": f(40, 24), "b": f(40)})
case(
    "Gemm alpha and beta", [("Gemm", "x w b", "y", {"alpha": 0.5, "beta": 2.0})], gemm, constants={"w": f(24, 40), "b": f(1, 40)}
)
case("Gemm without bias", [("Gemm", "x w", "y")], gemm, constants={"w": f(24, 40)})
case("Gemm with a bias per row", [("Gemm", "x w b", "y")], gemm, constants={"w": f(24, 40), "b": f(5, 1)})
case("Gemm transA", [("Gemm", "x w b", "y", {"transA": 1})], {"x": f(24, 5)}, constants={"w": f(24, 40), "b": f(40)})
case("Gemm of two inputs", [("Gemm", "x w b", "y", {"beta": 0.5})], {"x": f(5, 24), "w": f(24, 8), "b": f(8)})
case(
    "Gemm, bias an input, beta not 1",
    [("Gemm", "x w b", "y", {"beta": 0.5})],
    {"x": f(5, 24), "b": f(8)},
    constants={"w": f(24, 8)},
)
case("MatMul by a constant", [("MatMul", "x w", "y")], {"x": f(2, 3, 32)}, constants={"w": f(32, 48)})
case(
    "MatMul by a constant of odd width",
    [("MatMul", "x w", "h"), ("Add", "h b", "i"), ("Relu", "i", "y")],
    {"x": f(2, 7, 30)},
    constants={"w": f(30, 29), "b": f(29)},
)
case("MatMul of a constant", [("MatMul", "w x", "y")], {"x": f(32, 48)}, constants={"w": f(7, 32)})
case("MatMul batched", [("MatMul", "a b", "y")], {"a": f(2, 3, 5, 8), "b": f(2, 3, 8, 16)})
case("MatMul batched of odd sizes", [("MatMul", "a b", "y")], {"a": f(2, 7, 13), "b": f(2, 13, 11)})
case("MatMul batched by one matrix", [("MatMul", "a b", "y")], {"a": f(3, 5, 8), "b": f(1, 8, 16)})
case("MatMul batched by a plain matrix", [("MatMul", "a b", "y")], {"a": f(3, 5, 8), "b": f(8, 16)})
case("MatMul of one matrix by a batch", [("MatMul", "a b", "y")], {"a": f(5, 8), "b": f(3, 8, 16)})
case("MatMul of a broadcast batch by a batch", [("MatMul", "a b", "y")], {"a": f(2, 1, 5, 8), "b": f(1, 3, 8, 16)})
case("MatMul by a constant batch", [("MatMul", "a b", "y")], {"a": f(3, 5, 8)}, constants={"b": f(3, 8, 4)})
case("MatMul by a vector", [("MatMul", "a b", "y")], {"a": f(3, 5, 8)}, constants={"b": f(8)})
case("MatMul of a vector", [("MatMul", "a b", "y")], {"a": f(8)}, constants={"b": f(8, 16)})
case("MatMul of one row each", [("MatMul", "a b", "y")], {"a": f(4, 1, 16), "b": f(4, 16, 16)})

# --- rows -------------------------------------------------------------------------------------------------------------------
for length in (1, 7, 16, 37, 100):
    one(f"Softmax of {length}", "Softmax", f(3, length), {"axis": -1})
one("Softmax over the middle", "Softmax", f(2, 7, 5), {"axis": 1})
one("Softmax of opset 11 flattens", "Softmax", f(2, 3, 5), {"axis": 1}, opset=11)
one("Softmax of opset 11 by default", "Softmax", f(2, 3, 5), opset=11)
one("Softmax of large values", "Softmax", f(4, 33) * 100)
one("Softmax of a vector", "Softmax", f(33))
one("LogSoftmax", "LogSoftmax", f(4, 33))
case(
    "Softmax behind a mask",
    [("Where", "m x c", "h"), ("Softmax", "h", "y")],
    {"m": _random.random((4, 20)) < 0.7, "x": f(4, 20)},
    constants={"c": np.float32(-np.inf)},
)
for length in (1, 7, 16, 32, 384):
    case(
        f"LayerNormalization of {length}",
        [("LayerNormalization", "x g b", "y", {"epsilon": 1e-6})],
        {"x": f(3, 2, length)},
        constants={"g": f(length), "b": f(length)},
    )
case("LayerNormalization without a shift", [("LayerNormalization", "x g", "y")], {"x": f(3, 32)}, constants={"g": f(32)})
case(
    "LayerNormalization over two axes",
    [("LayerNormalization", "x g b", "y", {"axis": 1})],
    {"x": f(3, 4, 8)},
    constants={"g": f(4, 8), "b": f(4, 8)},
)
_norm = [
    ("ReduceMean", "x", "m", {"axes": [-1]}),
    ("Sub", "x m", "d"),
    ("Pow", "d two", "q"),
    ("ReduceMean", "q", "v", {"axes": [-1]}),
    ("Add", "v eps", "e"),
    ("Sqrt", "e", "s"),
    ("Div", "d s", "n"),
    ("Mul", "n g", "h"),
    ("Add", "h b", "y"),
]
_norm_constants = {"two": np.float32(2), "eps": np.float32(1e-5)}
case(
    "layer norm written out",
    _norm,
    {"x": f(2, 5, 48)},
    constants={**_norm_constants, "g": f(48), "b": f(48)},
    kinds=("layernorm",),
)
case(
    "what looks like a layer norm but scales rows",
    _norm,
    {"x": f(2, 8, 8)},
    constants={**_norm_constants, "g": f(8, 1), "b": f(8)},
)
for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"):
    as_input = op == "ReduceSum"  # from opset 13 on; the others from 18
    for axes, keep, shape in (
        ([-1], 1, (3, 5, 33)),
        ([-1], 1, (3, 16)),
        ([1], 0, (3, 5, 32)),
        ([1, 2], 1, (2, 3, 4, 5)),
        ([0, 2], 0, (3, 4, 5)),
        ([2, 3], 0, (1, 20, 4, 5)),
    ):
        label = f"{op} over {axes} of {shape}, keepdims {keep}"
        if as_input:
            case(label, [(op, "x axes", "y", {"keepdims": keep})], {"x": f(*shape)}, constants={"axes": ints(*axes)})
        else:
            one(label, op, f(*shape), {"axes": axes, "keepdims": keep})
    one(f"{op} over everything", op, f(3, 4, 5), {"keepdims": 0})
case(
    "ReduceMean with axes as an input",
    [("ReduceMean", "x axes", "y", {"keepdims": 0})],
    {"x": f(3, 4, 5)},
    constants={"axes": ints(-2)},
    opset=18,
)
case(
    "ReduceSum over no axes",
    [("ReduceSum", "x axes", "y", {"noop_with_empty_axes": 1})],
    {"x": f(3, 4)},
    constants={"axes": ints()},
)
one("ReduceL2", "ReduceL2", f(3, 4, 5), {"axes": [1]})
one("ReduceProd", "ReduceProd", f(3, 4, 5), {"axes": [1]})
one("ReduceSum of integers", "ReduceSum", _random.integers(-9, 9, (3, 4)))
one("ArgMax", "ArgMax", f(3, 7, 5), {"axis": 1})
one("ArgMax without keepdims", "ArgMax", f(3, 7), {"axis": -1, "keepdims": 0})
for keep in (0, 1):
    case(
        f"a mean over packed rows and columns, keepdims {keep}",
        [("Conv", "x w", "h"), ("ReduceMean", "h", "y", {"axes": [2, 3], "keepdims": keep})],
        {"x": f(1, 16, 5, 6)},
        constants={"w": f(18, 16, 1, 1)},
    )
    case(
        f"a mean over packed channels, keepdims {keep}",
        [("Conv", "x w", "h"), ("ReduceMean", "h", "y", {"axes": [1], "keepdims": keep})],
        {"x": f(1, 16, 5, 6)},
        constants={"w": f(18, 16, 1, 1)},
    )

# --- moves ------------------------------------------------------------------------------------------------------------------
for factor in (2, 3):
    for mode, rounding in (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")):
        case(
            f"Resize nearest x{factor} {mode}",
            [
                (
                    "Resize",
                    "x - scales",
                    "y",
                    {"mode": "nearest", "coordinate_transformation_mode": mode, "nearest_mode": rounding},
                )
            ],
            {"x": f(1, 5, 3, 4)},
            constants={"scales": np.array([1, 1, factor, factor], np.float32)},
        )
case(
    "Resize nearest to sizes, packed",
    [
        ("Conv", "x w", "h"),
        (
            "Resize",
            "h - - sizes",
            "y",
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        ),
    ],
    {"x": f(1, 16, 3, 4)},
    constants={"w": f(24, 16, 1, 1), "sizes": ints(1, 24, 6, 12)},
)
for mode in ("half_pixel", "align_corners", "asymmetric"):
    case(
        f"Resize linear {mode}",
        [("Resize", "x - scales", "y", {"mode": "linear", "coordinate_transformation_mode": mode})],
        {"x": f(1, 3, 4, 5)},
        constants={"scales": np.array([1, 1, 2, 2], np.float32)},
    )
case(
    "Upsample",
    [("Upsample", "x scales", "y", {"mode": "nearest"})],
    {"x": f(1, 3, 4, 5)},
    constants={"scales": np.array([1, 1, 2, 2], np.float32)},
    opset=9,
)
case("Concat", [("Concat", "a b", "y", {"axis": -1})], {"a": f(2, 3, 5), "b": f(2, 3, 4)})
case("Concat with a constant", [("Concat", "a b", "y", {"axis": 1})], {"a": f(2, 3, 5)}, constants={"b": f(2, 1, 5)})
case("Concat of integers", [("Concat", "a b", "y", {"axis": 0})], {"a": ints(1, 2), "b": ints(3)})
case("Concat of one value twice", [("Concat", "a a", "y", {"axis": 1})], {"a": f(2, 3)})
for first, second in ((16, 16), (24, 40), (24, 5), (5, 16), (16, 24)):
    case(
        f"Concat of {first} and {second} packed channels",
        [("Conv", "x w", "p"), ("Conv", "x v", "q"), ("Concat", "p q", "h", {"axis": 1}), ("Relu", "h", "y")],
        {"x": f(1, 16, 3, 5)},
        constants={"w": f(first, 16, 1, 1), "v": f(second, 16, 3, 3)[:, :, :1, :1]},
    )
case(
    "Concat of packed rows",
    [("Conv", "x w", "p"), ("Relu", "p", "q"), ("Concat", "p q", "y", {"axis": 2})],
    {"x": f(1, 16, 3, 5)},
    constants={"w": f(16, 16, 1, 1)},
)
case(
    "Concat of packed and plain",
    [("Conv", "x w", "p"), ("Concat", "p x", "y", {"axis": 1})],
    {"x": f(1, 16, 3, 5)},
    constants={"w": f(16, 16, 1, 1)},
)
case(
    "Concat of a packed value and a constant",
    [("Conv", "x w", "p"), ("Concat", "p c", "h", {"axis": 1}), ("Relu", "h", "y")],
    {"x": f(1, 16, 3, 5)},
    constants={"w": f(16, 16, 1, 1), "c": f(1, 16, 3, 5)},
)
case("Split evenly", [("Split", "x", "a b c", {"axis": -1})], {"x": f(2, 9)}, "a b c", opset=13)
case("Split by sizes", [("Split", "x s", "a b", {"axis": 1})], {"x": f(2, 9, 3)}, "a b", constants={"s": ints(2, 7)})
case(
    "Split of packed channels",
    [("Conv", "x w", "h"), ("Split", "h", "a b", {"axis": 1}), ("Mul", "a b", "y")],
    {"x": f(1, 16, 3, 5)},
    constants={"w": f(32, 16, 1, 1)},
)


def sliced(name: str, starts: Any, ends: Any, axes: Any = None, steps: Any = None, shape: tuple[int, ...] = (5, 7, 9)) -> None:
    constants = {"s": ints(*starts), "e": ints(*ends)}
    reads = "x s e"
    if axes is not None or steps is not None:
        constants["a"] = ints(*(axes if axes is not None else range(len(starts))))
        reads += " a"
    if steps is not None:
        constants["t"] = ints(*steps)
        reads += " t"
    case(f"Slice {name}", [("Slice", reads, "y")], {"x": f(*shape)}, constants=constants)


sliced("plain", [1, 2], [3, 100])
sliced("from the end", [-3], [-1], [-1])
sliced("with steps", [0, 1], [5, 9], [0, 2], [2, 3])
sliced("backwards", [-1, 6], [-100, 0], [0, 1], [-1, -2])
sliced("backwards from far outside", [1000], [-1000], [2], [-1])
sliced("of everything", [0], [2**62], [1], [1])
case("Slice of opset 9", [("Slice", "x", "y", {"starts": [1], "ends": [-1], "axes": [1]})], {"x": f(3, 5)}, opset=9)
case(
    "Slice of packed channels",
    [("Conv", "x w", "h"), ("Slice", "h s e a", "y")],
    {"x": f(1, 16, 3, 5)},
    constants={"w": f(24, 16, 1, 1), "s": ints(3, 1), "e": ints(19, 4), "a": ints(1, 3)},
)
one("Transpose by default", "Transpose", f(2, 3, 4))
one("Transpose", "Transpose", f(2, 3, 4, 5), {"perm": [0, 2, 3, 1]})
one("Transpose of integers", "Transpose", _random.integers(0, 9, (3, 4)))
case(
    "Transpose of packed channels",
    [("Conv", "x w", "h"), ("Transpose", "h", "y", {"perm": [0, 2, 3, 1]})],
    {"x": f(1, 16, 3, 5)},
    constants={"w": f(18, 16, 1, 1)},
)
case("Gather of an embedding", [("Gather", "w i", "y")], {"i": ints([0, 9, 3], [4, 4, 1])}, constants={"w": f(10, 24)})
case("Gather counts from the end", [("Gather", "w i", "y")], {"i": ints(-1, -10, 3)}, constants={"w": f(10, 24)})
case("Gather of one row", [("Gather", "w i", "y")], {"i": np.array(4, np.int64)}, constants={"w": f(10, 24)})
case("Gather by int32", [("Gather", "w i", "y")], {"i": np.array([4, 1], np.int32)}, constants={"w": f(10, 7)})
case("Gather by constants", [("Gather", "x i", "y", {"axis": 1})], {"x": f(3, 5, 4)}, constants={"i": ints(-1, 0, 2)})
case("Gather one by a constant", [("Gather", "x i", "y", {"axis": 1})], {"x": f(3, 5, 4)}, constants={"i": np.array(1, np.int64)})
case("Gather along the last axis", [("Gather", "w i", "y", {"axis": -1})], {"i": ints(2, -1)}, constants={"w": f(3, 5)})
case("GatherElements", [("GatherElements", "x i", "y", {"axis": 1})], {"x": f(2, 3)}, constants={"i": ints([0, 2], [1, 1])})
case("Pad", [("Pad", "x p", "y")], {"x": f(2, 3, 4)}, constants={"p": ints(0, 1, 2, 0, 0, 3)})
case("Pad with a value", [("Pad", "x p v", "y")], {"x": f(2, 3)}, constants={"p": ints(1, 1, 1, 1), "v": np.float32(-2.5)})
case("Pad with infinity", [("Pad", "x p v", "y")], {"x": f(2, 3)}, constants={"p": ints(1, 1, 1, 1), "v": np.float32(-np.inf)})
case("Pad that crops", [("Pad", "x p", "y")], {"x": f(5, 6)}, constants={"p": ints(-1, 1, 0, -2)})
case(
    "Pad reflect", [("Pad", "x p", "y", {"mode": "reflect"})], {"x": f(1, 2, 5, 6)}, constants={"p": ints(0, 0, 1, 2, 0, 0, 2, 1)}
)
case("Pad edge", [("Pad", "x p", "y", {"mode": "edge"})], {"x": f(1, 2, 5, 6)}, constants={"p": ints(0, 0, 1, 2, 0, 0, 2, 1)})
case("Pad of integers", [("Pad", "x p v", "y")], {"x": ints(1, 2)}, constants={"p": ints(1, 1), "v": np.array(7, np.int64)})
case("Pad along named axes", [("Pad", "x p - a", "y")], {"x": f(2, 3, 4)}, constants={"p": ints(1, 2), "a": ints(-1)}, opset=18)
case(
    "Pad of packed channels",
    [("Conv", "x w", "h"), ("Pad", "h p", "y")],
    {"x": f(1, 16, 3, 5)},
    constants={"w": f(18, 16, 1, 1), "p": ints(0, 0, 1, 1, 0, 2, 1, 1)},
)
case("Expand", [("Expand", "x s", "y")], {"x": f(3, 1)}, constants={"s": ints(2, 3, 4)})
case("Expand of one element", [("Expand", "x s", "y")], {"x": f(1)}, constants={"s": ints(2, 3)})
case("Expand to less", [("Expand", "x s", "y")], {"x": f(3, 4)}, constants={"s": ints(1, 1)})
case("Tile", [("Tile", "x r", "y")], {"x": f(2, 3)}, constants={"r": ints(2, 3)})
one("Celu", "Celu", f(3, 5), {"alpha": 0.7}, kinds=("elementwise",))
one("DepthToSpace", "DepthToSpace", f(1, 8, 3, 4), {"blocksize": 2})
one("DepthToSpace, columns before rows", "DepthToSpace", f(1, 8, 3, 4), {"blocksize": 2, "mode": "CRD"})
one("SpaceToDepth", "SpaceToDepth", f(1, 2, 4, 6), {"blocksize": 2})
case("Reshape", [("Reshape", "x s", "h"), ("Relu", "h", "y")], {"x": f(2, 3, 4)}, constants={"s": ints(0, -1)})
case(
    "Reshape of packed channels",
    [("Conv", "x w", "h"), ("Reshape", "h s", "i"), ("Sigmoid", "i", "y")],
    {"x": f(1, 16, 4, 6)},
    constants={"w": f(18, 16, 3, 3), "s": ints(1, 18, -1)},
)
case(
    "Reshape of packed channels that regroups them",
    [("Conv", "x w", "h"), ("Reshape", "h s", "i"), ("Sigmoid", "i", "y")],
    {"x": f(1, 16, 4, 6)},
    constants={"w": f(18, 16, 3, 3), "s": ints(1, 6, 3, 8)},
)
case(
    "Reshape of packed rows, then a conv over one dimension",
    [("Conv", "x w", "h"), ("Reshape", "h s", "i"), ("Conv", "i v", "y", {"pads": [1, 1]})],
    {"x": f(1, 16, 4, 6)},
    constants={"w": f(18, 16, 1, 1), "s": ints(1, 18, 24), "v": f(5, 18, 3)},
)
case(
    "Reshape of packed rows to other rows, then a conv",
    [
        ("Conv", "x w", "h", {"pads": [1, 1, 1, 1]}),
        ("Reshape", "h s", "i"),
        ("Add", "i c", "j"),
        ("Conv", "j v", "y", {"pads": [1, 1, 1, 1]}),
    ],
    {"x": f(1, 16, 4, 6)},
    constants={"w": f(18, 16, 3, 3), "s": ints(1, 18, 8, 3), "v": f(5, 18, 3, 3), "c": f(1, 18, 8, 3)},
)
one("Flatten", "Flatten", f(2, 3, 4), {"axis": 2})
case(
    "Squeeze and Unsqueeze",
    [("Squeeze", "x a", "h"), ("Unsqueeze", "h b", "i"), ("Neg", "i", "y")],
    {"x": f(2, 1, 3)},
    constants={"a": ints(1), "b": ints(0, -1)},
)
case(
    "channel shuffle",
    [("Conv", "x w", "h"), ("Reshape", "h s", "i"), ("Transpose", "i", "j", {"perm": [0, 2, 1, 3, 4]}), ("Reshape", "j t", "y")],
    {"x": f(1, 16, 3, 3)},
    constants={"w": f(16, 16, 1, 1), "s": ints(1, 2, 8, 3, 3), "t": ints(1, 16, 3, 3)},
)

# --- element by element -----------------------------------------------------------------------------------------------------
for op in (
    "Relu",
    "Sigmoid",
    "HardSwish",
    "Tanh",
    "Exp",
    "Neg",
    "Abs",
    "Erf",
    "Floor",
    "Ceil",
    "LeakyRelu",
    "Elu",
    "Softplus",
    "Sign",
    "Sin",
    "Cos",
    "HardSigmoid",
    "Selu",
    "Round",
    "Softsign",
    "Mish",
    "ThresholdedRelu",
    "Tan",
    "Atan",
):
    one(op, op, f(3, 35) * 3, opset=18)
for op in ("Log", "Sqrt", "Reciprocal"):
    one(op, op, positive(3, 35))
one("Sigmoid far out", "Sigmoid", np.array([-1e4, -100, -88, 0, 88, 100, 1e4], np.float32))
one("Exp far below zero", "Exp", np.array([-1e4, -200, -90, 0, 1], np.float32))
one("Exp far above zero", "Exp", np.array([88.5, 88.7, 89, 1e4], np.float32))
one("LeakyRelu with alpha", "LeakyRelu", f(3, 16), {"alpha": 0.3})
one("HardSigmoid with alpha and beta", "HardSigmoid", f(3, 16) * 4, {"alpha": 1 / 6, "beta": 0.4})
one("Gelu", "Gelu", f(3, 32) * 2, opset=20)
one("Gelu by tanh", "Gelu", f(3, 32) * 2, {"approximate": "tanh"}, opset=20)
one("Abs of integers", "Abs", _random.integers(-9, 9, (3, 4)))
one("Sign of integers", "Sign", _random.integers(-2, 2, (3, 4)))
one("Relu of integers", "Relu", _random.integers(-9, 9, (3, 4)).astype(np.int32))
case(
    "Gelu written out",
    [("Div", "x r", "a"), ("Erf", "a", "b"), ("Add", "b one", "c"), ("Mul", "x c", "d"), ("Mul", "d half", "y")],
    {"x": f(3, 48)},
    constants={"r": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)},
    kinds=("elementwise",),
)
case("Clip", [("Clip", "x a b", "y")], {"x": f(3, 5) * 3}, constants={"a": np.float32(-1), "b": np.float32(2)})
case("Clip with min only", [("Clip", "x a", "y")], {"x": f(3, 5)}, constants={"a": np.float32(0.25)})
case("Clip with max only", [("Clip", "x - b", "y")], {"x": f(3, 5)}, constants={"b": np.float32(0.25)})
case("Clip by inputs", [("Clip", "x a b", "y")], {"x": f(3, 5), "a": np.array(-0.5, np.float32), "b": np.array(0.5, np.float32)})
case("Clip of opset 6", [("Clip", "x", "y", {"min": 0.0, "max": 0.5})], {"x": f(3, 5)}, opset=6)
case(
    "Clip of integers",
    [("Clip", "x a b", "y")],
    {"x": _random.integers(-9, 9, (3, 5))},
    constants={"a": np.array(-3, np.int64), "b": np.array(2**63 - 1, np.int64)},
)
case("PRelu", [("PRelu", "x s", "y")], {"x": f(1, 5, 3, 4)}, constants={"s": f(5, 1, 1)})
case(
    "PRelu behind a conv",
    [("Conv", "x w", "h"), ("PRelu", "h s", "y")],
    {"x": f(1, 16, 3, 4)},
    constants={"w": f(24, 16, 1, 1), "s": f(24, 1, 1)},
)
for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"):
    case(f"{op} of two", [(op, "a b", "y")], {"a": positive(3, 4, 5), "b": positive(4, 1)})
    case(f"{op} that spreads both ways", [(op, "a b", "y")], {"a": positive(3, 1), "b": positive(1, 16)})
    case(f"{op} with a constant on the left", [(op, "c a", "y")], {"a": positive(3, 7)}, constants={"c": np.float32(1.5)})
for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mod"):
    case(f"{op} of integers", [(op, "a b", "y")], {"a": _random.integers(-20, 20, (3, 4)), "b": _random.integers(1, 5, (4,))})
case("Pow by 3", [("Pow", "a e", "y")], {"a": f(3, 7)}, constants={"e": np.float32(3)})
case("Pow by -0.5", [("Pow", "a e", "y")], {"a": positive(3, 7)}, constants={"e": np.float32(-0.5)})
case("Pow by an integer", [("Pow", "a e", "y")], {"a": f(3, 7)}, constants={"e": np.array(2, np.int64)})
case("Pow by integers", [("Pow", "a e", "y")], {"a": positive(3, 4)}, constants={"e": ints(0, 1, 2, 3)})
case("Div by zero", [("Div", "a c", "y")], {"a": f(3, 7)}, constants={"c": np.float32(0)})
case(
    "Div, then Floor",
    [("Div", "a c", "h"), ("Floor", "h", "y")],
    {"a": np.arange(200, dtype=np.float32)},
    constants={"c": np.float32(49)},
)
case("Max of three", [("Max", "a b c", "y")], {"a": f(3, 4), "b": f(4), "c": f(3, 1)})
case("Sum of one", [("Sum", "a", "y")], {"a": f(3, 4)})
case("Sum of three", [("Sum", "a b c", "y")], {"a": f(3, 4), "b": f(4), "c": f(3, 1)})
case("Mean of three", [("Mean", "a b c", "y")], {"a": f(3, 4), "b": f(4), "c": f(3, 1)})
for op in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"):
    case(op, [(op, "a b", "y")], {"a": _random.integers(0, 3, (4, 5)), "b": _random.integers(0, 3, (5,))})
    case(f"{op} of floats", [(op, "a b", "y")], {"a": f(4, 16), "b": f(16)})
for op in ("And", "Or", "Xor"):
    case(op, [(op, "a b", "y")], {"a": _random.random((4, 16)) < 0.5, "b": _random.random((4, 16)) < 0.5})
one("Not", "Not", _random.random((4, 16)) < 0.5)
case("Where", [("Where", "m a b", "y")], {"m": _random.random((4, 1)) < 0.5, "a": f(4, 16), "b": f(16)})
case(
    "Where over integers",
    [("Equal", "a c", "m"), ("Where", "m a b", "y")],
    {"a": _random.integers(0, 3, (4, 5)), "b": _random.integers(5, 9, (4, 5))},
    constants={"c": np.array(1, np.int64)},
)
for source, kind in (
    (f(3, 16) * 5, 7),
    (f(3, 16) * 5, 6),
    (_random.integers(-5, 5, (3, 16)), 1),
    (_random.random((3, 16)) < 0.5, 1),
    (_random.integers(0, 255, (3, 16)).astype(np.uint8), 1),
    (_random.integers(-2, 3, (3, 16)), 9),
    (np.array([0, 0.5, -2, 1], np.float32), 9),
):
    one(f"Cast of {source.dtype} to {kind}", "Cast", source, {"to": kind})
one("Cast of int64 to int32 and on", "Cast", _random.integers(-5, 5, (3, 4)), {"to": 6})
case("a cast to the same type", [("Cast", "x", "h", {"to": 1}), ("Relu", "h", "y")], {"x": f(3, 4)})
case(
    "uint8 image",
    [
        ("Cast", "x", "a", {"to": 1}),
        ("Sub", "a m", "b"),
        ("Mul", "b s", "c"),
        ("Transpose", "c", "d", {"perm": [0, 3, 1, 2]}),
        ("Conv", "d w", "y"),
    ],
    {"x": _random.integers(0, 255, (1, 8, 9, 3)).astype(np.uint8)},
    constants={"m": f(3), "s": f(3), "w": f(16, 3, 3, 3)},
)
one("a scalar", "Sigmoid", np.array(0.3, np.float32))
case(
    "scalars",
    [("Add", "a b", "h"), ("Mul", "h x", "y")],
    {"a": np.array(0.3, np.float32), "b": np.array(2, np.float32), "x": f(3, 16)},
)

# --- broadcasting over what a conv made, 1 and 2 dimensions --------------------------------------------------------------------
for channels in (16, 18):
    for label, shape in (
        ("(1,C,1,1)", (1, channels, 1, 1)),
        ("(C,1,1)", (channels, 1, 1)),
        ("(1,)", (1,)),
        ("()", ()),
        ("(1,1,H,W)", (1, 1, 3, 5)),
        ("(H,W)", (3, 5)),
        ("(W,)", (5,)),
        ("(1,C,H,W)", (1, channels, 3, 5)),
        ("(C,H,W)", (channels, 3, 5)),
        ("(1,C,1,W)", (1, channels, 1, 5)),
        ("(1,1,H,1)", (1, 1, 3, 1)),
    ):
        for kernel in (1, 3):
            if (kernel == 3) == (channels == 16):
                continue
            steps = [
                ("Conv", "x w", "h", {"pads": [kernel // 2] * 4}),
                ("Relu", "h", "r"),
                ("Mul", "r c", "s"),
                ("Sub", "d s", "y"),
            ]
            case(
                f"{channels} channels of a {kernel}x{kernel} conv times {label}",
                steps,
                {"x": f(1, 16, 3, 5), "d": f(*shape)},
                constants={"w": f(channels, 16, kernel, kernel), "c": f(*shape)},
            )
    for label, shape in (
        ("(1,C,1)", (1, channels, 1)),
        ("(C,1)", (channels, 1)),
        ("(L,)", (21,)),
        ("(1,C,L)", (1, channels, 21)),
    ):
        case(
            f"{channels} channels of a 1-d conv times {label}",
            [("Conv", "x w", "h", {"pads": [1, 1]}), ("Relu", "h", "r"), ("Mul", "r c", "s"), ("Sub", "d s", "y")],
            {"x": f(1, 16, 21), "d": f(*shape)},
            constants={"w": f(channels, 16, 3), "c": f(*shape)},
        )
    case(
        f"squeeze and excite of {channels}",
        [
            ("Conv", "x w", "h", {"pads": [1, 1, 1, 1]}),
            ("Relu", "h", "r"),
            ("GlobalAveragePool", "r", "g"),
            ("Conv", "g v b", "i"),
            ("Relu", "i", "j"),
            ("Conv", "j u", "k"),
            ("HardSigmoid", "k", "l"),
            ("Mul", "r l", "y"),
        ],
        {"x": f(1, 16, 5, 6)},
        constants={"w": f(channels, 16, 3, 3), "v": f(4, channels, 1, 1), "b": f(4), "u": f(channels, 4, 1, 1)},
    )
    case(
        f"a residual over {channels}",
        [
            ("Conv", "x w", "h"),
            ("Relu", "h", "i"),
            ("Conv", "i v", "j", {"pads": [1, 1, 1, 1]}),
            ("Add", "i j", "k"),
            ("Relu", "k", "y"),
        ],
        {"x": f(2, 16, 4, 5)},
        constants={"w": f(channels, 16, 1, 1), "v": f(channels, channels, 3, 3)},
    )
    case(
        f"what is infinite on zeros between convs over {channels - 3}",
        [
            ("Conv", "x w", "h"),
            ("Abs", "h", "a"),
            ("Add", "a e", "p"),
            ("Log", "p", "l"),
            ("Div", "l c", "d"),
            ("Conv", "d v", "q"),
            ("Abs", "q", "y"),
        ],
        {"x": f(1, 16, 3, 4)},
        constants={
            "w": f(channels - 3, 16, 1, 1),
            "e": positive(1, channels - 3, 1, 1),
            "c": positive(1, channels - 3, 1, 1),
            "v": f(6, channels - 3, 1, 1),
        },
    )
case(
    "batch 2 behind a conv times a value per sample",
    [("Conv", "x w", "h"), ("Relu", "h", "r"), ("Mul", "r c", "y")],
    {"x": f(2, 16, 3, 5), "c": f(2, 1, 1, 1)},
    constants={"w": f(18, 16, 1, 1)},
)
case(
    "a conv to one channel, then a broadcast over channels",
    [("Conv", "x w", "h"), ("Sigmoid", "h", "s"), ("Mul", "s x", "y")],
    {"x": f(1, 16, 3, 5)},
    constants={"w": f(1, 16, 1, 1)},
)
case(
    "a conv compared with zero",
    [("Conv", "x w", "h"), ("Greater", "h z", "m"), ("Cast", "m", "n", {"to": 1}), ("Mul", "n h", "y")],
    {"x": f(1, 16, 3, 5)},
    constants={"w": f(18, 16, 1, 1), "z": np.float32(0)},
)
case(
    "a conv cast to integers",
    [("Conv", "x w", "h"), ("Mul", "h t", "i"), ("Cast", "i", "y", {"to": 7})],
    {"x": f(1, 16, 3, 5)},
    constants={"w": f(18, 16, 1, 1), "t": np.float32(10)},
)

# --- what graphs do ---------------------------------------------------------------------------------------------------------
case("a value with two readers", [("Relu", "x", "a"), ("Exp", "a", "b"), ("Neg", "a", "c"), ("Add", "b c", "y")], {"x": f(3, 16)})
case(
    "a chain that is left and met again",
    [
        ("Conv", "x w", "h"),
        ("Relu", "h", "a"),
        ("MaxPool", "a", "b", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("Add", "a b", "c"),
        ("Sigmoid", "c", "y"),
    ],
    {"x": f(1, 16, 5, 5)},
    constants={"w": f(16, 16, 3, 3)},
)
case("an output that is read further", [("Relu", "x", "a"), ("Exp", "a", "y")], {"x": f(3, 16)}, "a y")
case(
    "an output between a conv and its chain",
    [("Conv", "x w", "h"), ("Relu", "h", "y")],
    {"x": f(1, 16, 5, 5)},
    "h y",
    constants={"w": f(18, 16, 3, 3)},
)
case("two outputs", [("Relu", "x", "p"), ("Softmax", "x", "q")], {"x": f(3, 16)}, "p q")
case(
    "two outputs that are views of each other",
    [("Relu", "x", "p"), ("Reshape", "p s", "q")],
    {"x": f(3, 16)},
    "p q",
    constants={"s": ints(6, 8)},
)
case("an output that is an input, reshaped", [("Reshape", "x s", "y")], {"x": f(3, 16)}, constants={"s": ints(6, 8)})
case("an output that is an input, and is read as well", [("Identity", "x", "y"), ("Relu", "x", "z")], {"x": f(3, 16)}, "y z")
case("a constant output", [("Relu", "x", "y"), ("Add", "c c", "z")], {"x": f(3, 16)}, "y z", constants={"c": f(4)})
case("an input nobody reads", [("Relu", "x", "y")], {"x": f(3, 16), "u": f(4)})
case("one value on both sides", [("Mul", "x x", "h"), ("Add", "h h", "y")], {"x": f(3, 16)})
case(
    "a long chain",
    [("Relu", "x", "v0"), *[(("Sigmoid", "Tanh", "Exp")[i % 3], f"v{i}", f"v{i + 1}") for i in range(12)]],
    {"x": f(3, 16)},
    "v12",
)
_norm_of = {"g": f(18), "b": f(18), "m": f(18), "v": positive(18)}
case(
    "BatchNormalization behind a conv",
    [("Conv", "x w", "h"), ("BatchNormalization", "h g b m v", "i", {"epsilon": 1e-3}), ("Relu", "i", "y")],
    {"x": f(1, 16, 5, 5)},
    constants={"w": f(18, 16, 3, 3), **_norm_of},
    kinds=("conv", "move"),
)
case("BatchNormalization alone", [("BatchNormalization", "x g b m v", "y")], {"x": f(2, 18, 3, 4)}, constants=_norm_of)
case("BatchNormalization of rows", [("BatchNormalization", "x g b m v", "y")], {"x": f(5, 18)}, constants=_norm_of)
case("BatchNormalization of a sequence", [("BatchNormalization", "x g b m v", "y")], {"x": f(2, 18, 7)}, constants=_norm_of)
case(
    "BatchNormalization behind a transposed conv",
    [("ConvTranspose", "x w", "h", {"strides": [2, 2]}), ("BatchNormalization", "h g b m v", "y")],
    {"x": f(1, 16, 3, 3)},
    constants={"w": f(16, 18, 2, 2), **_norm_of},
)
case(
    "Mul, Add, Sub and Div folded into a conv",
    [("Conv", "x w b", "a"), ("Mul", "a p", "c"), ("Add", "q c", "d"), ("Sub", "d p", "e"), ("Div", "e r", "y")],
    {"x": f(1, 16, 5, 5)},
    constants={"w": f(18, 16, 3, 3), "b": f(18), "p": f(18, 1, 1), "q": f(1, 18, 1, 1), "r": positive(1, 18, 1, 1)},
    kinds=("conv", "move"),
)
case(
    "Mul folded into a depthwise conv",
    [("Conv", "x w", "a", {"group": 18}), ("Mul", "a p", "y")],
    {"x": f(1, 18, 5, 5)},
    constants={"w": f(18, 1, 3, 3), "p": f(18, 1, 1)},
)
case(
    "Mul not folded where the conv has another reader",
    [("Conv", "x w", "a"), ("Mul", "a p", "b"), ("Add", "a b", "y")],
    {"x": f(1, 16, 5, 5)},
    constants={"w": f(18, 16, 3, 3), "p": f(18, 1, 1)},
)
case(
    "a scalar minus a conv",
    [("Conv", "x w", "a"), ("Sub", "c a", "y")],
    {"x": f(1, 16, 5, 5)},
    constants={"w": f(18, 16, 3, 3), "c": np.float32(2)},
)
case(
    "BatchNormalization of 1-d conv",
    [("Conv", "x w", "h"), ("BatchNormalization", "h g b m v", "y")],
    {"x": f(1, 16, 9)},
    constants={"w": f(18, 16, 3), **_norm_of},
)
case(
    "InstanceNormalization",
    [("InstanceNormalization", "x g b", "y")],
    {"x": f(2, 18, 4, 4)},
    constants={"g": f(18), "b": f(18)},
    tolerance=3e-5,
)
case(
    "a product with one-hot rows",
    [("Equal", "i c", "m"), ("Cast", "m", "h", {"to": 1}), ("MatMul", "h w", "y")],
    {"i": _random.integers(-2, 12, (2, 5, 1))},
    constants={"c": np.arange(10).reshape(1, 1, 10), "w": f(10, 24)},
    kinds=("move",),
)
case(
    "a product with one-hot rows of other classes",
    [("Equal", "i c", "m"), ("Cast", "m", "h", {"to": 1}), ("MatMul", "h w", "y")],
    {"i": _random.integers(0, 10, (2, 5, 1))},
    constants={"c": np.arange(1, 11).reshape(1, 1, 10), "w": f(10, 24)},
)
case(
    "attention",
    [
        ("MatMul", "x wq", "q"), ("MatMul", "x wk", "k"), ("MatMul", "x wv", "v"),
        ("Reshape", "q s", "q4"), ("Reshape", "k s", "k4"), ("Reshape", "v s", "v4"),
        ("Transpose", "q4", "qt", {"perm": [0, 2, 1, 3]}), ("Transpose", "k4", "kt", {"perm": [0, 2, 3, 1]}), ("Transpose", "v4", "vt", {"perm": [0, 2, 1, 3]}),
        ("MatMul", "qt kt", "a"), ("Div", "a d", "b"), ("Add", "b mask", "c"), ("Softmax", "c", "p"), ("MatMul", "p vt", "o"),
        ("Transpose", "o", "ot", {"perm": [0, 2, 1, 3]}), ("Reshape", "ot t", "y"),
    ],
    {"x": f(1, 7, 32), "mask": np.where(_random.random((1, 1, 1, 7)) < 0.7, 0, -1e9).astype(np.float32)},
    constants={"wq": f(32, 32), "wk": f(32, 32), "wv": f(32, 32), "s": ints(1, 7, 4, 8), "t": ints(1, 7, 32), "d": np.float32(np.sqrt(8))},
)  # fmt: skip
case("Einsum", [("Einsum", "a b", "y", {"equation": "bij,bjk->bik"})], {"a": f(2, 3, 4), "b": f(2, 4, 5)})


# --- what neither veltair nor TVM computes ------------------------------------------------------------------------------------
REFUSED += [
    Case(
        "LSTM",
        [("LSTM", "x w r b", "- h", {"hidden_size": 4})],
        {"x": f(3, 1, 5)},
        "h",
        {"w": f(1, 16, 5), "r": f(1, 16, 4), "b": f(1, 32)},
    ),
    Case("TopK", [("TopK", "x k", "v i")], {"x": f(3, 9)}, "v i", {"k": ints(4)}),
    Case("Pow of integers", [("Pow", "a b", "y")], {"a": ints(1, 2), "b": ints(3, 4)}),
    Case(
        "Resize by a factor that gives no whole number",
        [
            (
                "Resize",
                "x - scales",
                "y",
                {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
            )
        ],
        {"x": f(1, 3, 10, 10)},
        constants={"scales": np.array([1, 1, 2.05, 2.05], np.float32)},
    ),
]
