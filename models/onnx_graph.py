"""Writing ONNX node by node, with weights as initializers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from veltair.models.source import Tensor

OPSET = 17  # the first with LayerNormalization
IR_VERSION = 8  # what came out with opset 17: the oldest readers that know the one know the other


class GraphWriter:
    """Collects nodes in order; every method that adds one returns the name of its output."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[Any] = []
        self._weights: dict[str, Any] = {}

    def weight(self, name: str, value: Tensor) -> str:
        """The same name twice is the same weight."""
        from onnx import numpy_helper

        if name not in self._weights:
            self._weights[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self._nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def save(
        self, path: Path, inputs: Mapping[str, tuple[str, tuple[int, ...]]], outputs: Mapping[str, tuple[str, tuple[int, ...]]]
    ) -> Path:
        """Check the graph and write it; inputs and outputs are name -> (NumPy dtype, shape)."""
        import onnx
        from onnx import helper

        def ports(named: Mapping[str, tuple[str, tuple[int, ...]]]) -> list[Any]:
            return [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
                for name, (dtype, shape) in named.items()
            ]

        graph = helper.make_graph(self._nodes, self._name, ports(inputs), ports(outputs), list(self._weights.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="veltair")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
        return path
