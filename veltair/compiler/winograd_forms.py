"""Which convolutions are offered in Winograd's form too, and how their weights are transformed and packed for it."""

from typing import Any

import numpy as np

from veltair.compiler.lower import Form, Lowering
from veltair.compiler.schedules.conv import Conv
from veltair.compiler.schedules.winograd import Winograd, register_block
from veltair.compiler.schedules.winograd_transform import transform_weights

SIZES = (4, 2)  # rows and columns of outputs in a tile
LEAST_CHANNELS = 16  # in and out: below, the transforms cost what the products save
LEAST_SAVING = 1.4  # multiplications saved, after what tiles over the border waste


def winograd_forms(low: Lowering, direct: Conv, data: int, name: str, w: Any) -> list[Form]:
    """F(4x4, 3x3) and F(2x2, 3x3) of a 3x3 convolution with stride 1, where they can win. `w` is (co, ci, 3, 3)."""
    window = direct.window
    if direct.plain_input or (window.kernel, window.strides, window.dilations) != ((3, 3), (1, 1), (1, 1)):
        return []
    if min(w.shape[:2]) < LEAST_CHANNELS:
        return []
    found: list[Form] = []
    for m in SIZES:
        kernel = winograd_of(direct, m)
        if saving(kernel) >= LEAST_SAVING:
            form = f"winograd {m} {kernel.cb} {kernel.in_lanes} {kernel.out_lanes}"
            weight = low.weight(name, form, lambda k=kernel: pack_winograd(w, k), kernel.inputs[1])  # type: ignore[misc]
            found.append((kernel, [data, weight]))
    return found


def winograd_of(direct: Conv, m: int) -> Winograd:
    """The same convolution with tiles of m x m outputs, the register tile chosen by rule."""
    d = direct
    wide = Winograd(
        d.n, d.in_blocks, d.in_lanes, d.h, d.w, d.out_blocks, d.out_lanes, d.window.pads, m, 1, d.registers, chain=d.chain
    )
    cb = register_block(d.out_blocks, wide.tiles, d.registers)
    return Winograd(
        d.n, d.in_blocks, d.in_lanes, d.h, d.w, d.out_blocks, d.out_lanes, d.window.pads, m, cb, d.registers, chain=d.chain
    )


def saving(kernel: Winograd) -> float:
    """Multiplications of the direct convolution over those of the products."""
    _, _, oh, ow, _ = kernel.output
    return 9 * kernel.n * oh * ow / (kernel.side**2 * kernel.tiles)


def pack_winograd(w: Any, kernel: Winograd) -> Any:
    """(co, ci, 3, 3) -> (co / (cb * lo), (m + 2)^2, ci, cb * lo) transformed, zeros where channels were padded."""
    groups, points, channels, width = kernel.inputs[1][0]
    co, ci = w.shape[:2]
    out = np.zeros((groups * width, channels, points), np.float32)
    out[:co, :ci] = transform_weights(w, kernel.m).reshape(co, ci, points)
    return np.ascontiguousarray(out.reshape(groups, width, channels, points).transpose(0, 3, 2, 1))
