"""Small pieces of HTML. Text is escaped where it enters; what these functions return is markup."""

import html
from collections.abc import Iterable, Sequence

COLOURS = 8  # variables --c0..--c7 of the style sheet


def text(value: object) -> str:
    return html.escape(str(value))


def card(title: str, note: str, body: str, kind: str = "") -> str:
    return f'<section class="card {kind}"><h2>{text(title)}</h2><p>{text(note)}</p>{body}</section>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, classes: Sequence[str] = ()) -> str:
    """`rows` hold markup, heads text. The first `left` columns and those that wrap are left-aligned.

    `classes` are those of the rows, in order.
    """
    body, rows = [], list(rows)
    lefts = [i < left or any(row[i].startswith('<td class="wrap"') for row in rows) for i in range(len(heads))]
    head = "".join(f'<th class="{"left" if lefts[i] else ""}">{text(h)}</th>' for i, h in enumerate(heads))
    for number, row in enumerate(rows):
        cells = "".join(
            cell if cell.startswith("<td") else f'<td class="{"left" if i < left else ""}">{cell}</td>'
            for i, cell in enumerate(row)
        )
        body.append(f'<tr class="{classes[number] if number < len(classes) else ""}">{cells}</tr>')
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def tile(value: str, what: str) -> str:
    return f'<div class="tile"><b>{text(value)}</b><span>{text(what)}</span></div>'


def meter(share: float) -> str:
    """A bar of `share` (0..1 and a little more) and the share in words."""
    width = min(max(share, 0.0), 1.0)
    return f'<span class="meter"><i style="width:{width:.0%}"></i></span>{share:.0%}'


def dot(colour: int) -> str:
    return f'<i class="dot" style="background:var(--c{colour % COLOURS})"></i>'


def time(us: float) -> str:
    if us >= 10_000:
        return f"{us / 1e3:.1f} ms"
    return f"{us / 1e3:.2f} ms" if us >= 1000 else f"{us:.0f} us" if us >= 10 else f"{us:.1f} us"


def size(n: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if n >= scale:
            return f"{n / scale:.1f} {unit}"
    return f"{n:.0f} B"


def count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
