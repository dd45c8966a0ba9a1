"""`compile_model` from file to bundle: what it answers, what it keeps, and what it leaves where it fails."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from veltair.bundle.store import open_bundle, this_cpu_features
from veltair.compiler import library, measure
from veltair.compiler.build import Compiled, compile_model
from veltair.compiler.schedules import bf16
from veltair.compiler.schedules.gemm import Gemm
from veltair.engine.program import Program
from veltair.errors import CompileError, GateFailed

from .small import assert_equal, model_of, reference, save

_random = np.random.default_rng(3)


def f32(*shape: int) -> Any:
    return _random.standard_normal(shape, np.float32)


X = {"x": f32(1, 3, 12, 12)}


def make_model() -> Any:
    """A convolution, a pool and a product: 3x12x12 in, 10 classes out."""
    steps = [
        ("Conv", "x w b", "c", {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("Relu", "c", "r"),
        ("Conv", "r v", "d", {"pads": [1, 1, 1, 1]}),
        ("Add", "r d", "s"),
        ("GlobalAveragePool", "s", "p"),
        ("Flatten", "p", "h"),
        ("Gemm", "h g k", "y"),
    ]
    constants = {"w": f32(16, 3, 3, 3), "b": f32(16), "v": f32(16, 16, 3, 3), "g": f32(16, 10), "k": f32(10)}
    return model_of(steps, X, "y", constants)


MODEL = make_model()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(MODEL, tmp_path_factory.mktemp("model"), "tiny.onnx")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(measure, "LEVELS", (0.0,))  # no antagonist: it would take seconds to start
    monkeypatch.setattr(measure, "ATTEMPTS", 1)


@pytest.fixture(scope="module")
def compiled(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setattr(measure, "LEVELS", (0.0,))
        patch.setattr(measure, "ATTEMPTS", 1)
        return compile_model(model, out=tmp_path_factory.mktemp("bundles"), qos_ms=20.0, tuning=tuning(tmp_path_factory))


def tuning(factory: pytest.TempPathFactory) -> Path:
    return factory.getbasetemp() / "tuning"


def test_every_variant_of_the_bundle_answers_as_onnx_runtime_does(compiled: Compiled) -> None:
    bundle = open_bundle(compiled.folder)
    assert bundle.name == "tiny"
    assert bundle.manifest.qos is not None
    assert bundle.manifest.qos.target_ms == 20.0
    program = Program(bundle)
    expected = reference(MODEL, X)
    blocks = bundle.manifest.blocks
    for variant in range(max(len(b.variants) for b in blocks)):
        chosen = tuple(min(variant, len(b.variants) - 1) for b in blocks)
        exact = all(b.variants[v].precision == "fp32" for b, v in zip(blocks, chosen, strict=True))
        arena = program.new_arena()
        program.write_inputs(arena, X)
        program.run(arena, 0, len(blocks), chosen)
        assert_equal(program.read_outputs(arena), expected, 1e-5 if exact else bf16.TOLERANCE)
        program.release(arena)


def test_a_second_compile_searches_nothing(
    compiled: Compiled, model: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert compiled.report["search"]["searched"] > 0
    written = list(tuning(tmp_path_factory).glob("*/tiny.json"))
    assert len(written) == 1
    again = compile_model(model, out=tmp_path, tuning=tuning(tmp_path_factory))
    assert again.report["search"]["searched"] == 0


@pytest.mark.parametrize(
    ("what", "tree"), [("wrong", ("Neg", ())), ("no number", ("Mul", (), ("const", float("nan"), "float32")))]
)
def test_a_kernel_that_computes_what_is_wrong_is_refused_and_the_older_bundle_stays(
    what: str,
    tree: Any,
    compiled: Compiled,
    model: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(compiled.folder, tmp_path / "tiny")
    honest = Gemm.build

    def broken(kernel: Gemm, knobs: Any) -> Any:
        return honest(replace(kernel, chain=replace(kernel.chain, tree=(*tree, kernel.chain.tree))), knobs)

    monkeypatch.setattr(Gemm, "build", broken)
    with pytest.raises(GateFailed, match=r"tiny: block '\d\d-\w+', variant '\w+': value '\w+' is off by .*not written"):
        compile_model(model, out=tmp_path, tuning=tuning(tmp_path_factory))
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]
    assert open_bundle(tmp_path / "tiny").manifest == compiled.manifest


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "two words", "x\n"])
def test_a_name_that_cannot_be_a_folder_is_refused(model: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(CompileError, match=r"cannot be a folder's; use letters.*--name"):
        compile_model(model, name=name, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_bf16_for_a_cpu_without_it_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CompileError, match=r"x86-64 cannot multiply in bf16 \(it lacks avx512_bf16\); compile with --precision fp32"
    ):
        compile_model(model, out=tmp_path, target="x86-64", precisions=["bf16"])


@pytest.mark.parametrize(
    ("batches", "precisions", "message"),
    [
        ((), None, r"batch sizes \[\] must be distinct and at least 1"),
        ((1, 1), None, r"batch sizes \[1, 1\] must be distinct"),
        ((0,), None, r"batch sizes \[0\] must be distinct and at least 1"),
        ((1,), ["fp8"], "unknown precision 'fp8'; variants are made in fp32 and bf16"),
    ],
)
def test_choices_that_make_no_sense_are_refused(batches: Any, precisions: Any, message: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=message):
        compile_model(model, out=tmp_path, batches=batches, precisions=precisions)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({}, "lacks 'x'"),
        ({"x": X["x"][:, :2]}, r"'x' is float32 \[1, 2, 12, 12\], the model takes float32 \[1, 3, 12, 12\]"),
        ({"x": X["x"].astype(np.float64)}, "'x' is float64"),
        ({**X, "z": X["x"]}, "'z'"),
    ],
)
def test_a_gate_input_that_does_not_fit_is_refused(model: Path, tmp_path: Path, sample: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        compile_model(model, out=tmp_path, gate_inputs=[sample])


FULL = """
import resource, signal, sys
from veltair.compiler.build import compile_model
from veltair.errors import OutOfDisk
from veltair.compiler import library, measure
measure.LEVELS, measure.ATTEMPTS = (0.0,), 1
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def fill(stage, done, total):
    if stage == sys.argv[4]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

