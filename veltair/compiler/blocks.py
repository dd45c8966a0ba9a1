"""Cutting the line into layer blocks, and choosing the knobs of each block's variants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from veltair.compiler.line import Line, tensor_of_value
from veltair.compiler.records import Ranked
from veltair.compiler.schedules.base import Kernel, Knobs

TARGET_US = 1000.0  # a block: long against the hand-over (under 0.1 ms), short against the tightest latency target
MOST_BLOCKS = 24
WIDE_GAIN = 0.97  # on all cores: less is noise
SLOWER_AT_MOST = 1.3  # a variant that presses less on memory may cost this much time alone


@dataclass(frozen=True, slots=True)
class Span:
    """Calls first <= i < end of the line."""

    first: int
    end: int
    live_bytes: int  # needed behind it


def cut(line: Line, call_us: Sequence[float], comparable: frozenset[str]) -> list[Span]:
    """Blocks of about TARGET_US each, cut where few bytes live.

    A cut needs every live buffer to hold a whole value of the model in `comparable`: the gate must be able to set it and
    to read it. The cuts minimise the sum over blocks of (time / target)^2 plus, for each, 1 and the megabytes live behind
    it: even blocks of the target's length where nothing else speaks, and a kernel that is longer stands alone.
    """
    named = tensor_of_value(line)
    lives = line.lifetimes()
    allowed: dict[int, int] = {0: 0, len(line.calls): 0}  # a block may end before this call -> live bytes there
    for i in range(len(line.calls) - 1):
        live = [root for root, (made, last) in lives.items() if made <= i < last]
        if all(line.tensors[r].kind == "input" or (r in named and named[r].value in comparable) for r in live):
            allowed[i + 1] = sum(line.tensors[r].size_bytes for r in live)
    elapsed = [0.0, *accumulate(call_us)]
    target = max(TARGET_US, elapsed[-1] / MOST_BLOCKS)
    places = sorted(allowed)
    best: dict[int, tuple[float, int]] = {0: (0.0, 0)}
    for end in places[1:]:
        best[end] = min(
            (best[start][0] + ((elapsed[end] - elapsed[start]) / target) ** 2 + 1.0 + allowed[end] / 2**20, start)
            for start in places[: places.index(end)]
        )
    spans: list[Span] = []
    end = len(line.calls)
    while end:
        spans.append(Span(best[end][1], end, allowed[end]))
        end = best[end][1]
    return spans[::-1]


def choose_knobs(line: Line, ranked: Mapping[str, Ranked]) -> dict[str, dict[str, Knobs]]:
    """Variant name -> kernel key -> knobs.

    `fast` is the quickest on one core. `wide` is the quickest on all cores, where that gains: smaller or more even parallel
    chunks. `lean` moves the fewest bytes beyond the core's caches (as modelled by the kernel's schedule) among the settings
    at most SLOWER_AT_MOST slower; where that is `fast` itself, it is the next with another working set, so that the
    scheduler has two footprints to choose from.
    """
    chosen: dict[str, dict[str, Knobs]] = {"fast": {}, "lean": {}, "wide": {}}
    for kernel in {c.kernel.key: c.kernel for c in line.calls}.values():
        settings = ranked[kernel.key]
        fast = settings[0]
        near = [t for t in settings if t.us <= fast.us * SLOWER_AT_MOST]
        widest = min(near, key=lambda t: t.us_wide)
        chosen["fast"][kernel.key] = fast.knobs
        chosen["wide"][kernel.key] = widest.knobs if widest.us_wide < fast.us_wide * WIDE_GAIN else fast.knobs
        chosen["lean"][kernel.key] = _leanest(kernel, near)
    return chosen


def _leanest(kernel: Kernel, near: Ranked) -> Knobs:
    footprints = [(kernel.traffic_bytes(t.knobs), kernel.working_set_bytes(t.knobs)) for t in near]
    least = footprints.index(min(footprints))
    if footprints[least] != footprints[0]:
        return near[least].knobs
    other = next((i for i, footprint in enumerate(footprints) if footprint != footprints[0]), min(1, len(near) - 1))
    return near[other].knobs
