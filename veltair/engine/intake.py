"""What is checked of a request before the scheduler hears of it. Kernels trust their memory, so nothing unchecked passes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from veltair.bundle.check import tensor_bytes
from veltair.bundle.format import PortSpec
from veltair.config import TenantQos
from veltair.engine.program import Program
from veltair.errors import BadDeadline, BadTensor, UnknownModel, UnknownTenant
from veltair.wire.frames import DTYPES, Array, Buffer, tensors_from
from veltair.wire.messages import Infer, TensorHeader

MAX_BUDGET_US = 24 * 3600 * 1_000_000  # a day: anything above is a mistake of units


@dataclass(frozen=True, slots=True)
class Checked:
    """A request that may run. `inputs` are views of the frames it came in."""

    program: Program
    inputs: dict[str, Array]
    budget_us: int
    promise: TenantQos


class Intake:
    """Knows which tenant may use which model, and what each model takes."""

    def __init__(self, programs: Mapping[str, Program], promises: Sequence[TenantQos]) -> None:
        self._programs = programs
        self._ports = {name: (program.bundle.manifest.inputs, _headers(program)) for name, program in programs.items()}
        self._promises: dict[str, dict[str, TenantQos]] = {}
        for promise in promises:
            self._promises.setdefault(promise.tenant, {})[promise.model] = promise

    def check(self, infer: Infer, frames: Sequence[Buffer]) -> Checked:
        """Raises the RequestError that tells the client what to change."""
        models = self._promises.get(infer.tenant)
        if models is None:
            raise UnknownTenant(f"tenant {infer.tenant!r} is not known here; add it to the server's configuration")
        promise = models.get(infer.model)
        if promise is None:  # names only the tenant's own models: it must not learn of the others'
            raise UnknownModel(f"model {infer.model!r} is not served to {infer.tenant!r}; served: {', '.join(sorted(models))}")
        program = self._programs[infer.model]
        budget_us = promise.qos_us if infer.budget_us is None else infer.budget_us
        if not 0 < budget_us <= MAX_BUDGET_US:
            raise BadDeadline(
                f"a budget of {budget_us} us is not within 1..{MAX_BUDGET_US}; give the time left until the deadline"
            )
        ports, usual = self._ports[infer.model]
        # Nearly every request names exactly the model's inputs in their order: one comparison then takes the place of many.
        inputs = _as_declared(ports, frames) if infer.tensors == usual else None
        if inputs is None:
            inputs = tensors_from(infer.tensors, frames)
            check_inputs(ports, inputs)
        check_ranges(ports, inputs)
        return Checked(program, inputs, budget_us, promise)


def _headers(program: Program) -> tuple[TensorHeader, ...]:
    return tuple(TensorHeader(port.name, port.dtype, port.shape) for port in program.bundle.manifest.inputs)


def _as_declared(ports: Sequence[PortSpec], frames: Sequence[Buffer]) -> dict[str, Array] | None:
    """None where a frame does not hold its port's bytes: the slow way then says which."""
    if len(frames) != len(ports):
        return None
    inputs: dict[str, Array] = {}
    for port, frame in zip(ports, frames, strict=True):
        flat = np.frombuffer(frame, DTYPES[port.dtype]) if len(frame) == tensor_bytes(port) else None
        if flat is None:
            return None
        inputs[port.name] = flat.reshape(port.shape)
    return inputs


def check_inputs(ports: Sequence[PortSpec], inputs: Mapping[str, Array]) -> None:
    """Raises BadTensor unless `inputs` are exactly the tensors of `ports`, of their dtypes and shapes."""
    names = [port.name for port in ports]
    if set(inputs) != set(names):
        raise BadTensor(f"inputs {sorted(inputs)} were given; the model takes exactly {sorted(names)}")
    for port in ports:
        tensor = inputs[port.name]
        if tensor.dtype.name != port.dtype or tensor.shape != port.shape:
            raise BadTensor(
                f"input {port.name!r} is {tensor.dtype.name} {list(tensor.shape)}; "
                f"the model takes {port.dtype} {list(port.shape)}"
            )


def check_ranges(ports: Sequence[PortSpec], inputs: Mapping[str, Array]) -> None:
    """Raises BadTensor for integers out of their port's range: a kernel would look them up beyond the end of a table."""
    for port in ports:
        if port.max_value is not None:
            low, high = int(inputs[port.name].min()), int(inputs[port.name].max())
            if low < 0 or high >= port.max_value:
                limit = port.max_value - 1
                raise BadTensor(f"input {port.name!r} holds values from {low} to {high}; they must be within 0..{limit}")
