"""The register tile of the bf16 kernels as an LLVM function: sums of products of pairs, all loops of the reduction inside.

It is written as LLVM text and not as TIR for three reasons. TVM would keep the accumulators in memory that LLVM cannot
prove private. A tile is hundreds of statements, over which each of TVM's fifty passes would walk for every candidate.
And where neighbouring taps share input words, LLVM keeps those in registers that the accumulators need, unless a fence
that costs no instruction stands between the steps.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

LINE_BYTES = 64  # of a cache, on all CPUs with these instructions
DYNAMIC = -1  # as a loop's count: the function's last argument


@dataclass(frozen=True, slots=True)
class Loop:
    """`count` rounds; each moves the input by `input_words` and the weights by `weight_words`."""

    count: int
    input_words: int
    weight_words: int


@dataclass(frozen=True, slots=True)
class Step:
    """The weights from `weight` on, times the word at `input[row]` for each row that has one."""

    weight: int
    inputs: tuple[tuple[int, int], ...]  # (row, word)


@dataclass(frozen=True, slots=True)
class Tile:
    """`widths` registers (of 16 or 8 lanes) x `rows`, summed over the steps in all rounds of the loops, the first outermost.

    As a function: (sums, last of the sums, input, weights, next, count) -> 0, which writes sums[row, lane] in fp32. In each
    round of the innermost loop it asks the memory for `ahead` cache lines more, from `next` on.
    """

    widths: tuple[int, ...]
    rows: int
    loops: tuple[Loop, ...]
    steps: tuple[Step, ...]
    ahead: int = 0

    @property
    def name(self) -> str:
        return f"veltair_tile_{hashlib.sha256(repr(self).encode()).hexdigest()[:16]}"

    @property
    def text(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        registers = [(row, o) for row in range(self.rows) for o in range(len(self.widths))]
        yield f"define linkonce_odr i32 @{self.name}(ptr %sums, ptr %last, ptr %input, ptr %weights, ptr %next, i32 %count) #0 {{"
        yield "start:"
        yield "  %n = alloca ptr, align 8"
        yield "  store ptr %next, ptr %n, align 8"
        for row, o in registers:
            yield f"  %a{row}_{o} = alloca <{self.widths[o]} x float>, align 64"
            yield f"  store <{self.widths[o]} x float> zeroinitializer, ptr %a{row}_{o}, align 64"
        yield "  br label %enter0"
        for n, each in enumerate(self.loops):
            x, w = ("input", "weights") if n == 0 else (f"x{n - 1}", f"w{n - 1}")
            count = "%count" if each.count == DYNAMIC else each.count
            outside = "done" if n == 0 else f"next{n - 1}"
            yield f"enter{n}:"
            yield f"  br label %check{n}"
            yield f"check{n}:"
            yield f"  %i{n} = phi i32 [ 0, %enter{n} ], [ %j{n}, %next{n} ]"
            yield f"  %x{n} = phi ptr [ %{x}, %enter{n} ], [ %xn{n}, %next{n} ]"
            yield f"  %w{n} = phi ptr [ %{w}, %enter{n} ], [ %wn{n}, %next{n} ]"
            yield f"  %more{n} = icmp slt i32 %i{n}, {count}"
            yield f"  br i1 %more{n}, label %{'body' if n == len(self.loops) - 1 else f'enter{n + 1}'}, label %{outside}"
            yield f"next{n}:"
            yield f"  %j{n} = add nsw i32 %i{n}, 1"
            yield f"  %xn{n} = getelementptr i32, ptr %x{n}, i64 {each.input_words}"
            yield f"  %wn{n} = getelementptr i32, ptr %w{n}, i64 {each.weight_words}"
            yield f"  br label %check{n}"
        last = len(self.loops) - 1
        yield "body:"
        if self.ahead:
            yield "  %n0 = load ptr, ptr %n, align 8"
            for line in range(self.ahead):
                yield f"  %l{line} = getelementptr i8, ptr %n0, i64 {line * LINE_BYTES}"
                yield f"  call void @llvm.prefetch.p0(ptr %l{line}, i32 0, i32 3, i32 1)"
            yield f"  %n1 = getelementptr i8, ptr %n0, i64 {self.ahead * LINE_BYTES}"
            yield "  store ptr %n1, ptr %n, align 8"
        for number, step in enumerate(self.steps):
            yield from self._step(number, step, last)
        yield f"  br label %next{last}"
        yield "done:"
        lanes = sum(self.widths)
        for row, o in registers:
            width, at = self.widths[o], row * lanes + sum(self.widths[:o])
            yield f"  %r{row}_{o} = load <{width} x float>, ptr %a{row}_{o}, align 64"
            yield f"  %s{row}_{o} = getelementptr float, ptr %sums, i64 {at}"
            yield f"  store <{width} x float> %r{row}_{o}, ptr %s{row}_{o}, align 32"
        yield "  ret i32 0"
        yield "}"

    def _step(self, number: int, step: Step, loop: int) -> Iterator[str]:
        starts = [sum(self.widths[:o]) for o in range(len(self.widths))]
        for o, width in enumerate(self.widths):
            name = f"{number}_{o}"
            yield f"  %p{name} = getelementptr i32, ptr %w{loop}, i64 {step.weight + starts[o]}"
            yield f"  %v{name} = load <{width * 2} x bfloat>, ptr %p{name}, align 32"
        for row, word in step.inputs:
            name = f"{number}_{row}"
            yield f"  %q{name} = getelementptr i32, ptr %x{loop}, i64 {word}"
            yield f"  %l{name} = load i32, ptr %q{name}, align 4"
            for width in sorted(set(self.widths)):
                yield f"  %e{name}_{width} = insertelement <{width} x i32> poison, i32 %l{name}, i32 0"
                yield (
                    f"  %b{name}_{width} = shufflevector <{width} x i32> %e{name}_{width}, <{width} x i32> poison, "
                    f"<{width} x i32> zeroinitializer"
                )
                yield f"  %c{name}_{width} = bitcast <{width} x i32> %b{name}_{width} to <{width * 2} x bfloat>"
            for o, width in enumerate(self.widths):
                here = f"{name}_{o}"
                yield f"  %f{here} = load <{width} x float>, ptr %a{row}_{o}, align 64"
                yield (
                    f"  %g{here} = call <{width} x float> @llvm.x86.avx512bf16.dpbf16ps.{width * 32}(<{width} x float> %f{here}, "
                    f"<{width * 2} x bfloat> %c{name}_{width}, <{width * 2} x bfloat> %v{number}_{o})"
                )
                yield f"  store <{width} x float> %g{here}, ptr %a{row}_{o}, align 64"
        yield '  call void asm sideeffect "", "~{memory}"()'
