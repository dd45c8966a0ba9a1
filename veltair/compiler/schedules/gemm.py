"""Matrix products: activations times packed constant weights, and batched products of two activations.

Weights are packed as (n/nb, k, nb): one stream per register tile. A tile of `mr` rows x `nb` columns stays in registers.
"""

from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

from veltair.compiler.graph import Shape
from veltair.compiler.schedules.base import (
    L2_BYTES,
    Kernel,
    Knobs,
    extent,
    result,
    schedule_of,
    unroll_tile,
    vector_width,
)
from veltair.compiler.schedules.ragged import whole_vectors


def column_block(n: int, m: int, lanes: int, registers: int) -> tuple[int, int]:
    """Columns of a packed block and vector width for `n` columns: the best tile's, for `m` rows; the last may be ragged."""
    v = vector_width(n, lanes)
    v = lanes if v == 1 else v
    vectors = -(-n // v)
    best = min(
        range(1, min(vectors, 6) + 1),
        key=lambda cb: -(-vectors // cb) * cb / vectors
        * min(
            (-(-m // mr) * mr / m * max(1.0, 10 / (cb * mr)) * (1 + 0.6 * (cb + mr) / (cb * mr)))
            for mr in range(1, min(m, 16) + 1)
            if cb * mr <= registers
        ),
    )  # fmt: skip
    return best * v, v


def row_tiles(m: int, vectors: int, registers: int) -> list[int]:
    """Rows of a register tile of `vectors` columns, the most promising first."""
    rows = [mr for mr in range(1, min(m, 16) + 1) if vectors * mr <= registers]
    cost = {r: -(-m // r) * r / m * max(1.0, 10 / (vectors * r)) * (1 + 0.6 * (vectors + r) / (vectors * r)) for r in rows}
    return sorted(rows, key=lambda r: cost[r])[:3]


@dataclass(frozen=True)
class Gemm(Kernel):
    """(m, k) x packed (blocks, k, nb) -> (m, n). Knobs: `mr`, `ru` (unrolled k), `order` (1: rows outside).

    Where nb does not divide n, the weights' last block is filled up with zeros and the last columns are stored one by one.
    """

    m: int
    k: int
    n: int
    nb: int
    lanes: int
    registers: int = 24

    kind = "gemm"

    @property
    def blocks(self) -> int:
        """Column blocks of the weights."""
        return -(-self.n // self.nb)

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        return ((self.m, self.k), "float32"), ((self.blocks, self.k, self.nb), "float32")

    @property
    def constants(self) -> tuple[tuple[Shape, str], ...]:
        return self.inputs[1:]

    @property
    def output(self) -> Shape:
        return (self.m, self.n)

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k

    def candidates(self) -> list[dict[str, int]]:
        tiles = row_tiles(self.m, self.nb // self.lanes, self.registers)
        orders = (0, 1) if self.m > tiles[0] else (0,)
        return [{"mr": mr, "ru": ru, "order": o} for mr in tiles for o in orders for ru in (8, 4) if self.k % ru == 0 or ru == 4]

    def build(self, knobs: Knobs) -> Any:
        knobs = knobs or self.candidates()[0]
        (x_shape, _), (w_shape, _) = self.inputs
        mr, nb, m = knobs["mr"], self.nb, self.m
        rows = -(-m // mr) * mr
        x, w = te.placeholder(x_shape, name="x"), te.placeholder(w_shape, name="w")
        operands = self.chain.placeholders()
        r = te.reduce_axis((0, self.k), "r")

        def multiply(i: Any, j: Any) -> Any:
            row = i if rows == m else tirx.min(i, m - 1)  # a ragged last tile repeats the last row
            return te.sum(x[row, r] * w[tirx.floordiv(j, nb), r, tirx.floormod(j, nb)], axis=r)

        acc = te.compute((rows, self.blocks * nb), multiply, name="acc")
        out = te.compute((m, self.n), lambda *at: self.chain.apply(acc(*at), at, operands), name="out")
        sch = schedule_of([x, w, *operands, out])
        block, last = sch.get_sblock("acc"), sch.get_sblock("out")
        i, j, red = sch.get_loops(block)
        i_out, i_in = sch.split(i, [None, mr])
        j_out, vec, lane = sch.split(j, [None, nb // self.lanes, self.lanes])
        ru = next(u for u in (knobs["ru"], 4, 2, 1) if self.k % u == 0)
        r_out, r_in = sch.split(red, [None, ru])
        outer = [j_out, i_out] if knobs["order"] == 0 else [i_out, j_out]
        sch.reorder(*outer, r_out, r_in, i_in, vec, lane)
        sch.set_scope(block, 0, "local")
        sch.reverse_compute_at(last, outer[1])
        sch.parallel(sch.fuse(*outer))
        sch.vectorize(lane)
        sch.unroll(vec)
        sch.unroll(i_in)
        unroll_tile(sch, sch.decompose_reduction(block, r_out), 2)
        column = sch.get_loops(last)[-1]
        if extent(sch, column) > self.lanes:
            _, column = sch.split(column, [None, self.lanes])
        sch.vectorize(column)
        return result(sch) if self.n % nb == 0 else whole_vectors(result(sch))

    def traffic_bytes(self, knobs: Knobs) -> int:
        data, weights = 4 * self.m * self.k, 4 * self.n * self.k
        swept = 0
        if knobs.get("order", 0) == 0 and data > L2_BYTES:
            swept = data * (self.blocks - 1)
        elif knobs.get("order", 0) == 1 and weights > L2_BYTES:
            swept = weights * (-(-self.m // knobs.get("mr", 1)) - 1)
        return self.streamed_bytes() + swept

    def working_set_bytes(self, knobs: Knobs) -> int:
        data, weights = 4 * self.m * self.k, 4 * self.n * self.k
        if knobs.get("order", 0) == 0:
            return data + 4 * self.k * self.nb
        return weights + 4 * self.k * knobs.get("mr", 1)


@dataclass(frozen=True)
class BatchedMatmul(Kernel):
    """(b, m, k) x (b or 1, k, n) -> (b, m, n); `transposed` reads the second operand as (b, n, k). Knob: `mr`.

    Each batch entry packs its second operand into column blocks padded to the vector width, then multiplies by tiles.
    """

    b: int
    m: int
    k: int
    n: int
    broadcast: bool
    transposed: bool
    lanes: int

    kind = "bmm"

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        second = (self.n, self.k) if self.transposed else (self.k, self.n)
        return ((self.b, self.m, self.k), "float32"), ((1 if self.broadcast else self.b, *second), "float32")

    @property
    def output(self) -> Shape:
        return (self.b, self.m, self.n)

    @property
    def flops(self) -> int:
        return 2 * self.b * self.m * self.n * self.k

    def candidates(self) -> list[dict[str, int]]:
        return [{"mr": mr} for mr in (8, 4, 2) if mr <= max(2, self.m)]

    def build(self, knobs: Knobs) -> Any:
        mr = (knobs or self.candidates()[0])["mr"]
        v, n, k, m = self.lanes, self.n, self.k, self.m
        columns, rows = -(-n // v), -(-m // mr) * mr
        (a_shape, _), (c_shape, _) = self.inputs
        x, y = te.placeholder(a_shape, name="x"), te.placeholder(c_shape, name="y")
        operands = self.chain.placeholders()
        r = te.reduce_axis((0, k), "r")

        def packed(b: Any, j: Any, t: Any, lane: Any) -> Any:
            column, entry = j * v + lane, 0 if self.broadcast else b
            value = y[entry, column, t] if self.transposed else y[entry, t, column]
            return value if n % v == 0 else tirx.if_then_else(column < n, value, tirx.const(0, "float32"))

        pack = te.compute((self.b, columns, k, v), packed, name="pack")
        acc = te.compute(
            (self.b, rows, columns, v),
            lambda b, i, j, lane: te.sum(x[b, i if rows == m else tirx.min(i, m - 1), r] * pack[b, j, r, lane], axis=r),
            name="acc",
        )
        out = te.compute(
            self.output,
            lambda b, i, j: self.chain.apply(acc[b, i, tirx.floordiv(j, v), tirx.floormod(j, v)], (b, i, j), operands),
            name="out",
        )
        sch = schedule_of([x, y, *operands, out])
        block, last, packing = sch.get_sblock("acc"), sch.get_sblock("out"), sch.get_sblock("pack")
        b, i, j, lane, red = sch.get_loops(block)
        i_out, i_in = sch.split(i, [None, mr])
        sch.reorder(b, j, i_out, red, i_in, lane)
        if n % v == 0:
            lb, li, lj = sch.get_loops(last)
            lio, lii = sch.split(li, [None, mr])
            ljo, ljv = sch.split(lj, [None, v])
            sch.reorder(lb, ljo, lio, lii, ljv)
            sch.vectorize(ljv)
        sch.compute_at(packing, b)
        sch.parallel(b)
        if n % v == 0 and not self.transposed:
            sch.vectorize(sch.get_loops(packing)[-1])
        sch.vectorize(lane)
        sch.unroll(i_in)
        unroll_tile(sch, sch.decompose_reduction(block, red), 1)
        lb = sch.get_loops(last)[0]
        sch.parallel(lb)
        return result(sch)
