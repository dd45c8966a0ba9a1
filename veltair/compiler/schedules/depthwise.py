"""Depthwise convolution over channel-blocked data: every channel its own filter, so memory decides, and rows are reused.

Knobs: `hb` rows of a band (its padded rows are made in place), `ow` columns of the register tile.
"""

from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

from veltair.compiler.graph import Shape
from veltair.compiler.schedules.base import Kernel, Knobs, divisors, result, schedule_of, unroll_tile, zero
from veltair.compiler.schedules.conv import Window


@dataclass(frozen=True)
class Depthwise(Kernel):
    n: int
    blocks: int
    lanes: int
    h: int
    w: int
    window: Window

    kind = "depthwise"

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        return (
            ((self.n, self.blocks, self.h, self.w, self.lanes), "float32"),
            ((self.blocks, *self.window.kernel, self.lanes), "float32"),
        )

    @property
    def constants(self) -> tuple[tuple[Shape, str], ...]:
        return self.inputs[1:]

    @property
    def output(self) -> Shape:
        return (self.n, self.blocks, *self.window.out(self.h, self.w), self.lanes)

    @property
    def flops(self) -> int:
        n, blocks, oh, ow, lanes = self.output
        kh, kw = self.window.kernel
        return 2 * n * blocks * oh * ow * lanes * kh * kw

    def candidates(self) -> list[dict[str, int]]:
        _, _, oh, ow, _ = self.output
        tiles = divisors(ow, 20)[::-1][:3]
        bands = sorted({*divisors(oh, 28)[-2:], *(d for d in divisors(oh, 28) if d in (4, 5, 7, 8))}, reverse=True)
        return [{"ow": t, "hb": hb} for t in tiles for hb in bands][:10]

    def build(self, knobs: Knobs) -> Any:
        knobs = knobs or self.candidates()[0]
        top, left, bottom, right = self.window.pads
        (kh, kw), (sh, sw), (dh, dw) = self.window.kernel, self.window.strides, self.window.dilations
        (data_shape, _), (weight_shape, _) = self.inputs
        x, w = te.placeholder(data_shape, name="x"), te.placeholder(weight_shape, name="w")
        operands = self.chain.placeholders()
        xp, padded = x, any(self.window.pads)
        if padded:
            h, ww = self.h, self.w
            xp = te.compute(
                (self.n, self.blocks, h + top + bottom, ww + left + right, self.lanes),
                lambda b, c, y, z, v: tirx.if_then_else(
                    tirx.all(y >= top, y < h + top, z >= left, z < ww + left), x[b, c, y - top, z - left, v], zero()
                ),
                name="pad",
            )
        i, j = te.reduce_axis((0, kh), "kh"), te.reduce_axis((0, kw), "kw")
        acc = te.compute(
            self.output,
            lambda b, c, y, z, v: te.sum(xp[b, c, y * sh + i * dh, z * sw + j * dw, v] * w[c, i, j, v], axis=[i, j]),
            name="acc",
        )
        out = te.compute(self.output, lambda *at: self.chain.apply(acc(*at), at, operands), name="out")
        sch = schedule_of([x, w, *operands, out])
        block, last = sch.get_sblock("acc"), sch.get_sblock("out")
        b, c, y, z, v, ki, kj = sch.get_loops(block)
        y_out, y_in = sch.split(y, [None, knobs["hb"]])
        z_out, z_in = sch.split(z, [None, knobs["ow"]])
        sch.reorder(b, c, y_out, y_in, z_out, ki, kj, z_in, v)
        sch.set_scope(block, 0, "local")
        sch.reverse_compute_at(last, z_out)
        parallel = sch.fuse(b, c, y_out)
        if padded:
            sch.compute_at(sch.get_sblock("pad"), parallel)
            sch.vectorize(sch.get_loops(sch.get_sblock("pad"))[-1])
        sch.parallel(parallel)
        for loop in (ki, kj, z_in):
            sch.unroll(loop)
        sch.vectorize(v)
        unroll_tile(sch, sch.decompose_reduction(block, ki), 1)
        unroll_tile(sch, last, 1)
        return result(sch)
