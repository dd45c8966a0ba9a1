"""`compile_model`: a model file in, a measured and gated bundle out. The stages in order are the functions called below."""

import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from mmap import mmap
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import tvm

from veltair.bundle.format import (
    SCHEMA_VERSION,
    BlockSpec,
    CallSpec,
    Manifest,
    MeasureSpec,
    PortSpec,
    QosSpec,
    TargetSpec,
    VariantSpec,
)
from veltair.bundle.store import NO_ROOM, Bundle, open_bundle, to_model, write_bundle
from veltair.compiler.blocks import Span, choose_knobs, cut
from veltair.compiler.fallback import fallback
from veltair.compiler.gate import Verdict, check_inputs, made_values, run_gate
from veltair.compiler.graph import Graph
from veltair.compiler.line import Line, Tensor, plan_memory
from veltair.compiler.lower import Lowering
from veltair.compiler.measure import REPEATS, WARMUP, Measured, measure
from veltair.compiler.onnx_import import Imported, load
from veltair.compiler.operators import HANDLERS
from veltair.compiler.records import Records, shipped_folder, user_folder
from veltair.compiler.schedules.base import Kernel, Knobs
from veltair.compiler.search import search
from veltair.compiler.simplify import simplify
from veltair.compiler.target import cpu_name, host_target, tvm_target
from veltair.engine.program import Program, runner_source
from veltair.errors import CompileError, OutOfDisk, ToolMissing

Progress = Callable[[str, int, int], None]
"""Called with the stage, what is done of it and how much there is."""

ROOM_BYTES = 128 << 10  # of the scratch folder for each kernel: its object and its part of the library, both generously

Choice = Mapping[str, Mapping[str, Knobs]]  # variant -> kernel key -> knobs


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
    on_progress: Progress = lambda stage, done, total: None,
) -> Compiled:
    """Compile an ONNX file into the bundle `out`/`name`.

    `inputs` fixes the shape of each dynamic input. `gate_inputs` are real inputs to compare every variant on (random ones
    where None). `max_values` bounds integer inputs (token ids). Tuning records are read from the shipped folder, the
    user's cache and `tuning`, and written to `tuning` or else the cache. Raises CompileError and its subclasses; then no
    bundle is written and an older one of that name stays.
    """
    path = Path(model)
    name = name or path.stem
    _check_name(name)
    target = host_target()
    on_progress("import", 0, 1)
    imported = load(path, {k: tuple(v) for k, v in (inputs or {}).items()})
    graph = simplify(imported.graph)
    lowering = Lowering(graph, target, HANDLERS, fallback)
    line = lowering.run()
    line.max_values.update(max_values or {})
    samples = list(gate_inputs) if gate_inputs else [_random_inputs(graph, line, seed)]
    check_inputs(line, samples)
    on_progress("import", 1, 1)

    folders = [shipped_folder(), user_folder(), *([Path(tuning)] if tuning else [])]
    records = Records(target.mcpu, folders)
    kernels = list({c.kernel.key: c.kernel for c in line.calls}.values())
    unknown = sum(records.get(k.key) is None for k in kernels)
    failures = search(kernels, target, records, seed, lambda i, n: on_progress("search", i, n))
    if unknown:
        how = {
            "machine": _machine(), "seed": seed, "apache-tvm": version("apache-tvm"), "cores": 1, "cold_weights": True,
        }  # fmt: skip
        records.write(Path(tuning) if tuning else user_folder(), name, {k.key: _what(k) for k in kernels}, how)
    ranked = {k.key: records.get(k.key) or [] for k in kernels}
    spans = cut(line, [ranked[c.kernel.key][0].us for c in line.calls], made_values(imported.folded))
    choice = choose_knobs(line, ranked)

    with tempfile.TemporaryDirectory(prefix="veltair-compile-") as scratch:
        library = Path(scratch, "blocks.so")
        on_progress("build", 0, 1)
        symbols = _build(kernels, choice, target, library)
        on_progress("build", 1, 1)
        manifest, weights = _draft(name, imported, line, spans, choice, symbols, target, qos_ms, seed)
        program = Program(_in_memory(Path(scratch), manifest, weights))
        on_progress("gate", 0, 1)
        verdict = run_gate(program, line, spans, imported.folded, samples)
        on_progress("gate", 1, 1)
        cores = sorted(psutil.Process().cpu_affinity() or [0])
        measured = measure(program, samples[0], cores, lambda i, n: on_progress("measure", i, n))
        manifest = _finish(manifest, measured, verdict, len(cores))
        report = _report(manifest, line, ranked, measured, verdict, failures, unknown, len(kernels))
        folder = write_bundle(Path(out) / name, manifest, ((o, t.array()) for o, t in weights), library, report)
    return Compiled(folder, open_bundle(folder).manifest, report)


