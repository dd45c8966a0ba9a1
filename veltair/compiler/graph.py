"""The model between import and lowering: ONNX nodes as plain values, every shape known, every constant at hand.

The names of values stay those of the folded ONNX graph, so that any of them can be compared with ONNX Runtime's.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    op: str
    inputs: tuple[str, ...]  # "" where an optional input is left out
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]
    name: str = ""

    @property
    def label(self) -> str:
        return f"{self.op} node {self.name or self.outputs[0]!r}"


@dataclass(slots=True)
class Graph:
    """Nodes in topological order. Passes rebuild `nodes` and add constants; they never edit a Node."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: list[Node]
    constants: dict[str, Array]
    shapes: dict[str, Shape]
    dtypes: dict[str, str]
    opset: int = 17
    fresh: int = field(default=0)

    def consumers(self) -> dict[str, list[int]]:
        """Value name -> indices of the nodes that read it (a node that reads it twice counts twice)."""
        found: dict[str, list[int]] = defaultdict(list)
        for i, node in enumerate(self.nodes):
            for name in node.inputs:
                if name:
                    found[name].append(i)
        return found

    def producers(self) -> dict[str, Node]:
        return {name: node for node in self.nodes for name in node.outputs}

    def add_constant(self, hint: str, value: Array) -> str:
        self.fresh += 1
        name = f"{hint}__{self.fresh}"
        self.constants[name] = value
        self.shapes[name] = tuple(value.shape)
        self.dtypes[name] = str(value.dtype)
        return name

    def aligned_constant(self, name: str, shape: Shape) -> str:
        """The constant under a shape with as many elements; made once for each."""
        aligned = f"{name}__as_{'x'.join(map(str, shape))}"
        if aligned not in self.constants:
            self.constants[aligned] = self.constants[name].reshape(shape)
            self.shapes[aligned], self.dtypes[aligned] = shape, self.dtypes[name]
        return aligned

    def add_value(self, hint: str, shape: Shape, dtype: str) -> str:
        self.fresh += 1
        name = f"{hint}__{self.fresh}"
        self.shapes[name] = shape
        self.dtypes[name] = dtype
        return name

    def constant(self, name: str) -> Array | None:
        return self.constants.get(name)

    def scalar(self, name: str) -> float | None:
        """The value of a one-element constant, else None."""
        value = self.constants.get(name)
        return float(value.reshape(())) if value is not None and value.size == 1 else None

    def drop_dead(self) -> None:
        """Remove nodes whose results nobody reads, and constants likewise."""
        needed = set(self.outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if any(name in needed for name in node.outputs):
                kept.append(node)
                needed.update(name for name in node.inputs if name)
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in needed}


def elements(shape: Iterable[int]) -> int:
    return int(np.prod(tuple(shape), dtype=np.int64))
