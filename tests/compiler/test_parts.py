"""Long kernels in parts: which are divided, into how many, and that the parts make the whole."""

import os
from pathlib import Path

import numpy as np
import pytest
from tvm import te

from veltair.bundle.store import open_bundle
from veltair.compiler import measure, parts
from veltair.compiler.build import compile_model
from veltair.compiler.line import Call, Line
from veltair.compiler.parts import PART_US, divide_long_calls, parallel_extents
from veltair.compiler.records import Timed
from veltair.compiler.schedules.base import result, schedule_of
from veltair.compiler.schedules.gemm import Gemm
from veltair.engine.lanes import set_cores
from veltair.engine.program import Program

from .small import assert_equal, model_of, reference, save

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
