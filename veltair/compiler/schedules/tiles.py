"""How a window meets the edges of an image: which taps lie inside, for each tile of output columns and for a row.

The taps outside are left out of the loops, so that no zero is multiplied and no padded copy of the image is made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from veltair.compiler.schedules import nest


@dataclass(frozen=True)
class Window:
    """Kernel, stride, dilation and the padding of top, left, bottom, right."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def out(self, h: int, w: int) -> tuple[int, int]:
        (kh, kw), (sh, sw), (dh, dw), (t, le, b, r) = self.kernel, self.strides, self.dilations, self.pads
        return (h + t + b - (kh - 1) * dh - 1) // sh + 1, (w + le + r - (kw - 1) * dw - 1) // sw + 1

    @property
    def pointwise(self) -> bool:
        return self.kernel == (1, 1) and self.strides == (1, 1) and self.pads == (0, 0, 0, 0)

    def taps(self, h: int, w: int, oh: int, ow: int) -> int:
        """Pairs of an output pixel and a tap that lies inside the image."""
        rows, columns = (
            sum(_inside(k, s, d, before, size, out) for s, d, before, size, out, k in axis) for axis in self._axes(h, w, oh, ow)
        )
        return rows * columns

    def _axes(self, h: int, w: int, oh: int, ow: int) -> list[list[tuple[int, int, int, int, int, int]]]:
        (kh, kw), (sh, sw), (dh, dw), (top, left, _, _) = self.kernel, self.strides, self.dilations, self.pads
        return [[(sh, dh, top, h, oh, i) for i in range(kh)], [(sw, dw, left, w, ow, j) for j in range(kw)]]


def _inside(tap: int, stride: int, dilation: int, before: int, size: int, out: int) -> int:
    first, behind = span(tap, stride, dilation, before, size)
    return max(0, min(behind, out) - max(first, 0))


def span(tap: int, stride: int, dilation: int, before: int, size: int) -> tuple[int, int]:
    """The outputs for which a tap lies inside: from the first to the one behind the last, neither yet clipped."""
    return -((tap * dilation - before) // stride), (size - 1 + before - tap * dilation) // stride + 1


@dataclass(frozen=True, slots=True)
class Run:
    """Tiles of one row, side by side, of equal width and with equal taps inside.

    `taps[j]` are the columns of the tile, from the first to the one behind the last, for which tap j lies inside.
    """

    start: int
    width: int
    count: int
    taps: tuple[tuple[int, int], ...]

    def spans(self) -> list[tuple[int, int, int, int]]:
        """Neighbouring taps that fit the same columns: (first tap, how many, first column, column behind the last)."""
        found: list[tuple[int, int, int, int]] = []
        for j, (first, behind) in enumerate(self.taps):
            if behind <= first:
                continue
            if found and found[-1][2:] == (first, behind) and sum(found[-1][:2]) == j:
                found[-1] = (found[-1][0], found[-1][1] + 1, first, behind)
            else:
                found.append((j, 1, first, behind))
        return found


def column_runs(window: Window, w: int, ow: int, tile: int) -> list[Run]:
    """Cut `ow` output columns into as few tiles of at most `tile` columns as there can be, of nearly equal width."""
    stride, dilation, left = window.strides[1], window.dilations[1], window.pads[1]
    spans = [span(j, stride, dilation, left, w) for j in range(window.kernel[1])]
    count = -(-ow // tile)
    base, wider = divmod(ow, count)
    runs: list[Run] = []
    at = 0
    for number in range(count):
        width = base + (number < wider)
        taps = tuple((max(0, first - at), max(0, first - at, min(width, behind - at))) for first, behind in spans)
        if runs and (runs[-1].width, runs[-1].taps) == (width, taps):
            runs[-1] = Run(runs[-1].start, width, runs[-1].count + 1, taps)
        else:
            runs.append(Run(at, width, 1, taps))
        at += width
    return runs


def tap_rows(window: Window, h: int, oh: int, y: Any) -> tuple[Any, Any]:
    """The taps inside the image for output row `y`: the first, and how many."""
    (kh, _), (sh, _), (dh, _), top = window.kernel, window.strides, window.dilations, window.pads[0]

    def ceil(a: Any) -> Any:
        return (a + dh - 1) // dh if isinstance(a, int) else tirx.floordiv(a + (dh - 1), dh)

    if isinstance(y, int):
        first, behind = max(0, ceil(top - y * sh)), min(kh, ceil(h + top - y * sh))
        return first, max(0, behind - first)
    first = tirx.max(0, ceil(top - y * sh)) if top else 0
    reaches = (oh - 1) * sh + (kh - 1) * dh - top >= h
    behind = tirx.min(kh, ceil(h + top - y * sh)) if reaches else kh
    return first, (tirx.max(0, behind - first) if top or reaches else kh)


def along(runs: Sequence[Run], at: Callable[[Run, Any], Any]) -> Any:
    """Every tile of a row: `at(run, first column)`."""
    return nest.seq(*(nest.serial("k", r.count, lambda k, r=r: at(r, r.start + k * r.width)) for r in runs))  # type: ignore[misc]


def one_of(runs: Sequence[Run], number: Any, at: Callable[[Run, Any], Any]) -> Any:
    """The tile with this number of a row: `at(run, first column)`."""
    behind = sum(r.count for r in runs)
    statement: Any = None
    for run in reversed(runs):
        first = behind - run.count
        tile = at(run, run.start + (number - first) * run.width)
        statement = tile if statement is None else nest.when(number < behind, tile, statement)
        behind = first
    return statement
