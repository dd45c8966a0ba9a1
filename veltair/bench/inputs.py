"""What the tenants of a scenario send: real samples where the model is one of veltair.models, else random tensors."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from veltair.bench.scenario import Scenario
from veltair.bundle.format import PortSpec
from veltair.errors import UnknownModel
from veltair.models import MODELS
from veltair.models.source import Tensor, Tensors
from veltair.wire.messages import ModelInfo, Port

SAMPLES_PER_TENANT = 16  # enough that no answer is served from a warm cache by luck, few enough to make quickly


def inputs_of(scenario: Scenario, served: Sequence[ModelInfo]) -> list[list[Tensors]]:
    """Per tenant, the inputs to cycle through. Raises UnknownModel for a model the server does not have."""
    by_name = {info.name: info for info in served}
    inputs = []
    for number, tenant in enumerate(scenario.tenant):
        if (info := by_name.get(tenant.model)) is None:
            names = ", ".join(sorted(by_name)) or "none"
            raise UnknownModel(f"model {tenant.model!r} of tenant {tenant.name!r} is not served; served: {names}")
        source = _real(info, scenario.seed) or random_inputs(info.inputs, np.random.default_rng([scenario.seed, number, 1]))
        inputs.append(list(islice(source, SAMPLES_PER_TENANT)))
    return inputs


def _real(info: ModelInfo, seed: int) -> Iterator[Tensors] | None:
    """None where the served model only shares the name with one of ours, or its samples' libraries are missing."""
    model = MODELS.get(info.name)
    if model is None or model.missing():
        return None
    samples = (sample.inputs for sample in model.samples(seed))
    first = next(samples)
    if _shapes(first) != {port.name: (port.dtype, port.shape) for port in info.inputs}:
        return None
    return (inputs for source in ((first,), samples) for inputs in source)


def _shapes(tensors: Tensors) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    return {name: (tensor.dtype.name, tensor.shape) for name, tensor in tensors.items()}


def random_inputs(ports: Iterable[PortSpec | Port], rng: np.random.Generator) -> Iterator[Tensors]:
    """Tensors of the ports' shapes and dtypes without end, each within range of what a model may look up by it."""
    ports = tuple(ports)
    while True:
        yield {port.name: _tensor(port, rng) for port in ports}


def _tensor(port: PortSpec | Port, rng: np.random.Generator) -> Tensor:
    dtype = np.dtype(port.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(port.shape).astype(dtype)
    if port.dtype == "uint8":  # an image
        return rng.integers(0, 256, port.shape, dtype=np.uint8)
    return rng.integers(0, 2, port.shape).astype(dtype)  # token ids and masks: 0 and 1 are in range of every table
