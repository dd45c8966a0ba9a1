"""`veltair simulate`: what a machine, a policy or another tenant would do, on a virtual clock."""

from collections.abc import Callable
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from veltair.core.policies import POLICIES
from veltair.errors import ConfigError, VeltairError
from veltair.observe.read import read_log
from veltair.simulate.page import write_page
from veltair.simulate.replay import replay
from veltair.simulate.result import encode_result
from veltair.simulate.run import record, trace
from veltair.simulate.run import simulate as run_simulation
from veltair.simulate.setting import prepare
from veltair.simulate.table import print_result
from veltair.simulate.workload import ModelSource, Workload, read_workload, ready_workloads

DIFFERS_STATUS = 3
WIDTH_IN_FILES = 150

_EXAMPLES = f"""
Examples:

\b
  veltair simulate --workload mixed --policy veltair,fcfs
  veltair simulate --workload mixed --policy veltair,veltair-as,veltair-ac,fcfs    # what each mechanism gives
  veltair simulate --cores 64 --workload tenants.toml --policy veltair,fcfs --seed 7 --jobs 4 --json r.json --html r.html
  veltair simulate --workload mixed --bundles artifacts --load 0.8 --trace run.json
  veltair simulate --workload published --csv resnet50=resnet50_layer_us.csv
  veltair simulate --replay decisions.jsonl

\b
Workloads that come along: {", ".join(ready_workloads())}
Policies: {", ".join(POLICIES)}
"""


