"""An ONNX file in, a `Graph` with fixed shapes out. Constants are folded by ONNX Runtime, the reference of the gate."""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper

from veltair.compiler.graph import Graph, Node, Shape
from veltair.errors import CompileError, DynamicShape, NotAnOnnxModel, UnknownInput, UnsupportedOperator

_CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}


@dataclass(frozen=True, slots=True)
class Imported:
    graph: Graph
    folded: bytes  # serialized ONNX with fixed shapes, for the gate's reference
    source: str  # "file name sha256:..."


def load(path: Path, shapes: Mapping[str, Shape]) -> Imported:
    """Read `path`, fix its inputs to `shapes` and fold all that is constant.

    Raises NotAnOnnxModel, UnknownInput (a shape for an input the model lacks), DynamicShape (an input dimension is
    symbolic and no shape was given), UnsupportedOperator (ONNX Runtime or this importer knows no such operator).
    """
    model, digest = _read(path)
    _freeze(model, shapes, path)
    _refuse_unknown(model, path)
    _name_omitted_outputs(model)
    folded = _fold(model, path)
    return Imported(_to_graph(folded, path), folded.SerializeToString(), f"{path.name} sha256:{digest}")


def _read(path: Path) -> tuple[onnx.ModelProto, str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotAnOnnxModel(f"{path}: cannot be read ({error.strerror}); give the path of an .onnx file") from error
    try:
        model = onnx.load_model_from_string(data)
        if model.graph.ByteSize():
            onnx.load_external_data_for_model(model, str(path.parent))
    except (DecodeError, ValueError) as error:
        raise NotAnOnnxModel(f"{path}: {len(data)} bytes that are no ONNX model ({error}); export the model to ONNX") from error
    except (OSError, onnx.checker.ValidationError) as error:
        raise NotAnOnnxModel(
            f"{path}: its external data cannot be read ({error}); keep the data file beside the model"
        ) from error
    if not model.graph.node or not model.opset_import:
        raise NotAnOnnxModel(f"{path}: holds no ONNX graph ({len(data)} bytes, no nodes); export the model to ONNX")
    return model, hashlib.sha256(data).hexdigest()


def _freeze(model: onnx.ModelProto, shapes: Mapping[str, Shape], path: Path) -> None:
    constants = {i.name for i in model.graph.initializer}
    inputs = {i.name: i for i in model.graph.input if i.name not in constants}
    if not inputs:
        raise CompileError(f"{path.name}: the model takes no inputs, so there is nothing to serve; export it with its inputs")
    for name in {o.name for o in model.graph.output} & inputs.keys():
        raise CompileError(
            f"{path.name}: {name!r} is an input and an output at once; put an Identity node between them, or drop the output"
        )
    for name in shapes:
        if name not in inputs:
            raise UnknownInput(f"{path.name}: no input {name!r}; its inputs are {', '.join(sorted(inputs))}")
    for name, port in inputs.items():
        kind = port.type.tensor_type
        _check_dtype(path, name, kind.elem_type)
        if not kind.HasField("shape"):
            if name not in shapes:
                raise DynamicShape(
                    f"{path.name}: input {name!r} has no declared shape; fix it with --input {name}=SHAPE, as in 1x3x224x224"
                )
            kind.shape.dim.extend([onnx.TensorShapeProto.Dimension()] * len(shapes[name]))
        dims = kind.shape.dim
        declared = [d.dim_value if d.HasField("dim_value") else (d.dim_param or "?") for d in dims]
        given = shapes.get(name)
        if given is None:
            if any(not isinstance(d, int) or d < 1 for d in declared):
                example = "x".join(str(d) if isinstance(d, int) and d > 0 else "1" for d in declared)
                raise DynamicShape(
                    f"{path.name}: input {name!r} has the dynamic shape {declared}; fix it with --input {name}={example}"
                )
            continue
        if len(given) != len(declared) or any(
            isinstance(d, int) and d > 0 and d != g for d, g in zip(declared, given, strict=True)
        ):
            raise DynamicShape(f"{path.name}: input {name!r} is declared {declared}, --input gave {'x'.join(map(str, given))}")
        if any(d < 1 for d in given):
            raise DynamicShape(f"{path.name}: input {name!r} got {'x'.join(map(str, given))}; every dimension must be 1 or more")
        for dim, size in zip(dims, given, strict=True):
            dim.dim_value = size
    for port in model.graph.output:  # stale symbolic sizes would contradict the inferred ones
        port.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]


