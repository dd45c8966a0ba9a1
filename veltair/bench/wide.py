"""Rows as a table with one line for each case and one column for each metric, where many cases share a few metrics."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from veltair.bench.rows import Row

MOST_CASE, MOST_CELL = 64, 13  # of a line; headings fold before cases do


def print_wide(rows: Sequence[Row], *, title: str, console: Console) -> None:
    """Spread, target and what rows are held against do not show here."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    by_case: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_case.setdefault(row.case, {})[row.metric] = row
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("case", min_width=min(MOST_CASE, max(map(len, by_case), default=0)))
    for metric in metrics:
        table.add_column(metric, justify="right", max_width=MOST_CELL)
    for case, found in by_case.items():
        table.add_row(escape(case), *(_cell(found.get(metric)) for metric in metrics))
    console.print(table)


def _cell(row: Row | None) -> str:
    return "" if row is None or row.value is None else escape(f"{row.value:,.4g} {row.unit}".rstrip())
