"""GoogLeNet (Szegedy et al., 2014, "Going Deeper with Convolutions", table 1) with batch norm in place of local response
norm (Ioffe and Szegedy, 2015) and without the two heads that only serve training."""

import torch
from torch import Tensor, nn

from veltair.models.nets.layers import Classifier, ConvNorm

# 1x1, 3x3 reduced, 3x3, 5x5 reduced, 5x5, pool projected; None: a max pool that halves the sides
MODULES: tuple[tuple[int, int, int, int, int, int] | None, ...] = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    None,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    None,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


def active(channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1) -> ConvNorm:
    return ConvNorm(channels_in, channels_out, kernel, stride, activation=nn.ReLU())


class Inception(nn.Module):  # type: ignore[misc]  # torch is not type checked
    def __init__(self, channels_in: int, one: int, three_in: int, three: int, five_in: int, five: int, pooled: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            (
                active(channels_in, one),
                nn.Sequential(active(channels_in, three_in), active(three_in, three, 3)),
                nn.Sequential(active(channels_in, five_in), active(five_in, five, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), active(channels_in, pooled)),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class GoogLeNet(nn.Sequential):  # type: ignore[misc]
    """Images [n, 3, h, w] to logits [n, 1000]."""

    def __init__(self) -> None:
        def halve() -> nn.MaxPool2d:
            return nn.MaxPool2d(3, 2, 1)

        layers: list[nn.Module] = [active(3, 64, 7, 2), halve(), active(64, 64), active(64, 192, 3), halve()]
        channels = 192
        for widths in MODULES:
            if widths is None:
                layers.append(halve())
                continue
            layers.append(Inception(channels, *widths))
            one, _, three, _, five, pooled = widths
            channels = one + three + five + pooled
        super().__init__(*layers, Classifier(channels))
