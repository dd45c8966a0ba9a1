"""SSD300 on ResNet-34, the detector of MLPerf Training v0.5 to v1.0 (Liu et al., 2016, "SSD: Single Shot MultiBox Detector").

The backbone ends after the third stage of ResNet-34, whose stride is 1, so that the first feature map has 38x38 places.
"""

import torch
from torch import Tensor, nn

from veltair.models.nets.layers import ConvNorm

PIXELS = 300
CLASSES = 81  # COCO's 80 and the background
# blocks, channels, stride of the first
STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 1))
# channels inside, channels out, stride and padding of the 3x3: 38 -> 19 -> 10 -> 5 -> 3 -> 1
EXTRAS = ((256, 512, 2, 1), (256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0))
BOXES = (4, 6, 6, 6, 4, 4)  # anchors at each place of each map
ANCHORS = sum(boxes * side * side for boxes, side in zip(BOXES, (38, 19, 10, 5, 3, 1), strict=True))


class BasicBlock(nn.Module):  # type: ignore[misc]  # torch is not type checked
    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(channels_in, channels_out, 3, stride, activation=nn.ReLU()), ConvNorm(channels_out, channels_out, 3)
        )
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else ConvNorm(channels_in, channels_out, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x))


class SsdResNet34(nn.Module):  # type: ignore[misc]
    """Images [n, 3, 300, 300] to box regressions [n, 4, 8732] and class scores [n, 81, 8732], before any suppression."""

    def __init__(self) -> None:
        super().__init__()
        stem: list[nn.Module] = [ConvNorm(3, 64, 7, 2, activation=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
        channels = 64
        for blocks, width, first_stride in STAGES:
            for block in range(blocks):
                stem.append(BasicBlock(channels, width, first_stride if block == 0 else 1))
                channels = width
        maps: list[nn.Module] = [nn.Sequential(*stem)]
        widths = [channels]
        for inside, width, stride, padding in EXTRAS:
            wide = nn.Conv2d(inside, width, 3, stride, padding)
            maps.append(nn.Sequential(nn.Conv2d(channels, inside, 1), nn.ReLU(), wide, nn.ReLU()))
            widths.append(channels := width)
        self.maps = nn.ModuleList(maps)
        self.boxes = nn.ModuleList(nn.Conv2d(w, boxes * 4, 3, padding=1) for w, boxes in zip(widths, BOXES, strict=True))
        self.scores = nn.ModuleList(nn.Conv2d(w, boxes * CLASSES, 3, padding=1) for w, boxes in zip(widths, BOXES, strict=True))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores, features = [], [], images
        for deeper, box, score in zip(self.maps, self.boxes, self.scores, strict=True):
            features = deeper(features)
            boxes.append(box(features).reshape(features.shape[0], 4, -1))
            scores.append(score(features).reshape(features.shape[0], CLASSES, -1))
        return torch.cat(boxes, dim=2), torch.cat(scores, dim=2)
