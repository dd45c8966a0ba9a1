"""From chosen candidates to files: the library of their kernels, the file of their weights, and the manifest of both."""

import hashlib
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tvm

from veltair.bundle.format import ALIGNMENT_BYTES, BlockSpec, CallSpec, PortSpec, TargetSpec, TensorSpec, VariantSpec
from veltair.compiler.blocks import Span
from veltair.compiler.candidates import Chosen, Lines
from veltair.compiler.line import Line, Tensor, plan_memory
from veltair.compiler.parts import parallel_extents
from veltair.compiler.target import tvm_target
from veltair.engine.program import runner_source
from veltair.errors import CompileError, ToolMissing

ROOM_BYTES = 128 << 10  # of the scratch folder for each kernel: its object and its part of the library, both generously

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


def build_library(blocks: Iterable[BlockCandidate], target: TargetSpec, library: Path) -> dict[Setting, str]:
    """Compile every kernel in every setting that a candidate uses and link them with the runner; setting -> symbol.

    Raises ToolMissing without a C++ compiler, OSError where the disk lacks the room, CompileError where linking fails.
    """
    symbols: dict[Setting, str] = {}
    functions: dict[str, Any] = {}
    numbers: dict[str, int] = {}
    for candidate in blocks:
        for chosen in candidate.calls:
            key, _ = chosen.setting
            if chosen.setting in symbols:
                continue
            symbol = f"{key.replace('-', '_')}_{numbers.setdefault(key, 0)}"
            numbers[key] += 1
            functions[symbol] = chosen.call.kernel.build(chosen.knobs).with_attr("global_symbol", symbol)
            symbols[chosen.setting] = symbol
    _reserve(library.with_name("room"), ROOM_BYTES * (4 + len(functions)))
    runner = library.with_name("runner.o")
    command = ["c++", "-x", "c", "-O2", "-fPIC", "-c", str(runner_source()), "-o", str(runner)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ToolMissing("no C++ compiler: `c++` is not on PATH; install one (Debian: apt-get install g++)") from error
    except subprocess.CalledProcessError as error:
        raise CompileError(f"the C++ compiler failed on the runner: {error.stderr.strip()}") from error
    tvm.compile(tvm.IRModule(functions), target=tvm_target(target)).export_library(str(library), addons=[str(runner)])
    return symbols


def _reserve(path: Path, size_bytes: int) -> None:
    """Raises OSError where the disk lacks the room: LLVM ends the whole process when it meets a full one."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size_bytes)


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
    iterations = None
    if call.parts > 1:
        (extent,) = parallel_extents(call.kernel.build(chosen.knobs))
        iterations = (call.part * extent // call.parts, (call.part + 1) * extent // call.parts, extent)
    return CallSpec(symbols[chosen.setting], call.tensors, iterations)


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
