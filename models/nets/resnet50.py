"""ResNet-50 (He et al., 2015, "Deep Residual Learning for Image Recognition", table 1), stride in the 3x3 as is usual since."""

from torch import Tensor, nn

from veltair.models.nets.layers import Classifier, ConvNorm

# blocks, inner width, stride of the first
STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
EXPANSION = 4


class Bottleneck(nn.Module):  # type: ignore[misc]  # torch is not type checked
    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = width * EXPANSION
        self.body = nn.Sequential(
            ConvNorm(channels_in, width, activation=nn.ReLU()),
            ConvNorm(width, width, 3, stride, activation=nn.ReLU()),
            ConvNorm(width, channels_out),
        )
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else ConvNorm(channels_in, channels_out, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Sequential):  # type: ignore[misc]
    """Images [n, 3, h, w] to logits [n, 1000]."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [ConvNorm(3, 64, 7, 2, activation=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
        channels = 64
        for blocks, width, first_stride in STAGES:
            for block in range(blocks):
                layers.append(Bottleneck(channels, width, first_stride if block == 0 else 1))
                channels = width * EXPANSION
        super().__init__(*layers, Classifier(channels))
