"""Depthwise convolution over channel-blocked data: every channel its own filter.

A register tile of `ow` columns is summed over the taps; its input vectors come straight from the image, and tiles at an
edge leave out the taps that fall outside (see `tiles`), so nothing is copied or padded. Knobs:

    ow   columns of the register tile at most: a row is cut into tiles of nearly equal width
    hb   rows of a band, what cores share
"""

from dataclasses import dataclass
from typing import Any

from veltair.compiler.graph import Shape
from veltair.compiler.schedules import nest
from veltair.compiler.schedules.base import Kernel, Knobs, zero
from veltair.compiler.schedules.tiles import Run, Window, along, column_runs, tap_rows

_TASKS = 16


@dataclass(frozen=True)
class Depthwise(Kernel):
    n: int
    blocks: int
    lanes: int
    h: int
    w: int
    window: Window
    registers: int = 24

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
        """Two for each multiplication made: none for taps outside the image."""
        n, blocks, oh, ow, lanes = self.output
        return 2 * n * blocks * lanes * self.window.taps(self.h, self.w, oh, ow)

    def candidates(self) -> list[dict[str, int]]:
        _, _, _, ow, _ = self.output
        most = self.registers // 2  # taps of a row and input vectors take the rest; wider tiles spill (half the rate at 20)
        tiles = dict.fromkeys(-(-ow // -(-ow // t)) for t in (7, 5, 10, 8) if t <= most)
        return [{"ow": t, "hb": self._band()} for t in tiles]

    def _band(self) -> int:
        _, _, oh, _, _ = self.output
        bands = min(oh, -(-_TASKS // (self.n * self.blocks)))
        if bands * self.n * self.blocks % 2 and bands < oh:
            bands += 1
        return -(-oh // bands)

    def build(self, knobs: Knobs) -> Any:
        knobs = knobs or self.candidates()[0]
        hb, window = knobs["hb"], self.window
        (sh, sw), (dh, dw), (top, left, _, _) = window.strides, window.dilations, window.pads
        _, _, oh, ow, lanes = self.output
        names = ["x", "w", *(f"op{i}" for i in range(len(self.chain.operands))), "out"]
        buffers = nest.arguments(self.argument_specs(), names)
        x, w, *operands, out = buffers
        readers = [nest.reader(b) for b in operands]
        runs = column_runs(window, self.w, ow, knobs["ow"])
        bands = -(-oh // hb)

        def tile(b: Any, c: Any, y: Any, run: Run, z0: Any, top_tap: Any, taps: Any) -> Any:
            def each(body: Any, first: int = 0, behind: int = run.width) -> Any:
                return nest.unrolled("z", behind - first, lambda z: nest.vectorized("v", lanes, lambda v: body(z, v)), first)

            def within(acc: Any) -> Any:
                def tap(i: Any, j: Any, first: int, behind: int) -> Any:
                    def one(z: Any, v: Any) -> Any:
                        value = nest.load(x, b, c, y * sh + (i * dh - top), (z0 + z) * sw + (j * dw - left), v)
                        return nest.store(acc, (z, v), nest.load(acc, z, v) + value * nest.load(w, c, i, j, v))

                    return each(one, first, behind)

                def row(i: Any) -> Any:
                    return nest.seq(*(tap(i, j, f, e) for j, (f, e) in enumerate(run.taps) if f < e))

                def finish(z: Any, v: Any) -> Any:
                    at = (b, c, y, z0 + z, v)
                    return nest.store(out, at, self.chain.apply(nest.load(acc, z, v), at, readers))

                sums = nest.serial("i", taps, row, top_tap) if run.spans() else None
                return nest.seq(each(lambda z, v: nest.store(acc, (z, v), zero())), sums, each(finish))

            return nest.registers("acc", (run.width, lanes), within)

        def line(b: Any, c: Any, y: Any) -> Any:
            first, count = tap_rows(window, self.h, oh, y)
            return along(runs, lambda run, z: tile(b, c, y, run, z, first, count))

        def task(t: Any) -> Any:
            b, c, band = nest.fused((self.n, self.blocks, bands), t)
            size = hb if oh % hb == 0 else nest.smaller(hb, oh - band * hb)
            return nest.serial("y", size, lambda s: line(b, c, band * hb + s))

        return nest.function(buffers, nest.parallel("task", self.n * self.blocks * bands, task))
