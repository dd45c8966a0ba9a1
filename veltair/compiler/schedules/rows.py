"""Kernels that reduce along rows: softmax, layer norm, and plain reductions.

A row's reduction is written as `lanes` partial results that are combined at the end, since fp32 sums may not be
reordered by the code generator. What of a row no vector holds is reduced apart.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

from veltair.compiler.expr import fast_exp
from veltair.compiler.graph import Shape
from veltair.compiler.schedules.base import (
    Kernel,
    Knobs,
    divisors,
    result,
    schedule_of,
    tree,
    unroll_tile,
    vector_width,
    vectorize_last,
    vectorize_reduction,
)
from veltair.compiler.schedules.ragged import whole_vectors


def _partial(x: Any, rows: int, padded: int, v: int, name: str, combine: Any) -> tuple[Any, Any]:
    """(rows, v) partial and (rows,) full reductions of the (rows, padded) expression `x(row, column)`."""
    k, lane = te.reduce_axis((0, padded // v), f"{name}_k"), te.reduce_axis((0, v), f"{name}_l")
    part = te.compute((rows, v), lambda i, t: combine(x(i, k * v + t), axis=k), name=f"{name}_part")
    return part, te.compute((rows,), lambda i: combine(part[i, lane], axis=lane), name=name)


@dataclass(frozen=True)
class Softmax(Kernel):
    """Over the last axis of (rows, length). Knob: `mr` rows of a parallel chunk."""

    rows: int
    length: int
    lanes: int

    kind = "softmax"

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        return (((self.rows, self.length), "float32"),)

    @property
    def output(self) -> Shape:
        return (self.rows, self.length)

    @property
    def flops(self) -> int:
        return 12 * self.rows * self.length

    def candidates(self) -> list[dict[str, int]]:
        return [{"mr": mr} for mr in divisors(self.rows, 16)[-2:]]

    def build(self, knobs: Knobs) -> Any:
        rows, n = self.rows, self.length
        v = vector_width(n, self.lanes)
        v = self.lanes if v == 1 else v
        x = te.placeholder((rows, n), name="x")
        operands = self.chain.placeholders()
        top, tops = _folded(x, rows, n, v, "top", te.max, tirx.max)
        e = te.compute((rows, n), lambda i, j: fast_exp(x[i, j] - top[i]), name="e")
        total, totals = _folded(e, rows, n, v, "total", te.sum, operator.add)
        scale = te.compute((rows,), lambda i: tirx.const(1.0, "float32") / total[i], name="scale")
        out = te.compute((rows, n), lambda i, j: self.chain.apply(e[i, j] * scale[i], (i, j), operands), name="out")
        sch = schedule_of([x, *operands, out])
        i, j = sch.get_loops(sch.get_sblock("out"))
        outer, inner = sch.split(i, [None, (knobs or self.candidates()[0])["mr"]])
        sch.vectorize(sch.split(j, [None, v])[1])
        for name in ("scale", *totals, "e", *tops):
            sch.compute_at(sch.get_sblock(name), inner, preserve_unit_loops=True)
        sch.parallel(outer)
        sch.vectorize(sch.split(sch.get_loops(sch.get_sblock("e"))[-1], [None, v])[1])
        for name in ("top_part", "total_part"):
            if name in (*tops, *totals):
                block = sch.get_sblock(name)
                lane, k = sch.get_loops(block)[-2:]
                vectorize_reduction(sch, block, lane, k)
        return result(sch) if n % v == 0 else whole_vectors(result(sch))


def _folded(x: Any, rows: int, n: int, v: int, name: str, reducer: Any, combine: Any) -> tuple[Any, list[str]]:
    """(rows,) reductions of (rows, n): vectors of partial results, what no vector holds apart. And the stages, last first."""
    whole, rest = n // v, n % v
    stages = [name]
    parts: list[Callable[[Any], Any]] = []
    if whole:
        k = te.reduce_axis((0, whole), f"{name}_k")
        part = te.compute((rows, v), lambda i, t: reducer(x[i, k * v + t], axis=k), name=f"{name}_part")
        parts.append(lambda i: tree([part[i, t] for t in range(v)], combine))
        stages.append(f"{name}_part")
    if rest:
        r = te.reduce_axis((0, rest), f"{name}_r")
        tail = te.compute((rows,), lambda i: reducer(x[i, whole * v + r], axis=r), name=f"{name}_tail")
        parts.append(lambda i: tail[i])
        stages.append(f"{name}_tail")
    return te.compute((rows,), lambda i: tree([p(i) for p in parts], combine), name=name), stages


_CHUNK_ELEMENTS = 16 * 1024  # of a softmax across rows: wide enough for whole pages' worth of lines, narrow enough for the L2


@dataclass(frozen=True)
class SoftmaxAcross(Kernel):
    """Over the middle axis of (outer, length, inner): lanes lie side by side along the inner one."""

    outer: int
    length: int
    inner: int
    lanes: int

    kind = "softmax"

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        return (((self.outer, self.length, self.inner), "float32"),)

    @property
    def output(self) -> Shape:
        return (self.outer, self.length, self.inner)

    @property
    def flops(self) -> int:
        return 12 * self.outer * self.length * self.inner

    def build(self, knobs: Knobs) -> Any:
        a, n, b = self.output
        v = vector_width(b, self.lanes)
        v = min(self.lanes, b) if v == 1 else v
        x = te.placeholder((a, n, b), name="x")
        operands = self.chain.placeholders()
        r, r2 = te.reduce_axis((0, n), "r"), te.reduce_axis((0, n), "r2")
        top = te.compute((a, b), lambda i, j: te.max(x[i, r, j], axis=r), name="top")
        e = te.compute((a, n, b), lambda i, k, j: fast_exp(x[i, k, j] - top[i, j]), name="e")
        total = te.compute((a, b), lambda i, j: te.sum(e[i, r2, j], axis=r2), name="total")
        scale = te.compute((a, b), lambda i, j: tirx.const(1.0, "float32") / total[i, j], name="scale")
        out = te.compute((a, n, b), lambda i, k, j: self.chain.apply(e[i, k, j] * scale[i, j], (i, k, j), operands), name="out")
        sch = schedule_of([x, *operands, out])
        i, k, j = sch.get_loops(sch.get_sblock("out"))
        chunk = v * max(c for c in (1, 2, 4, 8) if c == 1 or (c * v <= b and c * v * n <= _CHUNK_ELEMENTS))
        j_out, j_in = sch.split(j, [None, chunk])
        sch.reorder(i, j_out, k, j_in)
        for name in ("scale", "total", "e", "top"):
            sch.compute_at(sch.get_sblock(name), j_out, preserve_unit_loops=True)
        sch.parallel(sch.fuse(i, j_out))
        for name in ("top", "total"):
            block = sch.get_sblock(name)
            column, red = sch.get_loops(block)[-2:]
            vectorize_reduction(sch, block, column, red)
        for name in ("scale", "e", "out"):
            sch.vectorize(sch.split(sch.get_loops(sch.get_sblock(name))[-1], [None, v])[1])
        return result(sch) if b % chunk == 0 else whole_vectors(result(sch))


@dataclass(frozen=True)
class LayerNorm(Kernel):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta over the last axis of (rows, length). Knob: `mr`."""

    rows: int
    length: int
    epsilon: float
    lanes: int

    kind = "layernorm"

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        return ((self.rows, self.length), "float32"), ((self.length,), "float32"), ((self.length,), "float32")

    @property
    def output(self) -> Shape:
        return (self.rows, self.length)

    @property
    def flops(self) -> int:
        return 8 * self.rows * self.length

    def candidates(self) -> list[dict[str, int]]:
        return [{"mr": mr} for mr in divisors(self.rows, 16)[-2:]]

    def build(self, knobs: Knobs) -> Any:
        rows, n = self.rows, self.length
        v = vector_width(n, self.lanes)  # 1 where nothing divides: correct, slow, and rare
        x = te.placeholder((rows, n), name="x")
        gamma, beta = te.placeholder((n,), name="gamma"), te.placeholder((n,), name="beta")
        operands = self.chain.placeholders()
        share = tirx.const(1.0 / n, "float32")
        _, mean = _partial(lambda i, j: x[i, j], rows, n, v, "mean", te.sum)

        def centred(i: Any, j: Any) -> Any:
            return x[i, j] - mean[i] * share

        _, var = _partial(lambda i, j: centred(i, j) * centred(i, j), rows, n, v, "var", te.sum)
        one = tirx.const(1.0, "float32")
        scale = te.compute((rows,), lambda i: one / tirx.sqrt(var[i] * share + tirx.const(self.epsilon, "float32")), name="scale")
        out = te.compute(
            (rows, n),
            lambda i, j: self.chain.apply(centred(i, j) * scale[i] * gamma[j] + beta[j], (i, j), operands),
            name="out",
        )
        sch = schedule_of([x, gamma, beta, *operands, out])
        i, _ = sch.get_loops(sch.get_sblock("out"))
        outer, inner = sch.split(i, [None, (knobs or self.candidates()[0])["mr"]])
        vectorize_last(sch, sch.get_sblock("out"), self.lanes)
        for name in ("scale", "var", "var_part", "mean", "mean_part"):
            sch.compute_at(sch.get_sblock(name), inner, preserve_unit_loops=True)
        sch.parallel(outer)
        for name in ("mean_part", "var_part"):
            block = sch.get_sblock(name)
            lane, k = sch.get_loops(block)[-2:]
            if v > 1:
                vectorize_reduction(sch, block, lane, k)
        return result(sch)


