"""The gate: every variant of every block computes what ONNX Runtime computes, on real inputs, or it is not written.

A block starts from the reference's values, so an error shows in the block that makes it. What is coarser than fp32 must
besides give the same answers over the whole model (see `likeness`). Before every run all other memory of the arena is NaN:
in service it holds what some other request left there, and what reads that, or leaves its own result there, must not pass
because the run before it happened to leave the right values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from veltair.compiler import layout
from veltair.compiler.assemble import Blocks
from veltair.compiler.blocks import Span, layers
from veltair.compiler.likeness import Likeness, relative_error
from veltair.compiler.line import Line, Tensor, tensor_of_value
from veltair.engine.program import Program
from veltair.errors import CompileError, GateFailed

UNWRITTEN = 0xFF  # in every byte: NaN in all floats, and no index of anything


@dataclass(frozen=True, slots=True)
class Verdict:
    errors: list[list[float]]  # block -> variant -> worst error over all inputs and live values
    whole: dict[str, float]  # rule -> worst error of the model's outputs, run from end to end
    rejected: dict[tuple[int, int], str]  # block, variant -> why it must not be used
    checks: dict[str, str]  # what was compared end to end -> what came out
    astray: frozenset[str]  # rules whose line as a whole is not the same as the reference
    inputs: int


class Reference:
    """The folded model in ONNX Runtime, with every value in `names` as an output."""

    def __init__(self, folded: Path, names: Sequence[str]) -> None:
        model = onnx.load_model(str(folded), load_external_data=False)
        present = {o.name for o in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # as it stands: fusing would change the rounding of the values that are compared
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folded.parent))
        options.add_session_config_entry("session.disable_prepacking", "1")  # a second copy of the weights, for a few runs
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._names = [o.name for o in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(self._names, self._session.run(None, dict(inputs)), strict=True))


def made_values(folded: Path) -> frozenset[str]:
    """Names the reference can be asked for."""
    model = onnx.load_model(str(folded), load_external_data=False)
    return frozenset(o for node in model.graph.node for o in node.output if o)


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


def compared_values(line: Line, spans: Sequence[Span]) -> set[str]:
    """Names of the values that live behind the blocks: what the reference must be able to tell."""
    named = tensor_of_value(line)
    live = {root for span in spans for root in line.live_behind(span.end - 1)}
    return {name for root in live if root in named and (name := named[root].value) is not None}


def run_gate(
    program: Program,
    line: Line,
    spans: Sequence[Span],
    blocks: Blocks,
    reference: Reference,
    samples: Sequence[Mapping[str, Any]],
) -> Verdict:
    """Compare every variant of every block, and every rule's whole line, with the reference.

    A variant that strays past its tolerance is rejected; so are all of a precision or algorithm whose whole line does. The parts
    of a layer are one here: only the last of them leaves a value. Raises GateFailed naming block, variant, value and error where
    that leaves a block without an exact variant.
    """
    named = tensor_of_value(line)
    errors = [[0.0] * len(candidates) for candidates in blocks]
    rejected: dict[tuple[int, int], str] = {}
    rules = dict.fromkeys(r for block in blocks for c in block for r in c.rules)
    ends = {rule: Likeness(_tolerance(blocks, rule)) for rule in rules}
    arena = program.new_arena()
    try:
        for sample in samples:
            values = {**reference.run(sample), **sample}
            for layer in layers(spans):
                reads, leaves = _ends_of(line, spans, layer)
                for v, candidate in enumerate(blocks[layer[0]]):
                    arena.bytes[:] = UNWRITTEN
                    for root in reads:
                        _write(arena, program, root, named[root], values)
                    program.run(arena, layer[0], layer[-1] + 1, (v,) * len(layer))
                    for root in leaves:
                        name = named[root].value
                        if name not in values:  # of a model's output: the whole lines tell
                            continue
                        error = relative_error(_read(arena, program, root, named[root], values[name].shape), values[name])
                        for b in layer:
                            errors[b][v] = max(errors[b][v], error)
                            if error > candidate.tolerance:
                                rejected[b, v] = (
                                    f"value {name!r} is off by {error:.1e} of its range from ONNX Runtime "
                                    f"(allowed {candidate.tolerance:.0e})"
                                )
            for rule, whole in ends.items():
                arena.bytes[:] = UNWRITTEN
                program.write_inputs(arena, sample)
                program.run(arena, 0, len(blocks), _places(blocks, rule))
                for port in program.bundle.manifest.outputs:
                    whole.compare(arena.views[port.name], values[port.name])
    finally:
        program.release(arena)
    astray = _reject_lines(blocks, ends, rejected)
    _require_exact(program, blocks, rejected)
    checks = {f"{rule}: {what}": text for rule, end in ends.items() for what, text in end.described().items()}
    return Verdict(errors, {rule: end.error for rule, end in ends.items()}, rejected, checks, astray, len(samples))


def _ends_of(line: Line, spans: Sequence[Span], layer: range) -> tuple[list[int], list[int]]:
    """Roots of the buffers that these blocks find, and of those that they fill for what follows."""
    first, end = spans[layer[0]].first, spans[layer[-1]].end
    reads = line.live_behind(first - 1) if first else [line.root(t) for t in line.inputs.values()]
    written = {line.root(call.writes) for call in line.calls[first:end]}
    return reads, [root for root in line.live_behind(end - 1) if root in written]


def _places(blocks: Blocks, rule: str) -> tuple[int, ...]:
    """The rule's candidate of each block, or the first of a block that has none of that rule."""
    return tuple(next((v for v, c in enumerate(candidates) if rule in c.rules), 0) for candidates in blocks)


