"""What users run today, each at its best: ONNX Runtime and OpenVINO on the same ONNX file, with as many threads as cores.

Both start threads of their own when a model is loaded, which inherit the cores of the thread that loads it: whoever
compares on fewer cores than the machine has does so in a process that was confined to them from its first line (OpenVINO's
pool belongs to the process, and stays where it was first started). ONNX Runtime spins within a run, as it does by
default, and is told to stop at its end; OpenVINO's threads sleep by themselves. Neither pins threads, since the process
is confined already. OpenVINO is asked for latency, on one stream; inputs and outputs are shared with it, not copied.
"""

import importlib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.tools.onnx_model_utils import make_input_shape_fixed

from veltair.bundle.store import this_cpu_features
from veltair.errors import ToolMissing
from veltair.models.source import Tensors

OPENVINO_HINTS = {"fp32": "f32", "bf16": "bf16"}
BF16 = "avx512_bf16"


@dataclass(frozen=True, slots=True)
class Peer:
    """`run` takes arrays by name and gives arrays by name; those it gives may be overwritten by its next run."""

    name: str
    version: str
    precision: str
    run: Callable[[Tensors], Tensors]


def peers(path: Path, cores: int, precisions: Collection[str] = tuple(OPENVINO_HINTS)) -> list[Peer]:
    """Every peer in those of `precisions` that this CPU has, ONNX Runtime fp32 first, for the ONNX file `path`, whose shapes
    are fixed. Raises ToolMissing without OpenVINO.
    """
    usable = [p for p in OPENVINO_HINTS if p in precisions and (p == "fp32" or BF16 in this_cpu_features())]
    return [onnx_runtime(path, cores), *(openvino(path, cores, precision) for precision in usable)]


def fixed(path: Path, shapes: Mapping[str, Sequence[int]]) -> Path:
    """The file with its inputs fixed to `shapes`, written beside it (where its external data lies); itself if none is open."""
    model = onnx.load(str(path), load_external_data=False)
    open_inputs = [port.name for port in model.graph.input if port.name in shapes and _is_open(port)]
    if not open_inputs:
        return path
    for name in open_inputs:
        make_input_shape_fixed(model.graph, name, list(shapes[name]))
    copy = path.with_name(f"{path.stem}.fixed.onnx")
    copy.write_bytes(model.SerializeToString())
    return copy


def _is_open(port: onnx.ValueInfoProto) -> bool:
    kind = port.type.tensor_type
    return not kind.HasField("shape") or any(not dim.HasField("dim_value") or dim.dim_value < 1 for dim in kind.shape.dim)


def onnx_runtime(path: Path, cores: int) -> Peer:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = cores
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]

    def run(inputs: Tensors) -> Tensors:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return Peer("ONNX Runtime", onnxruntime.__version__, "fp32", run)


def openvino(path: Path, cores: int, precision: str) -> Peer:
    """Raises ToolMissing where it is not installed."""
    ov = _openvino()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": cores,
        "INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision],
        "ENABLE_CPU_PINNING": False,
    }
    compiled = ov.Core().compile_model(str(path), "CPU", settings)
    request = compiled.create_infer_request()
    names = [port.get_any_name() for port in compiled.outputs]

    def run(inputs: Tensors) -> Tensors:
        results = request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        return {name: np.asarray(results[number]) for number, name in enumerate(names)}

    return Peer("OpenVINO", ov.__version__.partition("-")[0], precision, run)


def _openvino() -> Any:
    # Without it OpenVINO uses its own stub. With it, importing OpenVINO starts a process that reports the import over the
    # network and, for seconds, takes half of the core that is being measured.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module("openvino")
    except ModuleNotFoundError as error:
        remedy = 'pip install -c constraints/constraints.txt "veltair[bench]"'
        raise ToolMissing(f"OpenVINO, which the benchmarks compare with, is not installed: {remedy}") from error
