"""Where the elements of a value lie in the buffer of another: chains of reshapes, transposes and slices as one index map.

A dimension is a mixed-radix number of digits (extent, stride), the most significant first: what a transpose of split or
merged dimensions needs, and what channels in blocks need. So a kernel can read, say, the heads of an attention straight
from the rows a GEMM wrote. (The idea of CuTe's layouts: NVIDIA CUTLASS 3.0, "CuTe Layout Algebra".)
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import tirx

from veltair.compiler.graph import Graph, Node, Shape
from veltair.compiler.layout import spatial

Digit = tuple[int, int]
Dim = tuple[Digit, ...]


@dataclass(frozen=True, slots=True)
class View:
    """Element `at` of the value is element `index(at)` of `base`'s buffer of `size` elements."""

    base: str
    size: int
    offset: int
    dims: tuple[Dim, ...]

    @property
    def shape(self) -> Shape:
        return tuple(prod(extent for extent, _ in dim) for dim in self.dims)

    @property
    def layout(self) -> "Layout":
        return Layout(self.size, self.offset, self.dims)

    def is_whole(self) -> bool:
        """Whether it is the buffer itself, in order, under some shape."""
        digits = [digit for dim in self.dims for digit in dim]
        return self.offset == 0 and (not digits or _merged(digits) == ((self.size, 1),))


@dataclass(frozen=True, slots=True)
class Layout:
    """A view without its base: what a kernel must know to read it."""

    size: int
    offset: int
    dims: tuple[Dim, ...]

    def index(self, at: Sequence[Any]) -> Any:
        """The place in the flat buffer of the element at this index (expressions or integers)."""
        where: Any = self.offset
        for dim, i in zip(self.dims, at, strict=True):
            for k, (extent, stride) in enumerate(reversed(dim)):
                last = k == len(dim) - 1
                where = where + (i if last else tirx.floormod(i, extent)) * stride
                i = i if last else tirx.floordiv(i, extent)
        return where

    def stride(self, axis: int) -> int | None:
        """Elements from one index of the axis to the next; None where that is not one number."""
        dim = self.dims[axis]
        return 0 if not dim else dim[0][1] if len(dim) == 1 else None


def whole(base: str, shape: Shape) -> View:
    dims: list[Dim] = []
    stride = 1
    for extent in reversed(shape):
        dims.append(((extent, stride),) if extent != 1 else ())
        stride *= extent
    return View(base, stride, 0, tuple(reversed(dims)))


