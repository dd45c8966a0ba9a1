"""Small ONNX graphs, and a way to run what they compile to without a search or a bundle."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tvm
from onnx import TensorProto, helper, numpy_helper

from veltair.bundle.format import TargetSpec
from veltair.compiler.fallback import fallback
from veltair.compiler.line import Call, Line, plan_memory
from veltair.compiler.lower import Lowering
from veltair.compiler.onnx_import import load
from veltair.compiler.operators import HANDLERS
from veltair.compiler.simplify import simplify
from veltair.compiler.target import host_target, tvm_target

Arrays = Mapping[str, Any]
Step = tuple[Any, ...]
"""(operator, inputs, outputs[, attributes]), inputs and outputs as space-separated names ("-" for one left out)."""

HOST = host_target()
HASWELL = TargetSpec(arch="x86_64", mcpu="haswell", lanes=8, features=("fma", "avx2"))
OLDEST = TargetSpec(arch="x86_64", mcpu="x86-64", lanes=4, features=())


def model_of(
    steps: Sequence[Step],
    inputs: Arrays,
    outputs: str = "y",
    constants: Arrays | None = None,
    *,
    opset: int = 17,
    domain: str = "",
) -> onnx.ModelProto:
    """`inputs` maps each name to an array (its shape and dtype are declared), or to (elem_type, shape)."""
    nodes = []
    for number, (op, reads, writes, *attrs) in enumerate(steps):
        names = ["" if name == "-" else name for name in reads.split()]
        made = ["" if name == "-" else name for name in writes.split()]
        nodes.append(helper.make_node(op, names, made, name=f"n{number}_{op}", domain=domain, **(attrs[0] if attrs else {})))
    ports = []
    for name, value in inputs.items():
        kind, shape = value if isinstance(value, tuple) else (helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        ports.append(helper.make_tensor_value_info(name, kind, shape))
    results = [onnx.ValueInfoProto(name=name) for name in outputs.split()]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "small", ports, results, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    inferred = onnx.shape_inference.infer_shapes(model)
    for port in inferred.graph.output:
        if not port.type.HasField("tensor_type"):
            port.type.tensor_type.elem_type = TensorProto.FLOAT
    return inferred


def save(model: onnx.ModelProto, folder: Path, name: str = "small.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def line_of(path: Path, target: TargetSpec = HOST) -> Line:
    imported = load(path, {})
    return Lowering(simplify(imported.graph), target, HANDLERS, fallback).run()


def run_line(
    line: Line,
    inputs: Arrays,
    target: TargetSpec = HOST,
    *,
    pick: Callable[[Call], Call] = lambda call: call,
    candidate: int = 0,
) -> dict[str, Any]:
    """Build each kernel, run the line in one arena laid out by `plan_memory`; the outputs by name.

    `pick` chooses among a call's forms, `candidate` the knobs (the last ones where there are fewer).
    """
    calls = [pick(call) for call in line.calls]
    kernels = {call.kernel.key: call.kernel for call in calls}
    names = {key: f"k{number}" for number, key in enumerate(kernels)}
    functions = {names[key]: k.function(k.candidates()[: candidate + 1][-1], names[key]) for key, k in kernels.items()}
    library = tvm.compile(tvm.IRModule(functions), target=tvm_target(target))
    specs, arena_bytes, weights = plan_memory(line)
    arena = _aligned(arena_bytes)
    arena[:] = 0xFF  # NaN as fp32: an arena is pooled, nothing may count on zeros
    store = _aligned(max((offset + tensor.size_bytes for offset, tensor in weights), default=64))
    for offset, tensor in weights:
        store[offset : offset + tensor.size_bytes] = tensor.array().reshape(-1).view(np.uint8)

    def array_at(number: int) -> Any:
        spec = specs[number]
        memory = store if spec.kind == "weight" else arena
        size = int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
        return memory[spec.offset : spec.offset + size].view(spec.dtype).reshape(spec.shape)

    for name, number in line.inputs.items():
        array_at(number)[...] = inputs[name]
    for call in calls:
        library[names[call.kernel.key]](*(tvm.runtime.from_dlpack(array_at(t)) for t in call.tensors))
    return {name: array_at(number).copy() for name, number in line.outputs.items()}


def _aligned(size: int) -> Any:
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def reference(model: onnx.ModelProto, inputs: Arrays) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(inputs)), strict=True))


def assert_equal(ours: Arrays, theirs: Arrays, tolerance: float = 1e-5) -> None:
    """Relative to the largest magnitude of each output; what is no float must be equal."""
    assert set(ours) == set(theirs)
    for name, expected in theirs.items():
        got = ours[name]
        assert got.shape == expected.shape, f"{name}: {got.shape}, expected {expected.shape}"
        assert got.dtype == expected.dtype, f"{name}: {got.dtype}, expected {expected.dtype}"
        if expected.dtype.kind != "f":
            np.testing.assert_array_equal(got, expected)
            continue
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(got[~finite], expected[~finite])
        scale = float(np.abs(expected[finite]).max(initial=0.0)) or 1.0
        worst = float(np.abs(got[finite].astype(np.float64) - expected[finite]).max(initial=0.0)) / scale
        assert worst <= tolerance, f"{name} is off by {worst:.1e} of its range"
