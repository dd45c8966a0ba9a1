"""`veltair trace`: a decision log in, a trace for Perfetto out."""

from pathlib import Path

import click

from veltair.errors import LogError, VeltairError
from veltair.observe.read import Log, Run, read_log
from veltair.simulate.trace import write_log_trace


@click.command(epilog="Example: veltair trace decisions.jsonl -o trace.json.gz, then open it at ui.perfetto.dev")
@click.argument("log", metavar="LOG", type=click.Path(path_type=Path))
@click.option("-o", "--output", default=Path("trace.json"), show_default=True, type=click.Path(path_type=Path), help="The trace.")
@click.option("--run", "number", type=click.IntRange(1), help="Which life of the engine, from 1 on.  [default: the last]")
def trace(log: Path, output: Path, number: int | None) -> None:
    """Make a trace of what the scheduler did: units on cores, requests from arrival to answer, who waited.

    The file opens in Perfetto or chrome://tracing; ending in .gz it is compressed. `veltair simulate --trace` makes the same
    of a simulation.
    """
    try:
        run = _run(read_log(log), number)
        write_log_trace(output, run)
    except VeltairError as e:
        raise click.ClickException(str(e)) from e
    click.echo(f"{output} ({output.stat().st_size / 1e6:.1f} MB, {len(run.records)} records)")


def _run(log: Log, number: int | None) -> Run:
    if number is not None and number > len(log.runs):
        raise LogError(f"log {str(log.path)!r} has {len(log.runs)} runs, not {number}; name one of them with --run")
    return log.runs[-1 if number is None else number - 1]
