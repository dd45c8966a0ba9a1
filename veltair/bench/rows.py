"""The rows every benchmark of veltair writes and prints: one measured figure each, with what it is held against."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from veltair.errors import ConfigError


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure. `ratio` is value over the same figure of `against`; `spread` is relative, over repeats."""

    case: str
    metric: str
    value: float | None  # None: nothing was measured, e.g. the p99 of no answers
    unit: str
    against: str | None = None
    ratio: float | None = None
    target: str | None = None  # for people: "<= 1.3x", ">= 95 %"
    met: bool | None = None
    spread: float | None = None
    machine: str
    seed: int | None = None


def machine_name() -> str:
    """The CPU's model and how many cores of it this process may use."""
    cores = len(os.sched_getaffinity(0))
    model = "unknown CPU"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux: the name is for people, the number of cores is what matters
    return f"{model}, {cores} core{'s' if cores != 1 else ''}"


def write_rows(path: str | Path, rows: Sequence[Row]) -> None:
    """Raises ConfigError where the file cannot be written."""
    data = msgspec.json.format(msgspec.json.encode(rows), indent=1)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data + b"\n")
    except OSError as e:
        raise ConfigError(f"results file {str(path)!r} cannot be written: {e.strerror}; name a writable file") from e


def print_rows(rows: Sequence[Row], *, title: str | None = None, console: Console | None = None) -> None:
    table = Table(title=title, title_justify="left")
    for name in ("case", "metric"):
        table.add_column(name, overflow="fold")
    for name in ("value", "ratio", "spread"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("against", "target", "met"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(
            row.case,
            row.metric,
            "-" if row.value is None else f"{row.value:,.4g} {row.unit}".rstrip(),
            "" if row.ratio is None else f"{row.ratio:.2f}x",
            "" if row.spread is None else _spread(row.spread),
            row.against or "",
            row.target or "",
            {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[row.met],
        )
    (console or Console()).print(table)


def read_rows(path: Path) -> list[Row]:
    """Those that an earlier run wrote; none where it wrote none. Raises ConfigError for a file that holds no rows."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Row])
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} holds no rows of a benchmark ({error}): remove it or name another file") from error


def _spread(share: float) -> str:
    """Whole percents, or two digits of less: a cosine's spread would be none otherwise."""
    percent = 100 * share
    return f"±{percent:.0f}%" if percent >= 1 or percent < 0.01 else f"±{percent:.2g}%"
