"""Convolution of an image in bf16: plain channels in, too few for a block of them, packed channels out (see `bf16`).

A word pairs two channels of a pixel; an odd last channel is paired with itself in the column to the right, so that one word
serves two taps. So 7 taps of 3 channels take 11 words and not 14. The words of a pair of channels form a plane with the
border's zeros around it, of a band of rows at a time. Knobs:

    ow      columns of a register tile
    hb      output rows of a band; bands are shared out
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from veltair.compiler.graph import Array, Shape
from veltair.compiler.schedules import bf16
from veltair.compiler.schedules.base import Kernel, Knobs, zero
from veltair.compiler.schedules.bf16 import Columns, Index, Stmt
from veltair.compiler.schedules.bf16_tile import Loop, Step, Tile
from veltair.compiler.schedules.conv import Window
from veltair.compiler.schedules.conv_bf16 import cost_of, widths_of

_BAND_WORDS = 32 * 1024  # 128 KiB, as in `conv_bf16`
_TASKS = 8  # bands at least, and always an even number: they divide among cores

_NEIGHBOURS = """
define linkonce_odr <16 x i32> @veltair_neighbours(<16 x float> %v) alwaysinline #0 {
  %h = shufflevector <16 x float> %v, <16 x float> zeroinitializer, <16 x i32> <NEXT>
  %x = call <16 x i32> @veltair_pairs(<16 x float> %v, <16 x float> %h)
  ret <16 x i32> %x
}
""".replace("NEXT", ", ".join(f"i32 {i + 1}" for i in range(16)))


@dataclass(frozen=True)
class ImageConvBf16(Kernel):
    """(n, c, h, w) -> (n, co/lo, oh, ow, lo), for images of LANES columns at least and windows without dilation."""

    n: int
    channels: int
    h: int
    w: int
    out_blocks: int
    out_lanes: int
    window: Window
    vectors: int

    kind = "image_bf16"
    precision = "bf16"
    tolerance = bf16.TOLERANCE

    @property
    def tiles(self) -> list[Columns]:
        return bf16.split_columns(self.out_blocks * self.out_lanes, self.vectors)

    @property
    def planes(self) -> int:
        return -(-self.channels // 2)

    @property
    def taps(self) -> list[tuple[int, int]]:
        """(plane, column) of each word that an output pixel needs of a row of the window."""
        kw, odd = self.window.kernel[1], self.channels % 2
        return [(plane, j) for plane in range(self.planes) for j in range(0, kw, 2 if odd and plane == self.planes - 1 else 1)]

    @property
    def row_words(self) -> int:
        """Of a plane: a row with its border."""
        _, left, _, right = self.window.pads
        return left + self.w + max(right, 1)

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        last, steps = self.tiles[-1], self.window.kernel[0] * len(self.taps)
        return ((self.n, self.channels, self.h, self.w), "float32"), ((steps * (last.first + last.lanes),), "int32")

    @property
    def constants(self) -> tuple[tuple[Shape, str], ...]:
        return self.inputs[1:]

    @property
    def output(self) -> Shape:
        return (self.n, self.out_blocks, *self.window.out(self.h, self.w), self.out_lanes)

    @property
    def flops(self) -> int:
        _, _, oh, ow, _ = self.output
        return 2 * self.n * self.out_blocks * self.out_lanes * self.channels * self.window.taps(self.h, self.w, oh, ow)

    def pack(self, weights: Array) -> Array:
        """(co, c, kh, kw) -> the kernel's words."""
        co, c, kh, kw = weights.shape
        full = np.zeros((self.out_blocks * self.out_lanes, 2 * self.planes, kh, kw + 1), np.float32)
        full[:co, :c, :, :kw] = weights
        if c % 2:  # the second half of the last plane's words is the same channel, a column to the right
            full[:, c, :, :kw] = full[:, c - 1, :, 1:]
        steps = [full[:, 2 * plane + half, i, j] for i in range(kh) for plane, j in self.taps for half in (0, 1)]
        return bf16.pack_words(np.stack(steps), self.tiles)

    def candidates(self) -> list[dict[str, int]]:
        _, _, oh, ow, _ = self.output
        widths = sorted(widths_of(ow, self.vectors), key=lambda t: cost_of(self.out_blocks * self.out_lanes, ow, self.vectors, t))
        fits = max(1, _BAND_WORDS // (self.planes * self.row_words * self.window.strides[0]))
        bands = max(_TASKS, -(-oh // fits))
        few = bands + bands % 2
        return [{"ow": t, "hb": hb} for t in widths[:2] for hb in dict.fromkeys((-(-oh // few), -(-oh // (2 * few))))]

    def build(self, knobs: Knobs) -> Any:
        return _Program(self, knobs or self.candidates()[0]).function()

    def working_set_bytes(self, knobs: Knobs) -> int:
        held = (knobs["hb"] - 1) * self.window.strides[0] + self.window.kernel[0]
        return 4 * (self.inputs[1][0][0] + self.planes * held * self.row_words)


class _Program:
    """The statements of one setting of the knobs."""

    def __init__(self, kernel: ImageConvBf16, knobs: Knobs) -> None:
        self.k, self.width, self.hb = kernel, knobs["ow"], knobs["hb"]
        self.buffers, self.operands = bf16.arguments(kernel)
        self.x, self.weights, *_, self.out = self.buffers
        self.code = {"pairs": bf16.PAIRS, "neighbours": _NEIGHBOURS}
        _, _, self.oh, self.ow, _ = kernel.output
        self.held = (self.hb - 1) * kernel.window.strides[0] + kernel.window.kernel[0]  # rows that a band reads

    def function(self) -> Any:
        bands = -(-self.oh // self.hb)

        def band(number: Index) -> Stmt:
            return self._band(bf16.floordiv(number, bands), bf16.floormod(number, bands) * self.hb)

        return bf16.function(self.buffers, bf16.parallel(self.k.n * bands, band), self.code)

    def _band(self, image: Index, start: Index) -> Stmt:
        k = self.k
        scratch = bf16.words(k.planes * self.held * k.row_words)
        count = self.hb if self.oh % self.hb == 0 else bf16.at_most(self.hb, self.oh - start)
        first = start * k.window.strides[0] - k.window.pads[0]

        def words(r: Index) -> Stmt:
            inside = tirx.all(first + r >= 0, first + r < k.h)
            at = [(plane * self.held + r) * k.row_words for plane in range(k.planes)]
            read = bf16.together(*(self._words(image, p, first + r, scratch, word) for p, word in enumerate(at)))
            return tirx.IfThenElse(inside, read, bf16.together(*(_zeros(scratch, word, k.row_words) for word in at)))

        def sweep(tile: Columns, lane: Index) -> Stmt:
            def row(y: Index) -> Stmt:
                full, rest = divmod(self.ow, self.width)
                runs = [(0, full, self.width), (full * self.width, 1, rest)]

                def one(t: Index, x: int, size: int) -> Stmt:
                    return self._tile(scratch, y, x + t * size, size, (image, start + y), lane, tile)

                parts = [bf16.loop(n, lambda t, x=x, s=s: one(t, x, s)) for x, n, s in runs if n * s]  # type: ignore[misc]
                return bf16.together(*parts)

            return bf16.loop(count, row)

        return bf16.together(
            tirx.AllocBuffer(scratch),
            bf16.loop((count - 1) * k.window.strides[0] + k.window.kernel[0], words),
            *(
                bf16.loop(runs, lambda t, tile=tile: sweep(tile, tile.first + t * tile.lanes))  # type: ignore[misc]
                for _, runs, tile in bf16.alike(k.tiles)
            ),
        )

    def _words(self, image: Index, plane: int, row: Index, scratch: Any, word: Index) -> Stmt:
        """A row of a plane, from `word` on."""
        k, left, channel, v = self.k, self.k.window.pads[1], 2 * plane, bf16.LANES
        alone = channel + 1 == k.channels

        def values(c: int, at: Index) -> Any:
            return bf16.load(self.x, [image, c, row, at], v)

        def stored(at: Index, value: Any) -> Stmt:
            return bf16.store(scratch, value, [word + left + at], v)

        def middle(g: Index) -> Stmt:
            pair = values(channel, g * v), values(channel, g * v + 1) if alone else values(channel + 1, g * v)
            return stored(g * v, tirx.call_pure_extern("int32x16", "veltair_pairs", *pair))

        end = k.w - v  # the last register may overlap the one before
        if alone:
            last = tirx.call_pure_extern("int32x16", "veltair_neighbours", values(channel, end))
        else:
            last = tirx.call_pure_extern("int32x16", "veltair_pairs", values(channel, end), values(channel + 1, end))
        parts = [_zeros(scratch, word, left)]
        if alone and left:
            first = tirx.BufferLoad(self.x, [bf16.to_int(i) for i in (image, channel, row, 0)])
            pair = tirx.call_pure_extern("int32", "veltair_round2", zero(), first)
            parts.append(tirx.BufferStore(scratch, pair, [bf16.to_int(word + left - 1)]))
        parts += [bf16.loop((k.w - 1) // v, middle), stored(end, last)]
        return bf16.together(*parts, _zeros(scratch, word + left + k.w, k.row_words - left - k.w))

    def _tile(self, scratch: Any, y: Index, x: Index, size: int, at: tuple[Index, Index], lane: Index, tile: Columns) -> Stmt:
        """Columns from x on of row y of the band, which is row `at[1]` of image `at[0]`."""
        k = self.k
        (kh, _), (sh, sw) = k.window.kernel, k.window.strides
        plane = self.held * k.row_words
        steps = tuple(
            Step(n * tile.lanes, tuple((z, p * plane + z * sw + j) for z in range(size))) for n, (p, j) in enumerate(k.taps)
        )
        body = Tile(tile.widths, size, (Loop(kh, k.row_words, len(steps) * tile.lanes),), steps)

        def finish(z: Index, start: int, lanes: int, value: Any) -> Stmt:
            parts = []
            for part in range(0, lanes, k.out_lanes):
                block = bf16.floordiv(lane + start + part, k.out_lanes)
                parts.append(
                    bf16.finished(
                        k.chain, self.out, self.operands, min(lanes, k.out_lanes),
                        lambda v, b=block: (at[0], b, at[1], x + z, v),  # type: ignore[misc]
                        lambda v, p=part: value(p + v),
                    )
                )  # fmt: skip
            return bf16.together(*parts)

        word = y * sh * k.row_words + x * sw
        return bf16.register_tile(body, self.code, (scratch, word), (self.weights, lane * kh * len(steps)), finish)


def _zeros(scratch: Any, word: Index, count: int) -> Stmt:
    return bf16.loop(count, lambda i: tirx.BufferStore(scratch, bf16.to_int(0), [bf16.to_int(word + i)]))
