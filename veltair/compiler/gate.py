"""The gate: every variant of every block computes what ONNX Runtime computes, on real inputs, or the compile fails.

A block starts from the reference's values, so an error shows in the block that makes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime

from veltair.compiler import layout
from veltair.compiler.blocks import Span
from veltair.compiler.line import Line, Tensor, tensor_of_value
from veltair.engine.program import Program
from veltair.errors import CompileError, GateFailed

TOLERANCE = 1e-4  # of the largest magnitude in the reference, fp32


@dataclass(frozen=True, slots=True)
class Verdict:
    errors: list[list[float]]  # block -> variant -> worst error over all inputs and live values
    whole: list[float]  # variant -> worst error of the model's outputs, run from end to end
    inputs: int


class Reference:
    """The folded model in ONNX Runtime, with every value in `names` as an output."""

    def __init__(self, folded: bytes, names: Sequence[str]) -> None:
        model = onnx.load_model_from_string(folded)
        present = {o.name for o in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # as it stands: fusing would change the rounding of the values that are compared
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._names = [o.name for o in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(self._names, self._session.run(None, dict(inputs)), strict=True))


def made_values(folded: bytes) -> frozenset[str]:
    """Names the reference can be asked for."""
    return frozenset(o for node in onnx.load_model_from_string(folded).graph.node for o in node.output if o)


def check_inputs(line: Line, samples: Sequence[Mapping[str, Any]]) -> None:
    """Raises CompileError where a gate input does not fit the model's ports."""
    for number, sample in enumerate(samples):
        for name in sample.keys() - line.inputs.keys():
            raise CompileError(
                f"gate input {number} holds {name!r}, which is no input; the model takes {', '.join(sorted(line.inputs))}"
            )
        for name, port in line.inputs.items():
            tensor = line.tensors[port]
            if name not in sample:
                raise CompileError(f"gate input {number} lacks {name!r}; it holds {', '.join(sorted(sample)) or 'nothing'}")
            value = np.asarray(sample[name])
            if tuple(value.shape) != tensor.shape or str(value.dtype) != tensor.dtype:
                raise CompileError(
                    f"gate input {number}: {name!r} is {value.dtype} {list(value.shape)}, "
                    f"the model takes {tensor.dtype} {list(tensor.shape)}"
                )


def run_gate(program: Program, line: Line, spans: Sequence[Span], folded: bytes, samples: Sequence[Mapping[str, Any]]) -> Verdict:
    """Raises GateFailed naming block, variant, value and error."""
    named = tensor_of_value(line)
    lives = [line.live_behind(s.end - 1) for s in spans]
    wanted = {name for live in lives for r in live if r in named and (name := named[r].value) is not None}
    reference = Reference(folded, sorted(wanted & made_values(folded)))
    blocks = program.bundle.manifest.blocks
    errors = [[0.0] * len(b.variants) for b in blocks]
    variants = max(len(b.variants) for b in blocks)
    whole = [0.0] * variants
    arena = program.new_arena()
    try:
        for sample in samples:
            values = {**reference.run(sample), **sample}
            for b, block in enumerate(blocks):
                before = lives[b - 1] if b else [line.root(t) for t in line.inputs.values()]
                for v in range(len(block.variants)):
                    program.write_inputs(arena, sample)
                    for root in before:
                        _write(arena, program, line, root, named[root].value, values)
                    program.run(arena, b, b + 1, (v,))
                    for root in lives[b]:
                        name = named[root].value
                        if name in values and root not in before:
                            error = _error(_read(arena, program, root, named[root], values[name].shape), values[name])
                            errors[b][v] = max(errors[b][v], error)
                            _judge(error, program, b, v, str(name))
            for v in range(variants):
                program.write_inputs(arena, sample)
                program.run(arena, 0, len(blocks), tuple(min(v, len(b.variants) - 1) for b in blocks))
                for port in program.bundle.manifest.outputs:
                    error = _error(arena.views[port.name], values[port.name])
                    whole[v] = max(whole[v], error)
                    # block errors add up along a deep model, so the whole is allowed a few of them
                    if not error <= 10 * TOLERANCE:
                        raise GateFailed(
                            f"{program.name}: output {port.name!r} of variant {v} is off by {error:.1e} of its range "
                            f"from ONNX Runtime (allowed {10 * TOLERANCE:.0e}); the bundle was not written"
                        )
    finally:
        program.release(arena)
    return Verdict(errors, whole, len(samples))


def _judge(error: float, program: Program, block: int, variant: int, value: str) -> None:
    if not error <= TOLERANCE:  # also catches NaN
        spec = program.bundle.manifest.blocks[block]
        raise GateFailed(
            f"{program.name}: block {spec.name!r}, variant {spec.variants[variant].name!r}: value {value!r} is off by "
            f"{error:.1e} of its range from ONNX Runtime (allowed {TOLERANCE:.0e}); the bundle was not written"
        )


def _error(ours: Any, reference: Any) -> float:
    """Largest deviation as a share of the reference's largest magnitude; integers must be equal."""
    reference = np.asarray(reference)
    if reference.dtype.kind != "f":
        return 0.0 if np.array_equal(ours, reference) else float("inf")
    scale = float(np.abs(reference).max(initial=0.0)) or 1.0
    return float(np.abs(np.asarray(ours, np.float64) - reference).max(initial=0.0)) / scale


def _bytes_of(arena: Any, program: Program, root: int, dtype: str, shape: Sequence[int]) -> Any:
    spec = program.bundle.manifest.tensors[root]
    size = int(np.prod(tuple(shape), dtype=np.int64)) * np.dtype(dtype).itemsize
    return arena.bytes[spec.offset : spec.offset + size].view(np.dtype(dtype)).reshape(tuple(shape))


def _write(arena: Any, program: Program, line: Line, root: int, value: str | None, values: Mapping[str, Any]) -> None:
    tensor = tensor_of_value(line)[root]
    data = np.asarray(values[str(value)])
    packed = layout.pack(data, tensor.block) if tensor.block else data
    _bytes_of(arena, program, root, tensor.dtype, tensor.shape)[...] = packed.reshape(tensor.shape)


def _read(arena: Any, program: Program, root: int, tensor: Tensor, shape: Sequence[int]) -> Any:
    data = _bytes_of(arena, program, root, tensor.dtype, tensor.shape)
    return layout.unpack(data, shape) if tensor.block else data.reshape(tuple(shape))
