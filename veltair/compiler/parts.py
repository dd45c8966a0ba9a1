"""Long kernels in parts: between two parts of a layer a request can be set aside, as it can between two layers.

A kernel that is one parallel loop needs no other code for that. The loop's iterations are independent, so any range of them
is a call of its own (engine/runner.c runs it), and all ranges together are the layer. What comes before the loop would be
done again for each part, so kernels with more than one parallel loop stay whole.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tvm import tirx
from tvm.tirx.expr import IntImm
from tvm.tirx.stmt import ForKind

from veltair.compiler.line import Call, Line
from veltair.compiler.records import Ranked, Timed
from veltair.compiler.schedules.base import Kernel

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
    extents: dict[str, dict[int, int]] = {}
    calls: list[Call] = []
    for call in line.calls:
        quickest = min(t.us for form in call.forms for t in ranked[form.kernel.key])
        if quickest <= LONG_US:
            calls.append(call)
            continue
        for form in call.forms:
            if form.kernel.key not in extents:
                extents[form.kernel.key] = _extents(form.kernel, ranked[form.kernel.key])
        calls += _divided(call, ranked, extents, left, cores)
    return replace(line, calls=calls), left


def _divided(
    call: Call, ranked: Mapping[str, Ranked], extents: Mapping[str, Mapping[int, int]], left: dict[str, Ranked], cores: int
) -> list[Call]:
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
    parts = _parts(fastest, extents[form.kernel.key][i], cores)
    first, *others = forms
    return [
        replace(first, part=part, parts=parts, others=tuple(replace(o, part=part, parts=parts) for o in others))
        for part in range(parts)
    ]


def _parts(timed: Timed, extent: int, cores: int) -> int:
    """The fewest parts that are short enough, of a loop of `extent` iterations."""
    each, most = timed.us / extent, extent // cores
    return next((p for p in range(2, most) if -(-extent // p) * each <= UNEVEN * PART_US), most)


def _extents(kernel: Kernel, settings: Ranked) -> dict[int, int]:
    """Place of a setting -> iterations of its one parallel loop, for settings that have exactly one."""
    found = {}
    for i, timed in enumerate(settings):
        loops = parallel_extents(kernel.build(timed.knobs))
        if len(loops) == 1 and loops[0] > 1:
            found[i] = loops[0]
    return found


def parallel_extents(function: Any) -> list[int]:
    """Iterations of each parallel loop of a scheduled PrimFunc; 0 where they are no constant."""
    loops: list[int] = []
    left = [function.body]
    while left:
        node = left.pop()
        if isinstance(node, tirx.For) and int(node.kind) == int(ForKind.PARALLEL):
            loops.append(int(node.extent) if isinstance(node.extent, IntImm) else 0)
        for name in _INNER:
            inner = getattr(node, name, None)
            if inner is not None:
                left += list(inner) if name == "seq" else [inner]
    return loops
