"""`compile_model`: a model file in, a measured and gated bundle out. The stages in order are the functions called below."""

import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from veltair.bundle.check import tensor_bytes
from veltair.bundle.format import SCHEMA_VERSION, Batched, Manifest, MeasureSpec, QosSpec, TargetSpec
from veltair.bundle.store import NO_ROOM, Bundle, open_bundle, to_model, write_bundle
from veltair.compiler.assemble import (
    Setting,
    WeightFile,
    block_candidates,
    block_specs,
    place,
    ports,
    used_roots,
)
from veltair.compiler.blocks import cut
from veltair.compiler.candidates import candidate_lines
from veltair.compiler.choose import choose, fingerprint, kept_rules, known_choice, remember, remembered
from veltair.compiler.fallback import fallback
from veltair.compiler.form import Form
from veltair.compiler.gate import Reference, check_inputs, compared_values, made_values, run_gate
from veltair.compiler.graph import Graph
from veltair.compiler.library import build_library
from veltair.compiler.line import Line
from veltair.compiler.lower import Lowering
from veltair.compiler.measure import WARMUP, measure
from veltair.compiler.onnx_import import load
from veltair.compiler.operators import HANDLERS
from veltair.compiler.parts import divide_long_calls
from veltair.compiler.peaks import fma_peak_gflops, stream_bandwidth
from veltair.compiler.preprocess import ImageInput
from veltair.compiler.records import Records, shipped_folder, user_folder
from veltair.compiler.report import render_report
from veltair.compiler.report_schema import Peaks, Report
from veltair.compiler.reporting import Told, made_report
from veltair.compiler.search import describe, search
from veltair.compiler.simplify import simplify
from veltair.compiler.sources import as_onnx
from veltair.compiler.target import BF16, cpu_name, host_target
from veltair.engine.program import Program
from veltair.errors import CompileError, OutOfDisk

Progress = Callable[[str, int, int], None]
"""Called with the stage, what is done of it and how much there is."""

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, slots=True)
class Compiled:
    """What `compile_model` made: the bundle's folder, its manifest, and the report that was written beside it."""

    folder: Path
    manifest: Manifest
    report: dict[str, Any]


@contextmanager
def _disk_errors_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"a file could not be written: {error}"
        if error.errno in NO_ROOM:
            raise OutOfDisk(f"{what}; free some space there and in {tempfile.gettempdir()} (no bundle was changed)") from error
        raise CompileError(f"{what}; check that the folders for bundles and records can be written") from error


