"""How well held-out co-runs were foretold: figures, and the table that people read."""

from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from veltair.interference.learnt import CHOSEN, Held
from veltair.interference.model import Alone, Floats, errors
from veltair.interference.times import Figure, HostTimes

ALL, WHOLE, STRANGERS = "all blocks", "whole models", "all, models never paired before"
MOST_ERROR = 0.10  # of the median, in the median
COVERED = (0.93, 0.97)  # of single times by the p95


def figures(held: Sequence[Held], of_all: str = ALL, by_kind: bool = True) -> Iterator[Figure]:
    """Of all blocks and each class of them, by each who foretold; and of whole models, by what was chosen."""
    examples = [each for fold in held for each in fold.examples]
    groups = {of_all: list(range(len(examples)))}
    for kind in sorted({each.kind for each in examples} if by_kind else ()):
        groups[kind] = [row for row, each in enumerate(examples) if each.kind == kind]
    for of, rows in groups.items():
        for by in held[0].by:
            middle, late = (np.concatenate([each.by[by][which] for each in held])[rows] for which in (0, 1))
            yield _figure(of, by, [examples[row].times for row in rows], middle, late)
    if by_kind:
        wholes = [each.wholes for each in held]
        middle, late = np.concatenate([w.middle_us for w in wholes]), np.concatenate([w.late_us for w in wholes])
        yield _figure(WHOLE, CHOSEN, [times for each in wholes for times in each.times], middle, late)


def _figure(of: str, by: str, times: Sequence[Floats], middle_us: Floats, late_us: Floats) -> Figure:
    wrong = errors(times, middle_us)
    within = np.concatenate([measured <= us for measured, us in zip(times, late_us, strict=True)])
    return Figure(
        of=of,
        by=by,
        examples=len(times),
        mape=float(wrong.mean()),
        median_error=float(np.median(wrong)),
        coverage=float(within.mean()),
        width=float((late_us / middle_us).mean()),
    )


def render(times: HostTimes) -> RenderableType:
    """For a terminal."""
    grid = Grid(title="Held-out co-runs: what was foretold against what was measured", title_justify="left")
    grid.add_column("of")
    grid.add_column("foretold by")
    for name in ("in co-runs", "MAPE", "median error", "p95 covers", "p95 / median"):
        grid.add_column(name, justify="right")
    grid.add_column("used")
    before = None
    for figure in times.figures:
        used = times.chosen.get(figure.of) == figure.by
        grid.add_row(
            figure.of if figure.of != before else "",
            figure.by,
            f"{figure.examples:,}",
            f"{figure.mape:.1%}",
            _held_to(figure.median_error, figure.median_error <= MOST_ERROR, figure),
            _held_to(figure.coverage, COVERED[0] <= figure.coverage <= COVERED[1], figure),
            f"{figure.width:.2f}",
            "yes" if used else "",
        )
        before = figure.of
    return Group(grid, *(Text(line) for line in _notes(times)))


def _held_to(share: float, met: bool, figure: Figure) -> str:
    """In colour where it is a target: what is used has to meet it, its rivals need not."""
    return f"[{'green' if met else 'red'}]{share:.1%}[/]" if figure.by == CHOSEN else f"{share:.1%}"


def _notes(times: HostTimes) -> Iterator[str]:
    lost = times.discarded
    yield (
        f"{times.coruns:,} co-runs of {times.pairs:,} pairs, {times.samples:,} times of blocks; held out by pair, "
        f"seed {times.seed}. Left out: {lost.absurd} absurd times, {lost.disturbed} disturbed co-runs, "
        f"{lost.stale} of other bundles."
    )
    yield f"Targets: median error at most {MOST_ERROR:.0%}, p95 covering {COVERED[0]:.0%} to {COVERED[1]:.0%}."
    by = {figure.by: figure.mape for figure in times.figures if figure.of == ALL}
    yield (
        f"Times measured alone, whoever is beside, err by {by[Alone.name]:.1%} (MAPE), what is used by {by[CHOSEN]:.1%}: "
        "so much is it worth on this host to know the pressure."
    )
    yield from times.notes
