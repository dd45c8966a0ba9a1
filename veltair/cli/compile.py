"""`veltair compile`: parse, call `compile_model`, show what came out."""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from veltair.compiler.build import Compiled, compile_model
from veltair.errors import VeltairError
from veltair.models import MODELS

GATE_SAMPLES = 2
WIDTH_IN_FILES = 120  # a log file has no width of its own
_STAGES = {
    "import": "reading and lowering",
    "search": "timing kernel schedules",
    "build": "generating code",
    "gate": "comparing with ONNX Runtime",
    "measure": "measuring blocks",
}


class _Shape(click.ParamType[tuple[str, tuple[int, ...]]]):
    name = "NAME=AxBxC"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, tuple[int, ...]]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(.+)=(\d+(?:[x,]\d+)*)", value)
        if match is None:
            self.fail(f"{value!r} is no shape; write it like x=1x3x320x320", param, ctx)
        return match[1], tuple(int(d) for d in re.split("[x,]", match[2]))


class _Milliseconds(click.ParamType[float]):
    name = "MS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s)?", str(value))
        if match is None or not float(match[1]) > 0:
            self.fail(f"{value!r} is no time; write it like 60ms", param, ctx)
        return float(match[1]) * {"us": 1e-3, "s": 1e3}.get(match[2], 1.0)


@click.command(
    "compile",
    epilog="""
    Examples:

    \b
      veltair compile model.onnx --name ocr-det --input x=1x3x320x320 --qos 60ms -o artifacts/
      veltair compile models.minilm
      veltair compile model.onnx --gate-inputs real1.npz --gate-inputs real2.npz --json
    """,
)
@click.argument("model")
@click.option("--name", help="Name that clients use. Default: the file's.")
@click.option("--input", "inputs", multiple=True, type=_Shape(), help="Fix an input's shape. Repeat for each dynamic input.")
@click.option("--qos", "qos_ms", type=_Milliseconds(), help="Latency target, like 60ms.")
@click.option("-o", "--out", default="artifacts", show_default=True, type=click.Path(path_type=Path), help="Folder for bundles.")
@click.option(
    "--gate-inputs", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An .npz of real inputs by name, to compare every variant on. Repeatable. Default: random ones.",
)  # fmt: skip
@click.option("--tuning", type=click.Path(file_okay=False, path_type=Path), help="Read and write tuning records here.")
@click.option("--seed", default=0, show_default=True, help="Of random inputs.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def compile_command(
    model: str,
    name: str | None,
    inputs: tuple[tuple[str, tuple[int, ...]], ...],
    qos_ms: float | None,
    out: Path,
    gate_inputs: tuple[Path, ...],
    tuning: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Compile MODEL, an .onnx file or models.NAME (see `veltair models`), into a bundle of measured variants.

    Every variant of every block is compared with ONNX Runtime; one that is off fails the compile and nothing is written.
    """
    console = Console(stderr=True)
    try:
        with tempfile.TemporaryDirectory(prefix="veltair-") as scratch, _progress(console) as bar:
            tasks: dict[str, Any] = {}

            def show(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bar.add_task(_STAGES[stage], total=total)
                bar.update(tasks[stage], completed=done, total=total)

            source = model.removeprefix("models.")
            options: dict[str, Any] = {"tuning": tuning, "seed": seed, "on_progress": show, "out": out}
            if source in MODELS and (model.startswith("models.") or not Path(model).exists()):
                zoo = MODELS[source]
                zoo.needs()
                made = compile_model(
                    zoo.export(Path(scratch)),
                    name=name or source,
                    inputs={**zoo.input_shapes, **dict(inputs)},
                    qos_ms=qos_ms or zoo.qos_ms,
                    gate_inputs=_load(gate_inputs) or zoo.gate_inputs(GATE_SAMPLES),
                    max_values=zoo.max_values,
                    **options,
                )
            else:
                made = compile_model(
                    model, name=name, inputs=dict(inputs), qos_ms=qos_ms, gate_inputs=_load(gate_inputs) or None, **options
                )
    except VeltairError as error:
        raise click.ClickException(f"{error} [{error.code}]") from error
    if as_json:
        click.echo(json.dumps({"bundle": str(made.folder), **made.report}))
    else:
        console = Console()
        _print(made, console if console.is_terminal else Console(width=WIDTH_IN_FILES))


def _load(paths: tuple[Path, ...]) -> list[Mapping[str, Any]]:
    samples: list[Mapping[str, Any]] = []
    for path in paths:
        try:
            with np.load(path) as arrays:
                samples.append({key: arrays[key] for key in arrays.files})
        except (OSError, ValueError) as error:
            raise click.BadParameter(f"{path} is no .npz file of arrays: {error}", param_hint="--gate-inputs") from error
    return samples


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


def _print(made: Compiled, console: Console) -> None:
    manifest, report = made.manifest, made.report
    widths = sorted(manifest.blocks[0].variants[0].latency_us)
    table = Table(title=f"{manifest.name}: {len(manifest.blocks)} blocks", box=SIMPLE_HEAD)
    table.add_column("block", no_wrap=True)
    table.add_column("variant")
    for w in widths:
        table.add_column(f"{w} core{'s' * (w > 1)} us", justify="right")
    table.add_column("pressed us", justify="right")
    table.add_column("traffic MB", justify="right")
    table.add_column("cached KB", justify="right")
    table.add_column("GFLOP/s", justify="right")
    table.add_column("gate error", justify="right")
    for block in manifest.blocks:
        for i, v in enumerate(block.variants):
            alone = v.latency_us[1]
            table.add_row(
                block.name if i == 0 else "",
                v.name,
                *(str(v.latency_us[w][0]) for w in widths),
                str(alone[-1]) if len(alone) > 1 else "-",
                f"{v.traffic_bytes / 1e6:.1f}",
                f"{v.working_set_bytes / 1e3:.0f}",
                f"{block.flops / alone[0] / 1e3:.0f}",
                f"{v.gate_max_error:.0e}",
            )
    console.print(table)
    whole = ", ".join(f"{us[0] / 1e3:.2f} ms on {w} core{'s' * (w != '1')}" for w, us in report["model_us"].items())
    console.print(f"whole model: {whole}; worst error {max(report['gate']['whole_model_error']):.0e}")
    searched = f"{report['searched']} of {report['kernels']} kernels searched, the others known from records"
    console.print(f"{searched}; TVM's generic schedules hold {report['fallback_share']:.1%} of the time")
    console.print(f"bundle: {made.folder}")
