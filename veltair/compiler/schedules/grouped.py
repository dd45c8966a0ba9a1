"""Convolution in groups: an output channel sums over the input channels of its own group alone.

Data lies as for `Conv`. An output block may hold channels of several groups, or share its group with other blocks; either way
it reads one range of input channels, `reach` of them, and its weights are zero where a channel of the range is not of the
group. With groups as wide as a block no zero is multiplied; narrower ones pay for what they share a register with.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from veltair.compiler.graph import Array, Shape
from veltair.compiler.schedules import nest
from veltair.compiler.schedules.conv import Conv


@dataclass(frozen=True)
class GroupedConv(Conv):
    """`channels` and `out_channels` are the model's own counts, both multiples of `groups`; blocks may be padded behind them.

    Weights are (co/lo, reach/l, kh, kw, l, lo), where l is a block of input channels if ranges start at blocks, else `reach`.
    """

    groups: int = 1
    out_channels: int = 0

    kind = "grouped"

    @property
    def group_inputs(self) -> int:
        return self.channels // self.groups

    @property
    def group_outputs(self) -> int:
        return self.out_channels // self.groups

    def first_channel(self, o: int) -> int:
        """Where the range of input channels of output block `o` starts."""
        return min(o * self.out_lanes // self.group_outputs * self.group_inputs, self.channels - self.reach)

    @property
    def reach(self) -> int:
        """Input channels from the first that an output block needs to the last, at most."""
        blocks = (
            (
                o * self.out_lanes // self.group_outputs,
                (min((o + 1) * self.out_lanes, self.out_channels) - 1) // self.group_outputs,
            )
            for o in range(self.out_blocks)
        )
        return max(last - first + 1 for first, last in blocks) * self.group_inputs

    @property
    def aligned(self) -> bool:
        """Whether every range is whole input blocks."""
        return self.reach % self.in_lanes == 0 and all(self.first_channel(o) % self.in_lanes == 0 for o in range(self.out_blocks))

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        data, _ = super().inputs
        lanes = self.in_lanes if self.aligned else self.reach
        return data, ((self.out_blocks, self.reach // lanes, *self.window.kernel, lanes, self.out_lanes), "float32")

    @property
    def depth(self) -> int:
        return self.reach

    @property
    def flops(self) -> int:
        """Two for each multiplication the model asks for."""
        _, _, oh, ow, _ = self.output
        return 2 * self.n * self.out_channels * self.group_inputs * self.window.taps(self.h, self.w, oh, ow)

    def sharing(self) -> list[int]:
        together = self.group_outputs // self.out_lanes if self.group_outputs % self.out_lanes == 0 else 1
        return [cb for cb in range(1, min(together, 8) + 1) if together % cb == 0]

    def channel(self, o: Any, c: Any, lane: Any) -> tuple[Any, Any]:
        group = tirx.floordiv(nest.number(o) * self.out_lanes, self.group_outputs)
        first = tirx.min(group * self.group_inputs, self.channels - self.reach)
        if self.aligned:
            return tirx.floordiv(first, self.in_lanes) + c, lane
        return tirx.floordiv(first + lane, self.in_lanes), tirx.floormod(first + lane, self.in_lanes)

    def pack(self, w: Array) -> Array:
        """(co, ci / groups, kh, kw) in the kernel's layout."""
        (shape, _) = self.inputs[1]
        _, chunks, kh, kw, lanes, lo = shape
        out = np.zeros((self.out_blocks, lo, self.reach, kh, kw), np.float32)
        for channel in range(self.out_channels):
            o, lane = divmod(channel, lo)
            start = channel // self.group_outputs * self.group_inputs - self.first_channel(o)
            out[o, lane, start : start + self.group_inputs] = w[channel]
        return np.ascontiguousarray(out.reshape(self.out_blocks, lo, chunks, lanes, kh, kw).transpose(0, 2, 4, 5, 3, 1))
