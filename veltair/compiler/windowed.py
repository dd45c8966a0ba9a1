"""Operators that slide a window: convolutions, transposed convolutions without overlap, and pooling."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from veltair.compiler import layout
from veltair.compiler.bf16_forms import conv_bf16_forms
from veltair.compiler.graph import Node, Shape
from veltair.compiler.lower import Form, Group, Lowering, Source, Space
from veltair.compiler.schedules.base import Chain, Operand
from veltair.compiler.schedules.conv import Conv, Window
from veltair.compiler.schedules.depthwise import Depthwise
from veltair.compiler.schedules.grouped import GroupedConv
from veltair.compiler.schedules.move import Move
from veltair.compiler.schedules.pool import Pool
from veltair.compiler.winograd_forms import winograd_bf16_forms, winograd_forms

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
        kernel = Depthwise(n, ob, lo, h, ww, window, low.registers)
        form, make = f"depthwise {lo} {window.kernel}", lambda: _pack_depthwise(w4, lo)
        block_in = lo
    elif groups != 1:
        li = low.block_of.get(x, 0) or layout.channel_block(c, low.lanes)
        grouped = GroupedConv(
            n, layout.blocks_of(c, li), li, h, ww, ob, lo, window, low.registers, c, groups=groups, out_channels=co
        )
        kernel = grouped
        form, make, block_in = f"grouped {groups} {li} {lo} {window.kernel}", lambda: grouped.pack(w4), li
    elif c <= _PLAIN_INPUT_CHANNELS:
        kernel = Conv(n, c, 1, h, ww, ob, lo, window, low.registers)
        form, make, block_in = f"conv plain {lo} {window.kernel}", lambda: _pack_conv(w4, 1, c, lo), 0
    else:
        li = low.block_of.get(x, 0) or layout.channel_block(c, low.lanes)
        kernel = Conv(n, layout.blocks_of(c, li), li, h, ww, ob, lo, window, low.registers, c if c % li else 0)
        form, make, block_in = f"conv {li} {lo} {window.kernel}", lambda: _pack_conv(w4, li, -(-c // li) * li, lo), li
    group = low.group(index, node, space, lambda lw, g: write(lw, g))
    _add_bias(low, group, node, bias, ob, lo)
    low.grow(group)

    def write(lw: Lowering, g: Group) -> None:
        full = with_chain(kernel, lw.chain(g))
        data = lw.line.view(lw.get(x, block_in), full.inputs[0][0])
        others = [f for other in CONV_FORMS for f in other(lw, full, data, w, w4)] if type(full) is Conv else []
        lw.call(g, full, [data, lw.weight(w, form, make, full.inputs[1])], others)

    return group


ConvForm = Callable[[Lowering, Conv, int, str, Any], list[Form]]
"""(lowering, direct kernel with its chain, data tensor, name of the weights, weights (co, ci, kh, kw)) -> other kernels."""

CONV_FORMS: list[ConvForm] = [winograd_forms, conv_bf16_forms, winograd_bf16_forms]


def with_chain(kernel: Any, chain: Any) -> Any:
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
        full = with_chain(kernel, chain)
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


def pool(low: Lowering, index: int, node: Node) -> Group | None:
    if len(node.outputs) != 1 or node.attrs.get("storage_order", 0):
        return None
    op = "max" if "Max" in node.op else "mean"
    if node.op.startswith("Global"):
        return pooled(low, index, node, op, None, False)
    kernel = tuple(int(k) for k in node.attrs["kernel_shape"])
    if len(kernel) not in (1, 2) or (op == "mean" and any(d != 1 for d in node.attrs.get("dilations", ()))):
        return None
    return pooled(low, index, node, op, kernel, bool(node.attrs.get("count_include_pad", 0)))


def pooled(low: Lowering, index: int, node: Node, op: str, window: tuple[int, ...] | None, include_pad: bool) -> Group | None:
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
        made = with_chain(kernel, lw.chain(g))
        lw.call(g, made, [lw.line.view(lw.get(x, block), made.inputs[0][0])])

    return group
