"""Elementwise operators as scalar expressions, so that a chain of them is one loop body fused into its producer.

A fused chain is a hashable tree, which doubles as its key in the tuning records:

    ("acc",)                  the value of the anchor at this index
    ("in", k)                 operand k at this index, broadcast as NumPy would
    ("const", value, dtype)
    (op, (attr, ...), arg, ...)

exp, erf, tanh and sigmoid are polynomials instead of calls into libm, which would leave the vector registers.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import tirx

from veltair.compiler.graph import Graph, Node

Tree = tuple[Any, ...]
Expr = Any

_UNARY = {"Relu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Exp", "Log", "Sqrt", "Reciprocal", "Neg", "Abs", "Erf",
          "Floor", "Ceil", "Clip", "LeakyRelu", "Elu", "Softplus", "Identity", "Cast", "Not", "Gelu", "Sign", "Sin",
          "Cos"}  # fmt: skip
_BINARY = {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And",
           "Or", "Where", "PRelu", "Sum"}  # fmt: skip
_FLOAT_ONLY = {"Div", "Sign"}  # of integers they go to the fallback
_CASTS = {"float32", "int32", "int64", "bool", "uint8", "int8"}


def is_elementwise(graph: Graph, node: Node) -> bool:
    """Whether `to_tree` can express the node; others go to an anchor or to the fallback."""
    if node.op not in _UNARY | _BINARY or len(node.outputs) != 1:
        return False
    kinds = {graph.dtypes[name] for name in (*node.inputs, *node.outputs) if name}
    if not kinds <= _CASTS:
        return False
    if node.op == "Pow" and graph.dtypes[node.inputs[0]] != "float32":
        return False
    if node.op == "Clip" and len(node.inputs) > 1:
        return all(not name or graph.scalar(name) is not None for name in node.inputs[1:])
    if node.op in _FLOAT_ONLY and kinds != {"float32"}:
        return False
    return not (node.op == "Gelu" and node.attrs.get("approximate", "none") != "none")


def to_tree(graph: Graph, node: Node, arg: Callable[[str], Tree]) -> Tree:
    """The node applied to the trees of its inputs."""
    a = node.attrs
    match node.op:
        case "Clip":
            low, high = a.get("min"), a.get("max")
            if len(node.inputs) > 1 and node.inputs[1]:
                low = graph.constants[node.inputs[1]].reshape(()).item()
            if len(node.inputs) > 2 and node.inputs[2]:
                high = graph.constants[node.inputs[2]].reshape(()).item()
            return ("Clip", (_or_none(low), _or_none(high)), arg(node.inputs[0]))
        case "Relu":
            return ("Clip", (0.0, None), arg(node.inputs[0]))
        case "HardSigmoid":
            return ("HardSigmoid", (float(a.get("alpha", 0.2)), float(a.get("beta", 0.5))), arg(node.inputs[0]))
        case "LeakyRelu":
            return ("LeakyRelu", (float(a.get("alpha", 0.01)),), arg(node.inputs[0]))
        case "Elu":
            return ("Elu", (float(a.get("alpha", 1.0)),), arg(node.inputs[0]))
        case "Cast":
            return ("Cast", (graph.dtypes[node.outputs[0]],), arg(node.inputs[0]))
        case "Max" | "Min" | "Sum" if len(node.inputs) != 2:
            tree = arg(node.inputs[0])
            for name in node.inputs[1:]:
                tree = ("Add" if node.op == "Sum" else node.op, (), tree, arg(name))
            return tree
        case "Sum":
            return ("Add", (), *(arg(name) for name in node.inputs))
        case "Pow" if (exponent := _exponent(graph, node)) is not None:
            return ("PowConst", (exponent,), arg(node.inputs[0]))
        case "Pow" if graph.dtypes[node.inputs[1]] != "float32":
            return ("Pow", (), arg(node.inputs[0]), ("Cast", ("float32",), arg(node.inputs[1])))
        case "Div" if graph.scalar(node.inputs[1]) == 0.0:
            return (
                "Mul",
                (),
                arg(node.inputs[0]),
                ("const", math.copysign(math.inf, graph.scalar(node.inputs[1]) or 0.0), "float32"),
            )
        case "Div" if (divisor := graph.scalar(node.inputs[1])) and math.frexp(divisor)[0] == 0.5:
            return ("Mul", (), arg(node.inputs[0]), ("const", 1.0 / divisor, "float32"))  # exact for powers of two alone
        case _:
            return (node.op, (), *(arg(name) for name in node.inputs))


def _exponent(graph: Graph, node: Node) -> float | None:
    """The exponent of a Pow where it is one finite constant."""
    value = graph.scalar(node.inputs[1])
    return value if value is not None and math.isfinite(value) else None


def _or_none(bound: float | None) -> float | None:
    """A bound of Clip, as float or int, as the value has it."""
    return None if bound is None or not math.isfinite(bound) else bound


def evaluate(tree: Tree, acc: Expr, operand: Callable[[int], Expr]) -> Expr:
    """The TIR expression of `tree`. `acc` is the anchor's value, `operand(k)` that of operand k, at the current index."""
    counts: Counter[Tree] = Counter()

    def count(t: Tree) -> None:
        counts[t] += 1
        if counts[t] == 1:
            for part in t[2:]:
                if isinstance(part, tuple):
                    count(part)

    count(tree)
    names: dict[Tree, Expr] = {}
    bindings: list[tuple[Expr, Expr]] = []

    def value(t: Tree) -> Expr:
        if t in names:
            return names[t]
        match t:
            case ("acc",):
                expr = acc
            case ("in", k):
                expr = operand(k)
            case ("const", number, dtype):
                return tirx.const(number, dtype)
            case (op, attrs, *args):
                expr = _APPLY[op](*attrs, *(value(a) for a in args))
            case _:
                raise AssertionError(f"malformed expression {t}")
        if counts[t] > 1:  # read or computed once, however often the chain uses it
            names[t] = tirx.Var("v", dtype_of(expr))
            bindings.append((names[t], expr))
            return names[t]
        return expr

    body = value(tree)
    for name, expr in reversed(bindings):
        body = tirx.Let(name, expr, body)
    return body


