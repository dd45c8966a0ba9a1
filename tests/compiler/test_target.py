"""What is compiled for: this machine, an older one by name, and a machine that hides part of its CPU."""

import pytest

from veltair.bundle.store import this_cpu_features
from veltair.compiler import target
from veltair.compiler.target import BF16, VARIABLE, host_target
from veltair.errors import CompileError


def test_the_machine_shows_every_feature_that_its_target_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert set(host_target().features) <= this_cpu_features()


def test_an_older_cpu_may_be_named() -> None:
    assert host_target("x86-64").lanes == 4
    assert host_target("x86-64").features == ()


@pytest.mark.skipif(not {"avx2", "fma"} <= this_cpu_features(), reason="needs a CPU with AVX2")
def test_the_environment_names_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "haswell")
    spec = host_target()
    assert [spec.mcpu, spec.lanes, BF16 in spec.features] == ["haswell", 8, False]


def test_an_unknown_cpu_is_refused_with_the_way_to_name_one() -> None:
    with pytest.raises(CompileError, match=r"LLVM knows no CPU 'pentium-of-my-dreams'.*name one like haswell"):
        host_target("pentium-of-my-dreams")


@pytest.mark.parametrize(
    ("hidden", "cpu", "lanes"),
    [(BF16, "x86-64-v4", 16), ("avx512", "x86-64-v3", 8), ("avx", "x86-64-v2", 4)],
)
def test_a_machine_that_hides_features_is_taken_for_less(
    hidden: str, cpu: str, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = frozenset(target._SYSTEM_NAMES.values())
    shown = frozenset(f for f in everything if not f.startswith(hidden)) - ({"fma", "f16c"} if hidden == "avx" else set())
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(target, "this_cpu_features", lambda: shown)
    monkeypatch.setattr(target.tvm.target.codegen, "llvm_get_system_cpu", lambda: "znver4")
    spec = host_target()
    assert [spec.mcpu, spec.lanes] == [cpu, lanes]


def test_a_target_the_machine_cannot_run_is_refused_by_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "this_cpu_features", lambda: frozenset({"avx2", "fma"}))
    with pytest.raises(CompileError, match=r"target 'znver4' needs .*avx512f.*cannot be measured here"):
        host_target("znver4")
