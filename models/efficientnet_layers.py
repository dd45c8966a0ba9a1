"""EfficientNet-Lite0 (Tan and Le, 2019; the Lite family drops squeeze-and-excitation and uses ReLU6), as a table of layers.

Both the PyTorch module and the ONNX graph are made from this table. Names are those of the published state dict.
"""

from collections.abc import Iterator
from dataclasses import dataclass

PIXELS = 224
CLASSES = 1_000
NORM_EPSILON = 1e-3
STEM, HEAD = 32, 1_280
# repeats, kernel, stride of the first, expansion, channels in, channels out
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution without bias, batch norm behind it, and ReLU6 where `active`."""

    weights: str
    norm: str
    channels_in: int
    channels_out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    active: bool = True

    def padding(self, pixels: int) -> tuple[int, int]:
        """Before and after each side, as TensorFlow's SAME has it: the odd one goes behind."""
        out = -(-pixels // self.stride)
        total = max((out - 1) * self.stride + self.kernel - pixels, 0)
        return total // 2, total - total // 2


@dataclass(frozen=True, slots=True)
class Block:
    """An inverted bottleneck; its input is added to its output where `residual`."""

    convs: tuple[Conv, ...]
    residual: bool


STEM_CONV = Conv("_conv_stem", "_bn0", 3, STEM, kernel=3, stride=2)
HEAD_CONV = Conv("_conv_head", "_bn1", STAGES[-1][-1], HEAD)


def blocks() -> Iterator[Block]:
    number = 0
    for repeats, kernel, first_stride, expansion, stage_in, channels_out in STAGES:
        for repeat in range(repeats):
            stride, channels_in = (first_stride, stage_in) if repeat == 0 else (1, channels_out)
            name, wide = f"_blocks.{number}", channels_in * expansion
            expand = (Conv(f"{name}._expand_conv", f"{name}._bn0", channels_in, wide),) if expansion > 1 else ()
            deep = Conv(f"{name}._depthwise_conv", f"{name}._bn1", wide, wide, kernel, stride, groups=wide)
            project = Conv(f"{name}._project_conv", f"{name}._bn2", wide, channels_out, active=False)
            yield Block((*expand, deep, project), residual=stride == 1 and channels_in == channels_out)
            number += 1
