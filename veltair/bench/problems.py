"""The convolutions and matrix products of models: as the compiler lowers them, and as ONNX files that hold nothing else."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from veltair.compiler import operators, windowed
from veltair.compiler.fallback import fallback
from veltair.compiler.graph import Shape
from veltair.compiler.lower import Lowering
from veltair.compiler.onnx_import import load
from veltair.compiler.schedules.base import Kernel
from veltair.compiler.schedules.conv import Window
from veltair.compiler.simplify import simplify
from veltair.compiler.target import host_target

OPSET = 17


@dataclass(frozen=True, slots=True)
class Problem:
    """What is computed, without the padding of any layout. `data` is (n, c, h, w) or (m, k), `weights` (co, ci, kh, kw) or
    (k, n); a pointwise convolution's rows and columns are one axis, as in the kernel.
    """

    data: Shape
    weights: Shape
    window: Window | None = None  # None: a matrix product

    @property
    def output(self) -> Shape:
        if self.window is None:
            return (self.data[0], self.weights[1])
        return (self.data[0], self.weights[0], *self.window.out(self.data[2], self.data[3]))

    @property
    def flops(self) -> int:
        """A multiply-add counts as two; taps on the padding count, whoever skips them."""
        taps = self.weights[0] if self.window is None else prod(self.weights[1:])
        return 2 * prod(self.output) * taps

    @property
    def label(self) -> str:
        if self.window is None:
            return f"gemm {self.data[0]}x{self.data[1]} by {self.weights[1]}"
        (kh, kw), (sh, sw) = self.window.kernel, self.window.strides
        spread = "" if self.window.dilations == (1, 1) else f" dilation {self.window.dilations[0]}"
        stride = "" if (sh, sw) == (1, 1) else f"/{sh}" if sh == sw else f"/{sh}x{sw}"
        batch = "" if self.data[0] == 1 else f"{self.data[0]}x"
        return f"conv {kh}x{kw}{stride}{spread} {self.weights[1]}->{self.weights[0]} at {batch}{self.data[2]}x{self.data[3]}"


@dataclass(slots=True)
class Wanted:
    """The kernels for one problem (every form of the first call that poses it), and how often each model poses it."""

    forms: tuple[Kernel, ...]
    calls: dict[str, int]

    @property
    def count(self) -> int:
        return sum(self.calls.values())


def problems_of(models: Mapping[str, tuple[Path, Mapping[str, Shape]]]) -> dict[Problem, Wanted]:
    """All problems of `models` (name -> ONNX file, shapes of its open inputs), the one with the most work first.

    Elementwise operators fused behind a problem do not make it another one. Raises CompileError and its subclasses.
    """
    found: dict[Problem, Wanted] = {}
    for name, (path, shapes) in models.items():
        for problem, forms in _calls(path, shapes):
            wanted = found.setdefault(problem, Wanted(forms, {}))
            wanted.calls[name] = wanted.calls.get(name, 0) + 1
    return dict(sorted(found.items(), key=lambda pair: -pair[0].flops * pair[1].count))


def _calls(path: Path, shapes: Mapping[str, Shape]) -> Iterator[tuple[Problem, tuple[Kernel, ...]]]:
    with _noted() as posed:
        line = Lowering(simplify(load(path, shapes).graph), host_target(), operators.HANDLERS, fallback).run()
    for call in line.calls:
        if posed.get(call.kernel.key):  # problems that padding makes equal share a kernel: they come in the order of calls
            yield posed[call.kernel.key].popleft(), tuple(form.kernel for form in call.forms)


@contextmanager
def _noted() -> Iterator[dict[str, deque[Problem]]]:
    """While it is entered, what the lowering asks other forms of is noted: there kernel and weights are still together."""
    posed: dict[str, deque[Problem]] = {}

    def note(kernel: Any, problem: Problem) -> list[Any]:
        posed.setdefault(kernel.key, deque()).append(problem)
        return []

    def conv(low: Lowering, kernel: Any, data: int, name: str, weights: Any) -> list[Any]:
        return note(kernel, Problem((kernel.n, weights.shape[1], kernel.h, kernel.w), tuple(weights.shape), kernel.window))

    def gemm(low: Lowering, kernel: Any, data: int, name: str, weights: Any) -> list[Any]:
        return note(kernel, Problem((kernel.m, kernel.k), tuple(weights.shape)))

    windowed.CONV_FORMS.append(conv)
    operators.GEMM_FORMS.append(gemm)
    try:
        yield posed
    finally:
        windowed.CONV_FORMS.remove(conv)
        operators.GEMM_FORMS.remove(gemm)


def as_onnx(problem: Problem, copies: int, path: Path, seed: int) -> Path:
    """`copies` nodes that read one input `x` and weights of their own, each with its output: run, they meet them cold."""
    rng = np.random.default_rng(seed)
    nodes, weights, outputs = [], [], []
    for number in range(copies):
        data = rng.random(problem.weights, np.float32) - np.float32(0.5)
        weights.append(numpy_helper.from_array(data, f"w{number}"))
        outputs.append(helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, problem.output))
        nodes.append(helper.make_node(*_operator(problem, f"w{number}", f"y{number}"), **_attributes(problem.window)))
    port = helper.make_tensor_value_info("x", TensorProto.FLOAT, problem.data)
    model = helper.make_model(
        helper.make_graph(nodes, "problem", [port], outputs, weights), opset_imports=[helper.make_opsetid("", OPSET)]
    )
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def _operator(problem: Problem, weights: str, output: str) -> tuple[str, Sequence[str], Sequence[str]]:
    return "MatMul" if problem.window is None else "Conv", ["x", weights], [output]


def _attributes(window: Window | None) -> dict[str, Any]:
    if window is None:
        return {}
    return {"kernel_shape": window.kernel, "strides": window.strides, "dilations": window.dilations, "pads": window.pads}