@_disk_errors_named()
def compile_model(
    model: str | Path,
    *,
    name: str | None = None,
    inputs: Mapping[str, Sequence[int]] | None = None,
    qos_ms: float | None = None,
    out: str | Path = "artifacts",
    gate_inputs: Sequence[Mapping[str, Any]] | None = None,
    max_values: Mapping[str, int] | None = None,
    tuning: str | Path | None = None,
    seed: int = 0,
    batches: Sequence[int] = (1,),
    images: Sequence[ImageInput] = (),
    precisions: Collection[str] | None = None,
    target: str | None = None,
    on_progress: Progress = lambda stage, done, total: None,
) -> Compiled:
    """Compile a model file into the bundle `out`/`name`.

    `inputs` fixes the shape of each dynamic input. `gate_inputs` are real inputs to compare every variant on (random ones
    where None). `max_values` bounds integer inputs (token ids). Tuning records are read from the shipped folder, the
    user's cache and `tuning`, and written to `tuning` or else the cache. `batches` are the batch sizes to compile for, the
    first is the bundle's own; `precisions` those of the variants (all that the CPU has where None; fp32 is always there).
    Each of `images` makes a float32 input one of uint8 pictures, normalised by the model.
    `target` is an older CPU to compile for, by LLVM's name; this machine where None.
    Raises CompileError and its subclasses; then no bundle is written and an older one of that name stays.
    """
    path = Path(model)
    name = name or path.stem
    _check_name(name)
    _check_choices(batches, precisions)
    stages = _Stages(on_progress)
    cpu = host_target(target)
    allowed = _allowed(precisions, cpu)
    with tempfile.TemporaryDirectory(prefix="veltair-compile-") as scratch:
        stages.start("import")
        shapes = {k: tuple(v) for k, v in (inputs or {}).items()}
        file = as_onnx(path, Path(scratch))
        forms = [_lowered(file, shapes, b, images, cpu, allowed, gate_inputs, max_values or {}, seed) for b in batches]
        kernels = {key: kernel for form in forms for key, kernel in form.kernels.items()}

        stages.start("search", len(kernels))
        records = Records(cpu.mcpu, [shipped_folder(), user_folder(), *([Path(tuning)] if tuning else [])])
        described = {key: describe(kernel) for key, kernel in kernels.items()}
        found = search(
            list(kernels.values()),
            cpu,
            records,
            seed,
            lambda i, n: on_progress("search", i, n),
            lambda: records.write(Path(tuning) if tuning else user_folder(), name, described),
            spare=kernels.keys() - {call.kernel.key for form in forms for call in form.line.calls},
        )

        stages.start("build")
        cores = sorted(psutil.Process().cpu_affinity() or [0])
        for form in forms:
            form.line, ranked = divide_long_calls(form.line, {key: records.get(key) or [] for key in form.kernels}, len(cores))
            form.lines = candidate_lines(form.line, ranked, allowed)
            quickest = [chosen.us for chosen in form.lines.get("fast", form.lines["direct"])]
            form.spans = cut(form.line, quickest, made_values(form.imported.folded))
            form.fingerprint = fingerprint(form, allowed)
            form.blocks = block_candidates(form.lines, form.spans, kept_rules(form, records))
        symbols = build_library((c for form in forms for block in form.blocks for c in block), cpu, Path(scratch, "blocks.so"))
        weights = WeightFile(Path(scratch, "draft.bin"))
        for form in forms:
            form.memory = place(form.line, form.blocks, weights)
        memory = weights.map()
        draft = _manifest(name, forms, symbols, cpu, qos_ms, seed)
        drafted = Bundle(Path(scratch), draft, to_model(draft), memory)
        programs = [Program(drafted.at_batch(form.batch)) for form in forms]

        stages.start("gate", len(forms))
        for number, (form, program) in enumerate(zip(forms, programs, strict=True)):
            reference = Reference(
                form.imported.folded, sorted(compared_values(form.line, form.spans) & made_values(form.imported.folded))
            )
            form.verdict = run_gate(program, form.line, form.spans, form.blocks, reference, form.samples)
            del reference  # it holds the weights once more
            on_progress("gate", number + 1, len(forms))

        stages.start("measure", len(forms))
        for number, (form, program) in enumerate(zip(forms, programs, strict=True)):
            part = lambda i, n, k=number: on_progress("measure", k * n + i, n * len(forms))  # noqa: E731
            known = known_choice(form, records)
            form.measured = measure(program, form.samples[0], cores, part, chosen=known is not None)
            form.chosen = remembered(form, known) if known else choose(form)
        remember(forms, records, described, Path(tuning) if tuning else user_folder(), name)

        stages.start("write")
        manifest, kept = _finish(draft, forms, cpu, len(cores), memory, Path(scratch, "kept.bin"))
        peaks, seconds = _peaks(sorted(allowed)), stages.seconds()
        reports = [made_report(manifest, _told(form), found.as_data(len(kernels)), peaks, seconds, describe) for form in forms]
        report: Report = {**reports[0], "batched": reports[1:]}
        weights_file = [(0, kept)] if len(kept) else b""
        library = Path(scratch, "blocks.so")
        folder = write_bundle(Path(out) / name, manifest, weights_file, library, report, render_report(report))
        on_progress("write", 1, 1)
    return Compiled(folder, open_bundle(folder).manifest, dict(report))


class _Stages:
    """Tells of each stage as it starts, and how long each took."""

    def __init__(self, on_progress: Progress) -> None:
        self._on_progress = on_progress
        self._started: dict[str, float] = {}

    def start(self, stage: str, total: int = 1) -> None:
        for before in list(self._started)[-1:]:
            if before not in ("search", "gate", "measure"):
                self._on_progress(before, 1, 1)
        self._started[stage] = time.monotonic()
        self._on_progress(stage, 0, total)

    def seconds(self) -> dict[str, float]:
        ends = [*list(self._started.values())[1:], time.monotonic()]
        return {stage: round(end - start, 2) for (stage, start), end in zip(self._started.items(), ends, strict=True)}


