"""A folded model for one sample, made to take several at once.

Every value is followed from the inputs on: along which axis do samples now lie side by side? An operator passes that axis
on if it computes each sample by itself; sizes that were written down for one sample (targets of Reshape and Expand) are
multiplied. An operator that would mix samples, or that is not known here, is refused by name. So what comes out computes for
each sample what it computed for one alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from veltair.compiler.graph import Array
from veltair.errors import UnsupportedOperator

_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten"}
_ELEMENTWISE = {
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
    "BitwiseXor", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp",
    "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal",
    "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish",
    "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
}  # fmt: skip
_SAMPLES_FIRST = {  # sample, channels, places
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool", "GlobalLpPool",
    "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LpPool", "LRN", "MaxPool", "Resize", "SpaceToDepth",
    "Upsample",
}  # fmt: skip
_REDUCTIONS = {
    "ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare",
}  # fmt: skip
_ALONG_ONE_AXIS = {"CumSum": 0, "Hardmax": -1, "LogSoftmax": -1, "Softmax": -1, "TopK": -1, "Split": 0}  # and its default


def rebatch(model: onnx.ModelProto, batch: int, file: str) -> onnx.ModelProto:
    """`model` (static shapes, folded) with `batch` times as many samples along the first axis of its inputs.

    Inputs with a first axis of 1 carry the samples; others, a table or a scalar, stay one for all. Edits `model` and
    returns it with shapes inferred anew. Raises UnsupportedOperator naming the node that lets no batch through.
    """
    walk = _Walk(model, batch, file)
    walk.inputs()
    for node in model.graph.node:
        walk.follow(node)
    walk.outputs()
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    walk.check(inferred)
    return inferred


class _Walk:
    def __init__(self, model: onnx.ModelProto, batch: int, file: str) -> None:
        self.graph, self.batch, self.file = model.graph, batch, file
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 17)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.axis: dict[str, int] = {}  # value -> axis of its samples; values not in it are the same for all
        self.shapes = _shapes(model)
        self.shapes |= {name: tuple(tensor.dims) for name, tensor in self.constants.items()}

    def inputs(self) -> None:
        for port in self.graph.input:
            shape = self.shapes.get(port.name, ())
            if port.name not in self.constants and shape and shape[0] == 1:
                self.axis[port.name] = 0
                port.type.tensor_type.shape.dim[0].dim_value = self.batch
        if not self.axis:
            raise UnsupportedOperator(
                f"{self.file}: no input starts with an axis of 1, so none can take a batch of {self.batch}; leave out --batch"
            )

    def follow(self, node: onnx.NodeProto) -> None:
        if not any(name in self.axis for name in node.input):
            return
        if node.op_type in _VIEWS:
            axis = self._view(node)
        elif node.op_type in _ELEMENTWISE:
            axis = self._aligned(node, node.input)
        elif node.op_type in _SAMPLES_FIRST:
            axis = self._samples_first(node)
        elif node.op_type in _REDUCTIONS:
            axis = self._reduced(node)
        elif node.op_type in _ALONG_ONE_AXIS:
            axis = self._along(node)
        elif rule := _RULES.get(node.op_type):
            axis = rule(self, node)
        else:
            raise self._refusal(node, "is not known to compute each sample by itself")
        for name in node.output:
            if name:
                self.axis[name] = axis

    def outputs(self) -> None:
        for port in self.graph.output:
            if self.axis.get(port.name) != 0:
                where = f"along axis {self.axis[port.name]}" if port.name in self.axis else "nowhere"
                raise UnsupportedOperator(
                    f"{self.file}: output {port.name!r} would hold the samples of a batch {where}, not along its first axis; "
                    "leave out --batch"
                )
            port.type.tensor_type.ClearField("shape")

    def check(self, inferred: onnx.ModelProto) -> None:
        """What ONNX makes of the edited graph is what was followed."""
        for name, shape in _shapes(inferred).items():
            expected = list(self.shapes.get(name, shape))
            if name in self.axis and name in self.shapes:
                expected[self.axis[name]] *= self.batch
            if list(shape) != expected:
                raise UnsupportedOperator(
                    f"{self.file}: value {name!r} has the shape {list(shape)} at batch {self.batch}, expected {expected}; "
                    "a size for one sample is written into the model: export it with a dynamic first axis, or leave out --batch"
                )

    # --- rules: each returns the axis of its node's outputs, and edits the node where a size was written down -----------

    def _view(self, node: onnx.NodeProto) -> int:
        """Samples lie outermost, up to axes of 1, so the new shape holds them along the first axis with as much before it."""
        name, out = node.input[0], self._shape(node, node.output[0])
        self._only(node, name)
        before = int(np.prod(self.shapes[name][: self.axis[name]], dtype=np.int64))
        axis = next((a for a in range(len(out)) if int(np.prod(out[:a], dtype=np.int64)) == before), None)
        if axis is None:
            raise self._refusal(node, f"gives {list(out)}, which has no axis for the samples")
        target = [size * self.batch if a == axis else size for a, size in enumerate(out)]
        self._rewrite(node, "Reshape", [name, self._constant(node, "shape", target)])
        return axis

    def _aligned(self, node: onnx.NodeProto, names: Sequence[str], spare: int = 0) -> int:
        """Broadcast from the right; the last `spare` axes belong to the operator. What is one for all must be 1 there."""
        rank = max(len(self._shape(node, name)) for name in names if name)
        found = {self.axis[name] + rank - len(self.shapes[name]) for name in names if name in self.axis}
        if len(found) != 1 or (axis := found.pop()) >= rank - spare:
            raise self._refusal(node, "meets the samples along different axes")
        for name in names:
            if name and name not in self.axis:
                place = axis - rank + len(self.shapes[name])
                if place >= 0 and self.shapes[name][place] != 1:
                    raise self._refusal(
                        node, f"combines the samples with {name!r}, which has {self.shapes[name][place]} along them"
                    )
        if any(
            name in self.axis and self.shapes[name][self.axis[name]] != self._most(names, axis, rank) for name in names if name
        ):
            raise self._refusal(node, "spreads one sample over what another operand holds")
        return axis

    def _most(self, names: Sequence[str], axis: int, rank: int) -> int:
        places = [(self.shapes[n], axis - rank + len(self.shapes[n])) for n in names if n]
        return max((shape[place] for shape, place in places if place >= 0), default=1)

    def _samples_first(self, node: onnx.NodeProto) -> int:
        self._only(node, node.input[0])
        if self.axis[node.input[0]] != 0:
            raise self._refusal(node, "takes samples along its first axis only")
        if _attributes(node).get("training_mode"):
            raise self._refusal(node, "normalises by the mean over the samples, as in training")
        if node.op_type == "Resize" and len(node.input) > 3 and node.input[3] and "axes" not in _attributes(node):
            sizes = list(self._values(node, node.input[3]))
            node.input[3] = self._constant(node, "sizes", [sizes[0] * self.batch, *sizes[1:]])
        return 0

    def _reduced(self, node: onnx.NodeProto) -> int:
        self._only(node, node.input[0])
        axis, rank = self.axis[node.input[0]], len(self.shapes[node.input[0]])
        attributes = _attributes(node)
        if node.op_type.startswith("Arg"):
            axes = [attributes.get("axis", 0)]
        elif len(node.input) > 1 and node.input[1]:
            axes = list(self._values(node, node.input[1]))
        else:
            axes = list(attributes.get("axes", () if attributes.get("noop_with_empty_axes") else range(rank)))
        gone = {int(a) % rank for a in axes}
        if axis in gone:
            raise self._refusal(node, "reduces over the samples")
        return axis if attributes.get("keepdims", 1) else axis - sum(a < axis for a in gone)

    def _along(self, node: onnx.NodeProto) -> int:
        self._only(node, node.input[0])
        axis, rank = self.axis[node.input[0]], len(self.shapes[node.input[0]])
        flattens = node.op_type in ("Softmax", "LogSoftmax", "Hardmax") and self.opset < 13  # from the axis to the last
        default = 1 if flattens else _ALONG_ONE_AXIS[node.op_type]
        where = _attributes(node).get("axis", default)
        if node.op_type == "CumSum":
            where = self._values(node, node.input[1])[0]
        where = int(where) % rank
        if axis == where or (flattens and axis > where):
            raise self._refusal(node, "runs along the samples")
        return axis

    def _transpose(self, node: onnx.NodeProto) -> int:
        rank = len(self.shapes[node.input[0]])
        perm = [int(a) for a in _attributes(node).get("perm", range(rank - 1, -1, -1))]
        return perm.index(self.axis[node.input[0]])

    def _matmul(self, node: onnx.NodeProto) -> int:
        a, b = node.input
        rank_a, rank_b = len(self.shapes[a]), len(self.shapes[b])
        if b not in self.axis and rank_b == 2 and self.axis[a] < rank_a - 1:
            return self.axis[a]  # rows of one product
        if min(rank_a, rank_b) < 2:
            raise self._refusal(node, "multiplies a vector")
        return self._aligned(node, node.input, spare=2)

    def _gemm(self, node: onnx.NodeProto) -> int:
        a, b, *rest = node.input
        rows = 1 if _attributes(node).get("transA", 0) else 0
        if b in self.axis or self.axis.get(a) != rows:
            raise self._refusal(node, "multiplies samples with each other")
        for name in rest:
            shape = self.shapes.get(name, ())
            if name in self.axis or (len(shape) == 2 and shape[0] != 1):
                raise self._refusal(node, f"adds {name!r}, which has a row for each sample")
        return 0

    def _layer_norm(self, node: onnx.NodeProto) -> int:
        self._only(node, node.input[0])
        first = int(_attributes(node).get("axis", -1)) % len(self.shapes[node.input[0]])
        if self.axis[node.input[0]] >= first:
            raise self._refusal(node, "normalises over the samples")
        return self.axis[node.input[0]]

    def _concat(self, node: onnx.NodeProto) -> int:
        where = int(_attributes(node)["axis"]) % len(self._shape(node, node.output[0]))
        axes = {self.axis[name] for name in node.input if name in self.axis}
        if len(axes) != 1 or (axis := axes.pop()) == where:
            raise self._refusal(node, "joins samples with each other")
        for place, name in enumerate(node.input):
            if name not in self.axis:  # one for all: each sample needs its own
                repeats = [self.batch if a == axis else 1 for a in range(len(self.shapes[name]))]
                node.input[place] = self._repeated(node, name, place, repeats)
        return axis

    def _repeated(self, node: onnx.NodeProto, name: str, place: int, repeats: list[int]) -> str:
        if name not in self.constants:
            raise self._refusal(node, f"joins {name!r}, one for all samples, to each of them")
        return self._constant(node, f"repeated_{place}", np.tile(self._values(node, name), repeats))

    def _slice(self, node: onnx.NodeProto) -> int:
        self._only(node, node.input[0])
        shape, attributes = self.shapes[node.input[0]], _attributes(node)
        if len(node.input) > 1:
            starts = self._values(node, node.input[1])
            axes = self._values(node, node.input[3]) if len(node.input) > 3 and node.input[3] else range(len(starts))
        else:
            axes = attributes.get("axes", range(len(attributes["starts"])))
        if self.axis[node.input[0]] in {int(a) % len(shape) for a in axes}:
            raise self._refusal(node, "cuts along the samples")
        return self.axis[node.input[0]]

    def _gather(self, node: onnx.NodeProto) -> int:
        data, indices = node.input
        where = int(_attributes(node).get("axis", 0)) % len(self.shapes[data])
        if data in self.axis and indices in self.axis:
            raise self._refusal(node, "looks up each sample in another table")
        if indices in self.axis:
            return where + self.axis[indices]
        if self.axis[data] == where:
            raise self._refusal(node, "picks among the samples")
        return self.axis[data] + (len(self.shapes[indices]) - 1 if self.axis[data] > where else 0)

    def _pad(self, node: onnx.NodeProto) -> int:
        self._only(node, node.input[0])
        axis, rank = self.axis[node.input[0]], len(self.shapes[node.input[0]])
        attributes = _attributes(node)
        pads = list(self._values(node, node.input[1])) if len(node.input) > 1 else list(attributes.get("pads", ()))
        if len(pads) != 2 * rank or (len(node.input) > 3 and node.input[3]) or pads[axis] or pads[axis + rank]:
            raise self._refusal(node, "pads along the samples")
        return axis

    def _expand(self, node: onnx.NodeProto) -> int:
        self._only(node, node.input[0])
        out = self._shape(node, node.output[0])
        axis = self.axis[node.input[0]] + len(out) - len(self.shapes[node.input[0]])
        if self.shapes[node.input[0]][self.axis[node.input[0]]] != out[axis]:
            raise self._refusal(node, "spreads one sample over a longer axis")
        target = [size * self.batch if a == axis else size for a, size in enumerate(out)]
        node.input[1] = self._constant(node, "shape", target)
        return axis

    def _tile(self, node: onnx.NodeProto) -> int:
        self._only(node, node.input[0])
        axis = self.axis[node.input[0]]
        if self._values(node, node.input[1])[axis] != 1:
            raise self._refusal(node, "repeats the samples")
        return axis

    # --- what the rules need --------------------------------------------------------------------------------------------

    def _only(self, node: onnx.NodeProto, data: str) -> None:
        """All but the data is one for all samples: weights, sizes, axes."""
        if data not in self.axis or any(name in self.axis for name in node.input if name != data):
            raise self._refusal(node, "takes its parameters from the samples")

    def _shape(self, node: onnx.NodeProto, name: str) -> tuple[int, ...]:
        if name not in self.shapes:
            raise self._refusal(node, f"makes or reads {name!r}, whose shape is not known")
        return self.shapes[name]

    def _values(self, node: onnx.NodeProto, name: str) -> Array:
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise self._refusal(node, f"reads {name!r}, which is no small constant")
        return np.atleast_1d(numpy_helper.to_array(tensor))

    def _constant(self, node: onnx.NodeProto, what: str, value: object) -> str:
        name = f"{node.output[0]}__{what}_at_{self.batch}"
        array = value if isinstance(value, np.ndarray) else np.asarray(value, np.int64)
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        self.shapes[name] = tuple(array.shape)
        return name

    def _rewrite(self, node: onnx.NodeProto, op: str, inputs: list[str]) -> None:
        node.CopyFrom(helper.make_node(op, inputs, list(node.output), name=node.name))

    def _refusal(self, node: onnx.NodeProto, why: str) -> UnsupportedOperator:
        return UnsupportedOperator(
            f"{self.file}: {node.op_type} node {node.name or node.output[0]!r} {why}, so the model takes no batch of "
            f"{self.batch}; export it with a dynamic first axis, or leave out --batch"
        )


_RULES: dict[str, Callable[[_Walk, onnx.NodeProto], int]] = {
    "Transpose": _Walk._transpose,
    "MatMul": _Walk._matmul,
    "Gemm": _Walk._gemm,
    "LayerNormalization": _Walk._layer_norm,
    "RMSNormalization": _Walk._layer_norm,
    "Concat": _Walk._concat,
    "Slice": _Walk._slice,
    "Gather": _Walk._gather,
    "Pad": _Walk._pad,
    "Expand": _Walk._expand,
    "Tile": _Walk._tile,
}


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {
        info.name: tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
        for info in [*model.graph.input, *model.graph.value_info, *model.graph.output]
        if info.type.tensor_type.HasField("shape")
    }


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
