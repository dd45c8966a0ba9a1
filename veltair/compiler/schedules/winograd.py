"""Winograd convolution, 3x3 with stride 1, fp32: 4 (m = 4) or 2.25 (m = 2) times fewer multiplications than the direct way.

Data is (n, c/b, h, w, b) with a block b of channels in a vector register, as for `Conv`; weights are transformed when the
model is compiled: (co / (cb * lo), (m + 2)^2, ci, cb * lo), one stream for each register tile. The image is cut into tiles
of m x m outputs, and those are taken `chunk` at a time, so that what a chunk becomes between the stages stays in the
private cache:

    data      each tile and channel block is transformed into (m + 2)^2 vectors
    products  for each of the (m + 2)^2 points one matrix product, (tiles, ci) x (ci, co), in tiles of cb vectors x tr tiles
    output    each tile of a group of cb output blocks is transformed back, goes through the chain, is cropped and stored

What it pays for its fewer multiplications is traffic: the weights are (m + 2)^2 / 9 times larger and are swept once for each
chunk. Knobs:

    chunk  tiles at a time, at most (locality: a larger chunk sweeps the weights less often, but fills more cache); chunks are
           even in number and, to one register tile, in size, or one of two cores would wait for the other
    tr     tiles of a register tile
    split  what cores share: 0 the chunks, 1 the channels of one chunk after the other (for few tiles, or large weights)
"""

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T  # noqa: N812 (the name TVM's own code gives it)

from veltair.compiler.graph import Shape, elements
from veltair.compiler.schedules.base import L2_BYTES, Kernel, Knobs, divisors
from veltair.compiler.schedules.winograd_transform import data_tree, output_tree

_LARGEST = 4 << 20  # bytes of a chunk's scratch: a share of the last-level cache
_TASKS = 4  # what cores should have to share, at least