def _f(value: float) -> Expr:
    return tirx.const(float(value), "float32")


def dtype_of(value: Expr) -> str:
    """A tensor element carries `dtype`, any other expression a type that does."""
    return str(value.ty.dtype if hasattr(value, "ty") else value.dtype)


def let(value: Expr, body: Callable[[Expr], Expr]) -> Expr:
    """Evaluate `value` once and use it many times: a polynomial would repeat its argument's text for each power."""
    name = tirx.Var("t", dtype_of(value))
    return tirx.Let(name, value, body(name))


def fast_exp(x: Expr) -> Expr:
    """exp in fp32 to 2 units in the last place: 2^n times a degree-5 polynomial of the rest (Cephes' expf)."""

    def polynomial(r: Expr) -> Expr:
        p = _f(1.9875691500e-4)
        for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
            p = p * r + _f(c)
        return p * r * r + r + _f(1.0)

    def reduced(x: Expr, n: Expr) -> Expr:
        # 2^(n-1) times the double: n reaches 128, where the result is infinite, and -126, where it is zero
        scale = tirx.reinterpret("float32", (tirx.Cast("int32", n) + tirx.const(126, "int32")) << tirx.const(23, "int32"))
        return let(x - n * _f(0.693359375) - n * _f(-2.12194440e-4), polynomial) * _f(2.0) * scale

    clamped = tirx.min(tirx.max(x, _f(-87.3)), _f(88.9))
    return let(clamped, lambda x: let(tirx.floor(x * _f(1.44269504088896341) + _f(0.5)), lambda n: reduced(x, n)))


def fast_tanh(x: Expr) -> Expr:
    """tanh to about 1e-7 absolute, from exp of a negative argument, odd in x; a series near zero keeps relative accuracy."""

    def small(x: Expr, s: Expr) -> Expr:
        p = _f(-5.70498872745e-3)
        for c in (2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1):
            p = p * s + _f(c)
        return x + x * s * p

    def large(x: Expr) -> Expr:
        quotient = let(fast_exp(tirx.abs(x) * _f(-2.0)), lambda e: (_f(1.0) - e) / (_f(1.0) + e))
        return let(quotient, lambda q: tirx.Select(x < _f(0.0), -q, q))

    return let(x, lambda x: tirx.Select(tirx.abs(x) < _f(0.625), let(x * x, lambda s: small(x, s)), large(x)))


