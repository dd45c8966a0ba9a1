"""What every kernel class shares: its arguments, the fused chain behind it, and small schedule helpers.

A kernel is rebuilt from its description for every setting of its knobs. TVM's `Schedule` rewrites the function it is
handed even where a caller still holds it, so nothing scheduled is ever scheduled again.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm import s_tir, te, tirx

from veltair.compiler.expr import Tree, evaluate
from veltair.compiler.graph import Shape, elements
from veltair.compiler.schedules.stack import steady
from veltair.compiler.views import Layout

Knobs = Mapping[str, int]

L2_BYTES = 512 * 1024  # half of a small server core's private cache: the rest holds what streams through


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor read by the fused chain: operand dimension d is indexed by output axis `axes[d]`, or by 0 where None.

    With a `layout`, over the output axes, it is read flat where the layout says.
    """

    shape: Shape
    dtype: str
    axes: tuple[int | None, ...]
    layout: Layout | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """The elementwise operators fused behind an anchor (see `expr`)."""

    tree: Tree = ("acc",)
    operands: tuple[Operand, ...] = ()
    dtype: str = "float32"

    def placeholders(self) -> list[Any]:
        return [te.placeholder(o.shape, o.dtype, name=f"op{k}") for k, o in enumerate(self.operands)]

    def apply(self, acc: Any, index: Sequence[Any], tensors: Sequence[Any]) -> Any:
        def read(k: int) -> Any:
            if (layout := self.operands[k].layout) is not None:
                return tensors[k](layout.index(index))
            return tensors[k](*(index[a] if a is not None else 0 for a in self.operands[k].axes))

        return evaluate(self.tree, acc, read)


@dataclass(frozen=True)
class Kernel(ABC):
    """One function to compile. Arguments are the inputs, then the chain's operands, then the output."""

    chain: Chain = field(kw_only=True, default=Chain())

    kind = "kernel"
    algorithm = "direct"  # or the name of another way to the same value
    precision = "fp32"  # of the products; "bf16" rounds what is multiplied and sums in fp32
    light_first = False  # its first parallel loop only brings the input into the form that the second one multiplies
    tolerance = 1e-4  # of the largest magnitude, what the gate allows this form to be off

    @property
    def key(self) -> str:
        """Names this computation in the tuning records, on any model."""
        return f"{self.kind}-{hashlib.sha256(repr(self).encode()).hexdigest()[:16]}"

    @property
    def variety(self) -> str:
        """The algorithm, for people: told apart from others of its name."""
        return self.algorithm

    @property
    @abstractmethod
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        """Shape and dtype of each anchor input."""

    @property
    @abstractmethod
    def output(self) -> Shape: ...

    @property
    def flops(self) -> int:
        return elements(self.output)

    def candidates(self) -> list[dict[str, int]]:
        """Settings worth measuring, the most promising first."""
        return [{}]

    @abstractmethod
    def build(self, knobs: Knobs) -> Any:
        """The scheduled PrimFunc. Raises a TVM error where the knobs do not fit the shape."""

    def function(self, knobs: Knobs, symbol: str) -> Any:
        """What to compile: the scheduled PrimFunc under the name that the library exports it by."""
        return steady(self.build(knobs)).with_attr("global_symbol", symbol)

    def traffic_bytes(self, knobs: Knobs) -> int:
        """Bytes moved beyond the core's own caches, modelled from the loops."""
        return self.streamed_bytes()

    def streamed_bytes(self) -> int:
        """Constant inputs, which every request finds cold, and what of the activations no private cache holds."""
        constants = sum(elements(shape) * width(dtype) for shape, dtype in self.constants)
        return constants + max(0, self.compulsory_bytes() - constants - L2_BYTES)

    @property
    def constants(self) -> tuple[tuple[Shape, str], ...]:
        """The inputs that are weights."""
        return ()

    def working_set_bytes(self, knobs: Knobs) -> int:
        return min(self.compulsory_bytes(), L2_BYTES)

    def compulsory_bytes(self) -> int:
        sizes = [elements(shape) * width(dtype) for shape, dtype in self.inputs]
        sizes += [elements(o.shape) * width(o.dtype) for o in self.chain.operands]
        return sum(sizes) + elements(self.output) * width(self.chain.dtype)

    def argument_specs(self) -> list[tuple[Shape, str]]:
        return [*self.inputs, *((o.shape, o.dtype) for o in self.chain.operands), (self.output, self.chain.dtype)]


def width(dtype: str) -> int:
    return {"float32": 4, "int32": 4, "bfloat16": 2, "int64": 8, "bool": 1, "uint8": 1, "int8": 1}[dtype]


def schedule_of(arguments: Sequence[Any]) -> Any:
    return s_tir.Schedule(te.create_prim_func(list(arguments)))


def result(sch: Any) -> Any:
    return sch.mod["main"]


def extent(sch: Any, loop: Any) -> int:
    return int(sch.get(loop).extent)


def divisors(n: int, top: int) -> list[int]:
    return [d for d in range(1, min(n, top) + 1) if n % d == 0]


def vector_width(n: int, lanes: int) -> int:
    """The widest vector that divides `n`, down to a quarter of a register; 1 where none does."""
    return next((v for v in (lanes, lanes // 2, lanes // 4) if v > 1 and n % v == 0), 1)


def vectorize_last(sch: Any, block: Any, lanes: int) -> None:
    loop = sch.get_loops(block)[-1]
    n = extent(sch, loop)
    v = vector_width(n, lanes)
    if v == n:
        sch.vectorize(loop)
    elif v > 1:
        sch.vectorize(sch.split(loop, [None, v])[1])


def vectorize_reduction(sch: Any, block: Any, lane: Any, reduction: Any) -> None:
    """Lanes innermost, the reduction around them; its initialisation is vectorised too."""
    sch.reorder(reduction, lane)
    sch.vectorize(lane)
    init = sch.decompose_reduction(block, reduction)
    sch.vectorize(sch.get_loops(init)[-1])


def unroll_tile(sch: Any, block: Any, depth: int) -> None:
    """Unroll the `depth` loops around a block's innermost and vectorise that one: a register tile's plain stages."""
    *_, last = loops = sch.get_loops(block)
    for loop in loops[-1 - depth : -1]:
        if extent(sch, loop) <= 32:
            sch.unroll(loop)
    sch.vectorize(last)


def tree(values: Sequence[Any], combine: Callable[[Any, Any], Any]) -> Any:
    """All values combined in pairs, halves with halves: as the lanes of a register are, by shuffles and few steps."""
    while len(values) > 1:
        half = len(values) // 2
        pairs = [combine(a, b) for a, b in zip(values[:half], values[half:], strict=False)]
        values = pairs + list(values[2 * half :])
    return values[0]


def zero(dtype: str = "float32") -> Any:
    return tirx.const(0, dtype)
