"""A kernel whose candidates fail in every way there is. In a module of its own: the search's worker imports it."""

import os
import threading
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import te, tirx

from veltair.compiler.schedules.base import Kernel, Knobs, result, schedule_of

FINE, REFUSED, ABORTS, LLVM_DIES, CRASHES, HANGS = range(6)
NAMES = ["fine", "refused", "aborts", "llvm dies", "crashes", "hangs"]

# Code for an instruction that the oldest x86-64 lacks: LLVM ends the process ("Cannot select").
_NO_SUCH_INSTRUCTION = """
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>, <32 x bfloat>, <32 x bfloat>)
define float @nosuch(float %c) {
  %v = insertelement <16 x float> undef, float %c, i32 0
  %r = call <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float> %v, <32 x bfloat> undef, <32 x bfloat> undef)
  %f = extractelement <16 x float> %r, i32 0
  ret float %f
}
"""


@dataclass(frozen=True)
class Crashing(Kernel):
    """y = x + 1 over `n` numbers; candidate k does `acts[k]`."""

    n: int
    acts: tuple[int, ...]

    kind = "crashing"

    @property
    def inputs(self) -> Any:
        return (((self.n,), "float32"),)

    @property
    def output(self) -> Any:
        return (self.n,)

    def candidates(self) -> list[dict[str, int]]:
        return [{"act": act, "number": number} for number, act in enumerate(self.acts)]

    def build(self, knobs: Knobs) -> Any:
        act = knobs["act"]
        if act == REFUSED:
            raise ValueError("these knobs do not fit")
        if act == ABORTS:
            os.abort()
        if act == HANGS:
            threading.Event().wait()
        x = te.placeholder((self.n,), name="x")
        one: Any = tirx.const(1, "float32")
        if act == LLVM_DIES:
            one = tirx.call_pure_extern("float32", "nosuch", one)
        far = tirx.const(1 << 44 if act == CRASHES else 0, "int64")  # beyond what a process may address
        function = result(schedule_of([x, te.compute((self.n,), lambda i: x[i + far] + one, name="y")]))
        if act == LLVM_DIES:
            imported = tvm.ir.StringImm(_NO_SUCH_INSTRUCTION)
            function = function.with_body(tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", imported, function.body))
        return function
