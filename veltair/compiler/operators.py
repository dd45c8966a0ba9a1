"""What each ONNX operator becomes. A handler returns None where it does not cover the form at hand: the fallback takes it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from veltair.compiler import layout
from veltair.compiler.attending import attention
from veltair.compiler.bf16_forms import gemm_bf16_forms
from veltair.compiler.graph import Node, elements
from veltair.compiler.lower import Form, Group, Handler, Lowering, Source, Space
from veltair.compiler.schedules.base import Chain, Kernel
from veltair.compiler.schedules.gemm import BatchedMatmul, Gemm, column_block
from veltair.compiler.schedules.move import Move
from veltair.compiler.schedules.rows import LayerNorm, Reduce, Softmax, SoftmaxAcross
from veltair.compiler.views import slice_bounds
from veltair.compiler.windowed import conv, conv_transpose, pool, pooled, with_chain


def matmul(low: Lowering, index: int, node: Node) -> Group | None:
    graph = low.graph
    if (group := attention(low, index, node)) is not None:
        return group
    a, b = node.inputs
    shape, second, out = graph.shapes[a], graph.shapes[b], graph.shapes[node.outputs[0]]
    if graph.dtypes[a] != "float32" or len(shape) < 2 or len(second) < 2:
        return None
    weights = graph.constant(b)
    if weights is not None and weights.ndim == 2:
        return _gemm(low, index, node, weights)
    batch = shape[:-2]
    lead = (1,) * (len(shape) - len(second)) + second[:-2]
    if len(second) > len(shape) or not (lead == batch or all(d == 1 for d in lead)):
        return None
    m, k, n = shape[-2], shape[-1], second[-1]
    kernel = BatchedMatmul(elements(batch), m, k, n, lead != batch, False, low.lanes)
    rank = len(out)
    groups = (tuple(range(rank - 2)), (rank - 2,), (rank - 1,))

    def write(lw: Lowering, g: Group) -> None:
        full = with_chain(kernel, lw.chain(g))
        inputs = [lw.line.view(lw.get(name), s) for name, (s, _) in zip((a, b), full.inputs, strict=True)]
        lw.call(g, full, inputs)

    return low.grow(low.group(index, node, Space(out, kernel.output, 0, groups), write))


def _gemm(low: Lowering, index: int, node: Node, weights: Any) -> Group | None:
    graph = low.graph
    a, b = node.inputs
    shape, out = graph.shapes[a], graph.shapes[node.outputs[0]]
    m, k, n = elements(shape[:-1]), shape[-1], weights.shape[1]
    nb, lanes = column_block(n, m, low.lanes, low.registers)
    kernel = Gemm(m, k, n, nb, lanes, low.registers)

    def packed() -> Any:
        padded = np.zeros((k, kernel.blocks * nb), np.float32)
        padded[:, :n] = weights
        return np.ascontiguousarray(padded.reshape(k, kernel.blocks, nb).transpose(1, 0, 2))

    rank = len(out)
    space = Space(out, (m, n), 0, (tuple(range(rank - 1)), (rank - 1,)))

    def write(lw: Lowering, g: Group) -> None:
        full = with_chain(kernel, lw.chain(g))
        data = lw.line.view(lw.get(a), (m, k))
        others = [f for other in GEMM_FORMS for f in other(lw, full, data, b, weights)]
        lw.call(g, full, [data, lw.weight(b, f"gemm {nb}", packed, full.inputs[1])], others)

    return low.grow(low.group(index, node, space, write))


GemmForm = Callable[[Lowering, Gemm, int, str, Any], list[Form]]
"""(lowering, fp32 kernel with its chain, data tensor, name of the weights, weights (k, n)) -> other kernels."""

GEMM_FORMS: list[GemmForm] = [gemm_bf16_forms]


def softmax(low: Lowering, index: int, node: Node) -> Group | None:
    x = node.inputs[0]
    shape = low.graph.shapes[x]
    rank, old = len(shape), low.graph.opset < 13
    axis = int(node.attrs.get("axis", 1 if old else -1)) % rank
    if low.graph.dtypes[x] != "float32":
        return None
    if old or axis == rank - 1:  # before opset 13 all axes from this one on are one
        split = axis if old else rank - 1
        rows, length = elements(shape[:split]), elements(shape[split:])
        groups = (tuple(range(split)), tuple(range(split, rank)))
        return _rows(low, index, node, Softmax(rows, length, low.lanes), [x], groups)
    kernel = SoftmaxAcross(elements(shape[:axis]), shape[axis], elements(shape[axis + 1 :]), low.lanes)
    return _rows(low, index, node, kernel, [x], (tuple(range(axis)), (axis,), tuple(range(axis + 1, rank))))


def layer_norm(low: Lowering, index: int, node: Node) -> Group | None:
    """Over the last axes, whose elements are one row. A missing shift is zeros."""
    graph = low.graph
    shape = graph.shapes[node.inputs[0]]
    rank = len(shape)
    axis = int(node.attrs.get("axis", -1)) % rank
    x, gamma, *shift = node.inputs
    constant = graph.constant(gamma)
    if len(node.outputs) != 1 or graph.dtypes[x] != "float32" or constant is None or constant.shape != shape[axis:]:
        return None
    length = elements(shape[axis:])
    beta = shift[0] if shift and shift[0] else graph.add_constant("no_shift", np.zeros(length, np.float32))
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    kernel = LayerNorm(elements(shape[:axis]), length, epsilon, low.lanes)
    return _rows(low, index, node, kernel, [x, gamma, beta], (tuple(range(axis)), tuple(range(axis, rank))))


def _rows(low: Lowering, index: int, node: Node, kernel: Kernel, names: list[str], groups: tuple[tuple[int, ...], ...]) -> Group:
    shape = low.graph.shapes[node.outputs[0]]

    def write(lw: Lowering, g: Group) -> None:
        full = with_chain(kernel, lw.chain(g))
        inputs = [lw.line.view(lw.get(name), s) for name, (s, _) in zip(names, full.inputs, strict=True)]
        lw.call(g, full, inputs)

    return low.grow(low.group(index, node, Space(shape, kernel.output, 0, groups), write))


def reduce(low: Lowering, index: int, node: Node) -> Group | None:
    graph = low.graph
    x = node.inputs[0]
    shape = graph.shapes[x]
    op = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min"}[node.op]
    axes = node.attrs.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1]:
        constant = graph.constant(node.inputs[1])
        if constant is None:
            return None
        axes = constant.tolist()
    where = sorted(int(a) % len(shape) for a in axes) if axes else list(range(len(shape)))
    if (
        graph.dtypes[x] != "float32"
        or where != list(range(where[0], where[-1] + 1))
        or (node.attrs.get("noop_with_empty_axes") and not axes)
    ):
        return None
    block = low.block_of.get(x, 0)
    if block and where == list(range(2, len(shape))) and op in ("mean", "max"):
        group = pooled(low, index, node, op, None, False)
        if group is not None:
            return group
    outer, length, inner = (
        elements(shape[: where[0]]),
        elements(shape[where[0] : where[-1] + 1]),
        elements(shape[where[-1] + 1 :]),
    )
    kernel = Reduce(op, outer, length, inner, low.lanes)
    out = graph.shapes[node.outputs[0]]
    kept = len(out) == len(shape)
    split = where[0]
    tail = where[-1] + 1 if kept else where[0]
    groups = (tuple(range(split)), tuple(range(tail, len(out))))
    if kept:
        groups = (tuple(range(tail)), groups[1])

    def write(lw: Lowering, g: Group) -> None:
        lw.call(g, with_chain(kernel, lw.chain(g)), [lw.line.view(lw.get(x), (outer, length, inner))])

    return low.grow(low.group(index, node, Space(out, kernel.output, 0, groups), write))


def reshape(low: Lowering, index: int, node: Node) -> Group:
    """No kernel: the same bytes under another shape, packed if the channels stay what they are."""
    x, out = node.inputs[0], node.outputs[0]
    before, after = low.graph.shapes[x], low.graph.shapes[out]
    block = low.block_of.get(x, 0)
    keeps = block and len(after) in (3, 4) and before[:2] == after[:2]
    low.block_of[out] = block if keeps else 0

    def write(lw: Lowering, _: Group) -> None:
        have = block if keeps else 0
        lw.defer(out, lambda: lw.place(out, lw.get(x, have), have), out)

    return Group(node, index, out, write)


def _moved(low: Lowering, index: int, node: Node, how: str, params: tuple[Any, ...], names: list[str]) -> Group:
    space = low.space(low.graph.shapes[node.outputs[0]])

    def made(lw: Lowering, g: Group) -> None:
        tensors = [lw.get(name) for name in names]
        sources = tuple((lw.line.tensors[t].shape, lw.line.tensors[t].dtype) for t in tensors)
        lw.call(g, Move(how, params, sources, space.shape, lw.lanes, chain=lw.chain(g)), tensors)

    def write(lw: Lowering, g: Group) -> None:
        if g.tree == ("acc",) and how in ("transpose", "slice"):
            lw.defer(g.final, lambda: made(lw, g), node.outputs[0])  # a reader may see through it
        else:
            made(lw, g)

    return low.grow(low.group(index, node, space, write))


def transpose(low: Lowering, index: int, node: Node) -> Group:
    rank = len(low.graph.shapes[node.inputs[0]])
    perm = tuple(int(p) for p in node.attrs.get("perm", range(rank - 1, -1, -1)))
    return _moved(low, index, node, "transpose", (perm,), [node.inputs[0]])


def slice_(low: Lowering, index: int, node: Node) -> Group | None:
    bounds = slice_bounds(low.graph, node)
    if bounds is None or not elements(low.graph.shapes[node.outputs[0]]):
        return None
    return _moved(low, index, node, "slice", bounds, [node.inputs[0]])


def split(low: Lowering, index: int, node: Node) -> Group:
    """Several outputs: one slice each."""
    graph = low.graph
    x = node.inputs[0]
    axis = int(node.attrs.get("axis", 0)) % len(graph.shapes[x])

    def part(lw: Lowering, name: str, offset: int) -> None:
        shape, source = graph.shapes[name], lw.get(x)
        tensor = lw.line.tensors[source]
        starts = tuple(offset if d == axis else 0 for d in range(len(shape)))
        params, chain = (starts, (1,) * len(shape)), Chain(dtype=tensor.dtype)
        out = lw.line.new(shape, tensor.dtype)
        lw.append(Move("slice", params, ((tensor.shape, tensor.dtype),), shape, lw.lanes, chain=chain), [source], out, "Split")
        lw.place(name, out, 0)

    def write(lw: Lowering, _: Group) -> None:
        offset = 0
        for name in node.outputs:
            lw.defer(name, lambda name=name, offset=offset: part(lw, name, offset), name)  # type: ignore[misc]
            offset += graph.shapes[name][axis]

    return Group(node, index, node.outputs[0], write)


def concat(low: Lowering, index: int, node: Node) -> Group | None:
    graph = low.graph
    names = [name for name in node.inputs if elements(graph.shapes[name])]
    out = graph.shapes[node.outputs[0]]
    axis = int(node.attrs["axis"]) % len(out)
    blocks = {low.block_of.get(name, 0) for name in names if graph.constant(name) is None}
    block = next(iter(blocks)) if len(blocks) == 1 else 0
    if block and axis == 1 and all(graph.shapes[name][1] % block == 0 for name in names[:-1]) and layout.can_pack(out):
        space = low.space(out, block)
        sizes = tuple(layout.blocks_of(graph.shapes[name][1], block) for name in names)
    else:
        block, space, sizes = 0, low.space(out), tuple(graph.shapes[name][axis] for name in names)

    def write(lw: Lowering, g: Group) -> None:
        tensors = [lw.get(name, block) for name in names]
        sources = tuple((lw.line.tensors[t].shape, lw.line.tensors[t].dtype) for t in tensors)
        kernel = Move("concat", (1 if block else axis, sizes), sources, space.shape, lw.lanes, chain=lw.chain(g))
        lw.call(g, kernel, tensors)

    return low.grow(low.group(index, node, space, write))


def resize(low: Lowering, index: int, node: Node) -> Group | None:
    """Nearest neighbour by whole factors, where every mode of rounding in use agrees on row // factor."""
    graph = low.graph
    x = node.inputs[0]
    shape, out = graph.shapes[x], graph.shapes[node.outputs[0]]
    mode, coordinate = node.attrs.get("mode", "nearest"), node.attrs.get("coordinate_transformation_mode", "half_pixel")
    rounding = node.attrs.get("nearest_mode", "round_prefer_floor")
    if mode != "nearest" or len(shape) != 4 or shape[:2] != out[:2] or out[2] % shape[2] or out[3] % shape[3]:
        return None
    known = (coordinate == "asymmetric" and rounding == "floor") or (
        coordinate in ("half_pixel", "pytorch_half_pixel") and rounding in ("round_prefer_floor", "round_prefer_ceil")
    )
    if node.op == "Resize" and not known and not (graph.opset < 11):
        return None
    scales = (
        graph.constant(node.inputs[2 if graph.opset > 10 else 1]) if len(node.inputs) == (3 if graph.opset > 10 else 2) else None
    )
    if scales is not None and not np.array_equal(scales[-2:], np.divide(out[2:], shape[2:])):
        return None  # the scale counts, and the size is only what is left of it after rounding
    block = low.block_of.get(x, 0)
    space = low.space(out, block)
    factors = (out[2] // shape[2], out[3] // shape[3])

    def write(lw: Lowering, g: Group) -> None:
        tensor = lw.get(x, block)
        source = (lw.line.tensors[tensor].shape, "float32")
        lw.call(g, Move("upsample", factors, (source,), space.shape, lw.lanes, chain=lw.chain(g)), [tensor])

    return low.grow(low.group(index, node, space, write)) if graph.dtypes[x] == "float32" else None


def gather(low: Lowering, index: int, node: Node) -> Group | None:
    """Rows of a table by index: an embedding. Indices from an input bound that input (see PortSpec.max_value)."""
    graph = low.graph
    if node.op == "Embedding":
        ids, table, how = node.inputs[0], node.inputs[1], "gather_or_zero"
    else:
        table, ids, how = node.inputs[0], node.inputs[1], "gather"
        if int(node.attrs.get("axis", 0)) != 0 or graph.constant(ids) is not None:
            return None
    if len(graph.shapes[table]) != 2 or graph.dtypes[table] != "float32" or graph.dtypes[ids] not in ("int32", "int64"):
        return None
    rows, width = graph.shapes[table]
    count = elements(graph.shapes[ids])
    out = graph.shapes[node.outputs[0]]
    origin = ids
    makers = graph.producers()
    while origin in makers and makers[origin].op in ("Reshape", "Cast"):
        origin = makers[origin].inputs[0]
    if how == "gather" and origin in graph.inputs:
        low.line.max_values[origin] = min(rows, low.line.max_values.get(origin, rows))
    space = Space(out, (count, width), 0, (tuple(range(len(out) - 1)), (len(out) - 1,)))

    def write(lw: Lowering, g: Group) -> None:
        number = lw.line.view(lw.get(ids), (count,))
        sources = (((count,), graph.dtypes[ids]), ((rows, width), "float32"))
        lw.call(g, Move(how, (rows,), sources, space.shape, lw.lanes, chain=lw.chain(g)), [number, lw.get(table)])

    return low.grow(low.group(index, node, space, write))


def pad(low: Lowering, index: int, node: Node) -> Group | None:
    graph = low.graph
    shape = graph.shapes[node.inputs[0]]
    amounts = graph.constant(node.inputs[1]) if len(node.inputs) > 1 else np.asarray(node.attrs.get("pads", ()))
    fill = graph.scalar(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else float(node.attrs.get("value", 0.0))
    if node.attrs.get("mode", "constant") != "constant" or amounts is None or fill is None or amounts.size != 2 * len(shape):
        return None
    if len(node.inputs) > 3 and node.inputs[3]:
        return None
    before = tuple(int(a) for a in amounts[: len(shape)])
    return _moved(low, index, node, "pad", (before, fill), [node.inputs[0]])


def expand(low: Lowering, index: int, node: Node) -> Group | None:
    """Broadcasting alone."""
    space = low.space(low.graph.shapes[node.outputs[0]])
    sources: list[Source] = []
    tree = low.operand(node.inputs[0], space.logical, space, sources)
    if tree is None:
        return None

    def write(lw: Lowering, g: Group) -> None:
        lw.call(g, Move("identity", (), (), space.shape, lw.lanes, chain=lw.chain(g)), [])

    return low.grow(Group(node, index, node.outputs[0], write, space, tree, sources, [node.op]))


HANDLERS: dict[str, Handler] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MatMul": matmul,
    "Softmax": softmax,
    "LayerNormalization": layer_norm,
    "ReduceSum": reduce,
    "ReduceMean": reduce,
    "ReduceMax": reduce,
    "ReduceMin": reduce,
    "MaxPool": pool,
    "AveragePool": pool,
    "GlobalAveragePool": pool,
    "GlobalMaxPool": pool,
    "Reshape": reshape,
    "Transpose": transpose,
    "Slice": slice_,
    "Split": split,
    "Concat": concat,
    "Resize": resize,
    "Upsample": resize,
    "Gather": gather,
    "Embedding": gather,
    "Pad": pad,
    "Expand": expand,
}
