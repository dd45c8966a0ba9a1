"""Where a value lies in memory: plain (its own shape) or packed (channels in blocks that fill one vector register)."""

from collections.abc import Sequence

import numpy as np

from veltair.compiler.graph import Array, Shape


def channel_block(channels: int, lanes: int) -> int:
    """Channels of a block: a whole register, or half of a wide one where that saves a sixteenth of the padded channels.

    24 channels are 3 blocks of 8, not 2 of 16: two half-wide multiply-adds take the time of a whole one on the cores this
    was measured on. A quarter register or less would waste more than padding does.
    """
    whole, half = (-(-channels // b) * b for b in (lanes, lanes // 2))
    return lanes // 2 if lanes >= 16 and 16 * half <= 15 * whole else lanes


def blocks_of(channels: int, block: int) -> int:
    return -(-channels // block)


def spatial(shape: Shape) -> tuple[int, int]:
    """Rows and columns of an (n, c, ...) shape; a rank-3 value is one row."""
    if len(shape) == 3:
        return 1, shape[2]
    return shape[2], shape[3]


def can_pack(shape: Shape) -> bool:
    return len(shape) in (3, 4)


def packed_shape(shape: Shape, block: int) -> Shape:
    return (shape[0], blocks_of(shape[1], block), *spatial(shape), block)


def pack(value: Array, block: int) -> Array:
    """(n, c, ...) -> packed, zeros behind the last channel."""
    n, c = value.shape[:2]
    h, w = spatial(tuple(value.shape))
    blocks = blocks_of(c, block)
    out = np.zeros((n, blocks * block, h, w), value.dtype)
    out[:, :c] = value.reshape(n, c, h, w)
    return np.ascontiguousarray(out.reshape(n, blocks, block, h, w).transpose(0, 1, 3, 4, 2))


def unpack(value: Array, shape: Sequence[int]) -> Array:
    n, blocks, h, w, block = value.shape
    plain = value.transpose(0, 1, 4, 2, 3).reshape(n, blocks * block, h, w)[:, : shape[1]]
    return np.ascontiguousarray(plain).reshape(tuple(shape))
