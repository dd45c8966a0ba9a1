"""What several of the convolutional networks are made of."""

from torch import Tensor, nn


class ConvNorm(nn.Sequential):  # type: ignore[misc]  # torch is not type checked
    """A convolution without bias, its batch norm, and an activation (None: linear). Sides are padded by half the kernel."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        activation: nn.Module | None = None,
        epsilon: float = 1e-5,
    ) -> None:
        conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        norm = nn.BatchNorm2d(channels_out, eps=epsilon)
        super().__init__(conv, norm, *([activation] if activation is not None else []))


class Classifier(nn.Module):  # type: ignore[misc]
    """The mean of every channel, then one linear layer: [n, c, h, w] to [n, classes]."""

    def __init__(self, channels: int, classes: int = 1_000) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(nn.functional.adaptive_avg_pool2d(features, 1).flatten(1))
