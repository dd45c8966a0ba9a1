"""Direct convolution in bf16 over channel-blocked data (see `bf16`); no padded copy, and no product with a border's zeros.

The input is rounded once for all output channels, rows as they lie. A register tile is `vectors` registers of output
channels x `ow` columns. Rows outside the input are skipped by the bounds of the loop over taps; tiles at the left and
right border have bodies of their own, in which each tap multiplies only the columns that it meets. Knobs:

    ow      columns of a register tile
    order   0: the whole input is rounded, then tiles of channels are shared out, each over `hb` rows: weights stay
            1: bands of `hb` rows are shared out, each rounds its own input and sweeps all channels: the input stays
    hb      rows of a band (columns, where the output is one row)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from veltair.compiler.graph import Array, Shape, elements
from veltair.compiler.schedules import bf16
from veltair.compiler.schedules.base import L2_BYTES, Kernel, Knobs
from veltair.compiler.schedules.bf16 import Columns, Index, Stmt
from veltair.compiler.schedules.bf16_tile import DYNAMIC, Loop, Step, Tile
from veltair.compiler.schedules.conv import Window

_MOST_EDGES = 10  # tiles of a row that need a body of their own: more would be more code than the cache of it holds
_BAND_WORDS = 32 * 1024  # 128 KiB: a quarter of the private cache beside weights and output


def tile_vectors(out_lanes: int, columns: int) -> int:
    """Registers of output channels in a tile, at which a row of `columns` costs least."""
    return min(
        range(1, min(-(-out_lanes // bf16.LANES), 8) + 1),
        key=lambda v: min(cost_of(out_lanes, columns, v, t) for t in widths_of(columns, v)),
    )


def widths_of(columns: int, vectors: int) -> list[int]:
    """Columns that a register tile of so many vectors may have."""
    return [t for t in range(1, min(columns, bf16.MAX_TILE) + 1) if t == 1 or t * vectors <= bf16.MAX_TILE]


def cost_of(out_lanes: int, columns: int, vectors: int, width: int) -> float:
    full, tail = divmod(columns, width)
    each = (
        full * bf16.tile_cost(len(t.widths), width) + (bf16.tile_cost(len(t.widths), tail) if tail else 0)
        for t in bf16.split_columns(out_lanes, vectors)
    )
    return sum(each)


@dataclass(frozen=True)
class ConvBf16(Kernel):
    """(n, c/li, h, w, li) -> (n, co/lo, oh, ow, lo), with `li` even."""

    n: int
    in_blocks: int
    in_lanes: int
    h: int
    w: int
    out_blocks: int
    out_lanes: int
    window: Window
    vectors: int

    kind = "conv_bf16"
    precision = "bf16"
    light_first = True
    tolerance = bf16.TOLERANCE

    @property
    def tiles(self) -> list[Columns]:
        return bf16.split_columns(self.out_blocks * self.out_lanes, self.vectors)

    @property
    def pairs(self) -> int:
        """Words of a pixel in a block."""
        return self.in_lanes // 2

    @property
    def steps(self) -> int:
        return self.in_blocks * elements(self.window.kernel) * self.pairs

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        last = self.tiles[-1]
        data = (self.n, self.in_blocks, self.h, self.w, self.in_lanes)
        return (data, "float32"), ((self.steps * (last.first + last.lanes),), "int32")

    @property
    def constants(self) -> tuple[tuple[Shape, str], ...]:
        return self.inputs[1:]

    @property
    def output(self) -> Shape:
        return (self.n, self.out_blocks, *self.window.out(self.h, self.w), self.out_lanes)

    @property
    def flops(self) -> int:
        _, _, oh, ow, _ = self.output
        return 2 * self.n * self.out_blocks * self.out_lanes * oh * ow * 2 * self.steps

    @property
    def flat(self) -> bool:
        """Whether the output is one row whose columns can be shared out in chunks."""
        return self.window.pointwise and self.h == 1

    def pack(self, weights: Array) -> Array:
        """(co, ci, kh, kw) -> the kernel's words."""
        co, ci, kh, kw = weights.shape
        padded = np.zeros((self.out_blocks * self.out_lanes, self.in_blocks * self.in_lanes, kh, kw), np.float32)
        padded[:co, :ci] = weights
        blocked = padded.reshape(-1, self.in_blocks, self.in_lanes, kh, kw).transpose(1, 3, 4, 2, 0)
        return bf16.pack_words(blocked.reshape(2 * self.steps, -1), self.tiles)

    def candidates(self) -> list[dict[str, int]]:
        """None where every tile of a wide row would lie at its border (large dilations): each would need its own code."""
        _, _, oh, ow, _ = self.output
        lanes, rows = self.out_blocks * self.out_lanes, ow if self.flat else oh
        widths = sorted(widths_of(ow, self.vectors), key=lambda t: cost_of(lanes, ow, self.vectors, t))
        widths = [t for t in widths if len(self._edges(t)) <= _MOST_EDGES][:2]
        out = []
        for t in widths:
            step = t if self.flat else 1
            half = -(-rows // (2 * step)) * step
            out.append({"ow": t, "order": 0, "hb": rows if self.n * len(self.tiles) % 2 == 0 else half})
            whole = self.in_blocks * self.pairs * (1 if self.flat else self.w * self.window.strides[0])  # words of an output row
            band = max(1, -(-whole * half // _BAND_WORDS))
            small = -(-half // (band * step)) * step
            out += [{"ow": t, "order": 1, "hb": hb} for hb in dict.fromkeys((small, half))]
        return out

    def build(self, knobs: Knobs) -> Any:
        knobs = knobs or self.candidates()[0]
        return _Program(self, knobs).function()

    def _edges(self, width: int) -> list[int]:
        """First columns of the tiles that lie partly outside the input."""
        _, _, _, ow, _ = self.output
        return [x for x in range(0, ow, width) if not self._inside(x, min(width, ow - x))]

    def _inside(self, x: int, size: int) -> bool:
        return all(len(self._met(x, size, j)) == size for j in range(self.window.kernel[1]))

    def _met(self, x: int, size: int, j: int) -> list[int]:
        """Columns of the tile at x that tap j meets."""
        stride, dilation, left = self.window.strides[1], self.window.dilations[1], self.window.pads[1]
        return [z for z in range(size) if 0 <= (x + z) * stride + j * dilation - left < self.w]

    def traffic_bytes(self, knobs: Knobs) -> int:
        data, weights = 4 * elements(self.inputs[0][0]) // 2, 4 * self.inputs[1][0][0]
        _, _, oh, ow, _ = self.output
        swept = 0
        if knobs.get("order", 0) == 0 and data > L2_BYTES:
            swept = data * (len(self.tiles) - 1)
        elif knobs.get("order", 0) == 1 and weights > L2_BYTES:
            swept = weights * (self.n * -(-(ow if self.flat else oh) // knobs["hb"]) - 1)
        return self.streamed_bytes() + swept

    def working_set_bytes(self, knobs: Knobs) -> int:
        data, weights = 4 * elements(self.inputs[0][0]) // 2 // self.n, 4 * self.inputs[1][0][0]
        if knobs.get("order", 0) == 0:
            return data + weights // len(self.tiles)
        if self.flat:
            return weights + data * knobs["hb"] // self.w
        return weights + data * min(self.h, knobs["hb"] * self.window.strides[0] + self.window.kernel[0]) // self.h


class _Program:
    """The statements of one setting of the knobs."""

    def __init__(self, kernel: ConvBf16, knobs: Knobs) -> None:
        self.k, self.width, self.order, self.hb = kernel, knobs["ow"], knobs["order"], knobs["hb"]
        self.buffers, self.operands = bf16.arguments(kernel)
        self.code: dict[str, str] = {}
        self.x, self.weights, *_, self.out = self.buffers
        _, _, self.oh, self.ow, _ = kernel.output
        self.rows = self.ow if kernel.flat else self.oh
        self.bands = -(-self.rows // self.hb)

    def function(self) -> Any:
        body = self._weights_stay() if self.order == 0 else self._input_stays()
        return bf16.function(self.buffers, body, self.code)

    def _weights_stay(self) -> Stmt:
        k = self.k
        block = k.h * k.w * k.pairs
        scratch = bf16.words(k.n * k.in_blocks * block)

        def rounding(number: Index) -> Stmt:
            at = (bf16.floordiv(number, k.in_blocks), bf16.floormod(number, k.in_blocks))
            return bf16.rounded(self.x, [*at, 0, 0, 0], scratch, number * block, 2 * block)

        def share(number: Index) -> Stmt:
            band, rest = bf16.floormod(number, self.bands), bf16.floordiv(number, self.bands)
            tile, image = bf16.floormod(rest, len(k.tiles)), bf16.floordiv(rest, len(k.tiles))
            base = image * k.in_blocks * block
            return bf16.each_tile(k.tiles, tile, lambda lane, t: self._band(scratch, base, 0, k.h, image, band, lane, t))

        return bf16.together(
            tirx.AllocBuffer(scratch),
            bf16.spread(k.n * k.in_blocks * block, k.n * k.in_blocks, rounding),
            bf16.parallel(k.n * len(k.tiles) * self.bands, share),
        )

    def _input_stays(self) -> Stmt:
        k = self.k
        (kh, _), (sh, _), (dh, _), top = k.window.kernel, k.window.strides, k.window.dilations, k.window.pads[0]
        if k.flat:
            held = 1
            scratch_words = k.in_blocks * self.hb * k.pairs
        else:
            held = min(k.h, (self.hb - 1) * sh + (kh - 1) * dh + 1)
            scratch_words = k.in_blocks * held * k.w * k.pairs

        def band(number: Index) -> Stmt:
            scratch = bf16.words(scratch_words)
            band, image = bf16.floormod(number, self.bands), bf16.floordiv(number, self.bands)
            start = band * self.hb
            if k.flat:
                first: Index = start

                def convert(c: Index) -> Stmt:
                    return self._of_size(
                        band,
                        lambda size: bf16.rounded(
                            self.x, [image, c, 0, start, 0], scratch, c * self.hb * k.pairs, size * k.in_lanes
                        ),
                    )
            else:
                first = bf16.at_least(0, start * sh - top)
                end = bf16.at_most(k.h, (start + self.hb - 1) * sh + (kh - 1) * dh + 1 - top)

                def convert(c: Index) -> Stmt:
                    return bf16.loop(
                        end - first,
                        lambda r: bf16.rounded(
                            self.x, [image, c, first + r, 0, 0], scratch, (c * held + r) * k.w * k.pairs, k.w * k.in_lanes
                        ),
                    )

            sweeps = [
                bf16.loop(
                    count,
                    lambda t, tile=tile: self._band(  # type: ignore[misc]
                        scratch, 0, first, held, image, band, tile.first + t * tile.lanes, tile
                    ),
                )
                for _, count, tile in bf16.alike(k.tiles)
            ]
            return bf16.together(tirx.AllocBuffer(scratch), bf16.loop(k.in_blocks, convert), *sweeps)

        return bf16.parallel(k.n * self.bands, band)

    def _of_size(self, band: Index, body: Any) -> Stmt:
        """`body(rows of the band)`: the last one may have fewer."""
        last = self.rows - (self.bands - 1) * self.hb
        if last == self.hb or isinstance(band, int):
            return body(last if self.bands == 1 else self.hb)
        return tirx.IfThenElse(band.equal(self.bands - 1), body(last), body(self.hb))

    def _band(
        self, scratch: Any, base: Index, first: Index, held: int, image: Index, band: Index, lane: Index, tile: Columns
    ) -> Stmt:
        """All rows of a band for one tile of channels. The scratch holds `held` rows of each block from row `first` on."""
        start = band * self.hb
        if self.k.flat:
            width, origin = (self.hb, start) if self.order else (self.k.w, 0)

            def chunk(size: int) -> Stmt:
                full, tail = divmod(size, self.width)

                def whole(t: Index) -> Stmt:
                    at = start + t * self.width
                    return self._tile(scratch, base, width, 1, 0, image, 0, at, origin, self.width, lane, tile, (t, full))

                parts = [bf16.loop(full, whole)] if full else []
                if tail:
                    at = start + full * self.width
                    parts.append(self._tile(scratch, base, width, 1, 0, image, 0, at, origin, tail, lane, tile))
                return bf16.together(*parts)

            return self._of_size(band, chunk)
        count = self.hb if self.rows % self.hb == 0 else bf16.at_most(self.hb, self.rows - start)

        segments = self._segments()
        each = sum(tiles for _, tiles, _ in segments)

        def row(number: Index) -> Stmt:
            y, parts, done = start + number, [], number * each
            for x, tiles, size in segments:

                def one(t: Index, x: int = x, size: int = size, done: Index = done) -> Stmt:
                    at, turn = x + t * self.width, (done + t, self.hb * each)
                    return self._tile(scratch, base, self.k.w, held, first, image, y, at, 0, size, lane, tile, turn)

                parts.append(bf16.loop(tiles, one))
                done += tiles
            return bf16.together(*parts)

        return bf16.loop(count, row)

    def _segments(self) -> list[tuple[int, int, int]]:
        """(first column, tiles, columns of one): tiles inside the input that follow each other share a body."""
        out: list[tuple[int, int, int]] = []
        before = False
        for x in range(0, self.ow, self.width):
            size = min(self.width, self.ow - x)
            inside = self.k._inside(x, size)
            if out and before and inside and size == self.width:
                out[-1] = (out[-1][0], out[-1][1] + 1, size)
            else:
                out.append((x, 1, size))
            before = inside
        return out

    def _tile(
        self, scratch: Any, base: Index, width: int, held: int, first: Index, image: Index, y: Index, x: Index, origin: Index,
        size: int, lane: Index, tile: Columns, turn: tuple[Index, int] = (0, 1),
    ) -> Stmt:  # fmt: skip
        """Output row y, columns from x on. A row of the scratch has `width` columns, from `origin` on. `turn` is
        the tile's number among the band's, which all use the same weights, and how many those are."""
        k, window = self.k, self.k.window
        (kh, kw), (sh, sw), (dh, dw), (top, left, _, _) = window.kernel, window.strides, window.dilations, window.pads
        pairs = k.pairs
        low: Index = 0
        high: Index = kh
        if top:
            low = bf16.at_least(0, bf16.floordiv(top - y * sh + dh - 1, dh))
        if (self.oh - 1) * sh + (kh - 1) * dh - top >= k.h:
            high = bf16.at_most(kh, bf16.floordiv(k.h - 1 + top - y * sh, dh) + 1)
        met = [k._met(x, size, j) for j in range(kw)] if isinstance(x, int) else [list(range(size))] * kw
        alike = all(len(m) == size for m in met)

        def steps(j: int, used: Sequence[int], weight: int) -> list[Step]:
            start = (j * dw - left) * pairs
            return [Step(weight + p * tile.lanes, tuple((z, start + z * sw * pairs + p) for z in used)) for p in range(pairs)]

        tap = pairs * tile.lanes
        loops = [Loop(k.in_blocks, held * width * pairs, kh * kw * tap), Loop(DYNAMIC, dh * width * pairs, kw * tap)]
        if alike:
            loops.append(Loop(kw, dw * pairs, tap))
            body = steps(0, range(size), 0)
        else:
            body = [step for j in range(kw) if met[j] for step in steps(j, met[j], j * tap)]
        row = y * sh + low * dh - top - first
        word = base + (row * width + (x - origin) * sw) * pairs
        weight = lane * k.steps + low * kw * tap
        ahead = bf16.Ahead(k.steps * tile.lanes, k.in_blocks * kh * (kw if alike else 1), turn[1])

        def finish(z: Index, start: int, lanes: int, value: Any) -> Stmt:
            parts = []
            for part in range(0, lanes, k.out_lanes):
                block = bf16.floordiv(lane + start + part, k.out_lanes)
                parts.append(
                    bf16.finished(
                        k.chain, self.out, self.operands, min(lanes, k.out_lanes),
                        lambda v, b=block: (image, b, y, x + z, v),  # type: ignore[misc]
                        lambda v, p=part: value(p + v),
                    )
                )  # fmt: skip
            return bf16.together(*parts)

        function = Tile(tile.widths, size, tuple(loops), tuple(body), ahead.lines)
        asked = ahead.start(lane * k.steps, turn[0])
        return bf16.register_tile(function, self.code, (scratch, word), (self.weights, weight), finish, high - low, asked)
