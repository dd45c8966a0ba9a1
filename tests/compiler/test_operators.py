"""Every form of the zoo computes what ONNX Runtime computes, on the widest target and, in part, on narrower ones."""

from pathlib import Path

import pytest

from veltair.compiler.fallback import fallback
from veltair.compiler.lower import Lowering
from veltair.compiler.onnx_import import load
from veltair.compiler.operators import HANDLERS
from veltair.compiler.simplify import simplify
from veltair.errors import UnsupportedOperator

from .small import HASWELL, HOST, OLDEST, assert_equal, line_of, model_of, reference, run_line, save
from .zoo import CASES, REFUSED, Case

NARROW = [
    c
    for c in CASES
    if c.name.startswith(("conv", "Gemm", "Softmax", "LayerNorm", "squeeze", "a residual", "transposed", "18 channels"))
]


def check(case: Case, folder: Path, target: object = HOST) -> None:
    model = model_of(case.steps, case.inputs, case.outputs, case.constants, opset=case.opset)
    line = line_of(save(model, folder), target)  # type: ignore[arg-type]
    assert_equal(run_line(line, case.inputs, target), reference(model, case.inputs), case.tolerance)  # type: ignore[arg-type]
    if case.kinds:
        assert {call.kernel.kind for call in line.calls} == set(case.kinds)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_equals_onnx_runtime(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.parametrize("case", NARROW[::6], ids=lambda c: c.name)
def test_equals_onnx_runtime_with_8_lanes(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path, HASWELL)


@pytest.mark.parametrize("case", NARROW[3::6], ids=lambda c: c.name)
def test_equals_onnx_runtime_with_4_lanes(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path, OLDEST)


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.name)
def test_what_can_not_be_right_is_refused_by_name(case: Case, tmp_path: Path) -> None:
    path = save(model_of(case.steps, case.inputs, case.outputs, case.constants, opset=case.opset), tmp_path)
    with pytest.raises(UnsupportedOperator, match=f"n0_{case.steps[0][0]}"):
        Lowering(simplify(load(path, {}).graph), HOST, HANDLERS, fallback).run()