def _tolerance(blocks: Blocks, rule: str) -> float:
    return max(block[v].tolerance for block, v in zip(blocks, _places(blocks, rule), strict=True))


def _reject_lines(blocks: Blocks, ends: Mapping[str, Likeness], rejected: dict[tuple[int, int], str]) -> frozenset[str]:
    """Where a line as a whole strays, what makes it differ from the plainest is not to be trusted in any block; those rules."""
    astray = set()
    for rule, end in ends.items():
        chosen = [block[v] for block, v in zip(blocks, _places(blocks, rule), strict=True)]
        coarse = any(not c.exact for c in chosen)
        if end.is_same(coarse=coarse):
            continue
        astray.add(rule)
        why = "; ".join(f"{what} {text}" for what, text in end.described().items())
        other = any(c.algorithm != "direct" for c in chosen)
        for b, candidates in enumerate(blocks):
            for v, candidate in enumerate(candidates):
                guilty = not candidate.exact if coarse else candidate.algorithm != "direct" if other else rule in candidate.rules
                if guilty:
                    rejected.setdefault((b, v), f"the model as a whole, run as {rule!r}: {why}")
    return frozenset(astray)


def _require_exact(program: Program, blocks: Blocks, rejected: Mapping[tuple[int, int], str]) -> None:
    for b, candidates in enumerate(blocks):
        if not any(candidate.exact and (b, v) not in rejected for v, candidate in enumerate(candidates)):
            v = next(v for v, candidate in enumerate(candidates) if candidate.exact)
            raise GateFailed(
                f"{program.name}: block {program.bundle.manifest.blocks[b].name!r}, variant {candidates[v].name!r}: "
                f"{rejected[b, v]}; the bundle was not written"
            )


def _bytes_of(arena: Any, program: Program, root: int, dtype: str, shape: Sequence[int]) -> Any:
    spec = program.bundle.manifest.tensors[root]
    size = int(np.prod(tuple(shape), dtype=np.int64)) * np.dtype(dtype).itemsize
    return arena.bytes[spec.offset : spec.offset + size].view(np.dtype(dtype)).reshape(tuple(shape))


def _write(arena: Any, program: Program, root: int, tensor: Tensor, values: Mapping[str, Any]) -> None:
    data = np.asarray(values[str(tensor.value)])
    packed = layout.pack(data, tensor.block) if tensor.block else data
    _bytes_of(arena, program, root, tensor.dtype, tensor.shape)[...] = packed.reshape(tensor.shape)


def _read(arena: Any, program: Program, root: int, tensor: Tensor, shape: Sequence[int]) -> Any:
    data = _bytes_of(arena, program, root, tensor.dtype, tensor.shape)
    if not tensor.block:
        return data.reshape(tuple(shape))
    if not np.isfinite(data).all():  # of the lanes behind the last channel too: the next kernel may multiply them by zeros
        return np.full(tuple(shape), np.nan)
    return layout.unpack(data, shape)
