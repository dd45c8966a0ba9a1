"""Tiny YOLOv2 for the 20 classes of Pascal VOC (Redmon and Farhadi, 2016, "YOLO9000"; the `yolov2-tiny-voc` of Darknet)."""

from torch import Tensor, nn

from veltair.models.nets.layers import ConvNorm

PIXELS = 416
CLASSES, ANCHORS = 20, 5
OUTPUTS = ANCHORS * (4 + 1 + CLASSES)  # each anchor: box, objectness, classes
HALVED, KEPT = (16, 32, 64, 128, 256), 512  # channels of the convolutions before the five halving pools and the last one
DEEP = (1_024, 1_024)


class PoolInPlace(nn.Module):  # type: ignore[misc]  # torch is not type checked
    """Max over 2x2 at stride 1; the row and column missing behind the last count as the lowest of numbers."""

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (0, 1, 0, 1), value=float("-inf"))
        return nn.functional.max_pool2d(padded, 2, 1)


class TinyYoloV2(nn.Sequential):  # type: ignore[misc]
    """Images [n, 3, 416, 416] to the raw grid [n, 125, 13, 13]."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        channels = 3
        for width in (*HALVED, KEPT, *DEEP):
            layers.append(ConvNorm(channels, width, 3, activation=nn.LeakyReLU(0.1)))
            if width in HALVED:
                layers.append(nn.MaxPool2d(2))
            elif width == KEPT:
                layers.append(PoolInPlace())
            channels = width
        super().__init__(*layers, nn.Conv2d(channels, OUTPUTS, 1))