@dataclass(frozen=True)
class Reduce(Kernel):
    """Over the middle axis of (outer, length, inner): `op` is sum, mean, max or min."""

    op: str
    outer: int
    length: int
    inner: int
    lanes: int

    kind = "reduce"

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        return (((self.outer, self.length, self.inner), "float32"),)

    @property
    def output(self) -> Shape:
        return (self.outer, self.inner)

    @property
    def flops(self) -> int:
        return self.outer * self.length * self.inner

    def build(self, knobs: Knobs) -> Any:
        a, n, b = self.inputs[0][0]
        x = te.placeholder((a, n, b), name="x")
        operands = self.chain.placeholders()
        combine = {"sum": te.sum, "mean": te.sum, "max": te.max, "min": te.min}[self.op]
        factor = tirx.const(1.0 / n, "float32") if self.op == "mean" else None

        def finish(value: Any, at: tuple[Any, Any]) -> Any:
            return self.chain.apply(value * factor if factor is not None else value, at, operands)

        v = vector_width(n, self.lanes)
        if b == 1 and v > 1:
            _, full = _partial(lambda i, j: x[i, j, 0], a, n, v, "full", combine)
            out = te.compute((a, 1), lambda i, j: finish(full[i], (i, j)), name="out")
            sch = schedule_of([x, *operands, out])
            i, _ = sch.get_loops(sch.get_sblock("out"))
            for name in ("full", "full_part"):
                sch.compute_at(sch.get_sblock(name), i, preserve_unit_loops=True)
            if a > 1:
                sch.parallel(i)
            block = sch.get_sblock("full_part")
            lane, k = sch.get_loops(block)[-2:]
            vectorize_reduction(sch, block, lane, k)
            return result(sch)
        r = te.reduce_axis((0, n), "r")
        acc = te.compute((a, b), lambda i, j: combine(x[i, r, j], axis=r), name="acc")
        out = te.compute((a, b), lambda i, j: finish(acc[i, j], (i, j)), name="out")
        sch = schedule_of([x, *operands, out])
        block, last = sch.get_sblock("acc"), sch.get_sblock("out")
        i, j, k = sch.get_loops(block)
        v = vector_width(b, self.lanes)
        j_out, lane = sch.split(j, [None, v])
        sch.reorder(i, j_out, k, lane)
        sch.set_scope(block, 0, "local")
        sch.reverse_compute_at(last, j_out)
        parallel = sch.fuse(i, j_out)
        if self.flops > 16384:
            sch.parallel(parallel)
        if v > 1:
            sch.vectorize(lane)
            unroll_tile(sch, sch.decompose_reduction(block, k), 0)
            unroll_tile(sch, last, 0)
        return result(sch)
