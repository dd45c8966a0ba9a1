"""The demo behind `scripts/demo`: compile, serve, ask, load, show. Reuses bundles that fit this machine and these sources."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import onnxruntime
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from veltair import Client, VeltairError, compile_model, load_bundle
from veltair.bench.report import print_result
from veltair.bench.run import run_policies
from veltair.bench.scenario import Scenario, TenantLoad, read_scenario
from veltair.bench.server import running_server
from veltair.bundle.format import Manifest
from veltair.models import MODELS, magika, minilm, ocr, ocr_page
from veltair.models.source import Infer
from veltair.observe.dashboard import write_page

ROOT = Path(__file__).parent.parent
SCENARIO = ROOT / "scripts" / "scenarios" / "main.toml"
BASE = ("ocr-det", "ocr-rec", "minilm", "magika")
PHOTOS = "efficientnet-lite0"
LOAD = 0.5  # of what the cores could do if every request ran alone on one: high enough that order matters

_terminal = Console(highlight=False)
console = _terminal if _terminal.is_terminal else Console(highlight=False, width=120)  # a file has no width of its own


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--bundles", type=Path, default=ROOT / "artifacts", help="folder for bundles, logs and the page")
    options.add_argument("--load", type=float, default=LOAD, help="share of the machine's capacity that requests ask for")
    chosen = options.parse_args()
    start = time.monotonic()
    names = list(BASE) + ([] if MODELS[PHOTOS].missing() else [PHOTOS])
    manifests = {name: compiled(name, chosen.bundles) for name in names}
    scenario = at_load(with_photos(read_scenario(SCENARIO), PHOTOS in names), manifests, chosen.load)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(scenario, chosen.bundles, "veltair", Path(folder)) as (endpoint, _),
    ):
        show_answers(endpoint, names)
    logs = chosen.bundles / "demo"
    logs.mkdir(exist_ok=True)
    for old in logs.glob("*.jsonl"):
        old.unlink()
    console.print(
        f"\n[bold]Load[/bold]: {sum(t.rate_per_s for t in scenario.tenant):.0f} requests/s, Poisson, "
        f"{chosen.load:.0%} of the machine's capacity, the same arrivals for both policies"
    )
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True) as bar:
        tasks = {policy: bar.add_task(policy, total=1.0) for policy in ("fcfs", "veltair")}
        result = run_policies(
            scenario,
            chosen.bundles,
            list(tasks),
            out=logs,
            on_progress=lambda policy, share: bar.update(tasks[policy], completed=share),
        )
    print_result(result, console)
    page = write_page([logs / f"{policy}.jsonl" for policy in ("veltair", "fcfs")], chosen.bundles / "demo.html")
    console.print(f"What the scheduler did: [bold]{page}[/bold]   ({time.monotonic() - start:.0f} s in all)", soft_wrap=True)


def compiled(name: str, bundles: Path) -> Manifest:
    """The bundle of a model with real weights: the one that is there if it can be used here, else made now."""
    try:
        manifest = load_bundle(bundles / name).manifest
        console.print(f"{name}: bundle of before ({len(manifest.blocks)} blocks)")
        return manifest
    except VeltairError:
        pass
    model = MODELS[name]
    columns = (TextColumn(f"{name}: {{task.description}}"), BarColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory() as scratch, Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("import", total=1)
        made = compile_model(
            model.export(Path(scratch)),
            name=name,
            inputs=model.input_shapes,
            qos_ms=model.qos_ms,
            out=bundles,
            gate_inputs=model.gate_inputs(2),
            max_values=model.max_values,
            on_progress=lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total),
        )
    quiet = zip(made.report["points"], made.report["exact_whole_us"], strict=True)
    alone = ", ".join(f"{us / 1e3:.1f} ms on {point['cores']}" for point, us in quiet if not point["pressure"])
    error = max(made.report["gate"]["whole_model_error"])
    console.print(
        f"{name}: compiled, {len(made.manifest.blocks)} blocks, {alone} core(s), within {error:.0e} of ONNX Runtime"
        + (f", {searched} kernels searched" if (searched := made.report["search"]["searched"]) else "")
    )
    return made.manifest


def with_photos(scenario: Scenario, photos: bool) -> Scenario:
    if not photos:
        return scenario
    more = TenantLoad(name="search", model=PHOTOS, rate_per_s=6.0, qos_ms=80.0)
    return msgspec.structs.replace(scenario, tenant=(*scenario.tenant, more))


def at_load(scenario: Scenario, manifests: dict[str, Manifest], load: float) -> Scenario:
    """The scenario with its rates scaled so that requests, each alone on one core, would ask for `load` of the cores."""
    cores = max(manifest.measured.cores for manifest in manifests.values())
    busy_us = sum(
        tenant.rate_per_s * sum(min(v.latency_us[1][0] for v in block.variants) for block in manifests[tenant.model].blocks)
        for tenant in scenario.tenant
    )
    return scenario.scaled(load * cores * 1e6 / busy_us)


def show_answers(endpoint: str, names: Sequence[str]) -> None:
    """What the models say of real inputs through a server and a client, beside what ONNX Runtime says of the same."""
    console.print("\n[bold]Answers[/bold]")
    tenants = {"ocr-det": "docs", "ocr-rec": "docs", "minilm": "search", PHOTOS: "search", "magika": "files"}
    with ExitStack() as stack:
        clients = {t: stack.enter_context(Client(endpoint, tenant=t, timeout_ms=20_000)) for t in set(tenants.values())}
        ours = answers(names, lambda name: lambda x: clients[tenants[name]].infer(name, x).outputs)
    with tempfile.TemporaryDirectory() as scratch:
        theirs = answers(names, lambda name: reference(MODELS[name].export(Path(scratch))))
    for (what, said), (_, reference_said) in zip(ours, theirs, strict=True):
        same = "as ONNX Runtime" if said == reference_said else f"but ONNX Runtime: {reference_said}"
        console.print(f"  {what}: [bold]{escape(said)}[/bold] ({escape(same)})", soft_wrap=True)


def answers(names: Sequence[str], infer: Callable[[str], Infer]) -> list[tuple[str, str]]:
    """(what was asked, what was answered) by whatever `infer` runs each model with."""
    page = ocr_page.draw_page(seed=1)
    lines = ocr.read_page(page.image, infer("ocr-det"), infer("ocr-rec"))
    question = minilm.PAIRS[0][0]
    (passage, _), *_ = minilm.nearest(question, minilm.PASSAGES, infer("minilm"))
    said = [
        ("text read from an image", " | ".join(line.text for line in lines)),
        (f"nearest in meaning to {question!r}", repr(passage)),
        (f"type of the file {Path(__file__).name}", magika.identify(Path(__file__).read_bytes(), infer("magika")).label),
    ]
    if PHOTOS in names:
        sample = next(s for s in MODELS[PHOTOS].samples(0) if "chelsea" in s.what)
        said.append((f"class of {sample.what}", MODELS[PHOTOS].answer(infer(PHOTOS)(sample.inputs), sample)))
    return said


def reference(path: Path) -> Infer:
    """The same model in ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = [port.name for port in session.get_outputs()]
    return lambda x: dict(zip(outputs, session.run(None, dict(x)), strict=True))


if __name__ == "__main__":
    try:
        main()
    except VeltairError as error:
        console.print(f"[red]Error:[/red] {error} [{error.code}]", soft_wrap=True)
        sys.exit(1)