def _check_name(name: str) -> None:
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        raise CompileError(f"model name {name!r} cannot be a folder's; use letters, digits, '-', '_' and '.' (--name)")


def _check_choices(batches: Sequence[int], precisions: Collection[str] | None) -> None:
    if not batches or len(set(batches)) != len(batches) or min(batches) < 1:
        raise CompileError(f"batch sizes {list(batches)} must be distinct and at least 1 (--batch 1,4)")
    for precision in precisions or ():
        if precision not in PRECISIONS:
            raise CompileError(f"unknown precision {precision!r}; variants are made in {' and '.join(PRECISIONS)} (--precision)")


def _allowed(precisions: Collection[str] | None, cpu: TargetSpec) -> set[str]:
    """fp32 always; what else was asked for, or all that the CPU has."""
    has = set(PRECISIONS) if BF16 in cpu.features else {"fp32"}
    if precisions is not None and not set(precisions) <= has:
        raise CompileError(f"{cpu.mcpu} cannot multiply in bf16 (it lacks {BF16}); compile with --precision fp32")
    return has if precisions is None else {"fp32", *precisions}


def _machine() -> str:
    cores = len(psutil.Process().cpu_affinity() or [0])
    return f"{cpu_name()}, {cores} core{'s' * (cores > 1)}"


def _lowered(
    file: tuple[Path, str | None],
    shapes: Mapping[str, tuple[int, ...]],
    batch: int,
    images: Sequence[ImageInput],
    target: TargetSpec,
    precisions: Collection[str],
    gate_inputs: Sequence[Mapping[str, Any]] | None,
    max_values: Mapping[str, int],
    seed: int,
) -> Form:
    path, source = file
    imported = load(path, shapes, batch=batch, images=images, source=source)
    graph = simplify(imported.graph)
    exact = msgspec.structs.replace(target, features=tuple(f for f in target.features if f != BF16))
    line = Lowering(graph, target if "bf16" in precisions else exact, HANDLERS, fallback).run()
    line.max_values.update(max_values)
    samples: list[Mapping[str, Any]] = list(gate_inputs) if gate_inputs else [_random_inputs(graph, line, seed)]
    if gate_inputs and batch > 1:
        samples = [_batch_of(samples, first, batch, line) for first in range(0, len(samples), batch)]
    check_inputs(line, samples)
    return Form(batch, imported, line, samples)


def _random_inputs(graph: Graph, line: Line, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def make(port: str) -> Any:
        shape, dtype = graph.shapes[port], np.dtype(graph.dtypes[port])
        if dtype.kind == "f":
            return rng.standard_normal(shape).astype(dtype)
        bound = line.max_values.get(port, 256 if dtype == np.uint8 else 2)  # of bytes, or else maybe flags or ids
        return rng.integers(0, min(bound, np.iinfo(dtype).max + 1), shape).astype(dtype)

    return {port: make(port) for port in line.inputs}


def _batch_of(samples: Sequence[Mapping[str, Any]], first: int, batch: int, line: Line) -> dict[str, Any]:
    """`batch` of the samples from `first` on, around the end, as one input."""
    taken = [samples[(first + i) % len(samples)] for i in range(batch)]
    whole = {}
    for name in taken[0]:
        one = np.asarray(taken[0][name])
        port = line.inputs.get(name)
        same = port is not None and line.tensors[port].shape == one.shape  # an input that has no batch
        whole[name] = one if same else np.concatenate([np.asarray(sample[name]) for sample in taken])
    return whole


def _manifest(
    name: str, forms: Sequence[Form], symbols: Mapping[Setting, str], target: TargetSpec, qos_ms: float | None, seed: int
) -> Manifest:
    """With every candidate as a variant and every latency still at 1 us."""

    def fields(form: Form) -> dict[str, Any]:
        assert form.memory is not None
        return {
            "batch": form.batch,
            "inputs": ports(form.line, form.line.inputs),
            "outputs": ports(form.line, form.line.outputs),
            "tensors": form.memory.tensors,
            "arena_bytes": form.memory.arena_bytes,
            "blocks": block_specs(form.spans, form.blocks, symbols),
        }

    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        source=forms[0].imported.source,
        qos=QosSpec(qos_ms) if qos_ms else None,
        target=target,
        tools={p: version(p) for p in ("apache-tvm", "apache-tvm-ffi", "onnx", "onnxruntime", "numpy", "veltair")},
        measured=MeasureSpec(_machine(), 1, WARMUP, 0, seed, 20_000.0),
        pressure_levels=(0.0,),
        files={},
        batched=tuple(Batched(**fields(form)) for form in forms[1:]),
        **fields(forms[0]),
    )


