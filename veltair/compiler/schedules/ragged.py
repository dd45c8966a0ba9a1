"""Loops whose extent no register divides: whole vectors where all lanes lie inside, single elements at the ragged end.

TVM runs a vector loop whose guard depends on the lane element by element, everywhere. `whole_vectors` asks for the
last lane once before the loop instead.
"""

from typing import Any

from tvm import s_tir, tirx

_BINARY = (
    tirx.Add, tirx.Sub, tirx.Mul, tirx.FloorDiv, tirx.FloorMod, tirx.Min, tirx.Max, tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.EQ,
    tirx.And, tirx.Or,
)  # fmt: skip


def whole_vectors(func: Any) -> Any:
    """The scheduled function with each guarded vector loop as: if the last lane is inside, vectors, else one by one."""
    return func.with_body(_rewritten(func.body))


def _rewritten(stmt: Any) -> Any:
    match stmt:
        case tirx.SeqStmt():
            return tirx.SeqStmt([_rewritten(part) for part in stmt.seq])
        case tirx.For() if stmt.kind == tirx.ForKind.VECTORIZED:
            return _guarded(stmt)
        case tirx.For():
            return _loop(stmt, stmt.kind, _rewritten(stmt.body))
        case tirx.IfThenElse():
            other = _rewritten(stmt.else_case) if stmt.else_case is not None else None
            return tirx.IfThenElse(stmt.condition, _rewritten(stmt.then_case), other)
        case s_tir.SBlockRealize():
            b = stmt.block
            if not _holds_loops(b.body):
                return stmt
            block = s_tir.SBlock(
                b.iter_vars, b.reads, b.writes, b.name_hint, _rewritten(b.body), b.init, b.alloc_buffers, b.match_buffers,
                b.annotations,
            )  # fmt: skip
            return s_tir.SBlockRealize(stmt.iter_values, stmt.predicate, block)
        case _:
            return stmt


def _holds_loops(stmt: Any) -> bool:
    return isinstance(stmt, tirx.For | tirx.SeqStmt | tirx.IfThenElse | s_tir.SBlockRealize)


def _guarded(loop: Any) -> Any:
    realize = loop.body
    if not isinstance(realize, s_tir.SBlockRealize) or not _reads(realize.predicate, loop.loop_var):
        return loop
    inside = _at(realize.predicate, loop.loop_var, loop.extent - 1)
    free = s_tir.SBlockRealize(realize.iter_values, tirx.const(True, "bool"), realize.block)
    return tirx.IfThenElse(inside, _loop(loop, loop.kind, free), _loop(loop, tirx.ForKind.SERIAL, realize))


def _loop(loop: Any, kind: int, body: Any) -> Any:
    return tirx.For(loop.loop_var, loop.min, loop.extent, kind, body, loop.thread_binding, loop.annotations)


def _reads(expr: Any, var: Any) -> bool:
    if isinstance(expr, _BINARY):
        return _reads(expr.a, var) or _reads(expr.b, var)
    return bool(isinstance(expr, tirx.Var) and expr.same_as(var))


def _at(expr: Any, var: Any, value: Any) -> Any:
    """The expression with `var` replaced."""
    if isinstance(expr, _BINARY):
        return type(expr)(_at(expr.a, var, value), _at(expr.b, var, value))
    return value if isinstance(expr, tirx.Var) and expr.same_as(var) else expr
