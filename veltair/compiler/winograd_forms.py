"""Which convolutions are offered in Winograd's form too, and how their weights are transformed and packed for it."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np

from veltair.compiler.graph import elements
from veltair.compiler.lower import Form, Lowering
from veltair.compiler.schedules import winograd_bf16
from veltair.compiler.schedules.base import L2_BYTES, width
from veltair.compiler.schedules.conv import Conv
from veltair.compiler.schedules.winograd import Winograd, register_block
from veltair.compiler.schedules.winograd_bf16 import WinogradBf16
from veltair.compiler.schedules.winograd_transform import transform_weights

LEAST_CHANNELS = 16  # in and out: below, the transforms cost what the products save
LEAST_SAVING = 1.4  # multiplications saved, after what tiles waste over the border
MUCH_SAVING = 3.2  # of 4: the larger tiles waste little
LEAST_CHANNELS_BF16 = 128  # in and out: with 64 the transforms leave a gain of a tenth, not worth the form's rounding
LEAST_TILES_BF16 = 24  # below, two cores multiply faster than memory brings the weights: tiles / 2 products wait for a byte
LEAST_SAVING_BF16 = 1.1  # multiplications, over the other form that needs fewest


def winograd_forms(low: Lowering, direct: Conv, data: int, name: str, w: Any) -> list[Form]:
    """The Winograd forms of a convolution where they can win. `w` is (co, ci, kh, kw)."""
    return [_form(low, winograd_of(direct, m), data, name, w) for m in worthwhile(direct, min(w.shape[:2]))]


def worthwhile(direct: Conv, channels: int) -> list[int]:
    """Tile sizes to offer: F(4x4, 3x3) where its tiles fit the image well enough, and F(2x2, 3x3) where those do not or where
    the larger tiles' weights outgrow the private cache. Elsewhere the smaller tiles were never quicker, and press on nothing
    less. `channels` is the smaller count of input and output channels.
    """
    if not _applies(direct) or channels < LEAST_CHANNELS:
        return []
    large, small = winograd_of(direct, 4), winograd_of(direct, 2)
    found = [4] if saving(large) >= LEAST_SAVING else []
    light = elements(large.inputs[1][0]) * width("float32") <= L2_BYTES
    if saving(small) >= LEAST_SAVING and not (light and saving(large) >= MUCH_SAVING):
        found.append(2)
    return found


def winograd_bf16_forms(low: Lowering, direct: Conv, data: int, name: str, w: Any) -> list[Form]:
    """The Winograd form with products in bf16, where it can win over all others."""
    if not low.bf16 or not _applies(direct) or direct.in_lanes % 8 or direct.out_lanes % 8:
        return []
    if not worthwhile_in_bf16(direct, min(w.shape[:2])):
        return []
    kernel = winograd_bf16_of(direct)
    form = f"winograd bf16 {kernel.cb} {kernel.in_lanes} {kernel.out_lanes}"
    return [(kernel, [data, low.weight(name, form, lambda: pack_winograd_bf16(w, kernel), kernel.inputs[1])])]


def worthwhile_in_bf16(direct: Conv, channels: int) -> bool:
    """Whether it saves enough over the direct form in bf16 and over F(4x4, 3x3) in fp32, of which each product counts for two,
    and has more to multiply than to wait for. `channels` is the smaller count of input and output channels.
    """
    large, small = winograd_of(direct, 4), winograd_of(direct, 2)
    if channels < LEAST_CHANNELS_BF16 or small.tiles < LEAST_TILES_BF16:
        return False
    _, _, oh, ow, _ = direct.output
    taps = direct.n * direct.window.taps(direct.h, direct.w, oh, ow)
    others = min(taps, 2 * large.side**2 * large.tiles)
    return others >= LEAST_SAVING_BF16 * small.side**2 * small.tiles


def _applies(direct: Conv) -> bool:
    window = direct.window
    return not direct.plain_input and (window.kernel, window.strides, window.dilations) == ((3, 3), (1, 1), (1, 1))


def _form(low: Lowering, kernel: Winograd, data: int, name: str, w: Any) -> Form:
    form = f"winograd {kernel.m} {kernel.cb} {kernel.in_lanes} {kernel.out_lanes}"
    return kernel, [data, low.weight(name, form, lambda: pack_winograd(w, kernel), kernel.inputs[1])]


def winograd_of(direct: Conv, m: int) -> Winograd:
    """The same convolution with tiles of m x m outputs, the register tile chosen by rule."""
    d = direct
    size = (d.n, d.in_blocks, d.in_lanes, d.h, d.w, d.out_blocks, d.out_lanes)
    kernel = Winograd(*size, d.window.pads, m, 1, d.registers, d.flops, chain=d.chain)
    return replace(kernel, cb=register_block(d.out_blocks, kernel.tiles, d.registers))


def winograd_bf16_of(direct: Conv) -> WinogradBf16:
    """The same convolution with tiles of 2 x 2 outputs and products in bf16."""
    plain = winograd_of(direct, 2)
    values = {field.name: getattr(plain, field.name) for field in fields(plain)}
    return WinogradBf16(**{**values, "cb": winograd_bf16.register_block(direct.out_blocks, plain.tiles)})


def saving(kernel: Winograd) -> float:
    """Multiplications of the direct convolution over those of the products."""
    _, _, oh, ow, _ = kernel.output
    return 9 * kernel.n * oh * ow / (kernel.side**2 * kernel.tiles)


def pack_winograd(w: Any, kernel: Winograd) -> Any:
    """(co, ci, 3, 3) -> (co / (cb * lo), (m + 2)^2, ci, cb * lo) transformed, zeros where channels were padded."""
    out = np.empty(kernel.inputs[1][0], np.float32)
    for part, transformed in zip(out, _transformed(w, kernel), strict=True):
        part[:] = transformed
    return out


def pack_winograd_bf16(w: Any, kernel: WinogradBf16) -> Any:
    """(co, ci, 3, 3) -> (co / (cb * lo), 16, ci / 2, cb * lo) words of two input channels each."""
    out = np.empty(kernel.inputs[1][0], np.int32)
    for part, transformed in zip(out, _transformed(w, kernel), strict=True):
        part[:] = kernel.as_words(transformed)
    return out


def _transformed(w: Any, kernel: Winograd) -> Iterator[Any]:
    """Of each group of output channels, (points, ci, cb * lo): one by one, since in float64 all would be large."""
    lanes = kernel.cb * kernel.out_lanes
    for first in range(0, kernel.out_blocks * kernel.out_lanes, lanes):
        rows = w[first : first + lanes]
        out = np.zeros((kernel.side**2, kernel.in_blocks * kernel.in_lanes, lanes), np.float32)
        u = transform_weights(rows, kernel.m).reshape(*rows.shape[:2], -1)
        out[:, : rows.shape[1], : rows.shape[0]] = u.transpose(2, 1, 0)
        yield out