try:
    compile_model(sys.argv[1], out=sys.argv[2], tuning=sys.argv[3], on_progress=fill)
except OutOfDisk as error:
    print(error)
"""


@pytest.mark.parametrize("stage", ["import", "build", "measure"])
def test_a_disk_that_fills_leaves_no_bundle(
    stage: str, compiled: Compiled, model: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    arguments = [str(model), str(tmp_path / "out"), str(tuning(tmp_path_factory)), stage]
    ended = subprocess.run([sys.executable, "-c", FULL, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert "free some space" in ended.stdout, ended.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_kernels_of_several_object_files_are_one_library(
    compiled: Compiled, model: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "KERNELS_AT_ONCE", 1)
    made = compile_model(model, out=tmp_path, tuning=tuning(tmp_path_factory))
    assert_equal(_answer(Program(open_bundle(made.folder)), X), reference(MODEL, X))


def test_one_bundle_holds_several_batch_sizes_over_the_same_weights(model: Path, tmp_path: Path) -> None:
    made = compile_model(model, out=tmp_path, batches=(1, 3), precisions=["fp32"])
    bundle = open_bundle(made.folder)
    assert bundle.manifest.batches == (1, 3)
    x = {"x": f32(3, 3, 12, 12)}
    single, triple = Program(bundle), Program(bundle.at_batch(3))
    assert_equal(_answer(triple, x), {"y": np.concatenate([_answer(single, {"x": row[None]})["y"] for row in x["x"]])})
    with pytest.raises(ValueError, match="not compiled for batch 2; it has 1, 3"):
        bundle.at_batch(2)


def _answer(program: Program, inputs: dict[str, Any]) -> dict[str, Any]:
    arena = program.new_arena()
    program.write_inputs(arena, inputs)
    blocks = len(program.bundle.manifest.blocks)
    program.run(arena, 0, blocks, (0,) * blocks)
    return program.read_outputs(arena)


def test_a_bundle_for_an_older_cpu_asks_for_no_more_than_that_cpu_has(model: Path, tmp_path: Path) -> None:
    if not {"avx2", "fma"} <= this_cpu_features():
        pytest.skip("needs a CPU with AVX2")
    made = compile_model(model, out=tmp_path, target="haswell")
    assert made.manifest.target.lanes == 8
    assert not [f for f in made.manifest.target.features if f.startswith("avx512")]
    assert_equal(_answer(Program(open_bundle(made.folder)), X), reference(MODEL, X))
