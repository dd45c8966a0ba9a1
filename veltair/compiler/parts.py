"""Long kernels in parts: between two parts of a layer a request can be set aside, as it can between two layers.

A kernel that is one parallel loop needs no other code for that. The loop's iterations are independent, so any range of them
is a call of its own (engine/runner.c runs it), and all ranges together are the layer. Of a kernel whose first loop only
prepares the input for the second (`Kernel.light_first`), that second one is shared: the first part runs the first loop too,
and what it makes stands in the arena until the last part ends. Any other kernel with several parallel loops stays whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from tvm import tirx
from tvm.tirx.expr import IntImm
from tvm.tirx.stmt import ForKind

from veltair.bundle.format import ALIGNMENT_BYTES
from veltair.compiler.line import Call, Line, Tensor
from veltair.compiler.records import Ranked, Timed
from veltair.compiler.schedules.base import Kernel, Knobs, width

LONG_US = 1500.0  # on one core: kernels below it are no longer than a block may be
PART_US = 1000.0
UNEVEN = 1.3  # the longest part may be this much longer than PART_US before another one is made
_INNER = ("body", "seq", "block", "then_case", "else_case")  # where TVM's statements keep the statements inside them
SLOWER_AT_MOST = 1.15  # a setting that can be divided is preferred to a whole one that is faster by less than this


def divide_long_calls(line: Line, ranked: Mapping[str, Ranked], cores: int) -> tuple[Line, dict[str, Ranked]]:
    """The line with each long call as several, and the records of the settings that can be run so.

    A call whose fastest settings cannot be divided stays whole: each part must leave an iteration for each of `cores`.
    """
    left = {key: list(settings) for key, settings in ranked.items()}
    loops: dict[str, dict[int, Loops]] = {}
    tensors = list(line.tensors)
    calls: list[Call] = []
    for call in line.calls:
        quickest = min(t.us for form in call.forms for t in ranked[form.kernel.key])
        if quickest <= LONG_US:
            calls.append(call)
            continue
        for form in call.forms:
            if form.kernel.key not in loops:
                loops[form.kernel.key] = _loops(form.kernel, ranked[form.kernel.key])
        parts = _divided(call, ranked, loops, left, cores)
        if len(parts) > 1 and (size := _scratch_bytes(parts[0], loops, cores)):
            tensors.append(Tensor((size,), "uint8", "activation", len(tensors)))
            parts = [_with_scratch(part, len(tensors) - 1) for part in parts]
        calls += parts
    return replace(line, calls=calls, tensors=tensors), left


def _scratch_bytes(call: Call, loops: Mapping[str, Mapping[int, "Loops"]], cores: int) -> int:
    """Of the setting that needs most, over all forms."""
    found = [each for form in call.forms for each in loops[form.kernel.key].values()]
    return max((each.scratch_bytes for each in found if each.extent >= 2 * cores), default=0)


def _with_scratch(call: Call, scratch: int) -> Call:
    return replace(call, scratch=scratch, others=tuple(replace(other, scratch=scratch) for other in call.others))


def _divided(
    call: Call, ranked: Mapping[str, Ranked], loops: Mapping[str, Mapping[int, "Loops"]], left: dict[str, Ranked], cores: int
) -> list[Call]:
    extents = {key: {i: found.extent for i, found in each.items()} for key, each in loops.items()}
    settings = [(form, i, t) for form in call.forms for i, t in enumerate(ranked[form.kernel.key])]
    divisible = [(form, i, t) for form, i, t in settings if extents[form.kernel.key].get(i, 1) >= 2 * cores]
    exact = [t.us for form, _, t in settings if form.kernel.precision == "fp32"]
    exact_divisible = [t.us for form, _, t in divisible if form.kernel.precision == "fp32"]
    if not exact_divisible or min(exact_divisible) > SLOWER_AT_MOST * min(exact):
        return [call]
    if min(t.us for _, _, t in divisible) > SLOWER_AT_MOST * min(t.us for _, _, t in settings):
        return [call]
    forms = [form for form in call.forms if any(f is form for f, _, _ in divisible)]
    for form in forms:
        left[form.kernel.key] = [
            t for i, t in enumerate(ranked[form.kernel.key]) if extents[form.kernel.key].get(i, 1) >= 2 * cores
        ]
    form, i, fastest = min(divisible, key=lambda found: found[2].us)
    quickest = [min((t.us, extents[f.kernel.key][i]) for g, i, t in divisible if g is f)[1] for f in forms]
    # A form of few, large iterations must still have one for every core in each part.
    parts = min(_parts(fastest, extents[form.kernel.key][i], cores), *(extent // cores for extent in quickest))
    first, *others = forms
    return [
        replace(first, part=part, parts=parts, others=tuple(replace(o, part=part, parts=parts) for o in others))
        for part in range(parts)
    ]


def _parts(timed: Timed, extent: int, cores: int) -> int:
    """The fewest parts that are short enough, of a loop of `extent` iterations."""
    each, most = timed.us / extent, extent // cores
    return next((p for p in range(2, most) if -(-extent // p) * each <= UNEVEN * PART_US), most)


@dataclass(frozen=True, slots=True)
class Loops:
    """How a setting of a kernel can be divided."""

    extent: int  # iterations of the loop that is shared
    before: int  # parallel loops in front of it
    scratch_bytes: int  # what the kernel keeps between them


def _loops(kernel: Kernel, settings: Ranked) -> dict[int, Loops]:
    """Of the settings that can be divided, by place."""
    found = {i: divisible(kernel, timed.knobs) for i, timed in enumerate(settings)}
    return {i: loops for i, loops in found.items() if loops is not None}


def divisible(kernel: Kernel, knobs: Knobs) -> Loops | None:
    """How to divide this setting of a kernel; None where it stays whole."""
    function = kernel.build(knobs)
    match parallel_loops(function):
        case [(extent, _)] if extent > 1:
            return Loops(extent, 0, 0)
        case [(_, True), (extent, True)] if extent > 1 and kernel.light_first:
            return Loops(extent, 1, kept_bytes(function))
    return None


def parallel_loops(function: Any) -> list[tuple[int, bool]]:
    """Of each parallel loop of a scheduled PrimFunc, in order: its iterations (0 where they are no constant), and whether it is
    run once and always.
    """
    loops: list[tuple[int, bool]] = []
    left = [(function.body, True)]
    while left:
        node, once = left.pop()
        if _is_parallel(node):
            loops.append((int(node.extent) if isinstance(node.extent, IntImm) else 0, once))
        repeated = isinstance(node, tirx.For) and not (isinstance(node.extent, IntImm) and int(node.extent) == 1)
        surely = once and not repeated and not isinstance(node, tirx.IfThenElse)
        left += [(inner, surely) for inner in reversed(_inside(node))]
    return loops


def parallel_extents(function: Any) -> list[int]:
    """Iterations of each parallel loop; 0 where they are no constant."""
    return [extent for extent, _ in parallel_loops(function)]


def kept_bytes(function: Any) -> int:
    """Bytes of the arrays that live outside of all parallel loops, each in whole cache lines."""
    total, left = 0, [function.body]
    while left:
        node = left.pop()
        if isinstance(node, tirx.AllocBuffer):
            size = prod(int(extent) for extent in node.buffer.shape) * width(str(node.buffer.dtype))
            total += -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        if not _is_parallel(node):
            left += _inside(node)
    return total


def _is_parallel(node: Any) -> bool:
    return isinstance(node, tirx.For) and int(node.kind) == int(ForKind.PARALLEL)


def _inside(node: Any) -> list[Any]:
    """The statements in a statement."""
    found: list[Any] = []
    for name in _INNER:
        inner = getattr(node, name, None)
        if inner is not None:
            found += list(inner) if name == "seq" else [inner]
    return found
