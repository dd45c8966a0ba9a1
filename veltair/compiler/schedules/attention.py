"""Attention as one kernel: products with the keys, their chain (scale, mask), softmax, products with the values.

Queries, keys and values are read where they lie (see `views`), heads beside each other in the rows that GEMMs wrote;
the result is written in the order of dimensions its reader wants. Per head the keys are turned once into columns of a
register's width; then each tile of `mr` query rows runs through all stages while its scores stay in the first-level
cache. Scores are not divided by their sum: the few results are (as in Milakov and Gimelshein 2018, "Online normalizer
calculation for softmax", without the online part, since a row tile of scores fits).
"""

import operator
from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

from veltair.compiler.expr import fast_exp
from veltair.compiler.graph import Shape, elements
from veltair.compiler.schedules.base import Chain, Kernel, Knobs, result, schedule_of, tree, unroll_tile
from veltair.compiler.views import Layout

LOWEST = -3.4028234e38


@dataclass(frozen=True)
class Attention(Kernel):
    """softmax(scores(q k)) v for each index of `batch`: q (m, d), k (d, n), v (n, width), in the given layouts.

    `scores` is the chain between product and softmax, over (*batch, m, n). The output has the dimensions
    (*batch, m, width) in the order `perm`. `zero_masked` gives zeros for rows that are masked whole. Knob: `mr`.
    """

    batch: Shape
    m: int
    n: int
    d: int
    width: int
    q: Layout
    k: Layout
    v: Layout
    scores: Chain
    perm: tuple[int, ...]
    zero_masked: bool
    lanes: int
    registers: int

    kind = "attention"

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        masks = ((o.shape, o.dtype) for o in self.scores.operands)
        return ((self.q.size,), "float32"), ((self.k.size,), "float32"), ((self.v.size,), "float32"), *masks

    @property
    def output(self) -> Shape:
        full = (*self.batch, self.m, self.width)
        return tuple(full[p] for p in self.perm)

    @property
    def flops(self) -> int:
        return 2 * elements(self.batch) * self.m * self.n * (self.d + self.width)

    def compulsory_bytes(self) -> int:
        read = self.m * self.d + self.n * (self.d + self.width) + self.m * self.width
        masks = sum(elements(o.shape) for o in (*self.scores.operands, *self.chain.operands))
        return 4 * (elements(self.batch) * read + masks)

    def candidates(self) -> list[dict[str, int]]:
        rows = [mr for mr in (8, 4, 6, 5, 7, 3, 2) if self.m % mr == 0][:3]
        return [{"mr": mr} for mr in rows or [4]] if self.m > 1 else [{"mr": 1}]

    def build(self, knobs: Knobs) -> Any:
        mr = (knobs or self.candidates()[0])["mr"]
        v, n, m, rank = self.lanes, self.n, self.m, len(self.batch)
        columns, wide, rows, heads = -(-n // v), -(-self.width // v), -(-m // mr) * mr, elements(self.batch)
        q, k, values, *masks = (te.placeholder(s, t, name=f"x{i}") for i, (s, t) in enumerate(self.inputs))
        operands = self.chain.placeholders()
        ragged = n % v != 0

        def parts(z: Any) -> list[Any]:
            at: list[Any] = []
            for size in reversed(self.batch):
                at.append(tirx.floormod(z, size))
                z = tirx.floordiv(z, size)
            return at[::-1]

        def clamped(i: Any, size: int, padded: int) -> Any:
            return i if size == padded else tirx.min(i, size - 1)

        keys = te.compute(
            (heads, columns, self.d, v),
            lambda z, j, t, lane: k[self.k.index([*parts(z), t, clamped(j * v + lane, n, columns * v)])],
            name="keys",
        )
        straight = self.v.stride(rank + 1) == 1 and self.width % v == 0
        packed = te.compute(
            (heads, n, wide * v),
            lambda z, j, c: values[self.v.index([*parts(z), j, clamped(c, self.width, wide * v)])],
            name="packed",
        )
        d, r = te.reduce_axis((0, self.d), "d"), te.reduce_axis((0, n), "r")
        block, block2 = te.reduce_axis((0, columns), "jb"), te.reduce_axis((0, columns), "jb2")
        s = te.compute(
            (heads, rows, columns, v),
            lambda z, i, j, lane: te.sum(q[self.q.index([*parts(z), clamped(i, m, rows), d])] * keys[z, j, d, lane], axis=d),
            name="s",
        )

        def score(z: Any, i: Any, j: Any, lane: Any) -> Any:
            column = j * v + lane
            at = [*parts(z), clamped(i, m, rows), clamped(column, n, columns * v)]
            value = self.scores.apply(s[z, i, j, lane], at, masks)
            return tirx.Select(column < n, value, tirx.const(LOWEST, "float32")) if ragged else value

        w = te.compute((heads, rows, columns, v), score, name="w")
        top_part = te.compute((heads, rows, v), lambda z, i, t: te.max(w[z, i, block, t], axis=block), name="top_part")
        top = te.compute((heads, rows), lambda z, i: tree([top_part[z, i, t] for t in range(v)], tirx.max), name="top")
        e = te.compute((heads, rows, columns, v), lambda z, i, j, t: fast_exp(w[z, i, j, t] - top[z, i]), name="e")
        total_part = te.compute((heads, rows, v), lambda z, i, t: te.sum(e[z, i, block2, t], axis=block2), name="total_part")
        total = te.compute((heads, rows), lambda z, i: tree([total_part[z, i, t] for t in range(v)], operator.add), name="total")

        def share(z: Any, i: Any) -> Any:
            one = tirx.const(1.0, "float32") / total[z, i]
            return tirx.Select(top[z, i] <= LOWEST, tirx.const(0.0, "float32"), one) if self.zero_masked else one

        scale = te.compute((heads, rows), share, name="scale")

        def value(z: Any, j: Any, c: Any) -> Any:
            return values[self.v.index([*parts(z), j, c])] if straight else packed[z, j, c]

        o = te.compute(
            (heads, rows, wide, v),
            lambda z, i, c, lane: te.sum(e[z, i, tirx.floordiv(r, v), tirx.floormod(r, v)] * value(z, r, c * v + lane), axis=r),
            name="o",
        )

        def finish(*at: Any) -> Any:
            full: list[Any] = [None] * (rank + 2)
            for axis, origin in enumerate(self.perm):
                full[origin] = at[axis]
            z: Any = 0
            for i, size in zip(full[:rank], self.batch, strict=True):
                z = z * size + i
            row, c = full[rank], full[rank + 1]
            return self.chain.apply(o[z, row, tirx.floordiv(c, v), tirx.floormod(c, v)] * scale[z, row], at, operands)

        out = te.compute(self.output, finish, name="out")
        sch = schedule_of([q, k, values, *masks, *operands, out])
        last = sch.get_sblock("out")
        loops = sch.get_loops(last)
        ordered = [loops[self.perm.index(a)] for a in range(rank + 2)]
        row, column = ordered[rank:]
        row_out, row_in = sch.split(row, [None, mr])
        ragged_width = self.width % v != 0
        col_out, col_in = (column, None) if ragged_width else sch.split(column, [None, v * _tile(wide, mr, self.registers)])
        if ragged_width:
            sch.reorder(*ordered[:rank], row_out, row_in, column)
        else:
            sch.reorder(*ordered[:rank], row_out, col_out, row_in, col_in)
        head = sch.fuse(*ordered[:rank]) if rank > 1 else ordered[0]
        sch.parallel(head)
        sch.compute_at(sch.get_sblock("o"), row_out if ragged_width else col_out, preserve_unit_loops=True)
        for name in ("scale", "total", "total_part", "e", "top", "top_part", "w"):
            sch.compute_at(sch.get_sblock(name), row_out, preserve_unit_loops=True)
        i_in, j, lane = sch.get_loops(sch.get_sblock("w"))[-3:]
        j_out, j_in = sch.split(j, [None, _tile(columns, mr, self.registers)])
        sch.reorder(j_out, i_in, j_in, lane)
        sch.compute_at(sch.get_sblock("s"), j_out, preserve_unit_loops=True)
        for name in ("packed", "keys"):
            if name == "keys" or not straight:
                sch.compute_at(sch.get_sblock(name), head, preserve_unit_loops=True)
        for name in ("s", "o"):
            sch.set_scope(sch.get_sblock(name), 0, "local")
            tile, red = sch.get_loops(sch.get_sblock(name))[-4:-1], sch.get_loops(sch.get_sblock(name))[-1]
            sch.reorder(red, *tile)
            sch.vectorize(tile[2])
            sch.unroll(tile[0])
            sch.unroll(tile[1])
            unroll_tile(sch, sch.decompose_reduction(sch.get_sblock(name), red), 2)
        for name in ("top_part", "total_part"):
            block_of = sch.get_sblock(name)
            lane, red = sch.get_loops(block_of)[-2:]
            sch.reorder(red, lane)
            sch.vectorize(lane)
            init = sch.decompose_reduction(block_of, red)
            sch.vectorize(sch.get_loops(init)[-1])
        for name in ("w", "e"):
            sch.vectorize(sch.get_loops(sch.get_sblock(name))[-1])
        if not straight and not ragged_width:
            sch.vectorize(sch.split(sch.get_loops(sch.get_sblock("packed"))[-1], [None, v])[1])
        sch.vectorize(sch.get_loops(sch.get_sblock("keys"))[-1])
        if not ragged_width:
            inner = sch.get_loops(last)[-1]
            sch.vectorize(sch.split(inner, [None, v])[1])
        return result(sch)


def _tile(vectors: int, mr: int, registers: int) -> int:
    """Vectors of a register tile of `mr` rows: the most that divide what there is and fit."""
    return max(d for d in range(1, vectors + 1) if vectors % d == 0 and (d * mr <= registers or d == 1))
