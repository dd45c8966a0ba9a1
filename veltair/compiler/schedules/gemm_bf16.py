"""Matrix products in bf16: activations rounded by rows of a chunk, times constant weights packed as pairs (see `bf16`).

A tile of `mr` rows x `vectors` registers of columns stays in registers over the whole reduction. Knobs:

    mr      rows of a register tile
    order   0: the whole input is rounded, then column tiles are shared out; weights stay, the input is swept
            1: chunks of rows are shared out, each rounds its own; its rows stay, the weights are swept for each chunk
    mb      rows of a chunk, with order 1
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from veltair.compiler.graph import Array, Shape
from veltair.compiler.schedules import bf16
from veltair.compiler.schedules.base import L2_BYTES, Kernel, Knobs
from veltair.compiler.schedules.bf16 import Columns, Index, Stmt
from veltair.compiler.schedules.bf16_tile import Loop, Step, Tile

UNROLL = 4  # steps between two looks at the loop's count


def tile_vectors(m: int, n: int) -> int:
    """Registers of columns in a tile, at which `m` rows and `n` columns cost least."""
    vectors = -(-n // bf16.LANES)
    return min(range(1, min(vectors, 8) + 1), key=lambda v: min(_cost(m, n, v, mr) for mr in _rows(m, v)))


def _rows(m: int, vectors: int) -> list[int]:
    return [mr for mr in range(1, min(m, bf16.MAX_TILE) + 1) if mr == 1 or mr * vectors <= bf16.MAX_TILE]


def _cost(m: int, n: int, vectors: int, mr: int) -> float:
    tiles = bf16.split_columns(n, vectors)
    full, tail = divmod(m, mr)
    each = (full * bf16.tile_cost(len(t.widths), mr) + (bf16.tile_cost(len(t.widths), tail) if tail else 0) for t in tiles)
    return sum(each) * (1.02 if len(tiles) % 2 else 1)


@dataclass(frozen=True)
class GemmBf16(Kernel):
    """(m, k) x packed words -> (m, n)."""

    m: int
    k: int
    n: int
    vectors: int

    kind = "gemm_bf16"
    precision = "bf16"
    light_first = True
    tolerance = bf16.TOLERANCE

    @property
    def tiles(self) -> list[Columns]:
        return bf16.split_columns(self.n, self.vectors)

    @property
    def pairs(self) -> int:
        """Steps of the reduction: so many that rounds of UNROLL fit."""
        return -(-self.k // (2 * UNROLL)) * UNROLL

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        last = self.tiles[-1]
        return ((self.m, self.k), "float32"), ((self.pairs * (last.first + last.lanes),), "int32")

    @property
    def constants(self) -> tuple[tuple[Shape, str], ...]:
        return self.inputs[1:]

    @property
    def output(self) -> Shape:
        return (self.m, self.n)

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k

    def pack(self, weights: Array) -> Array:
        """(k, n) -> the kernel's words."""
        padded = np.zeros((2 * self.pairs, self.n), np.float32)
        padded[: self.k, : weights.shape[1]] = weights
        return bf16.pack_words(padded, self.tiles)

    def candidates(self) -> list[dict[str, int]]:
        rows = sorted(_rows(self.m, self.vectors), key=lambda mr: _cost(self.m, self.n, self.vectors, mr))[:3]
        out = [{"mr": mr, "order": 0, "mb": self.m} for mr in rows]
        if self.m > rows[0]:
            half = -(-self.m // 2)
            out += [{"mr": rows[0], "order": 1, "mb": half}]
            small = -(-half // max(1, round(half / 48)))
            out += [{"mr": rows[0], "order": 1, "mb": small}] if small < half else []
        return out

    def build(self, knobs: Knobs) -> Any:
        knobs = knobs or self.candidates()[0]
        buffers, operands = bf16.arguments(self)
        (x, w, *_, out), code = buffers, dict[str, str]()
        pairs, tiles = self.pairs, self.tiles
        mr = knobs["mr"]

        def rows(scratch: Any, row: Index, skipped: Index, count: Index, lane: Index, tile: Columns) -> Stmt:
            """`count` rows from `row` on, of which `skipped` rows lie before the scratch."""

            def body(first: Index, size: int, sweep: Index = 0, sweeps: int = 1) -> Stmt:
                return self._tile(
                    code, tile, size, w, scratch, (first - skipped) * pairs, lane, first, out, operands, sweep, sweeps
                )

            full = bf16.floordiv(count, mr)
            sweeps = min(self._chunks(knobs)) // mr
            parts = [bf16.loop(full, lambda i: body(row + i * mr, mr, i, sweeps))] if not isinstance(full, int) or full else []
            for size in sorted({c % mr for c in self._chunks(knobs)} - {0}):
                tail = body(row + full * mr, size)
                parts.append(
                    tail if isinstance(count, int) else tirx.IfThenElse(bf16.floormod(count, mr).equal(size), tail, None)
                )
            return bf16.together(*parts)

        def rounding(scratch: Any, row: Index, at: Index) -> Stmt:
            return bf16.rounded(x, [row, 0], scratch, at * pairs, self.k, pairs)

        if knobs["order"] == 0:
            scratch = bf16.words(self.m * pairs)
            body = bf16.together(
                tirx.AllocBuffer(scratch),
                bf16.spread(self.m * pairs, self.m, lambda i: rounding(scratch, i, i)),
                bf16.parallel(
                    len(tiles), lambda t: bf16.each_tile(tiles, t, lambda lane, tile: rows(scratch, 0, 0, self.m, lane, tile))
                ),
            )
        else:
            mb = knobs["mb"]

            def chunk(number: Index) -> Stmt:
                scratch = bf16.words(mb * pairs)
                first, count = number * mb, self.m - number * mb
                count = mb if self.m % mb == 0 else bf16.at_most(mb, count)
                return bf16.together(
                    tirx.AllocBuffer(scratch),
                    bf16.loop(count, lambda i: rounding(scratch, first + i, i)),
                    *(
                        bf16.loop(
                            runs,
                            lambda t, tile=tile: rows(scratch, first, first, count, tile.first + t * tile.lanes, tile),  # type: ignore[misc]
                        )
                        for _, runs, tile in bf16.alike(tiles)
                    ),
                )

            body = bf16.parallel(-(-self.m // mb), chunk)
        return bf16.function(buffers, body, code)

    def _chunks(self, knobs: Knobs) -> set[int]:
        """The rows that chunks have."""
        mb = knobs["mb"] if knobs["order"] else self.m
        return {min(mb, self.m - first) for first in range(0, self.m, mb)}

    def _tile(
        self, code: dict[str, str], tile: Columns, rows: int, w: Any, scratch: Any, word: Index, lane: Index, row: Index,
        out: Any, operands: Any, sweep: Index, sweeps: int,
    ) -> Stmt:  # fmt: skip
        """Rows from `row` on, whose words start at `word`; `sweep` counts those over the tile's weights, of `sweeps`."""
        pairs = self.pairs
        steps = tuple(Step(u * tile.lanes, tuple((i, i * pairs + u) for i in range(rows))) for u in range(UNROLL))
        ahead = bf16.Ahead(pairs * tile.lanes, pairs // UNROLL, sweeps)
        body = Tile(tile.widths, rows, (Loop(pairs // UNROLL, UNROLL, UNROLL * tile.lanes),), steps, ahead.lines)

        def finish(i: Index, first: int, width: int, value: Any) -> Stmt:
            over = max(0, tile.first + tile.lanes - self.n) if first + width == tile.lanes else 0
            return bf16.finished(self.chain, out, operands, width - over, lambda v: (row + i, lane + first + v), value)

        return bf16.register_tile(body, code, (scratch, word), (w, lane * pairs), finish, ahead=ahead.start(lane * pairs, sweep))

    def traffic_bytes(self, knobs: Knobs) -> int:
        data, weights = 4 * self.m * self.pairs, 4 * self.inputs[1][0][0]
        swept = 0
        if knobs.get("order", 0) == 0 and data > L2_BYTES:
            swept = data * (len(self.tiles) - 1)
        elif knobs.get("order", 0) == 1 and weights > L2_BYTES:
            swept = weights * (-(-self.m // knobs["mb"]) - 1)
        return self.streamed_bytes() + swept

    def working_set_bytes(self, knobs: Knobs) -> int:
        weights = 4 * self.inputs[1][0][0]
        if knobs.get("order", 0) == 0:
            return 4 * self.m * self.pairs + weights // len(self.tiles)
        return weights + 4 * knobs["mb"] * self.pairs
