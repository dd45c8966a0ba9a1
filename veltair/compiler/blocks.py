"""Cutting the line into layer blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from veltair.compiler.line import Line, tensor_of_value

TARGET_US = 1000.0  # a block: long against the hand-over (under 0.1 ms), short against the tightest latency target
MOST_BLOCKS = 64


@dataclass(frozen=True, slots=True)
class Span:
    """Calls first <= i < end of the line."""

    first: int
    end: int
    live_bytes: int  # needed behind it
    continues: bool = False  # begins with a later part of the layer that the span before ends with


def cut(line: Line, call_us: Sequence[float], comparable: frozenset[str]) -> list[Span]:
    """Blocks of about TARGET_US each, cut where few bytes live.

    A cut needs every live buffer to hold a whole value of the model in `comparable`: the gate must be able to set it and
    to read it. The cuts minimise the sum over blocks of (time / target)^2 plus, for each, 1 and the megabytes live behind
    it: even blocks of the target's length where nothing else speaks, and a kernel that is longer stands alone. The parts of a
    divided layer share no block with anything else (see Span.continues).
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
    seams = _seams(line)
    best: dict[int, tuple[float, int]] = {0: (0.0, 0)}
    for end in places[1:]:
        last_seam = max((s for s in seams if s < end and s in allowed), default=0)
        best[end] = min(
            (best[start][0] + ((elapsed[end] - elapsed[start]) / target) ** 2 + 1.0 + allowed[end] / 2**20, start)
            for start in places[: places.index(end)]
            if start >= last_seam
        )
    spans: list[Span] = []
    end = len(line.calls)
    while end:
        start = best[end][1]
        spans.append(Span(start, end, allowed[end], line.calls[start].part > 0))
        end = best[end][1]
    return spans[::-1]


def layers(spans: Sequence[Span]) -> Iterator[range]:
    """The blocks' numbers in order, those of a layer in parts together."""
    first = 0
    for end in range(1, len(spans) + 1):
        if end == len(spans) or not spans[end].continues:
            yield range(first, end)
            first = end


def _seams(line: Line) -> list[int]:
    """Calls with which a divided layer begins, and those behind its end."""
    calls = line.calls
    return [i for i in range(1, len(calls)) if calls[i].part == 0 and (calls[i].parts > 1 or calls[i - 1].parts > 1)]