def packed(base: str, shape: Shape, block: int) -> View | None:
    """A value whose channels lie in blocks (see `layout`); None where the last block is filled up."""
    if shape[1] % block:
        return None
    n, c, h, w = (*shape[:2], *spatial(shape))
    five = whole(base, (n, c // block, h, w, block))
    dims = (five.dims[0], _merged([*five.dims[1], *five.dims[4]]), five.dims[2], five.dims[3])
    return View(base, five.size, 0, dims if len(shape) == 4 else (dims[0], dims[1], dims[3]))


def view_of(
    graph: Graph, makers: Mapping[str, Node], name: str, through: Collection[str], blocks: Mapping[str, int] | None = None
) -> View:
    """The value as a view of the first one that is not among those to look through, or no index map of its input.

    `blocks` says which values lie in blocks of channels; None: all are read plain.
    """
    node = makers.get(name)
    if name in through and node is not None and node.op in _STEPS and graph.constant(node.inputs[0]) is None:
        found = _STEPS[node.op](graph, node, name, view_of(graph, makers, node.inputs[0], through, blocks))
        if found is not None:
            return found
    block = blocks.get(name, 0) if blocks else 0
    return (packed(name, graph.shapes[name], block) if block else None) or whole(name, graph.shapes[name])


def broadcast(view: View, shape: Shape) -> View | None:
    """The view under more or wider dimensions, as NumPy broadcasts."""
    dims: list[Dim] = []
    missing = len(shape) - len(view.dims)
    for dim, full in zip(((),) * missing + view.dims, shape, strict=True):
        size = prod(extent for extent, _ in dim)
        if size not in (1, full):
            return None
        dims.append(dim if size == full else ((full, 0),))
    return View(view.base, view.size, view.offset, tuple(dims))


def through(graph: Graph, node: Node, view: View) -> View | None:
    """The view of what a Reshape or Transpose makes of a value with this view."""
    return _STEPS[node.op](graph, node, node.outputs[0], view)


def in_blocks(view: View, block: int) -> View | None:
    """An (n, c, ...) view with the axes of the packed layout: n, block of channels, row, column, lane."""
    n, c, *_ = shape = view.shape
    if c % block or len(shape) not in (3, 4):
        return None
    h, w = spatial(shape)
    split = reshaped(view, (n, c // block, block, h, w))
    if split is None:
        return None
    n_, c_, lane, h_, w_ = split.dims
    return View(view.base, view.size, view.offset, (n_, c_, h_, w_, lane))


def _merged(digits: Sequence[Digit]) -> Dim:
    """The same places with as few digits as can be."""
    out: list[Digit] = []
    for extent, stride in digits:
        if extent == 1:
            continue
        if out and out[-1][1] == extent * stride:
            out[-1] = (out[-1][0] * extent, stride)
        else:
            out.append((extent, stride))
    return tuple(out)


def reshaped(view: View, shape: Shape) -> View | None:
    """None where a new dimension cuts a digit unevenly."""
    rest = [digit for dim in view.dims for digit in dim][::-1]
    dims: list[Dim] = []
    for size in shape:
        need, digits = size, list[Digit]()
        while need > 1:
            extent, stride = rest.pop()
            if need % extent == 0:
                digits.append((extent, stride))
                need //= extent
            elif extent % need == 0:
                digits.append((need, stride * (extent // need)))
                rest.append((extent // need, stride))
                need = 1
            else:
                return None
        dims.append(_merged(digits))
    return View(view.base, view.size, view.offset, tuple(dims))


def sliced(view: View, starts: Sequence[int], steps: Sequence[int], shape: Shape) -> View | None:
    """None where a range lies across digits."""
    offset, dims = view.offset, list[Dim]()
    for dim, start, step, size, full in zip(view.dims, starts, steps, shape, view.shape, strict=True):
        if (start, step, size) == (0, 1, full):
            dims.append(dim)
        elif len(dim) == 1:
            offset += start * dim[0][1]
            dims.append(((size, dim[0][1] * step),) if size != 1 else ())
        elif size == 1:
            for extent, stride in reversed(dim):
                offset += start % extent * stride
                start //= extent
            dims.append(())
        elif len(dim) == 2 and step == 1 and start % dim[1][0] == 0 and size % dim[1][0] == 0:  # whole blocks
            offset += start // dim[1][0] * dim[0][1]
            dims.append(_merged([(size // dim[1][0], dim[0][1]), dim[1]]))
        else:
            return None
    return View(view.base, view.size, offset, tuple(dims))


def slice_bounds(graph: Graph, node: Node) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """First index and step along each axis of a Slice whose bounds are constants; else None."""
    shape = graph.shapes[node.inputs[0]]
    if len(node.inputs) > 1:
        parts = [graph.constant(name) if name else None for name in node.inputs[1:]]
        if any(p is None and name for p, name in zip(parts, node.inputs[1:], strict=True)) or parts[0] is None:
            return None
        first = parts[0].tolist()
        axes = parts[2].tolist() if len(parts) > 2 and parts[2] is not None else list(range(len(first)))
        strides = parts[3].tolist() if len(parts) > 3 and parts[3] is not None else [1] * len(first)
    else:
        first, strides = list(node.attrs["starts"]), [1] * len(node.attrs["starts"])
        axes = list(node.attrs.get("axes", range(len(first))))
    starts, steps = [0] * len(shape), [1] * len(shape)
    for axis, start, step in zip(axes, first, strides, strict=True):
        size = shape[axis]
        start = max(start + size, 0) if start < 0 else start
        starts[axis], steps[axis] = min(start, size - 1) if step < 0 else min(start, size), int(step)
    return tuple(int(s) for s in starts), tuple(steps)


def _through_reshape(graph: Graph, node: Node, name: str, view: View) -> View | None:
    return reshaped(view, graph.shapes[name])


def _through_transpose(graph: Graph, node: Node, name: str, view: View) -> View | None:
    rank = len(view.dims)
    perm = [int(p) for p in node.attrs.get("perm", range(rank - 1, -1, -1))]
    return View(view.base, view.size, view.offset, tuple(view.dims[p] for p in perm))


def _through_slice(graph: Graph, node: Node, name: str, view: View) -> View | None:
    bounds = slice_bounds(graph, node)
    return sliced(view, *bounds, graph.shapes[name]) if bounds and prod(graph.shapes[name]) else None


def _through_split(graph: Graph, node: Node, name: str, view: View) -> View | None:
    axis = int(node.attrs.get("axis", 0)) % len(view.dims)
    before = sum(graph.shapes[other][axis] for other in node.outputs[: node.outputs.index(name)])
    starts = [before if d == axis else 0 for d in range(len(view.dims))]
    return sliced(view, starts, [1] * len(view.dims), graph.shapes[name])


_STEPS = {
    "Reshape": _through_reshape,
    "Transpose": _through_transpose,
    "Slice": _through_slice,
    "Split": _through_split,
}
