"""A network as ONNX, weights in a file beside it: protobuf cannot hold 2 GiB, and copying less than that twice is waste too."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

OPSET = 18  # the exporter's own; it writes others by conversion


def export(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], path: Path) -> Path:
    """Writes `path` and `path`.data, shapes fixed to those of `inputs`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exporters = logging.getLogger("torch.onnx")  # says at every run which optional packages it would also know
    before = exporters.level
    exporters.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecations inside torch and onnxscript
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                path,
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=OPSET,
                dynamo=True,
                external_data=True,
                verbose=False,
            )
    finally:
        exporters.setLevel(before)
    return path
