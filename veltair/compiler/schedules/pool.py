"""Pooling over channel-blocked data: lanes are channels, so each window is a handful of vector operations."""

from dataclasses import dataclass
from typing import Any

from tvm import tirx

from veltair.compiler.graph import Shape
from veltair.compiler.schedules import nest
from veltair.compiler.schedules.base import Kernel, Knobs
from veltair.compiler.schedules.tiles import Run, Window, along, column_runs, tap_rows

_LOWEST = -3.4e38
_CHAINS = 8  # independent sums that keep the units busy
_WORTH_SHARING = 16384  # operations: less takes no longer than to wake a second core


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

    def candidates(self) -> list[dict[str, int]]:
        ow = self.out_hw[1]
        return [{"ow": t} for t in dict.fromkeys(-(-ow // -(-ow // t)) for t in (8, 5))]

    def build(self, knobs: Knobs) -> Any:
        knobs = knobs or self.candidates()[0]
        window, (oh, ow) = self.window, self.out_hw
        (sh, sw), (dh, dw), (top, left, _, _) = window.strides, window.dilations, window.pads
        names = ["x", *(f"op{i}" for i in range(len(self.chain.operands))), "out"]
        buffers = nest.arguments(self.argument_specs(), names)
        x, *operands, out = buffers
        readers = [nest.reader(b) for b in operands]
        neutral = tirx.const(_LOWEST if self.op == "max" else 0.0, "float32")

        def combine(a: Any, b: Any) -> Any:
            return tirx.max(a, b) if self.op == "max" else a + b

        def tile(b: Any, c: Any, y: Any, run: Run, z0: Any) -> Any:
            chains = max(1, _CHAINS // run.width)  # of each output: a long window of one output would wait for its own sum

            def each(body: Any, first: int = 0, behind: int = run.width) -> Any:
                def column(z: Any) -> Any:
                    return nest.vectorized("v", self.lanes, lambda v: body(z, v))

                return nest.unrolled("z", behind - first, column, first)

            def within(acc: Any) -> Any:
                def tap(i: Any, j: Any, q: int, first: int, behind: int) -> Any:
                    def one(z: Any, v: Any) -> Any:
                        value = nest.load(x, b, c, y * sh + (i * dh - top), (z0 + z) * sw + (j * dw - left), v)
                        return nest.store(acc, (q, z, v), combine(nest.load(acc, q, z, v), value))

                    return each(one, first, behind)

                def row(i: Any) -> Any:
                    def taps(start: int, many: int, first: int, behind: int) -> Any:
                        def some(j: Any, size: int) -> Any:
                            return nest.seq(*(tap(i, j + q, q, first, behind) for q in range(size)))

                        whole, rest = divmod(many, chains)
                        main = nest.serial("j", whole, lambda j: some(start + j * chains, chains)) if whole else None
                        return nest.seq(main, some(start + whole * chains, rest) if rest else None)

                    return nest.seq(*(taps(*span) for span in run.spans()))

                def finish(z: Any, v: Any) -> Any:
                    value = nest.load(acc, 0, z, v)
                    for q in range(1, chains):
                        value = combine(value, nest.load(acc, q, z, v))
                    at = (b, c, y, z0 + z, v)
                    mean = value if self.op == "max" else value / self._count(y, z0 + z)
                    return nest.store(out, at, self.chain.apply(mean, at, readers))

                first, count = tap_rows(window, self.h, oh, y)
                reduce = nest.serial("i", count, row, first) if run.spans() else None
                clear = [each(lambda z, v, q=q: nest.store(acc, (q, z, v), neutral)) for q in range(chains)]
                return nest.seq(*clear, reduce, each(finish))

            return nest.registers("acc", (chains, run.width, self.lanes), within)

        def task(t: Any) -> Any:
            b, c, y = nest.fused((self.n, self.blocks, oh), t)
            return along(column_runs(window, self.w, ow, knobs["ow"]), lambda run, z: tile(b, c, y, run, z))

        loop = nest.parallel if self.flops > _WORTH_SHARING else nest.serial
        return nest.function(buffers, loop("task", self.n * self.blocks * oh, task))

    def _count(self, y: Any, z: Any) -> Any:
        """What a mean divides by: the taps inside the image, or inside its padding too where the model says so."""
        (kh, kw), (sh, sw), (top, left, bottom, right) = self.window.kernel, self.window.strides, self.window.pads
        (oh, ow), h, w = self.out_hw, self.h, self.w
        ragged = any(self.window.pads) or (oh - 1) * sh + kh > h or (ow - 1) * sw + kw > w
        if not ragged:
            return tirx.const(float(kh * kw), "float32")
        # counted padding ends where the model's pads end: what ceil_mode adds behind them never counts
        below, behind = (bottom, right) if self.include_pad else (0, 0)
        row, column = y * sh - top, z * sw - left
        first_row, first_column = (row, column) if self.include_pad else (tirx.max(row, 0), tirx.max(column, 0))
        rows = tirx.min(row + kh, h + below) - first_row
        columns = tirx.min(column + kw, w + behind) - first_column
        return tirx.Cast("float32", rows * columns)
