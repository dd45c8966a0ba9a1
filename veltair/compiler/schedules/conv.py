"""Direct convolution over channel-blocked data, fp32, to the FMA peak of a core without search.

Data is (n, c/b, h, w, b) with a block b of channels in one vector register; weights are (co/lo, ci/li, kh, kw, li, lo).
A register tile of `cb` output blocks x `ow` columns stays in registers over the whole reduction. Tiles at the edge of the
image leave out the taps that fall outside (see `tiles`). Knobs:

    cb, ow   the register tile at most (locality in registers): a row is cut into tiles of nearly equal width
    order    0: channel blocks outside rows, weights stay and the input is swept again for each channel block
             1: rows outside channel blocks, the input stays and the weights are swept again for each band of rows
    hb       rows of a band, what cores share; where the image is one long row, tiles of a band
    ahead    1: a tile asks for the input of the next one. A 1x1 kernel touches so many channels, and each so briefly, that
             the hardware sees no stream: 1.2-1.4 times faster on what no private cache holds, 3 % slower on what one does
"""

from dataclasses import dataclass
from typing import Any

from veltair.compiler.graph import Shape, elements
from veltair.compiler.schedules import nest
from veltair.compiler.schedules.base import L2_BYTES, Kernel, Knobs, zero
from veltair.compiler.schedules.tiles import Run, Window, along, column_runs, one_of, tap_rows

__all__ = ["Conv", "Window"]