def fast_erf(x: Expr) -> Expr:
    """erf to 2e-7 absolute: an odd rational of degree 13/8 on the clamped argument."""

    def rational(x: Expr, s: Expr) -> Expr:
        p = _f(-2.72614225801306e-10)
        for c in (2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05, -7.34990630326855e-04,
                  -2.95459980854025e-03, -1.60960333262415e-02):  # fmt: skip
            p = p * s + _f(c)
        q = _f(-1.45660718464996e-05)
        for c in (-2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02):
            q = q * s + _f(c)
        return x * p / q

    return let(tirx.min(tirx.max(x, _f(-4.0)), _f(4.0)), lambda x: let(x * x, lambda s: rational(x, s)))


def _sigmoid(x: Expr) -> Expr:
    return _f(1.0) / (_f(1.0) + fast_exp(-x))


def _clip(low: float | None, high: float | None, x: Expr) -> Expr:
    if low is not None:
        x = tirx.max(x, tirx.const(low, dtype_of(x)))
    if high is not None:
        x = tirx.min(x, tirx.const(high, dtype_of(x)))
    return x


def _pow_const(exponent: float, x: Expr) -> Expr:
    if exponent == int(exponent) and 1 <= exponent <= 4:
        out = x
        for _ in range(int(exponent) - 1):
            out = out * x
        return out
    if exponent == 0.5:
        return tirx.sqrt(x)
    return tirx.power(x, _f(exponent))


def _select(condition: Expr, yes: Expr, no: Expr) -> Expr:
    return tirx.Select(condition, yes, no)


_APPLY: dict[str, Callable[..., Expr]] = {
    "Clip": _clip,
    "Sigmoid": _sigmoid,
    "HardSigmoid": lambda alpha, beta, x: tirx.max(tirx.min(x * _f(alpha) + _f(beta), _f(1.0)), _f(0.0)),
    "HardSwish": lambda x: x * tirx.max(tirx.min(x * _f(1 / 6) + _f(0.5), _f(1.0)), _f(0.0)),
    "LeakyRelu": lambda alpha, x: tirx.Select(x < _f(0.0), x * _f(alpha), x),
    "PRelu": lambda x, slope: tirx.Select(x < _f(0.0), x * slope, x),
    "Elu": lambda alpha, x: tirx.Select(x < _f(0.0), (fast_exp(x) - _f(1.0)) * _f(alpha), x),
    "Softplus": lambda x: tirx.max(x, _f(0.0)) + tirx.log(fast_exp(-tirx.abs(x)) + _f(1.0)),
    "Tanh": fast_tanh,
    "Exp": fast_exp,
    "Erf": fast_erf,
    "Gelu": lambda x: x * _f(0.5) * (_f(1.0) + fast_erf(x * _f(float(np.sqrt(0.5))))),
    "Log": lambda x: tirx.log(x),
    "Sin": lambda x: tirx.sin(x),
    "Cos": lambda x: tirx.cos(x),
    "Sqrt": lambda x: tirx.sqrt(x),
    "Reciprocal": lambda x: _f(1.0) / x,
    "Neg": lambda x: -x,
    "Abs": lambda x: tirx.abs(x),
    "Sign": lambda x: tirx.Select(x > _f(0.0), _f(1.0), tirx.Select(x < _f(0.0), _f(-1.0), _f(0.0))),
    "Floor": lambda x: tirx.floor(x),
    "Ceil": lambda x: tirx.ceil(x),
    "Identity": lambda x: x,
    "Cast": lambda dtype, x: x != tirx.const(0, dtype_of(x)) if dtype == "bool" else tirx.Cast(dtype, x),
    "Not": lambda x: tirx.Not(x),
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "Pow": lambda a, b: tirx.power(a, b),
    "PowConst": _pow_const,
    "Max": lambda a, b: tirx.max(a, b),
    "Min": lambda a, b: tirx.min(a, b),
    "Equal": lambda a, b: a.equal(b),
    "Less": lambda a, b: a < b,
    "Greater": lambda a, b: a > b,
    "LessOrEqual": lambda a, b: a <= b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "And": lambda a, b: tirx.And(a, b),
    "Or": lambda a, b: tirx.Or(a, b),
    "Where": _select,
}
