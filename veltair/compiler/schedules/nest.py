"""Loop nests written out as statements, for kernels whose tiles differ along a row: schedules of one block can't say that.

A body is a function of its loop variable. A loop of one iteration is its body at the first index, as a plain number, so
that what depends on it can be decided while the nest is built.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

Body = Callable[[Any], Any]
Indices = Sequence[Any]


def _loop(kind: Any, name: str, start: Any, extent: Any, body: Body) -> Any:
    if isinstance(extent, int) and extent == 1:
        return body(start)
    index = tirx.Var(name, "int32")
    return tirx.For(index, number(start), number(extent), kind, body(index))


def serial(name: str, extent: Any, body: Body, start: Any = 0) -> Any:
    return _loop(tirx.ForKind.SERIAL, name, start, extent, body)


def parallel(name: str, extent: int, body: Body) -> Any:
    return _loop(tirx.ForKind.PARALLEL, name, 0, extent, body)


def unrolled(name: str, extent: int, body: Body, start: int = 0) -> Any:
    return _loop(tirx.ForKind.UNROLLED, name, start, extent, body)


def vectorized(name: str, extent: int, body: Body) -> Any:
    return _loop(tirx.ForKind.VECTORIZED, name, 0, extent, body)


def seq(*statements: Any) -> Any:
    """One after the other; None stands for nothing."""
    kept = [s for s in statements if s is not None]
    return kept[0] if len(kept) == 1 else tirx.SeqStmt(kept)


def when(condition: Any, then: Any, otherwise: Any = None) -> Any:
    return tirx.IfThenElse(condition, then, otherwise)


def store(buffer: Any, indices: Indices, value: Any) -> Any:
    return tirx.BufferStore(buffer, value, [number(i) for i in indices])


def load(buffer: Any, *indices: Any) -> Any:
    return tirx.BufferLoad(buffer, [number(i) for i in indices])


def prefetch(buffer: Any, *indices: Any) -> Any:
    """Ask for the line that holds an element, soon to be read; one behind the buffer's end does no harm."""
    address = tirx.address_of(load(buffer, *indices))
    return tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", address, number(0), number(3), number(1)))


def number(value: Any) -> Any:
    return tirx.const(value, "int32") if isinstance(value, int) else value


def smaller(a: Any, b: Any) -> Any:
    """The minimum, as a plain number where both are."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else tirx.min(a, b)


def let(name: str, value: Any, body: Body) -> Any:
    """`value` computed once for the statements of `body`."""
    if isinstance(value, int):
        return body(value)
    variable = tirx.Var(name, "int32")
    return seq(tirx.Bind(variable, value), body(variable))


def registers(name: str, shape: Sequence[int], body: Body) -> Any:
    """An fp32 array that is only indexed by constants once loops are unrolled, and so lives in registers."""
    buffer = tirx.decl_buffer(tuple(shape), "float32", name, scope="local")
    return seq(tirx.AllocBuffer(buffer), body(buffer))


def arguments(specs: Sequence[tuple[Sequence[int], str]], names: Sequence[str]) -> list[Any]:
    """A buffer for each (shape, dtype): what a function reads and writes."""
    return [tirx.decl_buffer(tuple(shape), dtype, name) for (shape, dtype), name in zip(specs, names, strict=True)]


def reader(buffer: Any) -> Callable[..., Any]:
    return lambda *indices: load(buffer, *indices)


def function(buffers: Sequence[Any], body: Any) -> Any:
    """No two arguments of a kernel share memory."""
    return tirx.PrimFunc(list(buffers), body).with_attr({"tirx.noalias": True, "s_tir": True})


def fused(sizes: Sequence[int], index: Any) -> list[Any]:
    """The indices of nested loops of `sizes` from the index of one loop over all of them."""
    out: list[Any] = []
    for size in reversed(sizes):
        if size == 1:
            out.append(0)
        elif isinstance(index, int):
            out.append(index % size)
            index //= size
        else:
            out.append(tirx.floormod(index, size))
            index = tirx.floordiv(index, size)
    return out[::-1]
