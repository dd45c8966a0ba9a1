"""From chosen candidates to a bundle's parts: the file of their weights, and the blocks as the manifest tells of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from veltair.bundle.format import ALIGNMENT_BYTES, BlockSpec, CallSpec, PortSpec, TensorSpec, VariantSpec
from veltair.compiler.blocks import Span
from veltair.compiler.candidates import Chosen, Lines
from veltair.compiler.line import Line, Tensor, plan_memory
from veltair.compiler.parts import divisible

Setting = tuple[str, tuple[tuple[str, int], ...]]


@dataclass(frozen=True, slots=True)
class BlockCandidate:
    """One distinct form of a block. `rules` are the candidate lines that agree on it; the first names it."""

    rules: tuple[str, ...]
    calls: tuple[Chosen, ...]

    @property
    def name(self) -> str:
        return self.rules[0]

    @property
    def precision(self) -> str:
        coarse = {c.call.kernel.precision for c in self.calls} - {"fp32"}
        return min(coarse, default="fp32")

    @property
    def algorithm(self) -> str:
        other = {c.call.kernel.algorithm for c in self.calls} - {"direct"}
        return min(other, default="direct")

    @property
    def exact(self) -> bool:
        return self.precision == "fp32"

    @property
    def tolerance(self) -> float:
        return max(c.call.kernel.tolerance for c in self.calls)

    @property
    def traffic_bytes(self) -> int:
        return sum(c.traffic_bytes for c in self.calls)

    @property
    def working_set_bytes(self) -> int:
        return max(c.working_set_bytes for c in self.calls)


Blocks = Sequence[Sequence[BlockCandidate]]


def block_candidates(lines: Lines, spans: Sequence[Span], only: Sequence[Sequence[str]] | None = None) -> Blocks:
    """The distinct candidates of every block; with `only`, block by block, those that these rules make."""
    blocks = []
    for number, span in enumerate(spans):
        found: dict[tuple[Setting, ...], tuple[list[str], tuple[Chosen, ...]]] = {}
        for rule, calls in lines.items():
            if only is None or rule in only[number]:
                part = calls[span.first : span.end]
                found.setdefault(tuple(c.setting for c in part), ([], part))[0].append(rule)
        blocks.append([BlockCandidate(tuple(rules), part) for rules, part in found.values()])
    return blocks


class WeightFile:
    """A weights.bin in the making: each distinct array once, at an aligned offset. Forms and batch sizes share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b")
        self._end = 0
        self._known: dict[bytes, int] = {}

    def add(self, array: np.ndarray[Any, Any]) -> int:
        """The offset at which the bytes of `array` stand."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if digest not in self._known:
            offset = -(-self._end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
            self._file.write(bytes(offset - self._end))
            self._file.write(data)
            self._end = offset + len(data)
            self._known[digest] = offset
        return self._known[digest]

    def map(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """All of it, read-only. Nothing may be added afterwards."""
        self._file.close()
        return np.memmap(self._path, np.uint8, "r") if self._end else np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True)
class Memory:
    """Where the tensors of one line lie."""

    tensors: tuple[TensorSpec, ...]
    arena_bytes: int


def used_roots(line: Line, blocks: Blocks) -> set[int]:
    """Buffers that some candidate touches."""
    return {line.root(t) for block in blocks for candidate in block for c in candidate.calls for t in c.call.tensors}


def place(line: Line, blocks: Blocks, weights: WeightFile, packed: Mapping[int, Any] | None = None) -> Memory:
    """Lay out the line's tensors, and add the weights that `blocks` use to the file: as `packed` holds them, or packed now."""
    specs, arena_bytes, kept = plan_memory(line, used_roots(line, blocks))
    moved = {}
    for _, tensor in kept:
        moved[tensor.root] = weights.add(_bytes(tensor, packed))
    placed = (
        msgspec.structs.replace(spec, offset=moved[tensor.root]) if tensor.root in moved else spec
        for spec, tensor in zip(specs, line.tensors, strict=True)
    )
    return Memory(tuple(placed), arena_bytes)


def _bytes(tensor: Tensor, packed: Mapping[int, Any] | None) -> Any:
    return tensor.array() if packed is None else packed[tensor.root]


def ports(line: Line, numbers: Mapping[str, int]) -> tuple[PortSpec, ...]:
    return tuple(
        PortSpec(port, t, line.tensors[t].dtype, line.tensors[t].shape, line.max_values.get(port)) for port, t in numbers.items()
    )


def _call(chosen: Chosen, symbols: Mapping[Setting, str]) -> CallSpec:
    call = chosen.call
    if call.parts == 1:
        return CallSpec(symbols[chosen.setting], call.tensors)
    loops = divisible(call.kernel, chosen.knobs)
    assert loops is not None, f"{call.kernel.key} is in parts"
    step = 1 << max(0, (loops.extent // call.parts).bit_length() - 1)  # so that two cores, or four, get the same work
    steps = -(-loops.extent // step)
    first, end = (min(loops.extent, -(-part * steps // call.parts) * step) for part in (call.part, call.part + 1))
    iterations = (first, end, loops.extent)
    return CallSpec(symbols[chosen.setting], call.tensors, iterations, loops.before, call.scratch if loops.before else None)


def block_specs(spans: Sequence[Span], blocks: Blocks, symbols: Mapping[Setting, str]) -> tuple[BlockSpec, ...]:
    """The blocks with every latency still at 1 us."""
    specs = []
    for number, (span, candidates) in enumerate(zip(spans, blocks, strict=True)):
        calls = candidates[0].calls
        heaviest = max(calls, key=lambda c: c.flops).call
        variants = tuple(
            VariantSpec(
                candidate.name,
                tuple(_call(c, symbols) for c in candidate.calls),
                {1: (1,)},
                candidate.traffic_bytes,
                candidate.working_set_bytes,
                0.0,
                candidate.precision,
                candidate.algorithm,
                candidate.tolerance,
            )
            for candidate in candidates
        )
        label = heaviest.label.split("+")[0].lower()
        specs.append(BlockSpec(f"{number:02d}-{label}", sum(c.flops for c in calls), span.live_bytes, variants, span.continues))
    return tuple(specs)
