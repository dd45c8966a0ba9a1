"""Where the registers of a kernel that has too many values go: to slots of the stack that lie in one cache line each.

LLVM decides whether a function aligns its stack before it knows that registers will be spilled, and then takes the 16 bytes
that every caller grants. A whole register spilled there lies across two lines wherever the caller's stack happens to stand
16 bytes off, for a thread's whole life: one process in two ran such a kernel up to 1.9 times slower than the next one did. An
array of one register, that something may look at, makes the function align its stack from the start.
"""

from typing import Any

import tvm
from tvm import s_tir, tirx

_ANCHOR = """
define linkonce_odr i32 @veltair_steady_stack() alwaysinline {
  %anchor = alloca <16 x float>, align 64
  call void asm sideeffect "", "r"(ptr %anchor)
  ret i32 0
}
"""


def steady(function: Any) -> Any:
    """The function, its own stack aligned and that of each parallel loop's body, which TVM makes a function of its own."""
    return function.with_body(_anchored(_rewritten(function.body)))


def _anchored(body: Any) -> Any:
    if isinstance(body, s_tir.SBlockRealize):  # the root block of a schedule stays the outermost statement
        return _with_body(body, _anchored(body.block.body))
    call = tirx.Evaluate(tirx.call_extern("int32", "veltair_steady_stack"))
    anchor = tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", tvm.ir.StringImm(_ANCHOR), call)
    return tirx.SeqStmt([anchor, body])


def _rewritten(stmt: Any) -> Any:
    match stmt:
        case tirx.SeqStmt():
            return tirx.SeqStmt([_rewritten(part) for part in stmt.seq])
        case tirx.For():
            body = _anchored(stmt.body) if stmt.kind == tirx.ForKind.PARALLEL else _rewritten(stmt.body)
            return tirx.For(stmt.loop_var, stmt.min, stmt.extent, stmt.kind, body, stmt.thread_binding, stmt.annotations)
        case tirx.IfThenElse():
            other = _rewritten(stmt.else_case) if stmt.else_case is not None else None
            return tirx.IfThenElse(stmt.condition, _rewritten(stmt.then_case), other)
        case tirx.AttrStmt():
            return tirx.AttrStmt(stmt.node, stmt.attr_key, stmt.value, _rewritten(stmt.body))
        case s_tir.SBlockRealize():
            return _with_body(stmt, _rewritten(stmt.block.body))
        case _:
            return stmt


def _with_body(realize: Any, body: Any) -> Any:
    b = realize.block
    block = s_tir.SBlock(
        b.iter_vars, b.reads, b.writes, b.name_hint, body, b.init, b.alloc_buffers, b.match_buffers, b.annotations
    )  # fmt: skip
    return s_tir.SBlockRealize(realize.iter_values, realize.predicate, block)
