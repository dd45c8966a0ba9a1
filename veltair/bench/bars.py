"""Figures of rows as a plot: one panel per mix, one bar per contender, whiskers over seeds. Plain SVG, written by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

PANEL_WIDTH, LABEL_WIDTH, VALUE_WIDTH = 470, 150, 62
BAR, GAP, HEAD, MARGIN, COLUMNS = 14, 5, 30, 14, 2
COLOURS = {"ours": "#1b6ca8", "policy": "#9db9cf", "peer": "#d28a3c"}
INK, FAINT = "#222", "#888"


@dataclass(frozen=True, slots=True)
class Bar:
    """`spread` is relative: the whisker goes from value * (1 - spread) to value * (1 + spread)."""

    label: str
    value: float
    spread: float | None
    kind: str  # of COLOURS


def svg(title: str, unit: str, panels: Mapping[str, Sequence[Bar]], note: str = "") -> str:
    """Each panel on its own scale from 0, since mixes carry different loads."""
    names = list(panels)
    rows = [names[at : at + COLUMNS] for at in range(0, len(names), COLUMNS)]
    heights = [HEAD + max(len(panels[name]) for name in row) * (BAR + GAP) + MARGIN for row in rows]
    width, height = COLUMNS * PANEL_WIDTH + MARGIN, 2 * HEAD + sum(heights) + HEAD
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(MARGIN, 20, title, size=14, weight="bold"),
        *_legend(MARGIN, 38),
    ]
    top = 2 * HEAD
    for row, panel_height in zip(rows, heights, strict=True):
        for column, name in enumerate(row):
            parts += _panel(MARGIN + column * PANEL_WIDTH, top, name, unit, panels[name])
        top += panel_height
    parts.append(_text(MARGIN, height - 10, note, colour=FAINT))
    return "\n".join([*parts, "</svg>", ""])


def _panel(left: float, top: float, name: str, unit: str, bars: Sequence[Bar]) -> list[str]:
    parts = [_text(left, top + 18, f"{name} ({unit})", size=12, weight="bold")]
    most = max((bar.value * (1 + (bar.spread or 0)) for bar in bars), default=0) or 1.0
    scale = (PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH - MARGIN) / most
    zero = left + LABEL_WIDTH
    for number, bar in enumerate(bars):
        y = top + HEAD + number * (BAR + GAP)
        middle = y + BAR / 2
        end = zero + bar.value * scale
        parts.append(_text(zero - 6, middle + 4, bar.label, anchor="end"))
        parts.append(f'<rect x="{zero:.1f}" y="{y:.1f}" width="{end - zero:.1f}" height="{BAR}" fill="{COLOURS[bar.kind]}"/>')
        whisker = bar.value * (bar.spread or 0) * scale
        if whisker:
            parts.append(
                f'<path d="M{end - whisker:.1f} {middle:.1f}H{end + whisker:.1f}'
                f"M{end - whisker:.1f} {middle - 4:.1f}v8M{end + whisker:.1f} {middle - 4:.1f}v8"
                f'" stroke="{INK}" fill="none"/>'
            )
        parts.append(_text(end + whisker + 5, middle + 4, f"{bar.value:.1f}"))
    return parts


def _legend(left: float, top: float) -> list[str]:
    parts = []
    words = {"ours": "veltair", "policy": "other policies, same kernels", "peer": "FIFO servers of peers"}
    for number, (kind, word) in enumerate(words.items()):
        x = left + number * 200
        parts += [f'<rect x="{x}" y="{top}" width="10" height="10" fill="{COLOURS[kind]}"/>', _text(x + 15, top + 9, word)]
    return parts


def _text(
    x: float, y: float, text: str, *, size: int = 11, weight: str = "normal", anchor: str = "start", colour: str = INK
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(text)}</text>"
    )
