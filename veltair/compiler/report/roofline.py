"""The roofline (Williams, Waterman and Patterson 2009): work per byte of each block against the speed it reached."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from veltair.compiler.report.markup import COLOURS, text
from veltair.compiler.report_schema import Block, Candidate, Peaks

WIDTH, HEIGHT = 920, 420
LEFT, RIGHT, TOP, BOTTOM = 58, 120, 14, 44


class Place(NamedTuple):
    """Of one variant, alone on one core."""

    intensity: float  # FLOP per byte that passes the core's own caches
    gflops: float
    roof: float  # GFLOP/s that the hardware allows at this intensity


def place(block: Block, candidate: Candidate, peaks: Peaks) -> Place:
    intensity = block["flops"] / max(candidate["traffic_bytes"], 1)
    peak = peaks["gflops"].get(candidate["precision"], peaks["gflops"]["fp32"])
    roof = min(peak, intensity * peaks["bandwidth_bytes_per_us"] / 1e3)
    return Place(intensity, block["flops"] / max(candidate["us"][0], 1e-3) / 1e3, roof)


class _Axis:
    """Logarithmic, from `low` to `high` over the pixels `start`..`end`."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self._start, self._end = low, high, start, end

    def at(self, value: float) -> float:
        share = math.log(min(max(value, self.low), self.high) / self.low) / math.log(self.high / self.low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        steps = (1, 2, 5) if self.high / self.low < 2000 else (1,)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        return [tick for d in decades for step in steps if self.low <= (tick := step * 10.0**d) <= self.high]


def roofline(blocks: Sequence[Block], peaks: Peaks, colours: Mapping[str, int]) -> str:
    """An SVG: a dot for each kept variant of each block, larger where the block takes longer. `colours` by variant name."""
    dots = [(b, c, place(b, c, peaks)) for b in blocks for c in b["candidates"] if c["kept"] and b["flops"]]
    if not dots:
        return '<p class="empty">No block computes anything that could be placed here.</p>'
    ridge = min(peaks["gflops"].values()) * 1e3 / peaks["bandwidth_bytes_per_us"]
    x = _Axis(
        min([ridge / 4, *(p.intensity / 1.5 for *_, p in dots)]), max([ridge * 8, *(p.intensity * 1.5 for *_, p in dots)]),
        LEFT, WIDTH - RIGHT,
    )  # fmt: skip
    y = _Axis(
        min([max(peaks["gflops"].values()) / 10, *(p.gflops / 1.5 for *_, p in dots)]),
        max([max(peaks["gflops"].values()) * 1.6, *(p.gflops * 1.2 for *_, p in dots)]),  # Winograd passes the peak
        HEIGHT - BOTTOM, TOP,
    )  # fmt: skip
    longest = max(c["us"][0] for _, c, _ in dots)
    parts = [*_grid(x, y), *_roofs(x, y, peaks)]
    for block, candidate, p in sorted(dots, key=lambda d: -d[1]["us"][0]):  # small ones on top
        radius = 3.5 + 8 * math.sqrt(candidate["us"][0] / longest)
        told = (
            f"{block['name']}, {candidate['name']}: {p.gflops:.0f} GFLOP/s, {p.gflops / p.roof:.0%} of its roof, "
            f"{p.intensity:.3g} FLOP/byte, {candidate['us'][0]:.0f} us on one core"
        )
        parts.append(
            f'<circle cx="{x.at(p.intensity):.1f}" cy="{y.at(p.gflops):.1f}" r="{radius:.1f}" '
            f'style="fill:var(--c{colours[candidate["name"]] % COLOURS})"><title>{text(told)}</title></circle>'
        )
    names = dict.fromkeys(c["name"] for _, c, _ in dots)
    legend = "".join(
        f'<span><i class="dot" style="background:var(--c{colours[n] % COLOURS})"></i>{text(n)}</span>' for n in names
    )
    label = "Roofline: GFLOP/s against FLOP per byte, a dot for each kept variant of each block"
    return (
        f'<div class="scroll"><svg class="roofline" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f'{"".join(parts)}</svg></div><div class="legend">{legend}</div>'
    )


def _grid(x: _Axis, y: _Axis) -> list[str]:
    parts = []
    for tick in x.ticks():
        parts.append(f'<line class="grid" x1="{x.at(tick):.1f}" y1="{TOP}" x2="{x.at(tick):.1f}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x.at(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in y.ticks():
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y.at(tick):.1f}" x2="{WIDTH - RIGHT}" y2="{y.at(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y.at(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts.append(
        f'<text class="axis" x="{(WIDTH - RIGHT + LEFT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        "FLOP per byte moved beyond the core's own caches</text>"
    )
    parts.append(
        f'<text class="axis" transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">GFLOP/s, one core</text>'
    )
    return parts


def _roofs(x: _Axis, y: _Axis, peaks: Peaks) -> list[str]:
    parts = []
    rate = peaks["bandwidth_bytes_per_us"] / 1e3
    for precision, peak in sorted(peaks["gflops"].items(), key=lambda p: p[1]):
        ridge = peak / rate
        start = max(x.low, y.low / rate)
        parts.append(
            f'<polyline class="roof" points="{x.at(start):.1f},{y.at(start * rate):.1f} {x.at(ridge):.1f},{y.at(peak):.1f} '
            f'{x.at(x.high):.1f},{y.at(peak):.1f}"/>'
        )
        parts.append(f'<text class="told" x="{WIDTH - RIGHT + 7}" y="{y.at(peak) + 4:.1f}">{text(precision)} {peak:.0f}</text>')
    slope = max(x.low, y.low / rate) * 1.25
    parts.append(f'<text class="told" x="{x.at(slope) + 10:.1f}" y="{y.at(slope * rate) + 4:.1f}">{rate:.1f} GB/s</text>')
    return parts
