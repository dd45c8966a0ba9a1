"""Kernels that move data or work element by element: an index map, then the fused chain. Memory decides.

The one knob is `par`: whether the loops may be shared out over cores at all.

    identity                      the chain alone (its operands are all it reads)
    transpose (perm)              slice (starts, steps)          concat (axis, sizes)
    pad (before, value)           upsample (fh, fw), axes 2, 3
    gather (rows)                 ids (m,) and table (rows, k) -> (m, k); gather_or_zero: zeros for ids outside
    pack (b)                      (n, c, h, w) -> (n, c/b, h, w, b), zeros behind the last channel
    unpack (b)                    the inverse
    repack (b)                    (n, c/a, h, w, a) -> (n, c/b, h, w, b)
    relayout (layout)             any index map of the flat source, over the output's axes (see `views`)
    spread (kh, kw)               (n, kh*kw*cb, h, w, b) -> (n, cb, h*kh, w*kw, b): a transposed conv without overlap
    spread_plain (kh, kw, c)      the same from one block that holds kh*kw*c channels, to (n, c, h*kh, w*kw)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

from veltair.compiler.graph import Shape, elements
from veltair.compiler.schedules.base import Kernel, Knobs, extent, result, schedule_of, vector_width

_PARALLEL_FROM = 16384  # elements: below it, waking a second core costs more than it saves


@dataclass(frozen=True)
class Move(Kernel):
    how: str
    params: tuple[Any, ...]
    sources: tuple[tuple[Shape, str], ...]
    out_shape: Shape
    lanes: int

    @property
    def kind(self) -> str:  # type: ignore[override]
        return "elementwise" if self.how == "identity" else "move"

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        return self.sources

    @property
    def output(self) -> Shape:
        return self.out_shape

    def candidates(self) -> list[dict[str, int]]:
        return [{"par": 1}, {"par": 0}] if elements(self.out_shape) >= _PARALLEL_FROM else [{"par": 0}]

    def build(self, knobs: Knobs) -> Any:
        parallel = bool(knobs.get("par", self.candidates()[0]["par"]))
        tensors = [te.placeholder(shape, dtype, name=f"x{k}") for k, (shape, dtype) in enumerate(self.sources)]
        operands = self.chain.placeholders()
        out = te.compute(self.out_shape, lambda *at: self.chain.apply(_value(self, tensors, at), at, operands), name="out")
        sch = schedule_of([*tensors, *operands, out])
        _schedule(sch, sch.get_sblock("out"), self.lanes, parallel)
        return result(sch)


def _schedule(sch: Any, block: Any, lanes: int, parallel: bool) -> None:
    loops = sch.get_loops(block)
    if not loops:
        return
    if vector_width(extent(sch, loops[-1]), lanes) == 1 and len(loops) > 1:
        loops = [sch.fuse(*loops)]
    *outer, last = loops
    v = vector_width(extent(sch, last), lanes)
    if v > 1:
        rest, lane = sch.split(last, [None, v])
        sch.vectorize(lane)
        outer.append(rest)
    else:
        outer.append(last)
    if parallel:
        sch.parallel(sch.fuse(*outer) if len(outer) > 1 else outer[0])


def _value(k: Move, x: Sequence[Any], at: Sequence[Any]) -> Any:
    """What the output at index `at` is made of, before the chain."""
    match k.how:
        case "identity":
            return None
        case "transpose":
            (perm,) = k.params
            source: list[Any] = [None] * len(perm)
            for axis, origin in enumerate(perm):
                source[origin] = at[axis]
            return x[0](*source)
        case "relayout":
            (layout,) = k.params
            return x[0](layout.index(at))
        case "slice":
            starts, steps = k.params
            return x[0](*(s + i * t for s, i, t in zip(starts, at, steps, strict=True)))
        case "concat":
            axis, sizes = k.params
            value, offset = None, sum(sizes)
            for tensor, size in reversed(list(zip(x, sizes, strict=True))):
                offset -= size
                here = tensor(*at[:axis], at[axis] - offset, *at[axis + 1 :])
                value = here if value is None else tirx.if_then_else(at[axis] < offset + size, here, value)
            return value
        case "pad":
            before, fill = k.params
            shape = k.sources[0][0]
            source = [i - b for i, b in zip(at, before, strict=True)]
            inside = tirx.all(*(c for s, d in zip(source, shape, strict=True) for c in (s >= 0, s < d)))
            return tirx.if_then_else(inside, x[0](*source), tirx.const(fill, k.sources[0][1]))
        case "upsample":
            fh, fw = k.params
            return x[0](at[0], at[1], tirx.floordiv(at[2], fh), tirx.floordiv(at[3], fw), *at[4:])
        case "gather":
            (rows,) = k.params
            index = tirx.Cast("int32", x[0](at[0]))
            index = tirx.Select(index < 0, index + rows, index)  # ONNX counts from the end
            return x[1](tirx.max(tirx.min(index, rows - 1), 0), at[1])  # a wild index must not read wild memory
        case "gather_or_zero":
            (rows,) = k.params
            index = tirx.Cast("int32", x[0](at[0]))
            row = x[1](tirx.max(tirx.min(index, rows - 1), 0), at[1])
            return tirx.Select(tirx.all(index >= 0, index < rows), row, tirx.const(0.0, "float32"))
        case "pack":
            (b,) = k.params
            channels = k.sources[0][0][1]
            channel = at[1] * b + at[4]
            value = x[0](at[0], channel, at[2], at[3])
            return value if channels % b == 0 else tirx.if_then_else(channel < channels, value, tirx.const(0.0, "float32"))
        case "unpack":
            (b,) = k.params
            return x[0](at[0], tirx.floordiv(at[1], b), at[2], at[3], tirx.floormod(at[1], b))
        case "repack":
            (b,) = k.params
            a = k.sources[0][0][4]
            channel = at[1] * b + at[4]
            value = x[0](at[0], tirx.floordiv(channel, a), at[2], at[3], tirx.floormod(channel, a))
            have = k.sources[0][0][1] * a
            return value if k.out_shape[1] * b <= have else tirx.if_then_else(channel < have, value, tirx.const(0.0, "float32"))
        case "spread":
            kh, kw = k.params
            blocks = k.out_shape[1]
            tap = tirx.floormod(at[2], kh) * kw + tirx.floormod(at[3], kw)
            return x[0](at[0], tap * blocks + at[1], tirx.floordiv(at[2], kh), tirx.floordiv(at[3], kw), at[4])
        case "spread_plain":
            kh, kw, c = k.params
            lanes = k.sources[0][0][4]
            channel = (tirx.floormod(at[2], kh) * kw + tirx.floormod(at[3], kw)) * c + at[1]
            return x[0](
                at[0],
                tirx.floordiv(channel, lanes),
                tirx.floordiv(at[2], kh),
                tirx.floordiv(at[3], kw),
                tirx.floormod(channel, lanes),
            )
        case other:
            raise AssertionError(f"no index map {other!r}")