@click.command(epilog=_EXAMPLES)
@click.option("--workload", metavar="FILE|NAME", help="TOML file of tenants and machine, or a ready one.")
@click.option("--policy", default="veltair,fcfs", show_default=True, help="Policies to compare, a,b; ratios are to the last.")
@click.option("--cores", type=click.IntRange(1), help="Cores of the machine, in place of the workload's.")
@click.option("--load", type=click.FloatRange(0, min_open=True), help="Share of capacity at which policies are compared.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the first run.")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="How many runs of each case.")
@click.option("--requests", type=click.IntRange(100), help="Of each run, in place of the workload's.")
@click.option("--noise", type=click.FloatRange(0, 1), help="Log-normal spread of unit times, e.g. 0.1.")
@click.option("--bundles", type=click.Path(path_type=Path, file_okay=False), help="Times from the bundles in this folder.")
@click.option(
    "--csv", "layers", multiple=True, metavar="MODEL=FILE", help="Times of a model from layer,cores_8,cores_16,.. in us."
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Worker processes; the result is the same.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result to this file.")
@click.option("--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with plots.")
@click.option("--replay", "log", type=click.Path(path_type=Path, dir_okay=False), help="In place of --workload: a decision log.")
@click.option("--trace", "trace_file", type=click.Path(path_type=Path, dir_okay=False), help="Write a run for Perfetto.")
@click.option("--log", "log_file", type=click.Path(path_type=Path, dir_okay=False), help="Write that run as a decision log.")
def simulate(
    workload: str | None,
    policy: str,
    cores: int | None,
    load: float | None,
    seed: int,
    seeds: int,
    requests: int | None,
    noise: float | None,
    bundles: Path | None,
    layers: tuple[str, ...],
    jobs: int,
    json_file: Path | None,
    html_file: Path | None,
    log: Path | None,
    trace_file: Path | None,
    log_file: Path | None,
) -> None:
    """Find out what each policy makes of a workload, with the scheduler that serves.

    For each policy: the largest load at which every tenant keeps its share of requests within its target, and a closer look
    at one load. Times are measured ones, or modelled for core counts that nobody measured (the table says which). Processes
    that are not ours stand in the workload's [outside] steps: [second, pressure], or [second, pressure, cores that they hold],
    on which units take twice as long. The same arguments give the same bytes. --trace shows the first policy's run at the load
    of the closer look, --log writes it down as an engine would, for `veltair dashboard` and `veltair top`.

    With --replay, every run in a decision log of `veltair serve --log` goes through the scheduler again: the same facts must
    lead to the same decisions, and the first that differs is shown.

    Exit status: 0, 1 for an error, 2 for wrong usage, 3 for a replay that differs.
    """
    if (workload is None) == (log is None):
        raise click.UsageError("name either a workload (--workload) or a decision log (--replay)")
    if log is not None:
        _replay(log)
        return
    assert workload is not None
    policies = [name.strip() for name in policy.split(",") if name.strip()]
    if not policies or len(set(policies)) < len(policies):
        raise click.BadParameter("name each policy once, e.g. veltair,fcfs", param_hint="--policy")
    if unknown := [name for name in policies if name not in POLICIES]:
        raise click.BadParameter(f"{unknown[0]!r} is none; choose of: {', '.join(POLICIES)}", param_hint="--policy")
    csvs = dict(_named_file(text) for text in layers)
    try:
        chosen = _changed(read_workload(workload), cores, load, requests, noise, bundles, csvs)
        prepare(chosen)  # whatever is wrong is said before the bar begins
        with _progress_bar() as bar:
            result = run_simulation(
                chosen, policies, seeds=range(seed, seed + seeds), jobs=jobs, on_progress=_shown_in(bar, policies)
            )
        if json_file is not None:
            _write(json_file, encode_result(result))
        if html_file is not None:
            write_page(result, html_file)
        if trace_file is not None:
            trace(chosen, policies[0], seed, trace_file)
        if log_file is not None:
            record(chosen, policies[0], seed, log_file)
    except VeltairError as e:
        raise click.ClickException(f"{e} ({e.code})") from e
    console = Console()
    print_result(result, console if console.is_terminal else Console(width=max(console.width, WIDTH_IN_FILES)))


def _replay(path: Path) -> None:
    try:
        runs = [(run, replay(run)) for run in read_log(path).runs]
    except VeltairError as e:
        raise click.ClickException(f"{e} ({e.code})") from e
    for number, (run, replayed) in enumerate(runs, start=1):
        agree = f"run {number}, {run.started.policy}: {replayed.decisions} decisions on {replayed.events} events agree"
        click.echo(agree if replayed.difference is None else f"{agree}, then one differs\n  {replayed.difference}")
    if any(replayed.difference is not None for _, replayed in runs):
        click.get_current_context().exit(DIFFERS_STATUS)


def _changed(
    workload: Workload,
    cores: int | None,
    load: float | None,
    requests: int | None,
    noise: float | None,
    bundles: Path | None,
    csvs: dict[str, Path],
) -> Workload:
    """The workload as the options say."""
    replace = msgspec.structs.replace
    if cores is not None:
        workload = replace(workload, machine=replace(workload.machine, cores=cores))
    if bundles is not None:
        workload = replace(workload, costs=replace(workload.costs, bundles=str(bundles.absolute()), tables=None))
    if csvs:
        strangers = sorted(csvs.keys() - {tenant.model for tenant in workload.tenant})
        if strangers:
            raise ConfigError(f"--csv names model {strangers[0]!r}, which no tenant of {workload.name!r} asks for")
        others = tuple(model for model in workload.model if model.name not in csvs)
        added = tuple(ModelSource(name=name, csv=str(path.absolute())) for name, path in csvs.items())
        workload = replace(workload, model=(*others, *added))
    asked = {"load": load, "requests": requests, "noise": noise}
    return replace(workload, **{key: value for key, value in asked.items() if value is not None})


def _named_file(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise click.BadParameter(f"{text!r} must be like resnet50=layers.csv", param_hint="--csv")
    return name, Path(file)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as e:
        raise ConfigError(f"{str(path)!r} cannot be written: {e.strerror}; name a writable file") from e


def _progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    return Progress(*columns, auto_refresh=False, console=Console(stderr=True))


def _shown_in(bar: Progress, policies: list[str]) -> Callable[[str, float], None]:
    tasks = {name: bar.add_task(escape(name), total=1.0) for name in policies}

    def show(policy: str, share: float) -> None:
        bar.update(tasks[policy], completed=share)
        bar.refresh()

    return show
