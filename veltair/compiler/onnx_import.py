"""An ONNX file in, a `Graph` with fixed shapes out. Constants are folded by ONNX Runtime, the reference of the gate.

Folded constants of a kilobyte or more do not pass through protobuf, which cannot hold 2 GiB and copies each several times:
ONNX Runtime writes them to a file, and the graph's arrays are that file mapped into memory, whose pages the operating
system may drop and read again.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from mmap import ACCESS_READ, MADV_DONTNEED, mmap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from veltair.compiler.graph import Graph, Node, Shape
from veltair.compiler.onnx_file import read
from veltair.compiler.preprocess import ImageInput, prepend
from veltair.compiler.rebatch import rebatch
from veltair.errors import CompileError, DynamicShape, UnknownInput, UnsupportedOperator

_CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}
# makes a matrix product of more axes a Gemm between two Reshapes, behind which a batch's rows no longer are samples
_NOT_WANTED = ["MatMulAddFusion"]
_MAPPED_BYTES = 1_024  # constants at least this large lie in the file; shape inference wants to see the smaller ones
_OFFLOADED_BYTES = 256 << 20  # a model that carries more is handed over as a file, which ONNX Runtime maps
_LEAST_ROOM_BYTES = 64 << 10
_OFFLOADED = "offloaded.data"
_INLINED = "_inlfunc_"  # what ONNX Runtime's names of an inlined function's values begin with
_AT_ONCE = 1 << 22  # elements that are looked through for NaN in one go


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Imported:
    """`folded` and the data file beside it are removed together with this object; arrays of `graph` stay readable."""

    graph: Graph
    folded: Path  # ONNX with fixed shapes, for the gate's reference
    source: str  # "file name sha256:..."


def load(
    path: Path,
    shapes: Mapping[str, Shape],
    *,
    batch: int = 1,
    images: Sequence[ImageInput] = (),
    source: str | None = None,
) -> Imported:
    """Read `path`, fix its inputs to `shapes`, fold all that is constant, and make `batch` samples pass at once.

    `shapes` are those at batch 1, as the model itself takes them. Each of `images` becomes a uint8 input, whose normalisation
    is then part of the model. `source` names where `path` was made from, if it is not itself the user's file.

    Raises NotAnOnnxModel, UnknownInput (a shape or image for an input the model lacks), DynamicShape (an input dimension is
    symbolic and no shape was given), UnsupportedOperator (ONNX Runtime or this importer knows no such operator, or it lets
    no batch through), ModelTooLarge (constants exceed memory).
    """
    model, digest = read(path)
    source = source or f"{path.name} sha256:{digest}"
    declared_free = _batch_is_free(model)
    try:
        return _import(model, path, shapes, batch, images, source)
    except UnsupportedOperator:
        if batch == 1 or not declared_free:
            raise
    # what lets no batch through by itself may do so by its exporter's word
    several = {name: (shape[0] * batch, *shape[1:]) for name, shape in shapes.items()}
    imported = _import(read(path)[0], path, several, 1, images, source)
    for name in imported.graph.outputs:
        if not imported.graph.shapes[name] or imported.graph.shapes[name][0] % batch:
            raise UnsupportedOperator(
                f"{path.name}: output {name!r} is {list(imported.graph.shapes[name])} at batch {batch}, so it does not hold the "
                "samples along its first axis; leave out --batch"
            )
    return imported


def _import(
    model: onnx.ModelProto, path: Path, shapes: Mapping[str, Shape], batch: int, images: Sequence[ImageInput], source: str
) -> Imported:
    _freeze(model, shapes, path)
    _refuse_unknown(model, path)
    for image in images:
        prepend(model, image, path.name)
    _name_omitted_outputs(model)
    folder = Path(tempfile.mkdtemp(prefix="veltair-import-"))
    try:
        file = folder / "folded.onnx"
        folded = _fold(model, path, file)
        if batch > 1:
            folded = rebatch(folded, batch, path.name)
        onnx.save(folded, str(file))
        imported = Imported(_to_graph(folded, path, folder), file, source)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(imported, shutil.rmtree, folder, True)
    return imported


def _batch_is_free(model: onnx.ModelProto) -> bool:
    """Whether every input is declared with a first axis of any size."""
    constants = {i.name for i in model.graph.initializer}
    shapes = [i.type.tensor_type.shape.dim for i in model.graph.input if i.name not in constants]
    return all(dims and not dims[0].dim_value for dims in shapes)


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


def _fold(model: onnx.ModelProto, path: Path, out: Path, *, again: bool = False) -> onnx.ModelProto:
    """The model as ONNX Runtime folds it, also written to `out`; large constants lie in a file beside that one."""
    outside = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    _reserve(out, 2 * model.ByteSize() + sum(int(entry.value) for entry in outside if entry.key == "length"))
    data = path.parent.absolute()
    if not outside and model.ByteSize() >= _OFFLOADED_BYTES:
        external_data_helper.convert_model_to_external_data(model, location=_OFFLOADED, size_threshold=_MAPPED_BYTES)
        external_data_helper.write_external_data_tensors(model, str(out.parent))
        data = out.parent
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    options.optimized_model_filepath = str(out)
    for key, value in {
        "session.optimized_model_external_initializers_file_name": f"{out.stem}.data",
        "session.optimized_model_external_initializers_min_size_in_bytes": str(_MAPPED_BYTES),
        "session.model_external_initializers_file_folder_path": str(data),
        "session.disable_prepacking": "1",  # nothing will be run
    }.items():
        options.add_session_config_entry(key, value)
    try:
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=_NOT_WANTED
        )
    except Exception as error:  # onnxruntime raises bare classes of its own, all derived from Exception
        raise CompileError(f"{path.name}: ONNX Runtime, the gate's reference, refuses the model: {error}") from error
    Path(out.parent, _OFFLOADED).unlink(missing_ok=True)
    folded = onnx.load(str(out), load_external_data=False)
    if any(name.startswith(_INLINED) for node in folded.graph.node for name in node.output) and not again:
        # operators that ONNX Runtime has no kernel for are written out after it has folded: their shapes are still computed
        second = out.with_name(f"again_{out.name}")
        folded = _fold(folded, out, second, again=True)
        second.replace(out)
        return folded
    return onnx.shape_inference.infer_shapes(folded, data_prop=True)


def _reserve(path: Path, size_bytes: int) -> None:
    """Raises OSError where the disk lacks the room; ONNX Runtime would say so in words alone."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(size_bytes, _LEAST_ROOM_BYTES))
    path.unlink()


