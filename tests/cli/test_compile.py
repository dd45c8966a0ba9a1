"""`veltair compile` as a process: what it prints, and what is left when it is interrupted."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("tvm")

OUTPUT_LIMIT_S = 240


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A matrix product and a sum: few kernels, little to search."""
    weights = numpy_helper.from_array(np.eye(16, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "h"], ["y"])]
    port = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (4, 16)) for name in "xy"]
    made = helper.make_model(helper.make_graph(nodes, "g", port[:1], port[1:], [weights]))
    made.ir_version, made.opset_import[0].version = 8, 17
    path = tmp_path / "tiny.onnx"
    onnx.save(made, path)
    return path


def start(model: Path, *arguments: str) -> "subprocess.Popen[str]":
    folder = model.parent
    return subprocess.Popen(
        [sys.executable, "-m", "veltair", "compile", str(model), "-o", str(folder / "out"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder)},
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_compile_leaves_nothing_half_made_and_says_how_to_go_on(
    model: Path, number: signal.Signals, code: int
) -> None:
    with start(model) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("generating code"):  # the search is over, and was worth keeping
                process.send_signal(number)
                break
        _, said = process.communicate(timeout=OUTPUT_LIMIT_S)
    assert process.returncode == code, said
    assert "no bundle was written" in said
    assert "Run the same command again to go on" in said
    assert "Traceback" not in said
    assert not (model.parent / "out").exists()
    assert not list(model.parent.glob("veltair-*")), "a temporary folder was left behind"
    assert list((model.parent / "cache").glob("veltair/tuning/*/tiny.json"))


def test_a_compile_tells_what_it_kept_and_where_the_report_is(model: Path) -> None:
    with start(model, "--precision", "fp32") as process:
        out, said = process.communicate(timeout=OUTPUT_LIMIT_S)
    assert process.returncode == 0, said
    bundle = model.parent / "out" / "tiny"
    report = json.loads((bundle / "report.json").read_text())
    assert report["search"]["searched"] == report["search"]["kernels"] > 0
    assert report["precisions"] == ["fp32"]
    assert (bundle / "report.html").read_text().startswith("<!doctype html>")
    assert f"report: {bundle / 'report.html'}" in out
    assert "kept because" in out
    assert "whole model: " in out
    assert "generic schedules hold 0.0% of the time" in out
