"""Weights for networks whose trained ones no package carries: drawn from a seed, so scaled that values stay in range.

Convolutions draw as He et al. (2015, "Delving Deep into Rectifiers"), linear layers so that unit variance stays unit
variance. Batch norms then learn their mean and variance from one pass over made-up pictures, layer by layer as it runs:
behind each of them values have the spread that a trained network would have.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import sqrt

import torch
from torch import Tensor, nn

CALIBRATION_PICTURES = 8
LOGIT_SPREAD = 3.0  # standard deviation over classes and pictures: a softmax with a clear favourite


def make(network: Callable[[], nn.Module], seed: int, picture: tuple[int, ...] | None = None) -> nn.Module:
    """The network with weights from `seed`, in evaluation mode. `picture` [3, h, w] is what batch norms are calibrated on."""
    with torch.device("meta"):  # no layer draws initial weights that would be thrown away
        module = network()
    module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad(), _one_thread():
        for layer in module.modules():
            _draw(layer, generator)
        if picture is not None:
            _calibrate(module, _pictures(picture, generator))
    return module.eval()


def _draw(layer: nn.Module, generator: torch.Generator) -> None:
    def normal(tensor: Tensor, spread: float, mean: float = 0.0) -> None:
        tensor.normal_(mean, spread, generator=generator)

    match layer:
        case nn.Conv2d():
            normal(layer.weight, sqrt(2 / layer.weight[0].numel()))
            if layer.bias is not None:
                normal(layer.bias, 0.1)
        case nn.Linear():
            normal(layer.weight, 1 / sqrt(layer.in_features))
            normal(layer.bias, 0.1)
        case nn.Embedding():
            normal(layer.weight, 1.0)
        case nn.LayerNorm():
            normal(layer.weight, 0.1, mean=1.0)
            normal(layer.bias, 0.1)
        case nn.BatchNorm2d():
            layer.weight.uniform_(0.5, 1.0, generator=generator)
            normal(layer.bias, 0.2)
            layer.reset_running_stats()


def _pictures(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise of equal strength at every scale, as photographs have it, in several contrasts; about mean 0 and variance 1."""
    pictures = torch.zeros(CALIBRATION_PICTURES, *shape)
    for side in (2, 4, 8, 16, 32, 64, 128):
        noise = torch.randn(CALIBRATION_PICTURES, shape[0], side, side, generator=generator)
        pictures += nn.functional.interpolate(noise, shape[1:], mode="bicubic", align_corners=False)
    pictures *= torch.linspace(0.5, 1.5, CALIBRATION_PICTURES).reshape(-1, 1, 1, 1)
    return (pictures - pictures.mean((0, 2, 3), keepdim=True)) / pictures.std((0, 2, 3), keepdim=True)


def _calibrate(module: nn.Module, pictures: Tensor) -> None:
    """Mean and variance of each batch norm become those of what flows through it; logits get the spread of a trained network's.

    What all pictures have in common stays in them. Without it only the small differences between features would be left, which
    an untrained network keeps small: the last layer would magnify every rounding error many times over, as no trained one does.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0  # the running value is the last batch's
    module.train()(pictures)
    module.eval()
    for layer in module.modules():
        if isinstance(layer, nn.Linear):  # only classifiers among the networks that see pictures have one, their last layer
            logits = module(pictures)
            scale = LOGIT_SPREAD / logits.std()
            layer.weight *= scale
            layer.bias *= scale


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, whatever the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
