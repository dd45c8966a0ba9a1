"""MobileNet-V2 (Sandler et al., 2018, "Inverted Residuals and Linear Bottlenecks", table 2)."""

from torch import Tensor, nn

from veltair.models.nets.layers import Classifier, ConvNorm

# expansion, channels out, blocks, stride of the first
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM, HEAD = 32, 1_280


class InvertedResidual(nn.Module):  # type: ignore[misc]  # torch is not type checked
    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.body = nn.Sequential(
            *([ConvNorm(channels_in, wide, activation=nn.ReLU6())] if expansion > 1 else []),
            ConvNorm(wide, wide, 3, stride, groups=wide, activation=nn.ReLU6()),
            ConvNorm(wide, channels_out),
        )
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Sequential):  # type: ignore[misc]
    """Images [n, 3, h, w] to logits [n, 1000]."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [ConvNorm(3, STEM, 3, 2, activation=nn.ReLU6())]
        channels = STEM
        for expansion, channels_out, blocks, first_stride in STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, channels_out, first_stride if block == 0 else 1, expansion))
                channels = channels_out
        super().__init__(*layers, ConvNorm(channels, HEAD, activation=nn.ReLU6()), Classifier(HEAD))
