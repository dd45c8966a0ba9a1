"""Pieces of the bf16 kernels: products by AVX512-BF16 `dpbf16ps`, two a lane and step, summed in fp32.

Activations stay fp32 between kernels. Each kernel rounds its input (to nearest even) a cache-sized part at a time into a
scratch of 32-bit words, two consecutive reduction elements each; weights are packed so at compile time, for each
reduction step the lanes of one register tile after another: one stream a tile. A step broadcasts a word of the input to
all lanes.

TVM knows bfloat16 only to promote it to float32, so tensors are int32 and the instructions come in as small LLVM
functions (`pragma_import_llvm`), those that round here, the register tile in `bf16_tile`. The loops around them are written
out as TIR statements: schedule primitives cannot place the rounding, nor give border tiles a body of their own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import tvm
from tvm import tirx

from veltair.compiler.graph import Array
from veltair.compiler.schedules.base import Chain, Kernel
from veltair.compiler.schedules.bf16_tile import LINE_BYTES, Tile

LANES = 16  # AVX512-BF16 has whole registers only on CPUs whose fp32 has 16 lanes
MAX_TILE = 24  # accumulators of a register tile; with its weights and a broadcast 32 registers are full
SERIAL_WORDS = 32 * 1024  # rounded in about 2 us, which is what waking the other cores takes
LATENCY = 6  # cycles of one dpbf16ps on Zen 4, of which one starts every cycle

TOLERANCE = 2e-2
"""Of a block's largest magnitude. bf16 keeps 8 bits: each factor is off by up to 2^-9 of itself, a product by 2^-8; the
errors of a long sum cancel to below that of its magnitude, those of a few layers behind each other add up."""

_INTRINSICS = """
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>, <32 x bfloat>, <32 x bfloat>)
declare <8 x float> @llvm.x86.avx512bf16.dpbf16ps.256(<8 x float>, <16 x bfloat>, <16 x bfloat>)
declare <32 x bfloat> @llvm.x86.avx512bf16.cvtne2ps2bf16.512(<16 x float>, <16 x float>)
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
define linkonce_odr <16 x i32> @veltair_round32(<16 x float> %low, <16 x float> %high) alwaysinline #0 {
  %r = call <32 x bfloat> @llvm.x86.avx512bf16.cvtne2ps2bf16.512(<16 x float> %high, <16 x float> %low)
  %x = bitcast <32 x bfloat> %r to <16 x i32>
  ret <16 x i32> %x
}
define linkonce_odr <8 x i32> @veltair_round16(<16 x float> %v) alwaysinline #0 {
  %r = fptrunc <16 x float> %v to <16 x bfloat>
  %x = bitcast <16 x bfloat> %r to <8 x i32>
  ret <8 x i32> %x
}
define linkonce_odr <4 x i32> @veltair_round8(<8 x float> %v) alwaysinline #0 {
  %r = fptrunc <8 x float> %v to <8 x bfloat>
  %x = bitcast <8 x bfloat> %r to <4 x i32>
  ret <4 x i32> %x
}
define linkonce_odr i32 @veltair_round2(float %low, float %high) alwaysinline #0 {
  %v = insertelement <2 x float> undef, float %low, i32 0
  %u = insertelement <2 x float> %v, float %high, i32 1
  %r = fptrunc <2 x float> %u to <2 x bfloat>
  %x = bitcast <2 x bfloat> %r to i32
  ret i32 %x
}
attributes #0 = { "target-features"="+avx512bf16,+avx512f,+avx512bw,+avx512vl" }
"""

PAIRS = """
define linkonce_odr <16 x i32> @veltair_pairs(<16 x float> %low, <16 x float> %high) alwaysinline #0 {
  %r = call <32 x bfloat> @llvm.x86.avx512bf16.cvtne2ps2bf16.512(<16 x float> %high, <16 x float> %low)
  %s = shufflevector <32 x bfloat> %r, <32 x bfloat> poison, <32 x i32> <ORDER>
  %x = bitcast <32 x bfloat> %s to <16 x i32>
  ret <16 x i32> %x
}
""".replace("ORDER", ", ".join(f"i32 {i + 16 * half}" for i in range(16) for half in (0, 1)))
"""One word of each lane of two registers."""

Index = Any
Stmt = Any


def loop(extent: Index, body: Callable[[Index], Stmt], kind: int = tirx.ForKind.SERIAL) -> Stmt:
    """A loop from 0; its one run alone where it has but one."""
    if isinstance(extent, int) and extent == 1:
        return body(0)
    variable = tirx.Var("i", "int32")
    return tirx.For(variable, tirx.const(0, "int32"), to_int(extent), kind, body(variable))


def parallel(extent: int, body: Callable[[Index], Stmt]) -> Stmt:
    return loop(extent, body, tirx.ForKind.PARALLEL)


def spread(size: int, extent: int, body: Callable[[Index], Stmt]) -> Stmt:
    """A loop that rounds `size` words in all, on all cores where that takes longer than waking them."""
    return parallel(extent, body) if size > SERIAL_WORDS else loop(extent, body)


def together(*parts: Stmt) -> Stmt:
    return parts[0] if len(parts) == 1 else tirx.SeqStmt(list(parts))


def to_int(value: Index) -> Any:
    return tirx.const(value, "int32") if isinstance(value, int) else value


def at_most(a: Index, b: Index) -> Index:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else tirx.min(to_int(a), to_int(b))


def at_least(a: Index, b: Index) -> Index:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else tirx.max(to_int(a), to_int(b))


def floordiv(a: Index, b: int) -> Index:
    return a // b if isinstance(a, int) else tirx.floordiv(a, b)


def floormod(a: Index, b: int) -> Index:
    return a % b if isinstance(a, int) else tirx.floormod(a, b)


def words(count: int) -> Any:
    """A scratch of 32-bit words."""
    return tirx.decl_buffer((count,), "int32", name="scratch")


def function(arguments: Sequence[Any], body: Stmt, code: Mapping[str, str]) -> Any:
    """The PrimFunc of `arguments` (buffers), with the instructions and these LLVM functions at hand."""
    text = tvm.ir.StringImm("\n".join([_INTRINSICS, *code.values()]))
    attrs = tvm.ir.make_node("ir.DictAttrs", **{"tirx.noalias": True, "s_tir": True, "global_symbol": "main"})
    return tirx.PrimFunc(list(arguments), tirx.AttrStmt(to_int(0), "pragma_import_llvm", text, body), attrs=attrs)


def load(buffer: Any, at: Sequence[Index], lanes: int) -> Any:
    """`lanes` elements that follow each other in memory."""
    *outer, last = at
    return tirx.BufferLoad(buffer, [*map(to_int, outer), tirx.Ramp(to_int(last), tirx.const(1, "int32"), lanes)])


def store(buffer: Any, value: Any, at: Sequence[Index], lanes: int) -> Stmt:
    *outer, last = at
    return tirx.BufferStore(buffer, value, [*map(to_int, outer), tirx.Ramp(to_int(last), tirx.const(1, "int32"), lanes)])


def rounded(source: Any, at: Sequence[Index], target: Any, word: Index, count: int, room: int = 0) -> Stmt:
    """`count` floats of `source` that follow each other from `at` on, as words of `target` from `word` on; zeros up to
    `room` words."""
    *outer, first = at

    def whole(g: Index) -> Stmt:
        halves = (load(source, [*outer, first + g * 32 + o], 16) for o in (0, 16))
        return store(target, tirx.call_pure_extern("int32x16", "veltair_round32", *halves), [word + g * 16], 16)

    parts, done = [], count // 32 * 32
    if done:
        parts.append(loop(done // 32, whole))
    for size in (16, 8):
        if count - done >= size:
            value = tirx.call_pure_extern(
                f"int32x{size // 2}", f"veltair_round{size}", load(source, [*outer, first + done], size)
            )
            parts.append(store(target, value, [word + done // 2], size // 2))
            done += size
    for i in range(done, count, 2):
        low, high = (
            tirx.BufferLoad(source, [*map(to_int, outer), to_int(first + j)]) if j < count else _zero() for j in (i, i + 1)
        )
        value = tirx.call_pure_extern("int32", "veltair_round2", low, high)
        parts.append(tirx.BufferStore(target, value, [to_int(word + i // 2)]))
    parts += [tirx.BufferStore(target, to_int(0), [to_int(word + i)]) for i in range(-(-count // 2), room)]
    return together(*parts)


def _zero() -> Any:
    return tirx.const(0, "float32")


# --- register tiles ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Columns:
    """The output lanes of a register tile: from `first` on, as registers of these widths."""

    first: int
    widths: tuple[int, ...]

    @property
    def lanes(self) -> int:
        return sum(self.widths)


def split_columns(lanes: int, vectors: int) -> list[Columns]:
    """`lanes` output lanes as tiles of at most `vectors` registers, as even as can be; the last register may be half one."""
    widths = [LANES] * (lanes // LANES) + ([] if lanes % LANES == 0 else [8 if lanes % LANES <= 8 else LANES])
    tiles = -(-len(widths) // vectors)
    out, at, first = [], 0, 0
    for t in range(tiles):
        size = len(widths) // tiles + (t < len(widths) % tiles)
        out.append(Columns(first, tuple(widths[at : at + size])))
        at, first = at + size, first + out[-1].lanes
    return out


def alike(tiles: Sequence[Columns]) -> list[tuple[int, int, Columns]]:
    """(number of the first, how many, that one) of each run of tiles with the same widths: one body serves a run."""
    runs: list[tuple[int, int, Columns]] = []
    for number, tile in enumerate(tiles):
        if runs and runs[-1][2].widths == tile.widths:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, runs[-1][2])
        else:
            runs.append((number, 1, tile))
    return runs


def each_tile(tiles: Sequence[Columns], number: Index, body: Callable[[Index, Columns], Stmt]) -> Stmt:
    """`body(first lane, a tile with these widths)` for the tile of that number."""
    *others, last = alike(tiles)
    start, _, tile = last
    out = body(tile.first + (number - start) * tile.lanes, tile)
    for start, count, tile in reversed(others):
        here = body(tile.first + (number - start) * tile.lanes, tile)
        out = here if isinstance(number, int) and number < start + count else out
        if not isinstance(number, int):
            out = tirx.IfThenElse(number < start + count, here, out)
    return out


MOST_SWEEPS = 64  # over a tile's weights: with more, what the first one waits for them is below a percent


@dataclass(frozen=True, slots=True)
class Ahead:
    """Which weights a register tile asks for while it multiplies: those of the next tile of lanes, which memory holds behind
    this one's `words`. Each of `sweeps` tiles that use the same weights asks for a part of them, so that the memory works
    all the time and not only, and then too slowly, during the first sweep."""

    words: int
    rounds: int  # of the innermost loop
    sweeps: int

    @property
    def lines(self) -> int:
        """Cache lines in each round."""
        if not 2 <= self.sweeps <= MOST_SWEEPS:
            return 0
        return -(-4 * self.words // (LINE_BYTES * self.rounds * self.sweeps))

    def start(self, first: Index, sweep: Index) -> Index:
        """Word from which that sweep asks on, where the tile's own weights start at `first`."""
        if not self.lines:
            return first
        part = self.rounds * self.lines * LINE_BYTES // 4
        return first + self.words + at_most(sweep, -(-self.words // part) - 1) * part


def pack_words(steps: Array, tiles: Sequence[Columns]) -> Array:
    """(2 * steps, lanes) fp32 -> words of bf16 pairs, for each tile (step, lane), zeros where the tiles have more lanes."""
    total = tiles[-1].first + tiles[-1].lanes
    pairs = np.zeros((steps.shape[0] // 2, total, 2), ml_dtypes.bfloat16)
    pairs[:, : steps.shape[1]] = steps.reshape(-1, 2, steps.shape[1]).transpose(0, 2, 1)
    flat = pairs.view(np.int32)[..., 0]
    return np.concatenate([flat[:, t.first : t.first + t.lanes].reshape(-1) for t in tiles])


def register_tile(
    tile: Tile,
    code: dict[str, str],
    source: tuple[Any, Index],
    weights: tuple[Any, Index],
    finish: Callable[[Index, int, int, Callable[[Index], Any]], Stmt],
    count: Index = 0,
    ahead: Index = 0,
) -> Stmt:
    """Sum one tile (its text goes to `code`) from these words on, then hand it on.

    `finish(row, first lane, lanes, value)` stores `value(lane)` for the `lanes` of a register.
    """
    code[tile.name] = tile.text
    lanes = sum(tile.widths)
    sums = tirx.decl_buffer((tile.rows * lanes,), "float32", name="sums")
    ends = (sums, 0), (sums, tile.rows * lanes - 1)  # named, or TVM would cut the buffer down to the lanes that are stored
    places = [tirx.address_of(tirx.BufferLoad(b, [to_int(at)])) for b, at in (*ends, source, weights, (weights[0], ahead))]
    call = tirx.Evaluate(tirx.call_extern("int32", tile.name, *places, to_int(count)))

    def row(number: Index) -> Stmt:
        parts, first = [], 0
        for width in tile.widths:
            at = number * lanes + first
            parts.append(finish(number, first, width, lambda lane, at=at: tirx.BufferLoad(sums, [to_int(at + lane)])))  # type: ignore[misc]
            first += width
        return together(*parts)

    return together(tirx.AllocBuffer(sums), call, loop(tile.rows, row))


def tile_cost(vectors: int, rows: int) -> float:
    """Cycles of a reduction step: a product each, or its latency, or a load for every weight and word."""
    return max(vectors * rows, LATENCY + 0.5, 1.1 * (vectors + rows)) + 0.1 * vectors + 0.03 * rows


# --- arguments --------------------------------------------------------------------------------------------------------


def arguments(kernel: Kernel) -> tuple[list[Any], list[Callable[..., Any]]]:
    """The kernel's buffers, and the chain's operands as `Chain.apply` reads them."""
    buffers = [tirx.decl_buffer(shape, dtype, name="a") for shape, dtype in kernel.argument_specs()]
    count = len(kernel.inputs)

    def reader(buffer: Any) -> Callable[..., Any]:
        return lambda *at: tirx.BufferLoad(buffer, [to_int(i) for i in at])

    return buffers, [reader(b) for b in buffers[count:-1]]


def finished(
    chain: Chain, out: Any, operands: Sequence[Any], lanes: int, at: Callable[[Index], Sequence[Index]], value: Any
) -> Stmt:
    """out[at(lane)] = the chain of value(lane), for `lanes` lanes at once, as far as vectors of a power of two reach: LLVM
    spaces those of three lanes as if they had four."""

    def one(lane: Index) -> Stmt:
        index = [to_int(i) for i in at(lane)]
        return tirx.BufferStore(out, chain.apply(value(lane), index, operands), index)

    parts, done = [], 0
    for size in (16, 8, 4, 1):
        while lanes - done >= size:
            parts.append(loop(size, lambda lane, done=done: one(done + lane), tirx.ForKind.VECTORIZED))  # type: ignore[misc]
            done += size
    return together(*parts)
