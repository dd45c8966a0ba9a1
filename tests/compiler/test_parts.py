"""Long kernels in parts: which are divided, into how many, and that the parts make the whole."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tvm import te

from veltair.bundle.store import Bundle, open_bundle, to_model
from veltair.compiler import measure, parts
from veltair.compiler.assemble import BlockCandidate, WeightFile, place
from veltair.compiler.blocks import Span, layers
from veltair.compiler.build import _manifest, compile_model
from veltair.compiler.candidates import Chosen
from veltair.compiler.form import Form
from veltair.compiler.gate import Reference, made_values, run_gate
from veltair.compiler.library import build_library
from veltair.compiler.line import Call, Line
from veltair.compiler.onnx_import import load
from veltair.compiler.parts import PART_US, divide_long_calls, parallel_extents
from veltair.compiler.records import Timed
from veltair.compiler.schedules.base import result, schedule_of
from veltair.compiler.schedules.gemm import Gemm
from veltair.compiler.target import BF16
from veltair.engine.lanes import set_cores
from veltair.engine.program import Program

from . import small
from .small import HOST, assert_equal, model_of, reference, save

needs_bf16 = pytest.mark.skipif(BF16 not in HOST.features, reason="this CPU cannot multiply in bf16")

GEMM = Gemm(96, 64, 256, 64, 16)
KNOBS = GEMM.candidates()[0]


def test_parallel_loops_are_counted_with_their_iterations() -> None:
    rows, columns = -(-96 // KNOBS["mr"]), 256 // 64
    assert parallel_extents(GEMM.build(KNOBS)) == [rows * columns]


def line_of(kernel: Gemm, *others: Gemm) -> Line:
    return Line(calls=[Call(kernel, (0, 1, 2), "MatMul", tuple(Call(other, (0, 3, 2), "MatMul") for other in others))])


def test_a_long_call_becomes_calls_of_about_a_block_each() -> None:
    line, _ = divide_long_calls(line_of(GEMM), {GEMM.key: [Timed(KNOBS, 5 * PART_US, 3 * PART_US)]}, 1)
    count = len(line.calls)
    assert 4 <= count <= 5
    assert [(c.part, c.parts) for c in line.calls] == [(part, count) for part in range(count)]
    assert {c.tensors for c in line.calls} == {(0, 1, 2)}


def test_every_part_has_work_for_all_cores() -> None:
    (extent,) = parallel_extents(GEMM.build(KNOBS))
    records = {GEMM.key: [Timed(KNOBS, 1_000 * PART_US, 500 * PART_US)]}
    assert len(divide_long_calls(line_of(GEMM), records, 1)[0].calls) == extent
    assert len(divide_long_calls(line_of(GEMM), records, 2)[0].calls) == extent // 2
    assert len(divide_long_calls(line_of(GEMM), records, extent)[0].calls) == 1


def test_a_short_call_stays_whole() -> None:
    whole = line_of(GEMM)
    line, _ = divide_long_calls(whole, {GEMM.key: [Timed(KNOBS, PART_US, PART_US)]}, 1)
    assert line.calls == whole.calls


class Twice(Gemm):
    """Two parallel loops, one after the other."""

    kind = "twice"

    def build(self, knobs: object) -> object:
        x = te.placeholder((8, 16), name="x")
        once = te.compute((8, 16), lambda i, j: x[i, j] + 1.0, name="once")
        out = te.compute((8, 16), lambda i, j: once[i, j] * 2.0, name="out")
        sch = schedule_of([x, out])
        for name in ("once", "out"):
            sch.parallel(sch.get_loops(sch.get_sblock(name))[0])
        return result(sch)


TWICE = Twice(96, 64, 256, 64, 16)


def test_a_kernel_of_two_parallel_loops_stays_whole() -> None:
    assert parallel_extents(TWICE.build({})) == [8, 8]
    line, _ = divide_long_calls(line_of(TWICE), {TWICE.key: [Timed(KNOBS, 9 * PART_US, 9 * PART_US)]}, 1)
    assert [c.parts for c in line.calls] == [1]


def test_a_form_that_is_much_faster_whole_is_not_given_up_for_parts() -> None:
    ranked = {GEMM.key: [Timed(KNOBS, 9 * PART_US, 9 * PART_US)], TWICE.key: [Timed(KNOBS, 5 * PART_US, 5 * PART_US)]}
    line, _ = divide_long_calls(line_of(GEMM, TWICE), ranked, 1)
    assert [c.parts for c in line.calls] == [1]
    ranked[TWICE.key] = [Timed(KNOBS, 8.5 * PART_US, 8.5 * PART_US)]
    line, _ = divide_long_calls(line_of(GEMM, TWICE), ranked, 1)
    assert len(line.calls) > 1
    assert all(c.others == () for c in line.calls)


@pytest.mark.parametrize("cores", [1, 2])
def test_the_parts_of_a_layer_make_the_whole(cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tuple(sorted(os.sched_getaffinity(0)))[:cores]
    if len(mine) < cores:
        pytest.skip(f"needs {cores} cores")
    random = np.random.default_rng(2)
    x = {"x": random.standard_normal((48, 64), np.float32)}
    weights = {"w": random.standard_normal((64, 256), np.float32), "b": random.standard_normal(256, np.float32)}
    model = model_of([("MatMul", "x w", "p"), ("Add", "p b", "y")], x, "y", weights)
    monkeypatch.setattr(parts, "LONG_US", 0.0)
    monkeypatch.setattr(parts, "PART_US", 0.5)
    monkeypatch.setattr("veltair.compiler.blocks.TARGET_US", 0.5)
    monkeypatch.setattr(measure, "LEVELS", (0.0,))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = open_bundle(compile_model(save(model, tmp_path), out=tmp_path / "out", gate_inputs=[x], precisions=["fp32"]).folder)
    assert len(bundle.manifest.blocks) > 1
    assert all(call.iterations for block in bundle.manifest.blocks for v in block.variants for call in v.calls)
    program = Program(bundle)
    arena = program.new_arena()
    arena.bytes[:] = 0xFF  # NaN wherever no part writes
    before = tuple(sorted(os.sched_getaffinity(0)))
    try:
        set_cores(mine)
        program.write_inputs(arena, x)
        for block in range(len(bundle.manifest.blocks)):
            program.run(arena, block, block + 1, (0,))
    finally:
        set_cores(before)
    assert_equal(program.read_outputs(arena), reference(model, x))


def product() -> tuple[Any, Any]:
    """A product that rounds its whole input first, with enough of it that all cores do."""
    random = np.random.default_rng(3)
    x, w = random.standard_normal((400, 256), np.float32), random.standard_normal((256, 384), np.float32)
    return x, model_of([("MatMul", "x w", "y")], {"x": x}, "y", {"w": w})


def convolution() -> tuple[Any, Any]:
    random = np.random.default_rng(3)
    x, w = random.standard_normal((1, 32, 20, 20), np.float32), random.standard_normal((256, 32, 3, 3), np.float32)
    return x, model_of([("Conv", "x w", "y", {"pads": [1, 1, 1, 1]})], {"x": x}, "y", {"w": w})


def in_parts(path: Path, kind: str, knobs: dict[str, int], folder: Path, *, mixed: bool = False) -> tuple[Program, Form]:
    """The one layer of a model, its last variant as this kind of kernel in this setting: the parts are blocks.

    `mixed` adds what nothing may make: a variant whose first part is of the plain kind, and the others of that one.
    """
    line = small.line_of(path)
    kernels = {form.kernel.key: form.kernel for call in line.calls for form in call.forms}
    long = {form.kernel.key for call in line.calls if any(f.kernel.kind == kind for f in call.forms) for form in call.forms}
    wanted = {key: next(s for s in k.candidates() if k.kind != kind or knobs.items() <= s.items()) for key, k in kernels.items()}
    times = {key: (4.0 if key in long else 0.1) * PART_US for key in kernels}
    divided, _ = divide_long_calls(line, {key: [Timed(wanted[key], us, us)] for key, us in times.items()}, 1)
    forms = [next((form for form in call.forms if form.kernel.kind == kind), call) for call in divided.calls]
    plain, chosen = (tuple(Chosen(c, wanted[c.kernel.key], 1.0, 1.0) for c in each) for each in (divided.calls, forms))
    spans = [Span(i, i + 1, 0, call.part > 0) for i, call in enumerate(divided.calls)]
    lines = {"direct": plain, "chosen": chosen}
    if mixed:
        lines["mixed"] = tuple(c if c.call.part else p for p, c in zip(plain, chosen, strict=True))
    blocks = [[BlockCandidate((rule,), calls[s.first : s.end]) for rule, calls in lines.items()] for s in spans]
    weights = WeightFile(folder / "weights.bin")
    form = Form(1, load(path, {}), divided, [], spans=spans, blocks=blocks, memory=place(divided, blocks, weights))
    symbols = build_library((c for block in blocks for c in block), HOST, folder / "blocks.so")
    manifest = _manifest("small", [form], symbols, HOST, None, 0)
    return Program(Bundle(folder, manifest, to_model(manifest), weights.map())), form


def whole(program: Program) -> Program:
    """The same kernels, undivided."""
    blocks = []
    for block in program.bundle.manifest.blocks:
        variant = block.variants[-1]
        call = msgspec.structs.replace(variant.calls[0], iterations=None, before=0, scratch=None)
        if not block.continues:
            undivided = msgspec.structs.replace(variant, calls=(call,))
            blocks.append(msgspec.structs.replace(block, variants=(*block.variants[:-1], undivided)))
    manifest = msgspec.structs.replace(program.bundle.manifest, blocks=tuple(blocks))
    return Program(replace(program.bundle, manifest=manifest, model=to_model(manifest)))


@pytest.mark.parametrize(
    ("made", "kind", "knobs"),
    [(convolution, "winograd", {"split": 1}), pytest.param(product, "gemm_bf16", {"order": 0}, marks=needs_bf16)],
    ids=["winograd", "bf16"],
)
def test_what_the_first_part_prepares_serves_the_others(
    made: Callable[[], tuple[Any, Any]], kind: str, knobs: dict[str, int], tmp_path: Path
) -> None:
    x, model = made()
    program, _ = in_parts(save(model, tmp_path), kind, knobs, tmp_path)
    blocks = program.bundle.manifest.blocks
    divided = [call for block in blocks for call in block.variants[-1].calls if call.iterations]
    assert len(divided) > 1
    assert all(call.before == 1 and call.scratch is not None for call in divided)
    inputs, arenas = [{"x": x}, {"x": x + 1}], [program.new_arena(), program.new_arena()]
    for arena, given in zip(arenas, inputs, strict=True):
        arena.bytes[:] = 0xFF
        program.write_inputs(arena, given)
    for block in range(len(blocks)):  # two requests take turns at every part
        for arena in arenas:
            program.run(arena, block, block + 1, (len(blocks[block].variants) - 1,))
    undivided = whole(program)
    for arena, given in zip(arenas, inputs, strict=True):
        other = undivided.new_arena()
        undivided.write_inputs(other, given)
        last = tuple(len(block.variants) - 1 for block in undivided.bundle.manifest.blocks)
        undivided.run(other, 0, len(last), last)
        np.testing.assert_array_equal(program.read_outputs(arena)["y"], undivided.read_outputs(other)["y"])
        assert_equal(program.read_outputs(arena), reference(model, given), tolerance=2e-2 if kind == "gemm_bf16" else 1e-5)


def test_the_gate_refuses_a_layer_in_parts_of_several_forms(tmp_path: Path) -> None:
    """Another form, run before it, left in memory what the first part ought to have left."""
    x, model = convolution()
    path = save(model, tmp_path)
    program, form = in_parts(path, "winograd", {"split": 1}, tmp_path, mixed=True)
    reference_of = Reference(form.imported.folded, sorted(made_values(form.imported.folded)))
    verdict = run_gate(program, form.line, form.spans, form.blocks, reference_of, [{"x": x}])
    assert verdict.astray == {"mixed"}
    mixed = {(b, 2) for layer in layers(form.spans) if len(layer) > 1 for b in layer}
    assert {place for place, why in verdict.rejected.items() if "from ONNX Runtime" in why} == mixed