def _check_name(name: str) -> None:
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        raise CompileError(f"model name {name!r} cannot be a folder's; use letters, digits, '-', '_' and '.' (--name)")


def _machine() -> str:
    return f"{cpu_name()}, {len(psutil.Process().cpu_affinity() or [0])} cores"


def _what(kernel: Kernel) -> str:
    ins = " ".join("x".join(map(str, shape)) for shape, _ in kernel.inputs)
    return f"{kernel.kind} {ins} -> {'x'.join(map(str, kernel.output))}"


def _random_inputs(graph: Graph, line: Line, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def make(port: str) -> Any:
        shape, dtype = graph.shapes[port], np.dtype(graph.dtypes[port])
        if dtype.kind == "f":
            return rng.standard_normal(shape).astype(dtype)
        return rng.integers(0, min(line.max_values.get(port, 2), np.iinfo(dtype).max), shape).astype(dtype)

    return {port: make(port) for port in line.inputs}


def _build(kernels: Sequence[Kernel], choice: Choice, target: TargetSpec, library: Path) -> dict[tuple[str, str], str]:
    """Compile every kernel in every setting that a variant uses, link them with the runner; (variant, key) -> symbol."""
    symbols: dict[tuple[str, str], str] = {}
    functions: dict[str, Any] = {}
    for kernel in kernels:
        settings: list[Knobs] = []
        for variant, knobs_of in choice.items():
            knobs = knobs_of[kernel.key]
            if knobs not in settings:
                settings.append(knobs)
                symbol = f"{kernel.key.replace('-', '_')}_{len(settings) - 1}"
                functions[symbol] = kernel.build(knobs).with_attr("global_symbol", symbol)
            symbols[variant, kernel.key] = f"{kernel.key.replace('-', '_')}_{settings.index(knobs)}"
    _reserve(library.with_name("room"), ROOM_BYTES * (4 + len(functions)))
    runner = library.with_name("runner.o")
    command = ["c++", "-x", "c", "-O2", "-fPIC", "-c", str(runner_source()), "-o", str(runner)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ToolMissing("no C++ compiler: `c++` is not on PATH; install one (Debian: apt-get install g++)") from error
    except subprocess.CalledProcessError as error:
        raise CompileError(f"the C++ compiler failed on the runner: {error.stderr.strip()}") from error
    tvm.compile(tvm.IRModule(functions), target=tvm_target(target)).export_library(str(library), addons=[str(runner)])
    return symbols


def _reserve(path: Path, size_bytes: int) -> None:
    """Raises OSError where the disk lacks the room: LLVM ends the whole process when it meets a full one."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size_bytes)
    path.unlink()


def _draft(
    name: str,
    imported: Imported,
    line: Line,
    spans: Sequence[Span],
    choice: Choice,
    symbols: Mapping[tuple[str, str], str],
    target: TargetSpec,
    qos_ms: float | None,
    seed: int,
) -> tuple[Manifest, list[tuple[int, Any]]]:
    """The manifest with every latency still at 1 us, and the weights."""
    used = {line.root(t) for c in line.calls for t in c.tensors}
    specs, arena_bytes, weights = plan_memory(line, used)

    def ports(numbers: Mapping[str, int]) -> tuple[PortSpec, ...]:
        return tuple(
            PortSpec(port, t, line.tensors[t].dtype, line.tensors[t].shape, line.max_values.get(port))
            for port, t in numbers.items()
        )

    blocks = tuple(_block(line, span, number, choice, symbols) for number, span in enumerate(spans))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        source=imported.source,
        qos=QosSpec(qos_ms) if qos_ms else None,
        target=target,
        tools={p: version(p) for p in ("apache-tvm", "apache-tvm-ffi", "onnx", "onnxruntime", "numpy", "veltair")},
        measured=MeasureSpec(_machine(), 1, WARMUP, REPEATS, seed, 20_000.0),
        pressure_levels=(0.0,),
        inputs=ports(line.inputs),
        outputs=ports(line.outputs),
        tensors=tuple(specs),
        arena_bytes=arena_bytes,
        blocks=blocks,
        files={},
    )
    return manifest, weights


def _block(line: Line, span: Span, number: int, choice: Choice, symbols: Mapping[tuple[str, str], str]) -> BlockSpec:
    calls = line.calls[span.first : span.end]
    variants: list[VariantSpec] = []
    for variant, knobs_of in choice.items():
        made = tuple(CallSpec(symbols[variant, c.kernel.key], c.tensors) for c in calls)
        if any(v.calls == made for v in variants):
            continue  # the same code under another name is no variant
        traffic = sum(c.kernel.traffic_bytes(knobs_of[c.kernel.key]) for c in calls)
        working = max(c.kernel.working_set_bytes(knobs_of[c.kernel.key]) for c in calls)
        variants.append(VariantSpec(variant, made, {1: (1,)}, traffic, working, 0.0))
    heaviest = max(calls, key=lambda c: c.kernel.flops)
    label = heaviest.label.split("+")[0].lower()
    return BlockSpec(f"{number:02d}-{label}", sum(c.kernel.flops for c in calls), span.live_bytes, tuple(variants))


def _in_memory(folder: Path, manifest: Manifest, weights: Sequence[tuple[int, Tensor]]) -> Bundle:
    """The draft as a bundle that can be run; its blocks.so lies in `folder`."""
    size = max((offset + tensor.size_bytes for offset, tensor in weights), default=1)
    memory = np.frombuffer(mmap(-1, size), np.uint8)
    for offset, tensor in weights:
        memory[offset : offset + tensor.size_bytes] = tensor.array().reshape(-1).view(np.uint8)
    return Bundle(folder, manifest, to_model(manifest), memory)


def _finish(manifest: Manifest, measured: Measured, verdict: Verdict, cores: int) -> Manifest:
    blocks = tuple(
        msgspec.structs.replace(
            block,
            variants=tuple(
                msgspec.structs.replace(variant, latency_us=measured.latency_us[b][v], gate_max_error=verdict.errors[b][v])
                for v, variant in enumerate(block.variants)
            ),
        )
        for b, block in enumerate(manifest.blocks)
    )
    how = msgspec.structs.replace(manifest.measured, cores=cores, bandwidth_bytes_per_us=measured.bandwidth_bytes_per_us)
    return msgspec.structs.replace(manifest, blocks=blocks, pressure_levels=measured.pressure_levels, measured=how)


def _report(
    manifest: Manifest,
    line: Line,
    ranked: Mapping[str, Any],
    measured: Measured,
    verdict: Verdict,
    failures: Counter[str],
    searched: int,
    kernels: int,
) -> dict[str, Any]:
    """How the bundle came to be, for people: kernels by time, what the fallback holds, the worth of each variant."""
    calls = [(ranked[c.kernel.key][0].us, c) for c in line.calls]
    total = sum(us for us, _ in calls) or 1.0
    by_kind: dict[str, float] = {}
    for us, c in calls:
        by_kind[c.kernel.kind] = by_kind.get(c.kernel.kind, 0.0) + us
    widths = sorted(manifest.blocks[0].variants[0].latency_us)
    whole = {
        w: [
            sum(min(v.latency_us[w][k] for v in b.variants) for b in manifest.blocks)
            for k in range(len(manifest.pressure_levels))
        ]
        for w in widths
    }
    return {
        "kernels": kernels,
        "searched": searched,
        "failed_candidates": dict(failures),
        "share_of_time_by_kind": {kind: round(us / total, 4) for kind, us in sorted(by_kind.items(), key=lambda pair: -pair[1])},
        "fallback_share": round(by_kind.get("fallback", 0) / total, 4),
        "model_us": {str(w): us for w, us in whole.items()},
        "spread": round(measured.spread, 4),
        "gate": {
            "inputs": verdict.inputs,
            "worst_block_error": max(map(max, verdict.errors)),
            "whole_model_error": verdict.whole,
        },
        "block_starts": list(accumulate([0, *(len(b.variants[0].calls) for b in manifest.blocks)])),
        "slowest_kernels": [
            {
                "us": round(us, 1),
                "gflops_per_s": round(c.kernel.flops / us / 1e3, 1),
                "kind": c.kernel.kind,
                "ops": c.label,
                "what": _what(c.kernel),
            }
            for us, c in sorted(calls, key=lambda pair: -pair[0])[:12]
        ],
    }
