"""Which convolutions are offered in Winograd's form too, and how their weights are transformed and packed for it."""

from dataclasses import replace
from typing import Any

import numpy as np

from veltair.compiler.graph import elements
from veltair.compiler.lower import Form, Lowering
from veltair.compiler.schedules.base import L2_BYTES, width
from veltair.compiler.schedules.conv import Conv
from veltair.compiler.schedules.winograd import Winograd, register_block
from veltair.compiler.schedules.winograd_transform import transform_weights

LEAST_CHANNELS = 16  # in and out: below, the transforms cost what the products save
LEAST_SAVING = 1.4  # multiplications saved, after what tiles waste over the border
MUCH_SAVING = 3.2  # of 4: the larger tiles waste little


def winograd_forms(low: Lowering, direct: Conv, data: int, name: str, w: Any) -> list[Form]:
    """The Winograd forms of a convolution where they can win. `w` is (co, ci, kh, kw)."""
    return [_form(low, winograd_of(direct, m), data, name, w) for m in worthwhile(direct, min(w.shape[:2]))]


def worthwhile(direct: Conv, channels: int) -> list[int]:
    """Tile sizes to offer: F(4x4, 3x3) where its tiles fit the image well enough, and F(2x2, 3x3) where those do not or where
    the larger tiles' weights outgrow the private cache. Elsewhere the smaller tiles were never quicker, and press on nothing
    less. `channels` is the smaller count of input and output channels.
    """
    window = direct.window
    if direct.plain_input or (window.kernel, window.strides, window.dilations) != ((3, 3), (1, 1), (1, 1)):
        return []
    if channels < LEAST_CHANNELS:
        return []
    large, small = winograd_of(direct, 4), winograd_of(direct, 2)
    found = [4] if saving(large) >= LEAST_SAVING else []
    light = elements(large.inputs[1][0]) * width("float32") <= L2_BYTES
    if saving(small) >= LEAST_SAVING and not (light and saving(large) >= MUCH_SAVING):
        found.append(2)
    return found


def _form(low: Lowering, kernel: Winograd, data: int, name: str, w: Any) -> Form:
    form = f"winograd {kernel.m} {kernel.cb} {kernel.in_lanes} {kernel.out_lanes}"
    return kernel, [data, low.weight(name, form, lambda: pack_winograd(w, kernel), kernel.inputs[1])]


def winograd_of(direct: Conv, m: int) -> Winograd:
    """The same convolution with tiles of m x m outputs, the register tile chosen by rule."""
    d = direct
    size = (d.n, d.in_blocks, d.in_lanes, d.h, d.w, d.out_blocks, d.out_lanes)
    kernel = Winograd(*size, d.window.pads, m, 1, d.registers, d.flops, chain=d.chain)
    return replace(kernel, cb=register_block(d.out_blocks, kernel.tiles, d.registers))


def saving(kernel: Winograd) -> float:
    """Multiplications of the direct convolution over those of the products."""
    _, _, oh, ow, _ = kernel.output
    return 9 * kernel.n * oh * ow / (kernel.side**2 * kernel.tiles)


def pack_winograd(w: Any, kernel: Winograd) -> Any:
    """(co, ci, 3, 3) -> (co / (cb * lo), (m + 2)^2, ci, cb * lo) transformed, zeros where channels were padded."""
    shape = kernel.inputs[1][0]
    out = np.zeros(shape, np.float32)
    for g, rows in enumerate(np.split(w, range(shape[3], w.shape[0], shape[3]))):  # one by one: in float64 all would be large
        u = transform_weights(rows, kernel.m).reshape(*rows.shape[:2], -1)
        out[g, :, : rows.shape[1], : rows.shape[0]] = u.transpose(2, 1, 0)
    return out