@dataclass(frozen=True)
class Winograd(Kernel):
    n: int
    in_blocks: int
    in_lanes: int
    h: int
    w: int
    out_blocks: int
    out_lanes: int
    pads: tuple[int, int, int, int]  # top, left, bottom, right
    m: int  # rows and columns of outputs in a tile: 2 or 4
    cb: int  # output blocks of a register tile; divides out_blocks
    registers: int = 24
    direct_flops: int = 0  # of the direct convolution, so that rates compare: this one gets by with a fraction of them

    kind = "winograd"
    algorithm = "winograd"
    light_first = True

    @property
    def variety(self) -> str:
        return f"winograd {self.m}x{self.m}"

    @property
    def side(self) -> int:
        return self.m + 2

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        data = (self.n, self.in_blocks, self.h, self.w, self.in_lanes)
        channels = self.in_blocks * self.in_lanes
        weight = (self.out_blocks // self.cb, self.side**2, channels, self.cb * self.out_lanes)
        return ((data, "float32"), (weight, "float32"))

    @property
    def constants(self) -> tuple[tuple[Shape, str], ...]:
        return self.inputs[1:]

    @property
    def output(self) -> Shape:
        top, left, bottom, right = self.pads
        return (self.n, self.out_blocks, self.h + top + bottom - 2, self.w + left + right - 2, self.out_lanes)

    @property
    def flops(self) -> int:
        return self.direct_flops

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        _, _, oh, ow, _ = self.output
        return -(-oh // self.m), -(-ow // self.m)

    @property
    def tiles(self) -> int:
        rows, columns = self.grid
        return self.n * rows * columns

    @property
    def tile_bytes(self) -> int:
        """What a tile becomes between the stages."""
        return 4 * self.side**2 * (self.in_blocks * self.in_lanes + self.cb * self.out_lanes)

    def candidates(self) -> list[dict[str, int]]:
        """For the two best register tiles, on one core and on two, an even number of chunks that fit the private cache, and for
        the best one two large chunks: of these cores share the chunks. For each the largest chunk, of which they share the
        channels: it sweeps the weights the fewest times.
        """
        heights, each = self._heights(), self.tile_bytes
        least = _TASKS if self.out_blocks // self.cb < _TASKS else 2  # chunks, where there are few channels to share
        wanted = [(tr, max(least, -(-self.tiles // max(tr, L2_BYTES // each)))) for tr in heights]
        if self.tiles // 2 * each <= _LARGEST:
            wanted.append((heights[-1], 2))
        shared = [self._setting(tr, chunks + chunks % 2, 0) for tr, chunks in wanted]
        largest = [self._setting(tr, -(-self.tiles // max(tr, _LARGEST // each)), 1) for tr in heights[:2]]
        found = [setting for setting in shared if setting["chunk"] < self.tiles] + largest
        return list({(self.cut(s), s["tr"], s["split"]): s for s in found}.values())

    def _heights(self) -> list[int]:
        """Tiles of a register tile: the two that cost least on one core, and the one that does where two share them."""
        heights = range(1, max(1, self.registers // self.cb) + 1)
        alone = sorted(heights, key=self.cost)[:2]
        return list(dict.fromkeys([*alone, min(heights, key=lambda tr: self.cost(tr, 2))]))

    def cost(self, tr: int, cores: int = 1) -> float:
        """Of the products with `tr` tiles in a register tile, relative."""
        return _cost(self.cb, tr, self.tiles, cores)

    def _setting(self, tr: int, chunks: int, split: int) -> dict[str, int]:
        return {"tr": tr, "chunk": -(-self.tiles // (chunks * tr)) * tr, "split": split}

    def build(self, knobs: Knobs) -> Any:
        return Builder(self, knobs or self.candidates()[0]).function()

    def cut(self, knobs: Knobs) -> tuple[int, int]:
        """How many chunks there are, an even number of them if they are several, and the tiles of the largest."""
        runs = -(-self.tiles // knobs["tr"])  # register tiles
        chunks = -(-runs // (knobs["chunk"] // knobs["tr"]))
        chunks = min(runs, chunks + chunks % 2) if chunks > 1 else 1
        return chunks, -(-runs // chunks) * knobs["tr"]

    def _chunks(self, knobs: Knobs) -> tuple[int, int]:
        """How many chunks there are, and the scratch bytes of one."""
        chunks, chunk = self.cut(knobs)
        return chunks, chunk * self.tile_bytes

    def traffic_bytes(self, knobs: Knobs) -> int:
        """The weights once for each chunk where no private cache holds them, and a chunk that spills for each of its sweeps."""
        knobs = knobs or self.candidates()[0]
        chunks, scratch = self._chunks(knobs)
        weights = 4 * elements(self.inputs[1][0])
        swept = weights * (chunks - 1) if weights + scratch > 2 * L2_BYTES else 0
        if scratch > 2 * L2_BYTES:
            swept += chunks * scratch * (1 + self.out_blocks // self.cb)
        return self.streamed_bytes() + swept

    def working_set_bytes(self, knobs: Knobs) -> int:
        """The chunk between its stages, and the weights if they are met again: else only those of one point."""
        chunks, scratch = self._chunks(knobs or self.candidates()[0])
        weights = 4 * elements(self.inputs[1][0])
        return scratch + (weights if chunks > 1 else weights // self.side**2 * self.cb // self.out_blocks)


def register_block(out_blocks: int, tiles: int, registers: int) -> int:
    """The output blocks of a register tile (see `Winograd.cb`) that promise the fastest products."""

    def best(cb: int) -> float:
        groups = out_blocks // cb
        uneven = 1.03 if groups > 1 and groups % 2 else 1.0  # between two cores
        return uneven * min(_cost(cb, tr, tiles) for tr in range(1, max(1, registers // cb) + 1))

    return min(divisors(out_blocks, 8), key=best)


def _cost(cb: int, tr: int, tiles: int, cores: int = 1) -> float:
    """Of a register tile, relative: loads per FMA, times what a ragged tail wastes, as for the direct convolution's."""
    waste = -(-tiles // (cores * tr)) * cores * tr / tiles
    latency_bound = max(1.0, 10 / (cb * tr))  # fewer than ten chains leave the FMA units waiting
    return waste * latency_bound * (1 + 0.55 * (1.2 * cb + tr) / (cb * tr))


class Builder:
    """Writes the loops of one setting. Values are vectors of channels, and constant indices within a tile are unrolled."""

    per_word = 1  # input channels in an element of the scratch
    word = "float32"

    def __init__(self, k: Winograd, knobs: Knobs) -> None:
        self.k, self.tr = k, knobs["tr"]
        self.chunks, self.chunk = k.cut(knobs)
        self.split = bool(knobs["split"])
        self.points = k.side**2
        self.words = k.in_lanes // self.per_word  # of the scratch, for a tile of a block of input channels
        # One vector more than needed between points: the (m + 2)^2 streams of a tile would meet in a few cache sets otherwise,
        # which made the transforms 1.5 times slower.
        self.data_stride = (k.in_blocks * self.chunk + 1) * self.words
        self.product_stride = (k.cb * self.chunk + 1) * k.out_lanes

    def function(self) -> Any:
        k = self.k
        (data, _), (weight, _) = k.inputs
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name("main")
            T.func_attr({"global_symbol": "main", "tirx.noalias": True})
            self.x, self.weights = T.arg("x", T.Buffer(data, "float32")), T.arg("w", T.Buffer(weight, self.word))
            self.operands = [T.arg(f"op{i}", T.Buffer(o.shape, o.dtype)) for i, o in enumerate(k.chain.operands)]
            self.out = T.arg("out", T.Buffer(k.output, k.chain.dtype))
            if self.split:
                self.scratch = self._scratch(self.points * self.data_stride, dtype=self.word)
                with T.serial(0, self.chunks) as number:
                    first, valid = self._span(number)
                    with T.parallel(0, k.in_blocks) as c:
                        self._data(c, first, valid)
                    with T.parallel(0, k.out_blocks // k.cb) as group:
                        self._group(group, first, valid)
            else:
                with T.parallel(0, self.chunks) as number:
                    first, valid = self._span(number)
                    self.scratch = self._scratch(self.points * self.data_stride, dtype=self.word)
                    with T.serial(0, k.in_blocks) as c:
                        self._data(c, first, valid)
                    with T.serial(0, k.out_blocks // k.cb) as group:
                        self._group(group, first, valid)
        return builder.get()

    def _scratch(self, size: int, scope: str = "global", dtype: str = "float32") -> Any:
        return T.alloc_buffer((size,), dtype, scope=scope)

    def _span(self, number: Any) -> tuple[Any, Any]:
        """First tile of a chunk, and how many it has: whole register tiles, as evenly as can be."""
        runs = -(-self.k.tiles // self.tr)
        first = T.bind(number * runs // self.chunks * self.tr)
        if self.k.tiles % self.chunk == 0 and self.chunk * self.chunks == self.k.tiles:
            return first, self.chunk
        return first, T.bind(T.min((number + 1) * runs // self.chunks * self.tr, self.k.tiles) - first)

    def _place(self, tile: Any) -> tuple[Any, Any, Any]:
        """Image and first output row and column of a tile."""
        rows, columns = self.k.grid
        each = rows * columns
        b = tile // each if self.k.n > 1 else 0
        return b, T.bind(tile % each // columns * self.k.m), T.bind(tile % columns * self.k.m)

    # --- data ---------------------------------------------------------------------------------------------------------

    def _data(self, c: Any, first: Any, valid: Any) -> None:
        """Transform the tiles of one block of input channels."""
        k, n, lanes = self.k, self.k.side, self.k.in_lanes
        with T.serial(0, valid) as t:
            b, row, column = self._place(first + t)
            y, x = T.bind(row - k.pads[0]), T.bind(column - k.pads[1])

            def store(i: int, j: int, value: Any) -> None:
                at = (i * n + j) * self.data_stride + (c * self.chunk + t) * self.words
                T.buffer_store(self.scratch, self._as_words(value), [T.ramp(at, 1, self.words)])

            def read(i: Any, j: Any) -> Any:
                return self.x[b, c, y + i, x + j, T.ramp(0, 1, lanes)]

            def through_patch() -> None:
                patch = self._scratch(self.points * lanes, "local")
                with T.serial(0, n) as i, T.serial(0, n) as j:
                    known = tirx.all(y + i >= 0, x + j >= 0, y + i < k.h, x + j < k.w)
                    value = tirx.if_then_else(known, read(i, j), _constant(0.0, lanes))
                    T.buffer_store(patch, value, [T.ramp((i * n + j) * lanes, 1, lanes)])
                _two_sided(n, lambda i, j: patch[T.ramp((i * n + j) * lanes, 1, lanes)], store, data_tree, lanes)

            rows, columns = k.grid
            if max(0, rows - 2) * max(0, columns - 2) * 2 < rows * columns:
                through_patch()  # few tiles lie inside: not worth code of their own
            else:
                with T.If(tirx.all(y >= 0, x >= 0, y + n <= k.h, x + n <= k.w)):
                    with T.Then():
                        _two_sided(n, read, store, data_tree, lanes)
                    with T.Else():
                        through_patch()

    def _as_words(self, value: Any) -> Any:
        """A vector of input channels as the scratch keeps it."""
        return value

    # --- products and output ------------------------------------------------------------------------------------------

    def _group(self, group: Any, first: Any, valid: Any) -> None:
        """All of one group of cb output blocks."""
        k = self.k
        products = self._scratch(self.points * self.product_stride)
        with T.serial(0, self.points) as point:
            self._products(products, group, point, valid)
        with T.serial(0, k.cb) as o, T.serial(0, valid) as t:
            self._output(products, group, o, first, t)

    def _products(self, products: Any, group: Any, point: Any, valid: Any) -> None:
        """Of one point, with all tiles of the chunk."""
        with T.serial(0, (valid + self.tr - 1) // self.tr) as tile:
            self._product(products, group, point, tile * self.tr)

    def _product(self, products: Any, group: Any, point: Any, t0: Any) -> None:
        """A register tile: cb vectors of output channels x tr tiles, over all input channels."""
        k, lanes = self.k, self.k.out_lanes
        sums = self._scratch(k.cb * self.tr * lanes, "local")
        pairs = [(o, t, T.ramp((o * self.tr + t) * lanes, 1, lanes)) for o in range(k.cb) for t in range(self.tr)]
        for _, _, at in pairs:
            T.buffer_store(sums, _constant(0.0, lanes), [at])
        with T.serial(0, k.in_blocks) as c, T.serial(0, k.in_lanes) as lane:
            start = T.bind(point * self.data_stride + (c * self.chunk + t0) * k.in_lanes + lane)
            vectors = [
                T.bind(self.weights[group, point, c * k.in_lanes + lane, T.ramp(o * lanes, 1, lanes)]) for o in range(k.cb)
            ]
            for t in range(self.tr):
                value = T.bind(tirx.Broadcast(self.scratch[start + t * k.in_lanes], lanes))
                for o in range(k.cb):
                    at = T.ramp((o * self.tr + t) * lanes, 1, lanes)
                    T.buffer_store(sums, sums[at] + value * vectors[o], [at])
        for o, t, at in pairs:
            to = self._product_at(point, o, t0 + t)
            T.buffer_store(products, sums[at], [T.ramp(to, 1, lanes)])

    def _product_at(self, point: Any, o: Any, tile: Any) -> Any:
        return point * self.product_stride + (o * self.chunk + tile) * self.k.out_lanes

    def _output(self, products: Any, group: Any, o: Any, first: Any, t: Any) -> None:
        """Transform one tile of an output block back and store what lies in the image, through the chain."""
        k, m, n, lanes = self.k, self.k.m, self.k.side, self.k.out_lanes
        _, _, oh, ow, _ = k.output
        b, row, column = self._place(first + t)
        tile = self._scratch(m * m * lanes, "local")

        def read(i: int, j: int) -> Any:
            return products[T.ramp(self._product_at(i * n + j, o, t), 1, lanes)]

        def keep(i: int, j: int, value: Any) -> None:
            T.buffer_store(tile, value, [T.ramp((i * m + j) * lanes, 1, lanes)])

        _two_sided(n, read, keep, output_tree, lanes)

        tensors = [lambda *at, operand=operand: operand[at] for operand in self.operands]
        rows = m if oh % m == 0 else T.min(m, oh - row)
        columns = m if ow % m == 0 else T.min(m, ow - column)
        with T.serial(0, rows) as i, T.serial(0, columns) as j, T.vectorized(0, lanes) as v:
            to = (b, group * k.cb + o, row + i, column + j, v)
            T.buffer_store(self.out, k.chain.apply(tile[(i * m + j) * lanes + v], to, tensors), list(to))


def _constant(value: float, lanes: int) -> Any:
    return tirx.Broadcast(tirx.const(value, "float32"), lanes)


def _two_sided(n: int, read: Any, write: Any, tree: Any, lanes: int) -> None:
    """Transform the columns of an n x n tile, and then the rows of what comes out."""

    def transform(values: list[Any]) -> Any:
        return tree(values, T.bind, lambda value: _constant(value, lanes))

    columns = [transform([T.bind(read(i, j)) for i in range(n)]) for j in range(n)]
    for i in range(len(columns[0])):
        for j, value in enumerate(transform([column[i] for column in columns])):
            write(i, j, value)
