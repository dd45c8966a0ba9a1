"""The rows of a tournament as one table and one plot: made from the rows alone, so that neither can say anything else."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from veltair.bench.bars import Bar, svg
from veltair.bench.contenders import PEERS
from veltair.bench.rows import Row
from veltair.bench.tournament import LATENESS, LOAD, OURS, OVER_FCFS, OVER_PEER

ALONE = " alone, "
BY_TABLES = "load by tables"


def mixes_in(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.case.partition(", ")[0] for row in rows if row.metric == LOAD))


def print_standings(rows: Sequence[Row], console: Console) -> None:
    table = Table(title="Largest load (requests/s) at which every tenant keeps its share in QoS", title_justify="left")
    for heading in ("mix", "contender"):
        table.add_column(heading, no_wrap=True)
    for heading in ("load /s", "spread", "by tables", "over fcfs", "over the best peer"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("generator late", justify="right")
    by_metric = {(row.case, row.metric): row for row in rows}
    loads = [row for row in rows if row.metric == LOAD]
    for number, row in enumerate(loads):
        mix, _, label = row.case.partition(", ")
        is_last = number + 1 == len(loads) or loads[number + 1].case.partition(", ")[0] != mix
        late, told = by_metric.get((row.case, LATENESS)), by_metric.get((row.case, BY_TABLES))
        table.add_row(
            mix,
            escape(label),
            "-" if row.value is None else f"{row.value:.1f}",
            "" if row.spread is None else f"±{row.spread:.0%}",
            "" if told is None or told.value is None else f"{told.value:.1f}",
            _ratio(by_metric.get((row.case, OVER_FCFS))),
            _ratio(by_metric.get((row.case, OVER_PEER))),
            "" if late is None or late.value is None else f"{late.value:.2f} ms",
            end_section=is_last,
        )
    console.print(table)


def _ratio(row: Row | None) -> str:
    if row is None or row.ratio is None:
        return ""
    against = f" ({row.against})" if row.metric == OVER_PEER else ""
    colour = {True: "green", False: "red", None: "default"}[row.met]
    spread = "" if row.spread is None else f" ±{row.spread:.0%}"
    return f"[{colour}]{row.ratio:.2f}x{spread}[/]{escape(against)}{f' {escape(row.target)}' if row.target else ''}"


def plot(rows: Sequence[Row]) -> str:
    """SVG: a panel per mix, a bar per contender. Tenants alone are left out: their loads are of another scale."""
    loads = [row for row in rows if row.metric == LOAD and ALONE not in row.case]
    panels = {mix: [_bar(row, mix) for row in loads if row.case.startswith(f"{mix}, ")] for mix in mixes_in(loads)}
    seeds = sorted({row.seed for row in loads if row.seed is not None})
    note = (
        f"{loads[0].machine}; seeds from {', '.join(map(str, seeds))}; whiskers: nine tenths of draws of the same rounds"
        if loads
        else ""
    )
    return svg("Largest load at which every tenant keeps 95 % of its requests in QoS", "requests/s", panels, note)


def _bar(row: Row, mix: str) -> Bar:
    label = row.case.removeprefix(f"{mix}, ")
    peers = {peer.label for peer in PEERS.values()}
    kind = "peer" if label in peers else "ours" if label.split()[0] == OURS else "policy"
    return Bar(label, row.value or 0.0, row.spread, kind)
