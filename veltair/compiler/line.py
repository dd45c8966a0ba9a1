"""The straight line of kernel calls a model becomes, and the plan of its activation memory."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from veltair.bundle.format import ALIGNMENT_BYTES, TensorSpec
from veltair.compiler.graph import Array, Shape, elements
from veltair.compiler.schedules.base import Kernel, width

Kind = Literal["input", "output", "weight", "activation"]


@dataclass(slots=True)
class Tensor:
    """A buffer, or a view of another one with the same bytes (`root` then is that one's number)."""

    shape: Shape
    dtype: str
    kind: Kind
    root: int
    make: Callable[[], Array] | None = None  # of weights: packs the constant when its bytes are wanted
    value: str | None = None  # the graph's value it holds, if it holds one whole
    block: int = 0  # channels a register of the packed layout, 0 for plain

    @property
    def size_bytes(self) -> int:
        return elements(self.shape) * width(self.dtype)

    def array(self) -> Array:
        """The bytes of a weight, made anew for each caller: some models hold more forms of them than memory would."""
        assert self.make is not None, f"no weight: {self.kind} {self.shape}"
        return np.ascontiguousarray(self.make())


@dataclass(frozen=True, slots=True)
class Call:
    """One kernel call, or one of the `parts` of one (see `parts`). `others` compute the same value by another algorithm or in
    another precision: other kernels with other weights, but the same activations read and the same tensor written."""

    kernel: Kernel
    tensors: tuple[int, ...]  # the last one is written
    label: str  # the operators it stands for
    others: tuple["Call", ...] = ()
    part: int = 0
    parts: int = 1
    scratch: int | None = None  # of a call in parts: the tensor for what the first one leaves to the others

    @property
    def forms(self) -> tuple["Call", ...]:
        return (self, *self.others)

    @property
    def reads(self) -> tuple[int, ...]:
        return self.tensors[:-1]

    @property
    def writes(self) -> int:
        return self.tensors[-1]


@dataclass(slots=True)
class Line:
    tensors: list[Tensor] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)  # port -> tensor
    outputs: dict[str, int] = field(default_factory=dict)
    max_values: dict[str, int] = field(default_factory=dict)  # integer inputs: one past the largest legal value

    def add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def new(self, shape: Shape, dtype: str, kind: Kind = "activation") -> int:
        return self.add(Tensor(shape, dtype, kind, len(self.tensors)))

    def weight(self, data: Array) -> int:
        return self.packed_weight(tuple(data.shape), str(data.dtype), lambda: data)

    def packed_weight(self, shape: Shape, dtype: str, make: Callable[[], Array]) -> int:
        """A weight whose bytes `make` packs when they are wanted."""
        return self.add(Tensor(shape, dtype, "weight", len(self.tensors), make))

    def view(self, number: int, shape: Shape) -> int:
        """The same bytes under another shape."""
        tensor = self.tensors[number]
        if tensor.shape == shape:
            return number
        assert elements(shape) == elements(tensor.shape), f"no view of {tensor.shape} as {shape}"
        return self.add(Tensor(shape, tensor.dtype, tensor.kind, tensor.root))

    def root(self, number: int) -> int:
        return self.tensors[number].root

    def lifetimes(self) -> dict[int, tuple[int, int]]:
        """Root of every tensor that is no weight or scratch -> (call that makes it or -1, last call that needs it)."""
        found: dict[int, tuple[int, int]] = {self.root(t): (-1, -1) for t in self.inputs.values()}
        for i, call in enumerate(self.calls):
            out = self.root(call.writes)
            found.setdefault(out, (i, i))
            for number in call.tensors:
                root = self.root(number)
                if self.tensors[root].kind != "weight":
                    found[root] = (found[root][0], i)
        for number in self.outputs.values():
            root = self.root(number)
            found[root] = (found[root][0], len(self.calls))
        return found

    def scratch_lifetimes(self) -> dict[int, tuple[int, int]]:
        """As `lifetimes`, of the scratch of calls in parts: it holds no value that anything but those parts could want."""
        found: dict[int, tuple[int, int]] = {}
        for i, call in enumerate(self.calls):
            if call.scratch is not None:
                found[call.scratch] = (found.get(call.scratch, (i, i))[0], i)
        return found

    def live_behind(self, call: int) -> list[int]:
        """Roots that are made by `call` or earlier and still needed after it."""
        return [root for root, (made, last) in self.lifetimes().items() if made <= call < last]


def tensor_of_value(line: Line) -> dict[int, Tensor]:
    """Root of each buffer -> a view of it that holds a named value whole, where there is one."""
    found: dict[int, Tensor] = {}
    for tensor in line.tensors:
        if tensor.value is not None and tensor.kind != "weight":
            found.setdefault(tensor.root, tensor)
    return found


def plan_memory(line: Line, weights: Collection[int] | None = None) -> tuple[list[TensorSpec], int, list[tuple[int, Tensor]]]:
    """Offsets of all tensors: specs, bytes of the arena, and (offset, tensor) of weights in ascending order.

    `weights` are the roots of those to keep (None: all); the others get no bytes.

    Greedy by size: each buffer, largest first, at the lowest offset free over its whole life (Pisarchyk and Lee 2020,
    "Efficient Memory Management for Deep Neural Net Inference", section 5.2).
    """
    lives = line.lifetimes() | line.scratch_lifetimes()
    offsets: dict[int, int] = {}
    placed: list[tuple[int, int, int, int]] = []  # offset, end, made, last
    for root in sorted(lives, key=lambda r: -line.tensors[r].size_bytes):
        made, last = lives[root]
        size = _align(line.tensors[root].size_bytes)
        offset = 0
        for start, end, other_made, other_last in sorted(placed):
            if other_made <= last and made <= other_last:
                if offset + size <= start:
                    break
                offset = max(offset, end)
        placed.append((offset, offset + size, made, last))
        offsets[root] = offset
    kept: list[tuple[int, Tensor]] = []
    at = 0
    for number, tensor in enumerate(line.tensors):
        if tensor.kind == "weight" and tensor.root == number and (weights is None or number in weights):
            offsets[number] = at
            kept.append((at, tensor))
            at = _align(at + tensor.size_bytes)
    # a weight without bytes keeps its number, and is one element where the first weight lies: it must not pass the file's end
    specs = [
        TensorSpec(line.tensors[t.root].kind, t.dtype, t.shape if t.root in offsets else (1,), offsets.get(t.root, 0))
        for t in line.tensors
    ]
    return specs, max((end for _, end, _, _ in placed), default=ALIGNMENT_BYTES), kept


def _align(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
