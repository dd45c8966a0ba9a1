"""Winograd convolution with products in bf16 (see `winograd` and `bf16`): 2.25 times fewer of them than the direct bf16 way.

Data and weights are transformed in fp32 and then rounded, once each; products are summed, and transformed back, in fp32. Only
tiles of 2 x 2 outputs: against the direct form their errors are 1.6 times larger (measured on normal data), those of 4 x 4
outputs would be 4 to 5 times larger and come near the tolerance in a single layer. Weights take 16/9 of the direct form's
bytes and are one stream for each core, of which each register tile asks for the next point's while it multiplies.
"""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T  # noqa: N812 (the name TVM's own code gives it)

from veltair.compiler.graph import Array, Shape
from veltair.compiler.schedules import bf16, winograd
from veltair.compiler.schedules.base import Knobs, divisors
from veltair.compiler.schedules.bf16_tile import Loop, Step, Tile
from veltair.compiler.schedules.winograd import Winograd


@dataclass(frozen=True)
class WinogradBf16(Winograd):
    """As `Winograd`, with `in_lanes` and `out_lanes` of 8 or 16."""

    kind = "winograd_bf16"
    precision = "bf16"
    tolerance = bf16.TOLERANCE

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        data, (weight, _) = super().inputs
        groups, points, channels, lanes = weight
        return (data, ((groups, points, channels // 2, lanes), "int32"))

    @property
    def tile_bytes(self) -> int:
        return self.side**2 * (2 * self.in_blocks * self.in_lanes + 4 * self.cb * self.out_lanes)

    def cost(self, tr: int, cores: int = 1) -> float:
        return _cost(self.cb, tr, -(-self.tiles // cores))

    def build(self, knobs: Knobs) -> Any:
        return _Builder(self, knobs or self.candidates()[0]).function()

    def as_words(self, transformed: Array) -> Array:
        """(points, ci, lanes) fp32 -> (points, ci / 2, lanes) words, two input channels each."""
        points, channels, lanes = transformed.shape
        pairs = transformed.reshape(points, channels // 2, 2, lanes).transpose(0, 1, 3, 2)
        return np.ascontiguousarray(pairs.astype(ml_dtypes.bfloat16)).view(np.int32)[..., 0]


def register_block(out_blocks: int, tiles: int) -> int:
    """The output blocks of a register tile that promise the fastest products."""

    def best(cb: int) -> float:
        uneven = 1.03 if out_blocks // cb % 2 else 1.0  # between two cores
        return uneven * min(_cost(cb, tr, tiles) for tr in range(1, bf16.MAX_TILE // cb + 1)) / cb

    return min(divisors(out_blocks, 8), key=best)


def _cost(cb: int, tr: int, tiles: int) -> float:
    full, tail = divmod(tiles, tr)
    return full * bf16.tile_cost(cb, tr) + (bf16.tile_cost(cb, tail) if tail else 0)


class _Builder(winograd.Builder):
    per_word = 2
    word = "int32"

    def __init__(self, k: WinogradBf16, knobs: Knobs) -> None:
        super().__init__(k, knobs)
        self.lanes = k.cb * k.out_lanes
        self.code: dict[str, str] = {}

    def function(self) -> Any:
        plain = super().function()
        return bf16.function(plain.params, plain.body, self.code)

    def _as_words(self, value: Any) -> Any:
        return tirx.call_pure_extern(f"int32x{self.words}", f"veltair_round{2 * self.words}", value)

    def _product_at(self, point: Any, o: Any, tile: Any) -> Any:
        return point * self.product_stride + tile * self.lanes + o * self.k.out_lanes

    def _products(self, products: Any, group: Any, point: Any, valid: Any) -> None:
        """Chunks are whole register tiles, but for the last: `valid` is no constant where the tiles are not, too."""
        full, tail = valid // self.tr, self.k.tiles % self.tr
        with T.serial(0, full) as run:
            self._tile(products, group, point, run * self.tr, self.tr, run)
        if tail:
            with T.If(valid % self.tr == tail), T.Then():
                self._tile(products, group, point, full * self.tr, tail, full)

    def _tile(self, products: Any, group: Any, point: Any, t0: Any, size: int, sweep: Any) -> None:
        """A register tile of `size` tiles, written as it stands: rows of all lanes of the group."""
        k, pairs = self.k, self.words
        [columns] = bf16.split_columns(self.lanes, bf16.MAX_TILE)
        words = k.in_blocks * pairs * self.lanes
        ahead = bf16.Ahead(words, k.in_blocks, -(-self.chunk // self.tr))
        steps = tuple(Step(p * self.lanes, tuple((z, z * pairs + p) for z in range(size))) for p in range(pairs))
        tile = Tile(columns.widths, size, (Loop(k.in_blocks, self.chunk * pairs, pairs * self.lanes),), steps, ahead.lines)
        self.code[tile.name] = tile.text
        to = self._product_at(point, 0, t0)
        start = ahead.start(0, sweep) if ahead.lines else 0
        places = [
            products[to],
            products[to + size * self.lanes - 1],
            self.scratch[point * self.data_stride + t0 * pairs],
            self.weights[group, point, 0, 0],
            self.weights[group, point, 0, start],
        ]
        T.evaluate(tirx.call_extern("int32", tile.name, *map(tirx.address_of, places), 0))