def _told(form: Form) -> Told:
    assert form.verdict is not None
    assert form.measured is not None
    return Told(form.batch, form.lines, form.blocks, form.verdict, form.measured, form.chosen)


def _peaks(precisions: Collection[str]) -> Peaks:
    return Peaks(
        gflops={precision: round(fma_peak_gflops(precision), 1) for precision in precisions},
        bandwidth_bytes_per_us=round(stream_bandwidth()),
    )


def _finish(
    draft: Manifest, forms: Sequence[Form], target: TargetSpec, cores: int, memory: Any, path: Path
) -> tuple[Manifest, Any]:
    """The manifest of the kept variants with what was measured, and their weights."""
    kept = [[[block[v] for v in c.kept] for block, c in zip(form.blocks, form.chosen, strict=True)] for form in forms]
    if any(used_roots(form.line, blocks) != used_roots(form.line, form.blocks) for form, blocks in zip(forms, kept, strict=True)):
        weights = WeightFile(path)
        placed = [
            place(form.line, blocks, weights, _packed(draft.at_batch(form.batch), memory))
            for form, blocks in zip(forms, kept, strict=True)
        ]
        memory = weights.map()
    else:  # every weight of the draft is wanted: where they lie, they may stay
        placed = [form.memory for form in forms if form.memory is not None]
    done: list[dict[str, Any]] = []
    for form, laid in zip(forms, placed, strict=True):
        drafted = draft.at_batch(form.batch)
        assert form.measured is not None
        assert form.verdict is not None
        blocks = tuple(
            msgspec.structs.replace(
                block,
                variants=tuple(
                    msgspec.structs.replace(
                        block.variants[v],
                        latency_us=form.measured.bandwidth_us[b][v],
                        cache_latency_us=form.measured.cache_us[b][v],
                        pressure=form.measured.pressure[b][v],
                        gate_max_error=form.verdict.errors[b][v],
                    )
                    for v in chosen.kept
                ),
            )
            for b, (block, chosen) in enumerate(zip(drafted.blocks, form.chosen, strict=True))
        )
        done.append({"tensors": laid.tensors, "arena_bytes": laid.arena_bytes, "blocks": blocks})
    first = forms[0].measured
    assert first is not None
    uses_bf16 = any(v.precision == "bf16" for fields in done for block in fields["blocks"] for v in block.variants)
    features = tuple(f for f in target.features if uses_bf16 or f != BF16)
    how = msgspec.structs.replace(
        draft.measured, cores=cores, repeats=first.repeats, bandwidth_bytes_per_us=first.bandwidth_bytes_per_us
    )
    manifest = msgspec.structs.replace(
        draft,
        **done[0],
        target=msgspec.structs.replace(target, features=features),
        measured=how,
        pressure_levels=first.levels,
        batched=tuple(msgspec.structs.replace(other, **fields) for other, fields in zip(draft.batched, done[1:], strict=True)),
    )
    return manifest, memory


def _packed(drafted: Manifest, memory: Any) -> dict[int, Any]:
    """The bytes of the draft's weights by tensor."""
    return {
        number: memory[spec.offset : spec.offset + tensor_bytes(spec)]
        for number, spec in enumerate(drafted.tensors)
        if spec.kind == "weight"
    }
