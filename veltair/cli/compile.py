"""`veltair compile`: parse, call `compile_model`, show what came out."""

import json
import re
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from veltair.bundle.store import PAGE
from veltair.cli.progress import STAGES, CompileBar, Estimate
from veltair.compiler.apart import Apart
from veltair.compiler.preprocess import ImageInput, parse_image_input
from veltair.compiler.records import user_folder
from veltair.compiler.tvm_alone import import_tvm
from veltair.errors import ToolMissing, VeltairError
from veltair.models import MODELS

if TYPE_CHECKING:
    from veltair.compiler.build import Compiled

GATE_SAMPLES = 2
QUIET_SPREAD = 0.25  # of timings, between quartiles: a quiet machine stays under a tenth
WIDTH_IN_FILES = 140  # a log file has no width of its own


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


class _Batches(click.ParamType[tuple[int, ...]]):
    name = "N,N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", value):
            self.fail(f"{value!r} are no batch sizes; write them like 1,4", param, ctx)
        return tuple(dict.fromkeys(int(n) for n in value.split(",")))


class _Image(click.ParamType[ImageInput]):
    name = "NAME=LAYOUT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ImageInput:
        if isinstance(value, ImageInput):
            return value
        try:
            return parse_image_input(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_PRECISIONS = {"fp32": ("fp32",), "bf16": ("fp32", "bf16"), "all": None}


@click.command(
    "compile",
    epilog="""
    Examples:

    \b
      veltair compile model.onnx --name ocr-det --input x=1x3x320x320 --qos 60ms -o artifacts/
      veltair compile models.minilm --batch 1,4 --precision fp32
      veltair compile model.onnx --image x=nhwc,mean=0.485:0.456:0.406,std=0.229:0.224:0.225
      veltair compile model.onnx --gate-inputs real1.npz --gate-inputs real2.npz --json

    \b
    Ends with 0 when the bundle is written, 1 when the model is refused or a variant is wrong, 2 for wrong usage, and
    130 when it was interrupted: the same command then goes on where it stopped.
    """,
)
@click.argument("model")
@click.option("--name", help="Name that clients use. Default: the file's.")
@click.option("--input", "inputs", multiple=True, type=_Shape(), help="Fix an input's shape. Repeat for each dynamic input.")
@click.option(
    "--image", "images", multiple=True, type=_Image(),
    help="Make an input one of uint8 pictures, normalised by the model: x=nhwc,mean=A:B:C,std=A:B:C,scale=255.",
)  # fmt: skip
@click.option("--batch", "batches", default="1", show_default=True, type=_Batches(), help="Batch sizes to compile for.")
@click.option(
    "--precision", default="all", show_default=True, type=click.Choice(list(_PRECISIONS)),
    help="Of the variants. fp32 is always among them; tenants say whether they take less. all: what the CPU has.",
)  # fmt: skip
@click.option("--target", help="LLVM's name of another CPU to make code for, like haswell. Default: this one.")
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
    images: tuple[ImageInput, ...],
    batches: tuple[int, ...],
    precision: str,
    target: str | None,
    qos_ms: float | None,
    out: Path,
    gate_inputs: tuple[Path, ...],
    tuning: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Compile MODEL, an .onnx or .pt2 file or models.NAME (see `veltair models`), into a bundle of measured variants.

    Every variant of every block is compared with the reference; one that is off is not written. What was measured stands in
    the bundle's report.html.
    """
    samples = _load(gate_inputs)
    bar = CompileBar(Console(stderr=True))
    options: dict[str, Any] = {
        "images": images,
        "batches": batches,
        "precisions": _PRECISIONS[precision],
        "target": target,
        "tuning": tuning,
        "seed": seed,
        "out": out,
        "on_progress": bar,
    }
    try:
        with _interrupts(), bar, tempfile.TemporaryDirectory(prefix="veltair-") as scratch:
            made = _compile(model, name, dict(inputs), qos_ms, samples, Path(scratch), options)
    except VeltairError as error:
        raise click.ClickException(f"{error} [{error.code}]") from error
    except _Interrupted as interrupted:
        click.echo(_how_to_resume(bar.estimate, tuning or user_folder()), err=True)
        raise SystemExit(128 + interrupted.signal) from None
    if as_json:
        click.echo(json.dumps({"bundle": str(made.folder), **made.report}))
    else:
        console = Console()
        _print(made, console if console.is_terminal else Console(width=WIDTH_IN_FILES))


def _compile(
    model: str,
    name: str | None,
    inputs: Mapping[str, tuple[int, ...]],
    qos_ms: float | None,
    samples: list[Mapping[str, Any]],
    scratch: Path,
    options: Mapping[str, Any],
) -> "Compiled":
    known = model.removeprefix("models.")
    if known not in MODELS or not (model.startswith("models.") or not Path(model).exists()):
        return _compiler()(model, name=name, inputs=inputs, qos_ms=qos_ms, gate_inputs=samples or None, **options)
    zoo = MODELS[known]
    zoo.needs()
    options["on_progress"]("export", 0, 1)
    with Apart(zoo.export, scratch) as exporting:
        compile_model = _compiler()  # takes a core as long as the export takes another
        about = {
            "name": name or known,
            "inputs": {**zoo.input_shapes, **inputs},
            "qos_ms": qos_ms or zoo.qos_ms,
            "gate_inputs": samples or zoo.gate_inputs(GATE_SAMPLES),
            "max_values": zoo.max_values,
        }
        path = exporting.result()
    options["on_progress"]("export", 1, 1)
    return compile_model(path, **about, **options)


def _compiler() -> "Callable[..., Compiled]":
    """`compile_model`, by the import that takes seconds: after what can be refused without it."""
    try:
        import_tvm()
        from veltair.compiler.build import compile_model
    except ModuleNotFoundError as error:
        raise ToolMissing(f'{error.name} is not installed; run: pip install "veltair[compile]"') from error
    return compile_model


class _Interrupted(BaseException):
    """Like KeyboardInterrupt, which click would turn into its own words and code."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


@contextmanager
def _interrupts() -> Iterator[None]:
    """SIGINT and SIGTERM end the work in between, with everything put away, as _Interrupted.

    TVM turns what a signal handler raises beneath it into an error of its own, so the first signal is remembered. A second
    one does not disturb the clean-up.
    """
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        if not received:
            received.append(number)
            raise _Interrupted(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Exception as error:
        if received:
            raise _Interrupted(received[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _how_to_resume(estimate: Estimate, tuning: Path) -> str:
    stage = STAGES.get(estimate.stage, estimate.stage) or "starting"
    done, total = estimate.counted
    if estimate.stage == "search":
        known = f"the {done} of {total} kernels that are timed stand in {tuning}"
    else:
        known = f"what kernels were timed stands in {tuning}"
    return (
        f"interrupted while {stage}; no bundle was written, an older one is as it was. "
        f"Run the same command again to go on: {known}"
    )


def _load(paths: tuple[Path, ...]) -> list[Mapping[str, Any]]:
    samples: list[Mapping[str, Any]] = []
    for path in paths:
        try:
            with np.load(path) as arrays:
                samples.append({key: arrays[key] for key in arrays.files})
        except (OSError, ValueError) as error:
            raise click.BadParameter(f"{path} is no .npz file of arrays: {error}", param_hint="--gate-inputs") from error
    return samples


def _print(made: "Compiled", console: Console) -> None:
    """The kept variants of each block, what they are worth, and the whole."""
    report = made.report
    points = report["points"]
    alone = {point["cores"]: k for k, point in enumerate(points) if not point["resource"]}
    pressed = [k for k, point in enumerate(points) if point["resource"] and point["cores"] == 1]
    table = Table(title=f"{report['model']}: {len(report['blocks'])} blocks", box=SIMPLE_HEAD)
    table.add_column("block", no_wrap=True)
    table.add_column("variant", no_wrap=True)
    for cores in alone:
        table.add_column(f"{_cores(cores)} us", justify="right")
    table.add_column("pressed us", justify="right")
    for title in ("GFLOP/s", "traffic MB", "presses", "gate error"):
        table.add_column(title, justify="right")
    table.add_column("kept because")
    for block in report["blocks"]:
        for i, v in enumerate([c for c in block["candidates"] if c["kept"]]):
            table.add_row(
                block["name"] if i == 0 else "",
                v["name"],
                *(f"{v['us'][k]:.0f}" for k in alone.values()),
                f"{max(v['us'][k] for k in pressed):.0f}" if pressed else "-",
                f"{block['flops'] / v['us'][alone[1]] / 1e3:.0f}",
                f"{v['traffic_bytes'] / 1e6:.1f}",
                f"{max(v['exerts'].values(), default=0.0):.2f}",
                f"{v['gate_error']:.0e}",
                v["why"],
            )
    console.print(table)
    for each in [report, *report.get("batched", ())]:
        whole = ", ".join(f"{_time(each['whole_us'][k])} on {_cores(cores)}" for cores, k in alone.items())
        exact = ", ".join(_time(each["exact_whole_us"][k]) for k in alone.values())
        of_batch = f" at batch {each['batch']}" if report.get("batched") else ""
        error = max(each["gate"]["whole_model_error"])
        console.print(f"whole model{of_batch}: {whole} (fp32 alone: {exact}); worst error {error:.0e}")
    search = report["search"]
    console.print(
        f"{search['searched']} of {search['kernels']} kernels searched, the others known from records; "
        f"{len(search['failed'])} candidates failed; "
        f"TVM's generic schedules hold {report['fallback_share']:.1%} of the time"
    )
    disturbed = max(search["spread"], report["spread"])
    if disturbed > QUIET_SPREAD:
        console.print(
            f"[yellow]the machine was not quiet: timings spread by {disturbed:.0%} between quartiles. Variants may be chosen "
            "wrongly; compile again when nothing else runs, with another --tuning folder if kernels were searched[/]"
        )
    console.print(f"bundle: {made.folder}", soft_wrap=True)
    console.print(f"report: {made.folder / PAGE}", soft_wrap=True)


def _cores(n: int) -> str:
    return f"{n} core{'s' * (n != 1)}"


def _time(us: float) -> str:
    return f"{us / 1e3:.2f} ms" if us >= 1000 else f"{us:.0f} us"
