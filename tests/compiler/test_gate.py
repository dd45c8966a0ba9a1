"""The gate on forms that stray: they are left out with the reason, and the exact ones stay."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from veltair.bundle.store import open_bundle
from veltair.compiler import measure, operators
from veltair.compiler.build import Compiled, compile_model
from veltair.compiler.records import Records, Timed
from veltair.compiler.schedules.base import Chain
from veltair.compiler.schedules.gemm import Gemm
from veltair.compiler.target import host_target

from .small import model_of, save

X = {"x": np.random.default_rng(5).standard_normal((8, 32), np.float32)}
WEIGHTS = {"w": np.random.default_rng(6).standard_normal((32, 32), np.float32)}


@dataclass(frozen=True)
class OffByHalfAPercent(Gemm):
    """What this form may be off by, and more than a direct one may."""

    kind = "off"
    algorithm = "odd"
    tolerance = 2e-2
    factor = 1.005

    def build(self, knobs: Any) -> Any:
        exact = Gemm(self.m, self.k, self.n, self.nb, self.lanes, self.registers)
        return replace(exact, chain=Chain(("Mul", (), ("acc",), ("const", self.factor, "float32")))).build(knobs)


@dataclass(frozen=True)
class OffByTenPercent(OffByHalfAPercent):
    kind = "far off"
    factor = 1.1


def compiled_with(form: type[Gemm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiled:
    """Compile one product with `form` as its other form, the quicker one as far as the records know."""

    def other(low: Any, kernel: Gemm, data: int, name: str, weights: Any) -> list[Any]:
        odd = form(kernel.m, kernel.k, kernel.n, kernel.nb, kernel.lanes, kernel.registers)
        records = Records(host_target().mcpu, [])
        records.put(kernel.key, [Timed(kernel.candidates()[0], 2.0, 2.0)])
        records.put(odd.key, [Timed(kernel.candidates()[0], 1.0, 1.0)])
        records.write(tmp_path, "known", {kernel.key: "direct", odd.key: "odd"})
        packed = lambda: weights.reshape(kernel.k, -1, kernel.nb).transpose(1, 0, 2)  # noqa: E731
        return [(odd, [data, low.weight(name, "again", packed, odd.inputs[1])])]

    monkeypatch.setattr(operators, "GEMM_FORMS", [other])
    monkeypatch.setattr(measure, "LEVELS", (0.0,))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = save(model_of([("MatMul", "x w", "y")], X, "y", WEIGHTS), tmp_path)
    return compile_model(path, out=tmp_path / "out", gate_inputs=[X], tuning=tmp_path)


def candidates(made: Compiled) -> dict[str, Any]:
    (block,) = made.report["blocks"]
    return {c["algorithm"]: c for c in block["candidates"]}


def test_a_form_that_strays_past_its_tolerance_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = compiled_with(OffByTenPercent, tmp_path, monkeypatch)
    assert not candidates(made)["odd"]["kept"]
    assert "value 'y' is off by 1.0e-01 of its range from ONNX Runtime (allowed 2e-02)" in candidates(made)["odd"]["why"]
    (block,) = open_bundle(made.folder).manifest.blocks
    assert [v.algorithm for v in block.variants] == ["direct"]


def test_a_form_within_its_own_tolerance_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = compiled_with(OffByHalfAPercent, tmp_path, monkeypatch)
    odd = candidates(made)["odd"]
    assert odd["gate_error"] == pytest.approx(5e-3, rel=1e-2)
    assert odd["tolerance"] == 2e-2
    assert "off by" not in odd["why"]
    assert made.report["gate"]["checks"]["fast: cosine"] == "1.000000"
    assert made.report["gate"]["checks"]["fast: top-1"].startswith("same in ")


def test_a_second_compile_keeps_what_the_first_one_chose_and_says_what_that_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compiled_with(OffByHalfAPercent, tmp_path, monkeypatch)
    (before,) = first.report["blocks"]
    again = compile_model(tmp_path / "small.onnx", out=tmp_path / "out", gate_inputs=[X], tuning=tmp_path)
    (block,) = again.report["blocks"]
    assert [c["name"] for c in block["candidates"]] == [c["name"] for c in before["candidates"] if c["kept"]]
    assert block["dropped_before"] == {c["name"]: c["why"] for c in before["candidates"] if not c["kept"]}
    assert block["exact_regret"] == before["exact_regret"]


def test_what_the_gate_rejected_is_offered_again_where_the_weights_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled_with(OffByTenPercent, tmp_path, monkeypatch)
    same = compile_model(tmp_path / "small.onnx", out=tmp_path / "out", gate_inputs=[X], tuning=tmp_path)
    assert set(candidates(same)) == {"direct"}
    save(model_of([("MatMul", "x w", "y")], X, "y", {"w": WEIGHTS["w"] + 1.0}), tmp_path)
    other = compile_model(tmp_path / "small.onnx", out=tmp_path / "out", gate_inputs=[X], tuning=tmp_path)
    assert not candidates(other)["odd"]["kept"]


def test_a_damaged_choice_in_the_records_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_with(OffByHalfAPercent, tmp_path, monkeypatch)
    (path,) = tmp_path.glob("*/small.json")
    content = json.loads(path.read_text())
    for fingerprint in content["selections"]:
        content["selections"][fingerprint] = [{"kept": ["none such"]}]
    path.write_text(json.dumps(content))
    again = compile_model(tmp_path / "small.onnx", out=tmp_path / "out", gate_inputs=[X], tuning=tmp_path)
    assert {c["algorithm"] for c in again.report["blocks"][0]["candidates"]} == {"direct", "odd"}
