"""`veltair bench`: open-loop load of many tenants, and what each of them got."""

from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from veltair.bench.report import print_result
from veltair.bench.rows import write_rows
from veltair.bench.run import run_against, run_policies
from veltair.bench.scenario import read_scenario
from veltair.errors import VeltairError

BELOW_TARGET_STATUS = 3
WIDTH_IN_FILES = 120


@click.command(epilog="Example: veltair bench --scenario mixed.toml --bundles artifacts --policy veltair,fcfs --out logs")
@click.option("--scenario", required=True, type=click.Path(path_type=Path), help="TOML file: tenants, rates, targets, duration.")
@click.option("--endpoint", help="Load the server that runs there, e.g. tcp://127.0.0.1:7340.")
@click.option("--bundles", type=click.Path(path_type=Path), help="Start servers of our own with the bundles in this folder.")
@click.option("--policy", default="veltair", show_default=True, help="With --bundles: policies to run one after the other, a,b.")
@click.option("--scale", default=1.0, show_default=True, type=float, help="Multiply all rates.")
@click.option("--out", type=click.Path(path_type=Path), help="With --bundles: keep a decision log per policy in this folder.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures as rows to this file.")
@click.option(
    "--fail-under", type=click.FloatRange(0, 1), help="Exit with 3 if any tenant has a smaller share of requests within QoS."
)
def bench(
    scenario: Path,
    endpoint: str | None,
    bundles: Path | None,
    policy: str,
    scale: float,
    out: Path | None,
    json_file: Path | None,
    fail_under: float | None,
) -> None:
    """Send a scenario's load at its own pace and report what each tenant got.

    Latency counts from the moment a request was due, not from when it was sent. Exit status: 0, 1 for an error, 2 for
    wrong usage, 3 with --fail-under.
    """
    if (endpoint is None) == (bundles is None):
        raise click.UsageError("name either a running server (--endpoint) or bundles to serve (--bundles)")
    policies = [name.strip() for name in policy.split(",") if name.strip()]
    if bundles is not None and (not policies or len(set(policies)) < len(policies)):
        raise click.BadParameter("name each policy once, e.g. veltair,fcfs", param_hint="--policy")
    try:
        load = read_scenario(scenario).scaled(scale)
        with _progress_bar() as bar:
            shown = _shown_in(bar)
            if bundles is None:
                assert endpoint is not None
                result = run_against(load, endpoint, on_progress=shown)
            else:
                result = run_policies(load, bundles, policies, out=out, on_progress=shown)
        if json_file is not None:
            write_rows(json_file, result.rows())
    except VeltairError as e:
        raise click.ClickException(str(e)) from e
    console = Console()
    # A log file has no width; cut columns there would lose figures.
    print_result(result, console if console.is_terminal else Console(width=max(console.width, WIDTH_IN_FILES)))
    if fail_under is not None and any(run.worst_in_qos < fail_under for run in result.policies):
        click.echo(f"a tenant has less than {fail_under:.1%} of its requests within QoS", err=True)
        click.get_current_context().exit(BELOW_TARGET_STATUS)


def _progress_bar() -> Progress:
    # Redrawn on progress only: a refreshing thread would take time from the generator.
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    return Progress(*columns, auto_refresh=False, console=Console(stderr=True))


def _shown_in(bar: Progress) -> Callable[[str, float], None]:
    tasks = {}

    def show(policy: str, share: float) -> None:
        if policy not in tasks:
            tasks[policy] = bar.add_task(escape(policy), total=1.0)
        bar.update(tasks[policy], completed=share)
        bar.refresh()

    return show
