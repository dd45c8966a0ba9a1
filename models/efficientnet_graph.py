"""EfficientNet-Lite0 as ONNX, batch norms as published (the compiler folds them)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from veltair.models.efficientnet_layers import CLASSES, HEAD_CONV, NORM_EPSILON, PIXELS, STEM_CONV, Conv, blocks
from veltair.models.onnx_graph import GraphWriter
from veltair.models.source import Tensor


def write_efficientnet(weights: Mapping[str, Tensor], path: Path) -> Path:
    """Input `image` [1, 3, 224, 224], output `logits` [1, 1000], both float32."""
    graph = _Convolutions(weights)
    hidden = graph.conv(STEM_CONV, "image")
    for number, block in enumerate(blocks()):
        skip = hidden
        for conv in block.convs:
            hidden = graph.conv(conv, hidden)
        if block.residual:
            hidden = graph.node("Add", [hidden, skip], f"_blocks.{number}")
    hidden = graph.node("GlobalAveragePool", [graph.conv(HEAD_CONV, hidden)], "pooled")
    flat = graph.node("Flatten", [hidden], "features")
    matrix, bias = (graph.weight(name, weights[name]) for name in ("_fc.weight", "_fc.bias"))
    graph.node("Gemm", [flat, matrix, bias], "logits", transB=1)
    return graph.save(path, {"image": ("float32", (1, 3, PIXELS, PIXELS))}, {"logits": ("float32", (1, CLASSES))})


class _Convolutions(GraphWriter):
    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__("efficientnet-lite0")
        self._of = weights
        self._pixels = PIXELS

    def conv(self, conv: Conv, hidden: str) -> str:
        before, after = conv.padding(self._pixels)
        self._pixels = -(-self._pixels // conv.stride)
        kernel = self.weight(f"{conv.weights}.weight", self._of[f"{conv.weights}.weight"])
        strides, pads = [conv.stride] * 2, [before, before, after, after]
        hidden = self.node(
            "Conv", [hidden, kernel], conv.weights, kernel_shape=[conv.kernel] * 2, strides=strides, pads=pads, group=conv.groups
        )
        statistics = [f"{conv.norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        norm = [hidden, *(self.weight(name, self._of[name]) for name in statistics)]
        hidden = self.node("BatchNormalization", norm, conv.norm, epsilon=NORM_EPSILON)
        if not conv.active:
            return hidden
        bounds = [self.weight("zero", np.array(0, np.float32)), self.weight("six", np.array(6, np.float32))]
        return self.node("Clip", [hidden, *bounds], f"{conv.norm}.relu6")
