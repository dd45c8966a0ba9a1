"""What each ONNX operator becomes. A handler returns None where it does not cover the form at hand: the fallback takes it."""

from dataclasses import replace
from typing import Any

import numpy as np

from veltair.compiler import layout
from veltair.compiler.graph import Node, Shape, elements
from veltair.compiler.lower import Group, Handler, Lowering, Source, Space
from veltair.compiler.schedules.base import Chain, Operand
from veltair.compiler.schedules.conv import Conv, Window
from veltair.compiler.schedules.depthwise import Depthwise
from veltair.compiler.schedules.gemm import BatchedMatmul, Gemm, column_block
from veltair.compiler.schedules.move import Move
from veltair.compiler.schedules.pool import Pool
from veltair.compiler.schedules.rows import LayerNorm, Reduce, Softmax

_PLAIN_INPUT_CHANNELS = 4  # an image: read as it is, since a block of 16 would be three quarters zeros


def _window(node: Node, shape: Shape, out: Shape, kernel: tuple[int, ...]) -> Window:
    """The window over rows and columns; a one-dimensional one becomes a single row."""
    rank = len(kernel)
    strides = tuple(int(s) for s in node.attrs.get("strides", (1,) * rank))
    dilations = tuple(int(d) for d in node.attrs.get("dilations", (1,) * rank))
    pads = tuple(int(p) for p in node.attrs.get("pads", (0,) * (2 * rank)))
    auto = node.attrs.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [max(0, (out[2 + i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - shape[2 + i]) for i in range(rank)]
        small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        pads = (*small, *large) if auto == "SAME_UPPER" else (*large, *small)
    elif auto == "VALID":
        pads = (0,) * (2 * rank)
    if rank == 1:
        return Window((1, kernel[0]), (1, strides[0]), (1, dilations[0]), (0, pads[0], 0, pads[1]))
    return Window(
        (kernel[0], kernel[1]), (strides[0], strides[1]), (dilations[0], dilations[1]), (pads[0], pads[1], pads[2], pads[3])
    )


def _transposed(window: Window) -> Window:
    def swap(pair: tuple[int, int]) -> tuple[int, int]:
        return pair[1], pair[0]

    top, left, bottom, right = window.pads
    return Window(swap(window.kernel), swap(window.strides), swap(window.dilations), (left, top, right, bottom))


def conv(low: Lowering, index: int, node: Node) -> Group | None:
    graph = low.graph
    x, w = node.inputs[0], node.inputs[1]
    weights = graph.constant(w)
    shape, out = graph.shapes[x], graph.shapes[node.outputs[0]]
    bias = graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    if weights is None or not layout.can_pack(shape) or graph.dtypes[x] != "float32" or (len(node.inputs) > 2 and bias is None):
        return None
    groups, (n, c), co = int(node.attrs.get("group", 1)), shape[:2], out[1]
    window = _window(node, shape, out, tuple(int(k) for k in weights.shape[2:]))
    h, ww = layout.spatial(shape)
    w4 = weights.reshape(*weights.shape[:2], *window.kernel)
    depthwise = groups == c == co and groups > 1
    if groups != 1 and not depthwise:
        return None
    if ww == 1 and window.kernel[1] == 1 and h > 1:  # one column: the same bytes as one row, which the tiles run along
        h, ww, window, w4 = 1, h, _transposed(window), w4.transpose(0, 1, 3, 2)
    flat = window.pointwise
    if flat:
        h, ww = 1, h * ww
    lo = layout.channel_block(co, low.lanes)
    oh, ow = window.out(h, ww)
    ob = layout.blocks_of(co, lo)
    space = Space(out, (n, ob, oh, ow, lo), lo, flat=flat or oh == 1)
    kernel: Any
    if depthwise:
        kernel = Depthwise(n, ob, lo, h, ww, window)
        form, make = f"depthwise {lo} {window.kernel}", lambda: _pack_depthwise(w4, lo)
        block_in = lo
    elif c <= _PLAIN_INPUT_CHANNELS:
        kernel = Conv(n, c, 1, h, ww, ob, lo, window, low.registers)
        form, make, block_in = f"conv plain {lo} {window.kernel}", lambda: _pack_conv(w4, 1, c, lo), 0
    else:
        li = low.block_of.get(x, 0) or layout.channel_block(c, low.lanes)
        kernel = Conv(n, layout.blocks_of(c, li), li, h, ww, ob, lo, window, low.registers)
        form, make, block_in = f"conv {li} {lo} {window.kernel}", lambda: _pack_conv(w4, li, -(-c // li) * li, lo), li
    group = low.group(index, node, space, lambda lw, g: write(lw, g))
    _add_bias(low, group, node, bias, ob, lo)
    low.grow(group)

    def write(lw: Lowering, g: Group) -> None:
        full = _with_chain(kernel, lw.chain(g))
        data = lw.line.view(lw.get(x, block_in), full.inputs[0][0])
        lw.call(g, full, [data, lw.weight(w, form, make)])

    return group


def _with_chain(kernel: Any, chain: Any) -> Any:
    return replace(kernel, chain=chain)


def _add_bias(low: Lowering, group: Group, node: Node, bias: Any, blocks: int, lo: int) -> None:
    if bias is None:
        return
    padded = np.zeros(blocks * lo, np.float32)
    padded[: bias.size] = bias
    name = low.graph.add_constant("packed_bias", padded.reshape(blocks, lo))
    group.sources.append(Source(name, 0, (blocks, lo), Operand((blocks, lo), "float32", (1, 4))))
    group.tree = ("Add", (), ("acc",), ("in", 0))


def _pack_conv(w: Any, li: int, channels: int, lo: int) -> Any:
    """(co, ci, kh, kw) -> (co/lo, channels/li, kh, kw, li, lo), zeros where channels were padded."""
    co, ci, kh, kw = w.shape
    ob = -(-co // lo)
    out = np.zeros((ob * lo, channels, kh, kw), np.float32)
    out[:co, :ci] = w
    return np.ascontiguousarray(out.reshape(ob, lo, channels // li, li, kh, kw).transpose(0, 2, 4, 5, 3, 1))


def _pack_depthwise(w: Any, lo: int) -> Any:
    c, _, kh, kw = w.shape
    blocks = -(-c // lo)
    out = np.zeros((blocks * lo, kh, kw), np.float32)
    out[:c] = w[:, 0]
    return np.ascontiguousarray(out.reshape(blocks, lo, kh, kw).transpose(0, 2, 3, 1))


def conv_transpose(low: Lowering, index: int, node: Node) -> Group | None:
    """Kernel equal to stride, so that outputs do not overlap: a pointwise conv with kh * kw times the channels, then a spread."""
    graph = low.graph
    x, w = node.inputs[0], node.inputs[1]
    weights, shape, out = graph.constant(w), graph.shapes[x], graph.shapes[node.outputs[0]]
    bias = graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    if weights is None or weights.ndim != 4 or (len(node.inputs) > 2 and bias is None) or int(node.attrs.get("group", 1)) != 1:
        return None
    c, co, kh, kw = weights.shape
    strides = tuple(node.attrs.get("strides", (1, 1)))
    plain_form = not any(node.attrs.get("pads", ())) and not any(node.attrs.get("output_padding", ()))
    if (
        strides != (kh, kw)
        or not plain_form
        or out[2:] != (shape[2] * kh, shape[3] * kw)
        or any(d != 1 for d in node.attrs.get("dilations", ()))
    ):
        return None
    n, h, ww = shape[0], shape[2], shape[3]
    li = low.block_of.get(x, 0) or layout.channel_block(c, low.lanes)
    narrow = kh * kw * co <= low.lanes  # all taps fit one block: spread straight to the plain layout
    lo = low.lanes if narrow else layout.channel_block(co, low.lanes)
    blocks = 1 if narrow else kh * kw * layout.blocks_of(co, lo)
    kernel = Conv(n, layout.blocks_of(c, li), li, 1, h * ww, blocks, lo, Window((1, 1)), low.registers)

    def taps() -> tuple[Any, Any]:
        each = co if narrow else layout.blocks_of(co, lo) * lo
        matrix = np.zeros((kh * kw, each, c), np.float32)
        matrix[:, :co] = weights.transpose(2, 3, 1, 0).reshape(kh * kw, co, c)
        shift = np.zeros((kh * kw, each), np.float32)
        shift[:, :co] = 0 if bias is None else bias
        rows = -(-kh * kw * each // lo) * lo
        packed = np.zeros((rows, c, 1, 1), np.float32)
        packed[: kh * kw * each, :, 0, 0] = matrix.reshape(-1, c)
        padded = np.zeros(rows, np.float32)
        padded[: kh * kw * each] = shift.reshape(-1)
        return _pack_conv(packed, li, -(-c // li) * li, lo), padded.reshape(blocks, lo)

    def write(lw: Lowering, g: Group) -> None:
        packed, shift = taps()
        chain = Chain(("Add", (), ("acc",), ("in", 0)), (Operand((blocks, lo), "float32", (1, 4)),))
        full = _with_chain(kernel, chain)
        data = lw.line.view(lw.get(x, li), full.inputs[0][0])
        made = lw.line.new(full.output, "float32")
        constants = [lw.weight(w, f"taps {li} {lo}", lambda: packed), lw.weight(node.outputs[0], "tap bias", lambda: shift)]
        lw.append(full, [data, *constants], made, "ConvTranspose")
        source = (n, blocks, h, ww, lo)
        how, params = ("spread_plain", (kh, kw, co)) if narrow else ("spread", (kh, kw))
        assert g.space is not None
        move = Move(how, params, ((source, "float32"),), g.space.shape, lw.lanes, chain=lw.chain(g))
        lw.call(g, move, [lw.line.view(made, source)])

    return low.grow(low.group(index, node, low.space(out, 0 if narrow else lo), write))


def matmul(low: Lowering, index: int, node: Node) -> Group | None:
    graph = low.graph
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
        full = _with_chain(kernel, lw.chain(g))
        inputs = [lw.line.view(lw.get(name), s) for name, (s, _) in zip((a, b), full.inputs, strict=True)]
        lw.call(g, full, inputs)

    return low.grow(low.group(index, node, Space(out, kernel.output, 0, groups), write))


def _gemm(low: Lowering, index: int, node: Node, weights: Any) -> Group | None:
    graph = low.graph
    a, b = node.inputs
    shape, out = graph.shapes[a], graph.shapes[node.outputs[0]]
    m, k, n = elements(shape[:-1]), shape[-1], weights.shape[1]
    quarter = low.lanes // 4 if low.lanes > 4 else 1
    ragged = n % max(quarter, 2) != 0
    columns = -(-n // low.lanes) * low.lanes if ragged else n
    nb, lanes = column_block(columns, m, low.lanes, low.registers)
    kernel = Gemm(m, k, columns, nb, lanes, low.registers)

    def packed() -> Any:
        padded = np.zeros((k, columns), np.float32)
        padded[:, :n] = weights
        return np.ascontiguousarray(padded.reshape(k, columns // nb, nb).transpose(1, 0, 2))

    form = f"gemm {nb}"
    rank = len(out)
    space = Space(out, (m, n), 0, (tuple(range(rank - 1)), (rank - 1,)))

    def write(lw: Lowering, g: Group) -> None:
        data = lw.line.view(lw.get(a), (m, k))
        if not ragged:
            lw.call(g, _with_chain(kernel, lw.chain(g)), [data, lw.weight(b, form, packed)])
            return
        wide = lw.line.new(kernel.output, "float32")  # the chain runs while the padding is cut off
        lw.append(kernel, [data, lw.weight(b, form, packed)], wide, "MatMul")
        cut = Move("slice", ((0, 0), (1, 1)), ((kernel.output, "float32"),), (m, n), lw.lanes, chain=lw.chain(g))
        lw.call(g, cut, [wide])

    return low.grow(low.group(index, node, space, write))


def softmax(low: Lowering, index: int, node: Node) -> Group | None:
    shape = low.graph.shapes[node.inputs[0]]
    default = -1 if low.graph.opset >= 13 else 1
    if int(node.attrs.get("axis", default)) % len(shape) != len(shape) - 1 or low.graph.dtypes[node.inputs[0]] != "float32":
        return None
    return _rows(low, index, node, Softmax(elements(shape[:-1]), shape[-1], low.lanes), [node.inputs[0]])


def layer_norm(low: Lowering, index: int, node: Node) -> Group | None:
    shape = low.graph.shapes[node.inputs[0]]
    one_axis = int(node.attrs.get("axis", -1)) % len(shape) == len(shape) - 1
    if not one_axis or len(node.inputs) != 3 or len(node.outputs) != 1:
        return None
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    return _rows(low, index, node, LayerNorm(elements(shape[:-1]), shape[-1], epsilon, low.lanes), list(node.inputs))


def _rows(low: Lowering, index: int, node: Node, kernel: Any, names: list[str]) -> Group:
    shape = low.graph.shapes[node.outputs[0]]
    rank = len(shape)

    def write(lw: Lowering, g: Group) -> None:
        full = _with_chain(kernel, lw.chain(g))
        inputs = [lw.line.view(lw.get(name), s) for name, (s, _) in zip(names, full.inputs, strict=True)]
        lw.call(g, full, inputs)

    return low.grow(low.group(index, node, Space(shape, kernel.output, 0, (tuple(range(rank - 1)), (rank - 1,))), write))


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
        pooled = _pool(low, index, node, op, None, False)
        if pooled is not None:
            return pooled
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
        lw.call(g, _with_chain(kernel, lw.chain(g)), [lw.line.view(lw.get(x), (outer, length, inner))])

    return low.grow(low.group(index, node, Space(out, kernel.output, 0, groups), write))


def pool(low: Lowering, index: int, node: Node) -> Group | None:
    if len(node.outputs) != 1 or node.attrs.get("storage_order", 0):
        return None
    op = "max" if "Max" in node.op else "mean"
    if node.op.startswith("Global"):
        return _pool(low, index, node, op, None, False)
    kernel = tuple(int(k) for k in node.attrs["kernel_shape"])
    if len(kernel) not in (1, 2) or (op == "mean" and any(d != 1 for d in node.attrs.get("dilations", ()))):
        return None
    return _pool(low, index, node, op, kernel, bool(node.attrs.get("count_include_pad", 0)))


def _pool(low: Lowering, index: int, node: Node, op: str, window: tuple[int, ...] | None, include_pad: bool) -> Group | None:
    graph = low.graph
    x = node.inputs[0]
    shape, out = graph.shapes[x], graph.shapes[node.outputs[0]]
    if not layout.can_pack(shape) or graph.dtypes[x] != "float32":
        return None
    block = low.block_of.get(x, 0) or layout.channel_block(shape[1], low.lanes)
    h, w = layout.spatial(shape)
    if window is None:
        h, w, full, out_hw = 1, h * w, Window((1, h * w)), (1, 1)
    else:
        full, out_hw = _window(node, shape, out, window), layout.spatial(out)
    kernel = Pool(op, shape[0], layout.blocks_of(shape[1], block), block, h, w, full, out_hw, include_pad)
    if not layout.can_pack(out):  # a reduction that dropped its axes: one pixel, written as plain channels if none is padded
        if shape[1] % block:
            return None
        space = Space(out, kernel.output, 0, ())
        group = low.group(index, node, space, lambda lw, g: write(lw, g))
    else:
        group = low.grow(
            low.group(index, node, Space(out, kernel.output, block, flat=out_hw[0] == 1), lambda lw, g: write(lw, g))
        )

    def write(lw: Lowering, g: Group) -> None:
        made = _with_chain(kernel, lw.chain(g))
        lw.call(g, made, [lw.line.view(lw.get(x, block), made.inputs[0][0])])

    return group


def reshape(low: Lowering, index: int, node: Node) -> Group:
    """No kernel: the same bytes under another shape, packed if the channels stay what they are."""
    x, out = node.inputs[0], node.outputs[0]
    before, after = low.graph.shapes[x], low.graph.shapes[out]
    block = low.block_of.get(x, 0)
    keeps = block and len(after) in (3, 4) and before[:2] == after[:2]
    low.block_of[out] = block if keeps else 0

    def write(lw: Lowering, _: Group) -> None:
        have = block if keeps else 0
        lw.place(out, lw.get(x, have), have)

    return Group(node, index, out, write)


def _moved(low: Lowering, index: int, node: Node, how: str, params: tuple[Any, ...], names: list[str]) -> Group:
    space = low.space(low.graph.shapes[node.outputs[0]])

    def write(lw: Lowering, g: Group) -> None:
        tensors = [lw.get(name) for name in names]
        sources = tuple((lw.line.tensors[t].shape, lw.line.tensors[t].dtype) for t in tensors)
        lw.call(g, Move(how, params, sources, space.shape, lw.lanes, chain=lw.chain(g)), tensors)

    return low.grow(low.group(index, node, space, write))


def transpose(low: Lowering, index: int, node: Node) -> Group:
    rank = len(low.graph.shapes[node.inputs[0]])
    perm = tuple(int(p) for p in node.attrs.get("perm", range(rank - 1, -1, -1)))
    return _moved(low, index, node, "transpose", (perm,), [node.inputs[0]])


def slice_(low: Lowering, index: int, node: Node) -> Group | None:
    graph = low.graph
    shape, out = graph.shapes[node.inputs[0]], graph.shapes[node.outputs[0]]
    if len(node.inputs) > 1:
        parts = [graph.constant(name) if name else None for name in node.inputs[1:]]
        if any(p is None and name for p, name in zip(parts, node.inputs[1:], strict=True)) or parts[0] is None:
            return None
        first = parts[0].tolist()
        axes = parts[2].tolist() if len(parts) > 2 and parts[2] is not None else list(range(len(first)))
        steps = parts[3].tolist() if len(parts) > 3 and parts[3] is not None else [1] * len(first)
    else:
        first, steps = list(node.attrs["starts"]), [1] * len(node.attrs["starts"])
        axes = list(node.attrs.get("axes", range(len(first))))
    starts, strides = [0] * len(shape), [1] * len(shape)
    for axis, start, step in zip(axes, first, steps, strict=True):
        size = shape[axis]
        start = max(start + size, 0) if start < 0 else start
        starts[axis], strides[axis] = min(start, size - 1) if step < 0 else min(start, size), int(step)
    if not elements(out):
        return None
    return _moved(low, index, node, "slice", (tuple(int(s) for s in starts), tuple(strides)), [node.inputs[0]])


def split(low: Lowering, index: int, node: Node) -> Group:
    """Several outputs: one slice each."""
    graph = low.graph
    x = node.inputs[0]
    axis = int(node.attrs.get("axis", 0)) % len(graph.shapes[x])

    def write(lw: Lowering, _: Group) -> None:
        offset = 0
        source = lw.get(x)
        tensor = lw.line.tensors[source]
        for name in node.outputs:
            shape = graph.shapes[name]
            starts = tuple(offset if d == axis else 0 for d in range(len(shape)))
            kernel = Move(
                "slice",
                (starts, (1,) * len(shape)),
                ((tensor.shape, tensor.dtype),),
                shape,
                lw.lanes,
                chain=Chain(dtype=tensor.dtype),
            )
            out = lw.line.new(shape, tensor.dtype)
            lw.append(kernel, [source], out, "Split")
            lw.place(name, out, 0)
            offset += shape[axis]

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
