"""Operators no schedule covers: TVM's own ONNX importer and operator library for the one node, then a generic schedule.

Correct for whatever TVM knows, parallel over the outer loops, but not near any hardware limit: the report names the
share of time such kernels hold.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import tvm
from onnx import helper, numpy_helper
from tvm import relax, s_tir

from veltair.compiler.graph import Node, Shape
from veltair.compiler.lower import Group, Lowering
from veltair.compiler.schedules.base import Kernel, Knobs
from veltair.errors import UnsupportedOperator


@dataclass(frozen=True)
class Foreign(Kernel):
    """A function as TVM legalised it, kept as text so that every build starts from the same form."""

    text: str  # TVM's own JSON of the PrimFunc
    ins: tuple[tuple[Shape, str], ...]
    out_shape: Shape
    out_dtype: str

    kind = "fallback"

    @property
    def inputs(self) -> tuple[tuple[Shape, str], ...]:
        return self.ins

    @property
    def output(self) -> Shape:
        return self.out_shape

    def argument_specs(self) -> list[tuple[Shape, str]]:
        return [*self.ins, (self.out_shape, self.out_dtype)]

    def build(self, knobs: Knobs) -> Any:
        try:
            return _generic(tvm.ir.load_json(self.text))
        except Exception:  # whatever TVM's primitives object to: the unscheduled form is right as it is
            return tvm.ir.load_json(self.text)


def _generic(func: Any) -> Any:
    """Inline what feeds elementwise, then run the outer loops of every stage in parallel."""
    sch = s_tir.Schedule(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}))
    names = [sch.get(b).name_hint for b in sch.get_child_blocks(sch.get_sblock("root"))]
    for name in names[:-1]:
        block = sch.get_sblock(name)
        if all(int(iv.iter_type) == 0 for iv in sch.get(block).iter_vars):
            try:
                sch.compute_inline(block)
            except tvm.s_tir.schedule.ScheduleError:
                continue
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        loops = sch.get_loops(block)
        kinds = [int(iv.iter_type) for iv in sch.get(block).iter_vars]
        spatial = []
        for loop, kind in zip(loops, kinds, strict=False):
            if kind != 0:
                break
            spatial.append(loop)
        if spatial and len(loops) == len(kinds):
            sch.parallel(sch.fuse(*spatial) if len(spatial) > 1 else spatial[0])
    return sch.mod["main"]


def fallback(low: Lowering, index: int, node: Node) -> Group:
    """Legalise the node with TVM and append what comes out. Raises UnsupportedOperator naming it where TVM cannot."""
    graph = low.graph
    _refuse_wrong(low, node)
    dynamic = [name for name in dict.fromkeys(node.inputs) if name and graph.constant(name) is None]
    module = _legalised(low, node, dynamic)

    def write(lw: Lowering, _: Group) -> None:
        env: dict[Any, int] = {}
        function = module["main"]
        for parameter, name in zip(function.params, dynamic, strict=True):
            env[parameter] = lw.get(name)
        for block in function.body.blocks:
            for binding in block.bindings:
                env[binding.var] = _append(lw, node, module, binding.value, env)
        result = function.body.body
        results = list(result.fields) if isinstance(result, relax.Tuple) else [result]
        if len(node.outputs) > 1 and len(results) == 1:
            raise UnsupportedOperator(f"{node.label} has several outputs in a form veltair cannot lower; replace it in the model")
        for name, var in zip(node.outputs, results, strict=False):
            lw.place(name, env[var], 0)

    return Group(node, index, node.outputs[0], write)


def _refuse_wrong(low: Lowering, node: Node) -> None:
    """Forms that TVM's importer takes and gets wrong: better no answer than a wrong one."""
    if node.op != "Resize" or low.graph.opset < 11 or len(node.inputs) != 3:
        return
    scales = low.graph.constant(node.inputs[2])
    exact = np.divide(low.graph.shapes[node.outputs[0]], low.graph.shapes[node.inputs[0]])
    if scales is None or not np.allclose(scales, exact, rtol=1e-6):
        raise UnsupportedOperator(
            f"{node.label} scales {list(low.graph.shapes[node.inputs[0]])} by {None if scales is None else scales.tolist()}, "
            "which gives no whole number of elements; give the output's size instead (the input `sizes`)"
        )


def _append(low: Lowering, node: Node, module: Any, value: Any, env: dict[Any, int]) -> int:
    if isinstance(value, relax.Var):
        return env[value]
    if not (isinstance(value, tvm.ir.Call) and getattr(value.op, "name", "") == "relax.call_tir"):
        raise UnsupportedOperator(
            f"{node.label}: TVM lowers it to {type(value).__name__}, which veltair cannot run; replace it in the model"
        )
    func = module[value.args[0]]
    arguments = list(value.args[1].fields) if hasattr(value.args[1], "fields") else [value.args[1]]
    numbers = []
    for argument in arguments:
        if isinstance(argument, tvm.ir.GenericConst):
            data = argument.value.numpy()
            numbers.append(low.line.weight(data))
        else:
            numbers.append(env[argument])
    specs = tuple((tuple(int(d) for d in b.shape), str(b.dtype)) for b in func.params)
    numbers = [low.line.view(n, shape) for n, (shape, _) in zip(numbers, specs, strict=False)]
    shape, dtype = specs[-1]
    if len(specs) != len(numbers) + 1:
        raise UnsupportedOperator(f"{node.label} has several outputs in a form veltair cannot lower; replace it in the model")
    text = tvm.ir.save_json(func.with_attr("global_symbol", "main"))
    out = low.line.new(shape, dtype)
    low.append(Foreign(text, specs[:-1], shape, dtype), numbers, out, node.op)
    return out


def _legalised(low: Lowering, node: Node, dynamic: list[str]) -> Any:
    from tvm.relax.frontend.onnx import from_onnx

    graph = low.graph
    constants = [name for name in dict.fromkeys(node.inputs) if name and name not in dynamic]
    proto = helper.make_node(node.op, list(node.inputs), list(node.outputs), name=node.name, **_attributes(node))

    def port(name: str) -> Any:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(graph.dtypes[name]))
        return helper.make_tensor_value_info(name, kind, list(graph.shapes[name]))

    onnx_graph = helper.make_graph(
        [proto],
        "one",
        [port(name) for name in dynamic],
        [port(name) for name in node.outputs],
        [numpy_helper.from_array(np.ascontiguousarray(graph.constants[name]), name) for name in constants],
    )
    model = helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", graph.opset)])
    try:
        module = from_onnx(
            model, shape_dict={n: list(graph.shapes[n]) for n in dynamic}, opset=graph.opset, keep_params_in_input=False
        )
        return _lower_pipeline()(module)
    except Exception as error:  # TVM's importer raises whatever it stumbles over
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise UnsupportedOperator(
            f"{node.label} uses operator {node.op!r}, which neither veltair nor TVM can lower in this form ({reason}); "
            "replace it with standard ONNX operators before compiling"
        ) from error


def _attributes(node: Node) -> dict[str, Any]:
    return {k: numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for k, v in node.attrs.items()}


@cache
def _lower_pipeline() -> Any:
    return tvm.transform.Sequential(
        [
            relax.transform.DecomposeOpsForInference(),
            relax.transform.CanonicalizeBindings(),
            relax.transform.LegalizeOps(),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FoldConstant(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
            relax.transform.DeadCodeElimination(),
        ]
    )