def _constants(model: onnx.ModelProto, path: Path, folder: Path) -> dict[str, Any]:
    """Every initializer as an array, those of the data file mapped from it. Raises CompileError where one holds no numbers."""
    files: dict[str, mmap] = {}
    found = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            found[tensor.name] = np.array(numpy_helper.to_array(tensor))
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        if where["location"] not in files:
            with Path(folder, where["location"]).open("rb") as file:
                files[where["location"]] = mmap(file.fileno(), 0, access=ACCESS_READ)
        memory = files[where["location"]]
        shape, dtype = tuple(tensor.dims), helper.tensor_dtype_to_np_dtype(tensor.data_type)
        count = int(np.prod(shape, dtype=np.int64))
        found[tensor.name] = np.frombuffer(memory, dtype, count, int(where.get("offset", 0))).reshape(shape)
    for name, array in found.items():
        if array.dtype.kind == "f" and array.size > 1 and (bad := _not_finite(array)):
            raise CompileError(
                f"{path.name}: constant {name!r} holds {bad} inf or NaN values; repair the weights before compiling"
            )
        if array.nbytes > _MAPPED_BYTES:
            for memory in files.values():
                memory.madvise(MADV_DONTNEED)  # looked through once; whoever needs a page reads it again
    return found


def _not_finite(array: Any) -> int:
    flat = array.reshape(-1)
    return sum(int(np.sum(~np.isfinite(flat[i : i + _AT_ONCE]))) for i in range(0, flat.size, _AT_ONCE))


def _attribute(attribute: onnx.AttributeProto) -> object:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value


def _to_graph(model: onnx.ModelProto, path: Path, folder: Path) -> Graph:
    proto = model.graph
    constants = _constants(model, path, folder)
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
    return Graph(inputs, tuple(o.name for o in proto.output), nodes, constants, shapes, dtypes, opset)
