"""EfficientNet-B0 (Tan and Le, 2019, "Rethinking Model Scaling", table 1): inverted bottlenecks with squeeze and excitation."""

from torch import Tensor, nn

from veltair.models.nets.layers import Classifier, ConvNorm

# blocks, kernel, stride of the first, expansion, channels out
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1_280
SQUEEZE = 4  # the gate's hidden layer, as a fraction of the block's input channels
NORM_EPSILON = 1e-3


def active(channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> ConvNorm:
    return ConvNorm(channels_in, channels_out, kernel, stride, groups=groups, activation=nn.SiLU(), epsilon=NORM_EPSILON)


class SqueezeExcitation(nn.Module):  # type: ignore[misc]  # torch is not type checked
    """Scales every channel by a gate (0..1) that sees the means of all channels."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Bottleneck(nn.Module):  # type: ignore[misc]
    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.body = nn.Sequential(
            *([active(channels_in, wide)] if expansion > 1 else []),
            active(wide, wide, kernel, stride, groups=wide),
            SqueezeExcitation(wide, channels_in // SQUEEZE),
            ConvNorm(wide, channels_out, epsilon=NORM_EPSILON),
        )
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class EfficientNetB0(nn.Sequential):  # type: ignore[misc]
    """Images [n, 3, h, w] to logits [n, 1000]."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [active(3, STEM, 3, 2)]
        channels = STEM
        for blocks, kernel, first_stride, expansion, channels_out in STAGES:
            for block in range(blocks):
                layers.append(Bottleneck(channels, channels_out, kernel, first_stride if block == 0 else 1, expansion))
                channels = channels_out
        super().__init__(*layers, active(channels, HEAD), Classifier(HEAD))
