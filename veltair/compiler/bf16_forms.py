"""Which convolutions and products are offered in bf16 too, on CPUs that multiply it."""

from dataclasses import fields
from typing import Any

from veltair.compiler.lower import Form, Lowering
from veltair.compiler.schedules.attention import Attention
from veltair.compiler.schedules.attention_bf16 import AttentionBf16
from veltair.compiler.schedules.bf16 import LANES
from veltair.compiler.schedules.conv import Conv
from veltair.compiler.schedules.conv_bf16 import ConvBf16
from veltair.compiler.schedules.conv_bf16 import tile_vectors as conv_vectors
from veltair.compiler.schedules.gemm import Gemm
from veltair.compiler.schedules.gemm_bf16 import GemmBf16
from veltair.compiler.schedules.gemm_bf16 import tile_vectors as gemm_vectors
from veltair.compiler.schedules.image_bf16 import ImageConvBf16


def conv_bf16_forms(low: Lowering, direct: Conv, data: int, name: str, w: Any) -> list[Form]:
    """The bf16 form of a convolution of packed channels. `w` is (co, ci, kh, kw)."""
    if low.bf16 and direct.plain_input:
        return _image_forms(low, direct, data, name, w)
    if not low.bf16 or direct.in_lanes % 2 or direct.out_lanes % 8:
        return []
    kernel = conv_bf16_of(direct)
    if not kernel.candidates():
        return []
    form = f"bf16 {kernel.vectors} {direct.in_lanes} {direct.out_lanes}"
    return [(kernel, [data, low.weight(name, form, lambda: kernel.pack(w), kernel.inputs[1])])]


def _image_forms(low: Lowering, direct: Conv, data: int, name: str, w: Any) -> list[Form]:
    kernel = image_bf16_of(direct)
    if kernel is None:
        return []
    form = f"bf16 image {kernel.vectors} {direct.out_lanes}"
    return [(kernel, [data, low.weight(name, form, lambda: kernel.pack(w), kernel.inputs[1])])]


def image_bf16_of(d: Conv) -> ImageConvBf16 | None:
    """The bf16 form of a convolution of plain channels, None where it has none."""
    if d.out_lanes % 8 or d.w < LANES or d.window.dilations != (1, 1) or d.window.kernel == (1, 1):
        return None
    vectors = conv_vectors(d.out_blocks * d.out_lanes, d.output[3])
    return ImageConvBf16(d.n, d.in_blocks, d.h, d.w, d.out_blocks, d.out_lanes, d.window, vectors, chain=d.chain)


def conv_bf16_of(d: Conv) -> ConvBf16:
    vectors = conv_vectors(d.out_blocks * d.out_lanes, d.output[3])
    return ConvBf16(d.n, d.in_blocks, d.in_lanes, d.h, d.w, d.out_blocks, d.out_lanes, d.window, vectors, chain=d.chain)


def gemm_bf16_forms(low: Lowering, exact: Gemm, data: int, name: str, w: Any) -> list[Form]:
    """The bf16 form of a product with constant weights `w`, (k, n)."""
    if not low.bf16:
        return []
    kernel = gemm_bf16_of(exact)
    return [(kernel, [data, low.weight(name, f"bf16 {kernel.vectors}", lambda: kernel.pack(w), kernel.inputs[1])])]


def gemm_bf16_of(g: Gemm) -> GemmBf16:
    return GemmBf16(g.m, g.k, g.n, gemm_vectors(g.m, g.n), chain=g.chain)


def attention_bf16_forms(low: Lowering, exact: Attention, reads: list[int]) -> list[Form]:
    """The bf16 form of an attention that reads these tensors."""
    kernel = AttentionBf16(**{field.name: getattr(exact, field.name) for field in fields(exact)})
    return [(kernel, reads)] if low.bf16 and kernel.fits else []