def _check_dtype(path: Path, name: str, elem_type: int) -> None:
    known = {TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8, TensorProto.INT8, TensorProto.BOOL}
    if elem_type not in known:
        dtype = helper.tensor_dtype_to_np_dtype(elem_type) if elem_type else "no tensor"
        raise CompileError(
            f"{path.name}: {name!r} is {dtype}; veltair compiles float32 with int32, int64, int8, uint8 and bool beside it: "
            "export the model in fp32"
        )


def _refuse_unknown(model: onnx.ModelProto, path: Path) -> None:
    opset = {o.domain: o.version for o in model.opset_import}
    for node in model.graph.node:
        if node.op_type in _CONTROL_FLOW:
            raise UnsupportedOperator(
                f"{path.name}: node {node.name or node.output[0]!r} is control flow ({node.op_type}); "
                "veltair compiles straight graphs: export the model with its branches and loops unrolled"
            )
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"):
            raise UnsupportedOperator(
                f"{path.name}: node {node.name or node.output[0]!r} is quantised ({node.op_type}); compile the fp32 model instead"
            )
        domain = node.domain if node.domain != "ai.onnx" else ""
        if not onnx.defs.has(node.op_type, domain=domain, max_inclusive_version=opset.get(domain, 1)):
            where = f"domain {domain!r}" if domain else f"ONNX opset {opset.get('', '?')}"
            raise UnsupportedOperator(
                f"{path.name}: node {node.name or node.output[0]!r} uses operator {node.op_type!r}, unknown in {where}; "
                "replace it with standard ONNX operators before compiling"
            )


def _name_omitted_outputs(model: onnx.ModelProto) -> None:
    """An output left out before one that is used keeps its place, which tells the others apart."""
    for number, node in enumerate(model.graph.node):
        while node.output and not node.output[-1]:
            del node.output[-1]
        for place, name in enumerate(node.output):
            if not name:
                node.output[place] = f"omitted_{number}_{place}"


def _fold(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        fixed, out = Path(folder, "fixed.onnx"), Path(folder, "folded.onnx")
        onnx.save(model, str(fixed))
        options.optimized_model_filepath = str(out)
        try:
            onnxruntime.InferenceSession(str(fixed), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises bare classes of its own, all derived from Exception
            raise CompileError(f"{path.name}: ONNX Runtime, the gate's reference, refuses the model: {error}") from error
        folded = onnx.load(str(out))
    return onnx.shape_inference.infer_shapes(folded, data_prop=True)


def _attribute(attribute: onnx.AttributeProto) -> object:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value


def _to_graph(model: onnx.ModelProto, path: Path) -> Graph:
    proto = model.graph
    constants = {i.name: np.array(numpy_helper.to_array(i)) for i in proto.initializer}
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, str] = {}
    for info in [*proto.input, *proto.value_info, *proto.output]:
        kind = info.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
        if kind.elem_type and kind.HasField("shape") and all(d >= 0 for d in dims):
            _check_dtype(path, info.name, kind.elem_type)
            shapes[info.name] = tuple(dims)
            dtypes[info.name] = str(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    nodes = []
    for node in proto.node:
        attrs = {a.name: _attribute(a) for a in node.attribute}
        if node.op_type == "Constant":
            constants[node.output[0]] = np.asarray(next(iter(attrs.values())))
            continue
        nodes.append(Node(node.op_type, tuple(node.input), tuple(o for o in node.output if o), attrs, node.name))
        for name in node.output:
            if name and name not in shapes:
                raise DynamicShape(
                    f"{path.name}: the shape of {name!r}, made by {nodes[-1].label}, depends on data; "
                    "veltair compiles static shapes: fix the inputs with --input or export without data-dependent sizes"
                )
    for name, value in constants.items():
        shapes[name], dtypes[name] = tuple(value.shape), str(value.dtype)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 17)
    inputs = tuple(i.name for i in proto.input if i.name not in constants)
    graph = Graph(inputs, tuple(o.name for o in proto.output), nodes, constants, shapes, dtypes, opset)
    for name, value in constants.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all() and value.size > 1:
            bad = int(np.size(value) - np.isfinite(value).sum())
            raise CompileError(
                f"{path.name}: constant {name!r} holds {bad} inf or NaN values; repair the weights before compiling"
            )
    return graph