_CHAINS = 8  # independent sums that keep two FMA units of four cycles latency busy
_DEEP = 64  # input channels from which asking ahead costs little beside the multiplications
_EVEN = 1.1  # what one of two cores may have to do, in halves of the whole
_TASKS = 16  # what cores share of a kernel, at least: few enough to cost nothing, enough to divide evenly
_TASK_FLOPS = 25_000_000  # a quarter of a millisecond: a long kernel can be set aside between tasks


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
    channels: int = 0  # of the input, where its last block is not full: the padding is not multiplied; 0: all are

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
    def depth(self) -> int:
        """Input channels that one output channel sums over."""
        return self.channels or self.in_blocks * self.in_lanes

    @property
    def flops(self) -> int:
        """Two for each multiplication made: none for taps outside the image or padded input channels."""
        _, _, oh, ow, _ = self.output
        return 2 * self.n * self.out_blocks * self.out_lanes * self.depth * self.window.taps(self.h, self.w, oh, ow)

    def sharing(self) -> list[int]:
        """How many output blocks may share a register tile, as they read the same input channels."""
        return [cb for cb in range(1, min(self.out_blocks, 8) + 1) if self.out_blocks % cb == 0 or 1 < cb <= 4]

    def channel(self, o: Any, c: Any, lane: Any) -> tuple[Any, Any]:
        """Input block and lane of step (c, lane) of the sum for output block `o`."""
        return c, lane

    def candidates(self) -> list[dict[str, int]]:
        """The three best register tiles, each with either order; the order that moves fewer bytes first."""
        found: list[dict[str, int]] = []
        data = 4 * elements(self.inputs[0][0]) // self.n
        can_ask = self.window.kernel == (1, 1) and not self.plain_input and self.depth >= _DEEP
        ahead = int(can_ask and data > 2 * L2_BYTES)
        for rank, (cb, tile) in enumerate(register_tiles(self)):
            orders = [{"cb": cb, "ow": tile, "order": 0, "hb": self._even(cb, tile), "ahead": ahead}]
            if self.out_blocks > cb:
                near = {"cb": cb, "ow": tile, "order": 1, "hb": self._cached(tile), "ahead": ahead}
                orders += [near, near | {"hb": 1}] if near["hb"] > 1 and rank == 0 else [near]
            found += sorted((k for k in orders if k["order"] == 0 or self.halves(k)), key=self.traffic_bytes)
        if can_ask and L2_BYTES < data <= 2 * L2_BYTES:  # either may win: a private cache holds some of it
            found.insert(1, found[0] | {"ahead": 1})
        return found

    def halves(self, knobs: Knobs) -> int:
        """With rows outside: into how many parts the output blocks are cut so that two cores get even work; 0 where none do."""
        steps, blocks = self._steps(knobs["ow"]), -(-self.out_blocks // knobs["cb"])
        bands = [min(knobs["hb"], steps - at) for at in range(0, steps, knobs["hb"])] * self.n
        if max(sum(bands[: -(-len(bands) // 2)]), sum(bands[-(-len(bands) // 2) :])) <= _EVEN * sum(bands) / 2:
            return 1
        return 2 if blocks % 2 == 0 else 0

    def _steps(self, tile: int) -> int:
        _, _, oh, ow, _ = self.output
        return oh if oh > 1 else -(-ow // tile)

    def _even(self, cb: int, tile: int) -> int:
        """Steps of a band such that there are enough tasks to share, in an even number where that can be."""
        steps, tiles = self._steps(tile), self.n * -(-self.out_blocks // cb)
        bands = min(steps, -(-max(_TASKS, self.flops // _TASK_FLOPS) // tiles))
        if bands * tiles % 2 and bands < steps:
            bands += 1
        return -(-steps // bands)

    def _cached(self, tile: int) -> int:
        """Steps of a band whose input leaves half of the private cache to the weights; an even number of bands."""
        _, _, oh, _, _ = self.output
        steps, data = self._steps(tile), 4 * elements(self.inputs[0][0]) // self.n
        bands = max(2, -(-2 * data // L2_BYTES))
        if bands * self.n < _TASKS and oh == 1:
            bands = _TASKS
        bands = min(steps, bands + bands % 2)
        return -(-steps // bands)

    def build(self, knobs: Knobs) -> Any:
        return _Direct(self, knobs or self.candidates()[0]).function()

    def traffic_bytes(self, knobs: Knobs) -> int:
        data, weights = (4 * elements(shape) for shape, _ in self.inputs)
        swept = 0
        if knobs.get("order", 0) == 0 and data > L2_BYTES:
            swept = data * (-(-self.out_blocks // knobs.get("cb", 1)) - 1)
        elif knobs.get("order", 0) == 1 and weights > L2_BYTES:
            swept = weights * (-(-self._steps(knobs.get("ow", 1)) // knobs.get("hb", 1)) - 1)
        return self.streamed_bytes() + swept

    def working_set_bytes(self, knobs: Knobs) -> int:
        data, weights = (4 * elements(shape) for shape, _ in self.inputs)
        if knobs.get("order", 0) == 0:
            return data + weights * knobs.get("cb", 1) // self.out_blocks
        _, _, oh, _, _ = self.output
        if oh > 1:
            return weights + data * min(self.h, knobs.get("hb", 1) * self.window.strides[0] + self.window.kernel[0]) // self.h
        return weights + data * min(self.w, knobs.get("hb", 1) * knobs.get("ow", 1) + self.window.kernel[1]) // self.w


def register_tiles(k: Conv) -> list[tuple[int, int]]:
    """The three most promising register tiles (blocks, columns): fewest loads per FMA.

    A vector of weights counts more than a broadcast, since it comes from farther. Above 7/8 of the registers LLVM spills sums
    to memory (4x6 loses 10 % of the rate, 2x12 30 %); more than four streams of weights collide in the sets of the
    first-level cache, where they all start.
    """
    _, ob, _, ow, _ = k.output
    most = k.registers * 7 // 8
    costs: dict[tuple[int, int], float] = {}
    for cb in k.sharing():
        if cb > 6 and ow > 2:
            continue
        for columns in range(1, ow + 1):
            tiles = -(-ow // columns)
            tile, mean = -(-ow // tiles), ow / tiles
            vectors = cb * tile
            if vectors > (k.registers * 7 // 6 if cb == 1 else most) or (cb > 1 and vectors + cb > most + 4):
                break
            waste = -(-ob // cb) * cb / ob  # a last tile that lacks blocks computes some of its neighbour's again
            latency_bound = max(1.0, 10 / (cb * mean))
            streams = 1.0 if cb <= 4 or ow <= 2 else 1.04
            spilled = 1 + 0.02 * max(0, vectors + cb + row_values(k, tile) - k.registers * 4 // 3)
            costs[cb, tile] = waste * streams * latency_bound * spilled * (1 + 0.3 * (1.5 * cb + mean) / (cb * mean))
    return sorted(costs, key=lambda t: costs[t])[:3]


def row_values(k: Conv, tile: int) -> int:
    """Vectors that LLVM keeps beside the sums of a tile: with a single channel at a time the taps of a row are unrolled, and
    each column that several of them meet is broadcast once, for all. Too many go to the stack and back, which made a first
    layer of 16 channels 1.6 times slower than tiles of half the size.
    """
    (_, kw), (_, sw) = k.window.kernel, k.window.strides
    return (tile - 1) * sw + kw if k.plain_input and kw > 1 else 0


class _Direct:
    """Writes the loops of one convolution."""

    def __init__(self, k: Conv, knobs: Knobs) -> None:
        self.k, self.knobs = k, knobs
        self.cb = knobs["cb"]
        names = ["x", "w", *(f"op{i}" for i in range(len(k.chain.operands))), "out"]
        self.buffers = nest.arguments(k.argument_specs(), names)
        self.x, self.w, *operands, self.out = self.buffers
        self.operands = [nest.reader(b) for b in operands]
        _, _, _, ow, _ = k.output
        self.runs = column_runs(k.window, k.w, ow, knobs["ow"])

    def function(self) -> Any:
        k, hb = self.k, self.knobs["hb"]
        _, ob, oh, _, _ = k.output
        steps = oh if oh > 1 else sum(r.count for r in self.runs)
        blocks, bands = -(-ob // self.cb), -(-steps // hb)

        def first_block(o: Any) -> Any:
            return o * self.cb if ob % self.cb == 0 else nest.smaller(o * self.cb, ob - self.cb)

        def of_band(b: Any, o: Any, band: Any) -> Any:
            size = hb if steps % hb == 0 else nest.smaller(hb, steps - band * hb)
            return nest.let("o0", first_block(o), lambda o0: nest.serial("s", size, lambda s: self.step(b, o0, band * hb + s)))

        def channels_outside(task: Any) -> Any:
            return of_band(*nest.fused((k.n, blocks, bands), task))

        parts = max(1, k.halves(self.knobs))
        each = blocks // parts

        def rows_outside(task: Any) -> Any:
            part, b, band = nest.fused((parts, k.n, bands), task)
            return nest.serial("o", each, lambda o: of_band(b, part * each + o, band))

        if self.knobs["order"] == 0:
            return nest.function(self.buffers, nest.parallel("task", k.n * blocks * bands, channels_outside))
        return nest.function(self.buffers, nest.parallel("task", parts * k.n * bands, rows_outside))

    def step(self, b: Any, o0: Any, number: Any) -> Any:
        """One row; where the image is a single row, one tile of it."""
        _, _, oh, _, _ = self.k.output
        if oh > 1:
            return along(self.runs, lambda run, z: self.tile(b, o0, number, run, z))
        return one_of(self.runs, number, lambda run, z: self.tile(b, o0, 0, run, z))

    def tile(self, b: Any, o0: Any, y: Any, run: Run, z0: Any) -> Any:
        k = self.k
        lo, vectors = k.out_lanes, self.cb * run.width
        sums = next((s for s in (4, 2) if vectors * s <= 2 * _CHAINS and k.in_lanes % s == 0), 1)  # of each output

        def each(body: Any, first: int = 0, behind: int = run.width) -> Any:
            def columns(o: Any) -> Any:
                return nest.unrolled("z", behind - first, lambda z: nest.vectorized("v", lo, lambda v: body(o, z, v)), first)

            return nest.unrolled("o", self.cb, columns)

        def within(acc: Any) -> Any:
            def finish(o: Any, z: Any, v: Any) -> Any:
                total = nest.load(acc, 0, o, z, v)
                for q in range(1, sums):
                    total = total + nest.load(acc, q, o, z, v)
                at = (b, o0 + o, y, z0 + z, v)
                return nest.store(self.out, at, k.chain.apply(total, at, self.operands))

            clear = [each(lambda o, z, v, q=q: nest.store(acc, (q, o, z, v), zero())) for q in range(sums)]
            return nest.seq(*clear, self.reduce(acc, b, o0, y, run, z0, sums, each), each(finish))

        return nest.registers("acc", (sums, self.cb, run.width, lo), within)

    def reduce(self, acc: Any, b: Any, o0: Any, y: Any, run: Run, z0: Any, sums: int, each: Any) -> Any:
        k = self.k
        (sh, sw), (dh, dw), (top, left, _, _) = k.window.strides, k.window.dilations, k.window.pads
        _, _, oh, _, _ = k.output
        (_, blocks, _, _, lanes, _), _ = k.inputs[1]
        last = k.depth - (blocks - 1) * lanes

        def multiply(c: Any, i: Any, j: Any, lane: Any, q: int, first: int, behind: int) -> Any:
            def one(o: Any, z: Any, v: Any) -> Any:
                block, inner = k.channel(o0, c, lane)
                at = (b, block, y * sh + (i * dh - top), (z0 + z) * sw + (j * dw - left))
                value = nest.load(self.x, *at) if k.plain_input else nest.load(self.x, *at, inner)
                product = value * nest.load(self.w, o0 + o, c, i, j, lane, v)
                return nest.store(acc, (q, o, z, v), nest.load(acc, q, o, z, v) + product)

            return each(one, first, behind)

        def over_lanes(count: int, c: Any, i: Any, j: Any, first: int, behind: int) -> Any:
            def some(lane: Any, size: int) -> Any:
                return nest.seq(*(multiply(c, i, j, lane + q, q, first, behind) for q in range(size)))

            whole, rest = divmod(count, sums)
            main = nest.serial("lane", whole, lambda step: some(step * sums, sums)) if whole else None
            return nest.seq(main, some(whole * sums, rest) if rest else None)

        def over_taps(c: Any, count: int) -> Any:
            def row(i: Any) -> Any:
                def columns(tap: int, many: int, first: int, behind: int) -> Any:
                    return nest.serial("j", many, lambda j: over_lanes(count, c, i, j, first, behind), tap)

                return nest.seq(*(columns(*span) for span in run.spans()))

            first, count_rows = tap_rows(k.window, k.h, oh, y)
            return nest.serial("i", count_rows, row, first)

        def over_channels(c: Any) -> Any:
            return nest.seq(self.ask_ahead(b, c, y, run, z0), over_taps(c, lanes))

        if not run.spans():
            return None
        whole = blocks if last == lanes else blocks - 1
        main = nest.serial("c", whole, over_channels) if whole else None
        return nest.seq(main, over_taps(blocks - 1, last) if last < lanes else None)

    def ask_ahead(self, b: Any, c: Any, y: Any, run: Run, z0: Any) -> Any:
        """Prefetch what the next tile reads of one input block: the columns behind, or the next row."""
        if not self.knobs.get("ahead"):
            return None
        (sh, sw), (top, left, _, _) = self.k.window.strides, self.k.window.pads
        row, column = (y, z0 + run.width) if self.k.output[2] == 1 else (y + 1, z0)

        def line(z: Any) -> Any:
            return nest.prefetch(self.x, b, c, row * sh - top, (column + z) * sw - left, 0)

        return nest.unrolled("ahead", run.width, line)
