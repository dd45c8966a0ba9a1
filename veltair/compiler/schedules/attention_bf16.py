"""Attention in bf16: both products by `dpbf16ps` (see `bf16`), scores and softmax in fp32.

As in `attention`, per head the keys are turned once and each tile of `mr` query rows runs through all stages while its
scores stay in the first-level cache. Queries, keys and values are rounded to words of two reduction elements each, and so
are the shares before they meet the values; their sum is that of the shares as they were. Knobs:

    mr, cb   rows and registers of a tile of either product, at most
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from veltair.compiler.expr import fast_exp
from veltair.compiler.graph import elements
from veltair.compiler.schedules import bf16
from veltair.compiler.schedules.attention import LOWEST, Attention
from veltair.compiler.schedules.base import Knobs, zero
from veltair.compiler.schedules.bf16 import Index, Stmt
from veltair.compiler.schedules.bf16_tile import Loop, Step, Tile

_UNROLL = 4  # steps between two looks at a product's count

_REDUCTIONS = """
declare float @llvm.vector.reduce.fmax.v16f32(<16 x float>)
declare float @llvm.vector.reduce.fadd.v16f32(float, <16 x float>)
define linkonce_odr float @veltair_top(<16 x float> %v) alwaysinline #0 {
  %r = call float @llvm.vector.reduce.fmax.v16f32(<16 x float> %v)
  ret float %r
}
define linkonce_odr float @veltair_total(<16 x float> %v) alwaysinline #0 {
  %r = call reassoc float @llvm.vector.reduce.fadd.v16f32(float 0.0, <16 x float> %v)
  ret float %r
}
"""


@dataclass(frozen=True)
class AttentionBf16(Attention):
    """The same value. What lies in one row of the products must lie in a row of memory, in whole registers."""

    kind = "attention_bf16"
    precision = "bf16"
    tolerance = bf16.TOLERANCE

    @property
    def fits(self) -> bool:
        """Whether the shape and the layouts are such that this form can be built."""
        rank = len(self.batch)
        rows = self.q.stride(rank + 1) == self.k.stride(rank) == self.v.stride(rank + 1) == 1
        whole = self.n % bf16.LANES == 0 and self.width % bf16.LANES == 0 and self.d % (2 * _UNROLL) == 0
        return rows and whole and self.perm[-1] == rank + 1 and self.m > 1

    def candidates(self) -> list[dict[str, int]]:
        return [{"mr": min(mr, self.m), "cb": cb} for mr, cb in ((8, 3), (4, 4), (8, 2))]

    def build(self, knobs: Knobs) -> Any:
        return _Program(self, knobs or self.candidates()[0]).function()


class _Program:
    """The statements of one setting of the knobs."""

    def __init__(self, kernel: Attention, knobs: Knobs) -> None:
        self.k, self.mr = kernel, knobs["mr"]
        self.buffers, self.operands = bf16.arguments(kernel)
        self.masks = [_reader(b) for b in self.buffers[3 : 3 + len(kernel.scores.operands)]]
        self.code = {"pairs": bf16.PAIRS, "reductions": _REDUCTIONS}
        self.columns, self.lanes = (bf16.split_columns(size, knobs["cb"]) for size in (kernel.n, kernel.width))
        self.steps, self.shares = kernel.d // 2, kernel.n // 2  # words of a row in either product

    def function(self) -> Any:
        return bf16.function(self.buffers, bf16.parallel(elements(self.k.batch), self._head), self.code)

    def _head(self, number: Index) -> Stmt:
        k, at = self.k, self._place(number)
        (q, keys, values), m, n = self.buffers[:3], k.m, k.n
        queries, rounded, turned, pairs = (
            bf16.words(size) for size in (m * self.steps, *2 * (n * self.steps,), self.shares * k.width)
        )

        def turn(lane0: Index, lanes: int) -> Stmt:
            def word(p: Index, lane: Index) -> Stmt:
                value = tirx.BufferLoad(rounded, [bf16.to_int((lane0 + lane) * self.steps + p)])
                return tirx.BufferStore(turned, value, [bf16.to_int(lane0 * self.steps + p * lanes + lane)])

            return bf16.loop(self.steps, lambda p: bf16.loop(lanes, lambda lane: word(p, lane)))

        def pair(first: Index, lanes: int, p: Index, o: int) -> Stmt:
            rows = (bf16.load(values, [k.v.index([*at, 2 * p + half, first + o])], bf16.LANES) for half in (0, 1))
            word = tirx.call_pure_extern("int32x16", "veltair_pairs", *rows)
            return bf16.store(pairs, word, [first * self.shares + p * lanes + o], bf16.LANES)

        def pack(first: Index, lanes: int) -> Stmt:
            return bf16.loop(
                self.shares, lambda p: bf16.together(*(pair(first, lanes, p, o) for o in range(0, lanes, bf16.LANES)))
            )

        full, rest = divmod(m, self.mr)
        tiles = [bf16.loop(full, lambda t: self._rows(at, t * self.mr, self.mr, queries, turned, pairs))] if full else []
        if rest:
            tiles.append(self._rows(at, full * self.mr, rest, queries, turned, pairs))
        return bf16.together(
            *(tirx.AllocBuffer(b) for b in (queries, rounded, turned, pairs)),
            bf16.loop(m, lambda i: bf16.rounded(q, [k.q.index([*at, i, 0])], queries, i * self.steps, k.d)),
            bf16.loop(n, lambda j: bf16.rounded(keys, [k.k.index([*at, 0, j])], rounded, j * self.steps, k.d)),
            *_over(self.columns, lambda first, tile: turn(first, tile.lanes)),
            *_over(self.lanes, lambda first, tile: pack(first, tile.lanes)),
            *tiles,
        )

    def _rows(self, at: Sequence[Index], first: Index, size: int, queries: Any, turned: Any, pairs: Any) -> Stmt:
        """`size` query rows from `first` on, through all stages."""
        k, n = self.k, self.k.n
        scores = tirx.decl_buffer((size * n,), "float32", name="scores")
        scale = tirx.decl_buffer((size,), "float32", name="scale")
        shares = bf16.words(size * self.shares)

        def product(lane: Index, tile: bf16.Columns) -> Stmt:
            def finish(i: Index, start: int, lanes: int, value: Any) -> Stmt:
                def one(v: Index) -> Stmt:
                    column = lane + start + v
                    score = k.scores.apply(value(v), [bf16.to_int(x) for x in (*at, first + i, column)], self.masks)
                    return tirx.BufferStore(scores, score, [bf16.to_int(i * n + column)])

                return bf16.loop(lanes, one, tirx.ForKind.VECTORIZED)

            return self._product(tile, size, self.steps, (queries, first * self.steps), (turned, lane * self.steps), finish)

        def result(lane: Index, tile: bf16.Columns) -> Stmt:
            def finish(i: Index, start: int, lanes: int, value: Any) -> Stmt:
                def place(v: Index) -> list[Index]:
                    full = [*at, first + i, lane + start + v]
                    return [full[p] for p in k.perm]

                share = tirx.BufferLoad(scale, [bf16.to_int(i)])
                return bf16.finished(k.chain, self.buffers[-1], self.operands, lanes, place, lambda v: value(v) * share)

            return self._product(tile, size, self.shares, (shares, 0), (pairs, lane * self.shares), finish)

        return bf16.together(
            *(tirx.AllocBuffer(b) for b in (scores, scale, shares)),
            *_over(self.columns, product),
            bf16.loop(size, lambda i: self._softmax(scores, i, scale)),
            bf16.loop(size, lambda i: bf16.rounded(scores, [i * n], shares, i * self.shares, n)),
            *_over(self.lanes, result),
        )

    def _product(
        self, tile: bf16.Columns, rows: int, pairs: int, source: tuple[Any, Index], weights: tuple[Any, Index], finish: Any
    ) -> Stmt:
        steps = tuple(Step(u * tile.lanes, tuple((i, i * pairs + u) for i in range(rows))) for u in range(_UNROLL))
        body = Tile(tile.widths, rows, (Loop(pairs // _UNROLL, _UNROLL, _UNROLL * tile.lanes),), steps)
        return bf16.register_tile(body, self.code, source, weights, finish)

    def _softmax(self, scores: Any, row: Index, scale: Any) -> Stmt:
        """Scores become shares that are not yet divided by their sum, `scale` what to multiply with for that."""
        n, v = self.k.n, bf16.LANES
        top, part, total = (tirx.decl_buffer((size,), "float32", name="part") for size in (1, v, v))
        highest = tirx.BufferLoad(top, [bf16.to_int(0)])

        def each(buffer: Any, value: Callable[[Index], Any], at: Index = 0) -> Stmt:
            store = lambda lane: tirx.BufferStore(buffer, value(lane), [bf16.to_int(at + lane)])  # noqa: E731
            return bf16.loop(v, store, tirx.ForKind.VECTORIZED)

        def read(buffer: Any, at: Index) -> Any:
            return tirx.BufferLoad(buffer, [bf16.to_int(at)])

        def share(j: Index) -> Stmt:
            first = row * n + j * v
            return bf16.together(
                each(scores, lambda lane: fast_exp(read(scores, first + lane) - highest), first),
                each(total, lambda lane: read(total, lane) + read(scores, first + lane)),
            )

        def reduced(name: str, buffer: Any) -> Any:
            return tirx.call_pure_extern("float32", name, bf16.load(buffer, [0], v))

        one = tirx.const(1.0, "float32") / reduced("veltair_total", total)
        lowest = tirx.const(LOWEST, "float32")
        return bf16.together(
            *(tirx.AllocBuffer(b) for b in (top, part, total)),
            each(part, lambda lane: lowest),
            bf16.loop(
                n // v, lambda j: each(part, lambda lane: tirx.max(read(part, lane), read(scores, row * n + j * v + lane)))
            ),
            tirx.BufferStore(top, reduced("veltair_top", part), [bf16.to_int(0)]),
            each(total, lambda lane: zero()),
            bf16.loop(n // v, share),
            tirx.BufferStore(
                scale, tirx.Select(highest <= lowest, zero(), one) if self.k.zero_masked else one, [bf16.to_int(row)]
            ),
        )

    def _place(self, number: Index) -> list[Index]:
        """Indices of a head."""
        at: list[Index] = []
        for size in reversed(self.k.batch):
            at.append(bf16.floormod(number, size))
            number = bf16.floordiv(number, size)
        return at[::-1]


def _over(tiles: Sequence[bf16.Columns], body: Callable[[Index, bf16.Columns], Stmt]) -> list[Stmt]:
    """`body(first lane, tile)` for every tile."""
    return [
        bf16.loop(runs, lambda t, tile=tile: body(tile.first + t * tile.lanes, tile))  # type: ignore[misc]
        for _, runs, tile in bf16.alike(tiles)
    ]


def _reader(buffer: Any) -> Callable[..., Any]:
    return lambda *at: tirx.BufferLoad(buffer, [bf16.to_int(i) for i in at])
