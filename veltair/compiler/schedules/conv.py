"""Direct convolution over channel-blocked data, fp32, to the FMA peak of a core without search.

Data is (n, c/b, h, w, b) with a block b of channels in one vector register; weights are (co/lo, ci/li, kh, kw, li, lo).
A register tile of `cb` output blocks x `ow` columns stays in registers over the whole reduction. Knobs:

    cb, ow   the register tile (locality in registers)
    order    0: channel blocks outside rows, weights stay and the input is swept again for each channel block
             1: rows outside channel blocks, the input stays and the weights are swept again for each band of rows
    hb       rows of a band
"""

from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

from veltair.compiler.graph import Shape
from veltair.compiler.schedules.base import L2_BYTES, Kernel, Knobs, divisors, result, schedule_of, unroll_tile, zero

MAX_TILE = 28  # register tile, in vectors: above it (32 registers) the compiler spills


@dataclass(frozen=True)
class Window:
    """Kernel, stride, dilation and the padding of top, left, bottom, right."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def out(self, h: int, w: int) -> tuple[int, int]:
        (kh, kw), (sh, sw), (dh, dw), (t, le, b, r) = self.kernel, self.strides, self.dilations, self.pads
        return (h + t + b - (kh - 1) * dh - 1) // sh + 1, (w + le + r - (kw - 1) * dw - 1) // sw + 1

    @property
    def pointwise(self) -> bool:
        return self.kernel == (1, 1) and self.strides == (1, 1) and self.pads == (0, 0, 0, 0)


@dataclass(frozen=True)
class Conv(Kernel):
    n: int
    in_blocks: int  # with in_lanes == 1: plain channels of an (n, c, h, w) input
    in_lanes: int
    h: int
    w: int
    out_blocks: int
    out_lanes: int
    window: Window
    registers: int = 24

    kind = "conv"

    @property
    def plain_input(self) -> bool:
        return self.in_lanes == 1

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        data = (self.n, self.in_blocks, self.h, self.w)
        kh, kw = self.window.kernel
        weight = (self.out_blocks, self.in_blocks, kh, kw, self.in_lanes, self.out_lanes)
        return ((data if self.plain_input else (*data, self.in_lanes), "float32"), (weight, "float32"))

    @property
    def constants(self) -> tuple[tuple[Shape, str], ...]:
        return self.inputs[1:]

    @property
    def output(self) -> Shape:
        return (self.n, self.out_blocks, *self.window.out(self.h, self.w), self.out_lanes)

    @property
    def flops(self) -> int:
        _, _, oh, ow, _ = self.output
        kh, kw = self.window.kernel
        return 2 * self.n * self.out_blocks * self.out_lanes * oh * ow * kh * kw * self.in_blocks * self.in_lanes

    def candidates(self) -> list[dict[str, int]]:
        """Tiles by fewest loads per FMA, (cb + ow) / (cb * ow), times the columns a ragged tail wastes."""
        _, _, oh, ow, _ = self.output
        tiles = []
        for cb in divisors(self.out_blocks, 8):
            for t in range(1, min(ow, MAX_TILE) + 1):
                vectors = cb * t
                if vectors > (MAX_TILE if cb == 1 else self.registers):
                    continue
                waste = -(-ow // t) * t / ow
                latency_bound = max(1.0, 10 / vectors)  # fewer than ten chains leave the FMA units waiting
                tiles.append((waste * latency_bound * (1 + 0.6 * (cb + t) / vectors), cb, t))
        best = [(cb, t) for _, cb, t in sorted(tiles)[:4]]
        bands = sorted({1, *divisors(oh, 8)[-1:]}) if oh > 1 else [1]
        out = [{"cb": cb, "ow": t, "order": 0, "hb": 1} for cb, t in best]
        out += [{"cb": cb, "ow": t, "order": 1, "hb": hb} for cb, t in best for hb in bands]
        return sorted(out, key=lambda k: (best.index((k["cb"], k["ow"])), k["order"]))

    def build(self, knobs: Knobs) -> Any:
        return _schedule(self, knobs) if knobs else _schedule(self, self.candidates()[0])

    def traffic_bytes(self, knobs: Knobs) -> int:
        data, weights = (4 * _size(shape) for shape, _ in self.inputs)
        _, _, oh, ow, _ = self.output
        swept = 0
        if knobs.get("order", 0) == 0 and data > L2_BYTES:
            swept = data * (self.out_blocks // knobs.get("cb", 1) - 1)
        elif knobs.get("order", 0) == 1 and weights > L2_BYTES:
            bands = oh // knobs.get("hb", 1) if oh > 1 else -(-ow // knobs.get("ow", 1))
            swept = weights * (bands - 1)
        return self.streamed_bytes() + swept

    def working_set_bytes(self, knobs: Knobs) -> int:
        data, weights = (4 * _size(shape) for shape, _ in self.inputs)
        if knobs.get("order", 0) == 0:
            return data + weights * knobs.get("cb", 1) // self.out_blocks
        return weights + data * min(self.h, knobs.get("hb", 1) + self.window.kernel[0]) // self.h


def _size(shape: Shape) -> int:
    size = 1
    for d in shape:
        size *= d
    return size


def _pad(k: Conv, x: Any, columns: int) -> Any:
    """Zeros around the data, enough for `columns` output columns; the data itself where none are needed."""
    top, left, bottom, right = k.window.pads
    (_, kw), (_, sw), (_, dw) = k.window.kernel, k.window.strides, k.window.dilations
    right = max(right, (columns - 1) * sw + (kw - 1) * dw + 1 - k.w - left)
    if not (top or left or bottom or right):
        return x

    def value(*i: Any) -> Any:
        row, column = i[2] - top, i[3] - left
        inside = tirx.all(row >= 0, row < k.h, column >= 0, column < k.w)
        return tirx.if_then_else(inside, x(i[0], i[1], row, column, *i[4:]), zero())

    return te.compute((k.n, k.in_blocks, k.h + top + bottom, k.w + left + right, *x.shape[4:]), value, name="pad")


def _schedule(k: Conv, knobs: Knobs) -> Any:
    (data_shape, _), (weight_shape, _) = k.inputs
    n, ob, oh, ow, lo = k.output
    tile = knobs["ow"]
    columns = -(-ow // tile) * tile
    (kh, kw), (sh, sw), (dh, dw) = k.window.kernel, k.window.strides, k.window.dilations
    x, w = te.placeholder(data_shape, name="x"), te.placeholder(weight_shape, name="w")
    operands = k.chain.placeholders()
    xp = _pad(k, x, columns)
    c, i, j = (te.reduce_axis((0, e), name) for e, name in ((k.in_blocks, "c"), (kh, "kh"), (kw, "kw")))
    lane = te.reduce_axis((0, k.in_lanes), "ci")

    def multiply(b: Any, o: Any, y: Any, z: Any, v: Any) -> Any:
        at = (b, c, y * sh + i * dh, z * sw + j * dw)
        value = xp(*at) if k.plain_input else xp(*at, lane)
        return te.sum(value * w[o, c, i, j, lane, v], axis=[c, i, j, lane])

    acc = te.compute((n, ob, oh, columns, lo), multiply, name="acc")
    out = te.compute(k.output, lambda *at: k.chain.apply(acc(*at), at, operands), name="out")
    sch = schedule_of([x, w, *operands, out])
    block, last = sch.get_sblock("acc"), sch.get_sblock("out")
    b, o, y, z, v, *reduction = sch.get_loops(block)
    o_out, o_in = sch.split(o, [None, knobs["cb"]])
    z_out, z_in = sch.split(z, [None, tile])
    y_out, y_in = sch.split(y, [None, knobs["hb"]])
    padded = xp is not x
    if oh == 1:  # one long row: its tiles are the bands
        order = [b, o_out, z_out] if knobs["order"] == 0 else [b, z_out, o_out]
        sch.reorder(*order, y_out, y_in, *reduction, o_in, z_in, v)
        outer, at_tile = order, y_in
    else:
        order = [b, o_out, y_out] if knobs["order"] == 0 else [b, y_out, o_out]
        sch.reorder(*order, y_in, z_out, *reduction, o_in, z_in, v)
        outer, at_tile = order, z_out
    sch.set_scope(block, 0, "local")
    sch.reverse_compute_at(last, at_tile)
    if padded and knobs["order"] == 1 and oh > 1:
        # A band's padded rows are made where they are used, by the core that uses them.
        outer = outer[:2]
        parallel = sch.fuse(*outer)
        sch.compute_at(sch.get_sblock("pad"), parallel)
    else:
        parallel = sch.fuse(*outer)
        if padded:
            sch.parallel(sch.fuse(*sch.get_loops(sch.get_sblock("pad"))[:3]))
    if padded and not k.plain_input:
        sch.vectorize(sch.get_loops(sch.get_sblock("pad"))[-1])
    sch.parallel(parallel)
    sch.vectorize(v)
    sch.unroll(z_in)
    sch.unroll(o_in)
    init = sch.decompose_reduction(block, reduction[0])
    unroll_tile(sch, init, 2)
    unroll_tile(sch, last, 2)
    return result(sch)
