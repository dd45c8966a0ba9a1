"""EfficientNet-Lite0 in PyTorch, with the names of the published state dict. Needs the `torch` extra."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from veltair.models.efficientnet_layers import CLASSES, HEAD, HEAD_CONV, NORM_EPSILON, STEM_CONV, Conv, blocks


class EfficientNetLite0(nn.Module):  # type: ignore[misc]  # torch is not type checked
    """Images [n, 3, 224, 224] to logits [n, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        table = list(blocks())
        self._blocks = nn.ModuleList(nn.Module() for _ in table)
        for conv in (STEM_CONV, *(conv for block in table for conv in block.convs), HEAD_CONV):
            self._place(conv)
        self._fc = nn.Linear(HEAD, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self._run(STEM_CONV, images)
        for block in blocks():
            skip = hidden
            for conv in block.convs:
                hidden = self._run(conv, hidden)
            if block.residual:
                hidden = hidden + skip
        return self._fc(self._run(HEAD_CONV, hidden).mean(dim=(2, 3)))

    def _place(self, conv: Conv) -> None:
        home, _, name = conv.weights.rpartition(".")
        owner = self.get_submodule(home)
        layer = nn.Conv2d(conv.channels_in, conv.channels_out, conv.kernel, conv.stride, groups=conv.groups, bias=False)
        owner.add_module(name, layer)
        owner.add_module(conv.norm.rpartition(".")[2], nn.BatchNorm2d(conv.channels_out, eps=NORM_EPSILON))

    def _run(self, conv: Conv, hidden: Tensor) -> Tensor:
        before, after = conv.padding(hidden.shape[-1])
        padded = functional.pad(hidden, (before, after, before, after))
        hidden = self.get_submodule(conv.norm)(self.get_submodule(conv.weights)(padded))
        return functional.relu6(hidden) if conv.active else hidden


def load(state_dict: Path) -> EfficientNetLite0:
    """The module in evaluation mode; a missing or superfluous weight is an error."""
    model = EfficientNetLite0()
    model.eval().load_state_dict(torch.load(state_dict, map_location="cpu", weights_only=True), strict=True)
    return model
