"""Pooling over channel-blocked data: lanes are channels, so each window is a handful of vector operations."""

from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

from veltair.compiler.graph import Shape
from veltair.compiler.schedules.base import Kernel, Knobs, result, schedule_of
from veltair.compiler.schedules.tiles import Window

_LOWEST = -3.4e38


@dataclass(frozen=True)
class Pool(Kernel):
    """Maximum or average over windows; `include_pad` counts padding into the average, as ONNX's attribute does."""

    op: str  # "max" | "mean"
    n: int
    blocks: int
    lanes: int
    h: int
    w: int
    window: Window
    out_hw: tuple[int, int]  # as the model says: ceil_mode may add a ragged last window
    include_pad: bool = False

    kind = "pool"

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        return (((self.n, self.blocks, self.h, self.w, self.lanes), "float32"),)

    @property
    def output(self) -> Shape:
        return (self.n, self.blocks, *self.out_hw, self.lanes)

    @property
    def flops(self) -> int:
        size = self.n * self.blocks * self.lanes * self.out_hw[0] * self.out_hw[1]
        return size * self.window.kernel[0] * self.window.kernel[1]

    def build(self, knobs: Knobs) -> Any:
        (kh, kw), (sh, sw), (dh, dw) = self.window.kernel, self.window.strides, self.window.dilations
        top, left, bottom, right = self.window.pads
        h, w = self.h, self.w
        x = te.placeholder(self.inputs[0][0], name="x")
        operands = self.chain.placeholders()
        i, j = te.reduce_axis((0, kh), "kh"), te.reduce_axis((0, kw), "kw")
        oh, ow = self.out_hw
        ragged = any(self.window.pads) or (oh - 1) * sh + (kh - 1) * dh >= h or (ow - 1) * sw + (kw - 1) * dw >= w
        neutral = tirx.const(_LOWEST if self.op == "max" else 0.0, "float32")

        def value(b: Any, c: Any, y: Any, z: Any, v: Any) -> Any:
            row, column = y * sh + i * dh - top, z * sw + j * dw - left
            if not ragged:
                return x[b, c, row, column, v]
            inside = tirx.all(row >= 0, row < h, column >= 0, column < w)
            return tirx.if_then_else(inside, x[b, c, row, column, v], neutral)

        combine = te.max if self.op == "max" else te.sum
        acc = te.compute(self.output, lambda *at: combine(value(*at), axis=[i, j]), name="acc")

        def count(y: Any, z: Any) -> Any:
            if not ragged:
                return tirx.const(float(kh * kw), "float32")
            # counted padding ends where the model's pads end: what ceil_mode adds behind them never counts
            below, behind = (bottom, right) if self.include_pad else (0, 0)
            first, left_most = y * sh - top, z * sw - left
            if not self.include_pad:
                first, left_most = tirx.max(first, 0), tirx.max(left_most, 0)
            rows = tirx.min(y * sh - top + kh, h + below) - first
            columns = tirx.min(z * sw - left + kw, w + behind) - left_most
            return tirx.Cast("float32", rows * columns)

        def finish(*at: Any) -> Any:
            mean = acc(*at) if self.op == "max" else acc(*at) / count(at[2], at[3])
            return self.chain.apply(mean, at, operands)

        out = te.compute(self.output, finish, name="out")
        sch = schedule_of([x, *operands, out])
        block, last = sch.get_sblock("acc"), sch.get_sblock("out")
        b, c, y, z, v, ki, kj = sch.get_loops(block)
        sch.reorder(b, c, y, z, ki, kj, v)
        sch.set_scope(block, 0, "local")
        sch.reverse_compute_at(last, z)
        parallel = sch.fuse(b, c, y) if oh > 1 else sch.fuse(b, c)
        if self.flops > 16384:
            sch.parallel(parallel)
        sch.vectorize(v)
        init = sch.decompose_reduction(block, ki)
        sch.vectorize(sch.get_loops(init)[-1])
        sch.vectorize(sch.get_loops(last)[-1])
        return result(sch)
