"""The gate: every variant of every block computes what ONNX Runtime computes, on real inputs, or it is not written.

A block starts from the reference's values, so an error shows in the block that makes it. What is coarser than fp32 must
besides give the same answers over the whole model (see `likeness`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from veltair.compiler import layout
from veltair.compiler.assemble import Blocks
from veltair.compiler.blocks import Span
from veltair.compiler.likeness import Likeness, relative_error
from veltair.compiler.line import Line, Tensor, tensor_of_value
from veltair.engine.program import Program
from veltair.errors import CompileError, GateFailed


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

    A variant that strays past its tolerance is rejected; so are all of a precision or algorithm whose whole line does. Raises
    GateFailed naming block, variant, value and error where that leaves a block without an exact variant.
    """
    named = tensor_of_value(line)
    lives = [line.live_behind(s.end - 1) for s in spans]
    errors = [[0.0] * len(candidates) for candidates in blocks]
    rejected: dict[tuple[int, int], str] = {}
    rules = dict.fromkeys(r for block in blocks for c in block for r in c.rules)
    ends = {rule: Likeness(_tolerance(blocks, rule)) for rule in rules}
    arena = program.new_arena()
    try:
        for sample in samples:
            values = {**reference.run(sample), **sample}
            for b, v in _in_turn(spans, blocks):
                span, candidate = spans[b], blocks[b][v]
                calls = line.calls[span.first : span.end]
                before = lives[b - 1] if b else [line.root(t) for t in line.inputs.values()]
                written = {line.root(c.writes) for c in calls}
                partly = {line.root(c.writes) for c in calls if c.parts > 1} & named.keys()
                if not span.continues:  # their memory may be what the parts of a layer keep for each other
                    program.write_inputs(arena, sample)
                for root in {*before, *partly}:  # of a layer in parts the rest is another block's
                    if named[root].value in values:
                        _write(arena, program, root, named[root], values)
                program.run(arena, b, b + 1, (v,))
                for root in lives[b]:
                    name = named[root].value
                    if name not in values or root not in written:
                        continue
                    error = relative_error(_read(arena, program, root, named[root], values[name].shape), values[name])
                    errors[b][v] = max(errors[b][v], error)
                    if not error <= candidate.tolerance:  # also catches NaN
                        rejected[b, v] = (
                            f"value {name!r} is off by {error:.1e} of its range from ONNX Runtime "
                            f"(allowed {candidate.tolerance:.0e})"
                        )
            for rule, end in ends.items():
                program.write_inputs(arena, sample)
                program.run(arena, 0, len(blocks), _places(blocks, rule))
                for port in program.bundle.manifest.outputs:
                    end.compare(arena.views[port.name], values[port.name])
    finally:
        program.release(arena)
    astray = _reject_lines(blocks, ends, rejected)
    _require_exact(program, blocks, rejected)
    checks = {f"{rule}: {what}": text for rule, end in ends.items() for what, text in end.described().items()}
    return Verdict(errors, {rule: end.error for rule, end in ends.items()}, rejected, checks, astray, len(samples))


def _in_turn(spans: Sequence[Span], blocks: Blocks) -> Iterator[tuple[int, int]]:
    """(block, variant), the parts of a layer one after the other as one variant: the later ones go on from what the first
    left.
    """
    first = 0
    for end in range(1, len(spans) + 1):
        if end == len(spans) or not spans[end].continues:
            yield from ((b, v) for v in range(len(blocks[first])) for b in range(first, end))
            first = end


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
    return layout.unpack(data, shape) if tensor.block else data.reshape(tuple(shape))
