"""Operators that are short compositions of others, written out, so that the schedules of those serve them too."""

from collections.abc import Callable

import numpy as np

from veltair.compiler.graph import Graph, Node, Shape, elements

Rewrite = Callable[[Graph, Node], list[Node]]
"""The nodes that stand for the given one, the last with its outputs; none where this form stays as it is."""


def decompose(graph: Graph) -> None:
    """Edits `graph` in place."""
    nodes: list[Node] = []
    for node in graph.nodes:
        rewrite = _REWRITES.get(node.op)
        nodes += (rewrite(graph, node) if rewrite else []) or [node]
    graph.nodes = nodes


class _Steps:
    """Nodes in the making."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph, self.node, self.nodes = graph, node, list[Node]()

    def add(self, op: str, inputs: tuple[str, ...], shape: Shape, **attrs: object) -> str:
        out = self.graph.add_value(f"{self.node.outputs[0]}__{op.lower()}", shape, "float32")
        self.nodes.append(Node(op, inputs, (out,), attrs, self.node.name))
        return out

    def last(self, op: str, inputs: tuple[str, ...], **attrs: object) -> list[Node]:
        return [*self.nodes, Node(op, inputs, self.node.outputs[:1], attrs, self.node.name)]

    def constant(self, value: object) -> str:
        return self.graph.add_constant("constant", np.asarray(value, np.float32))


def _is_float(graph: Graph, node: Node) -> bool:
    return graph.dtypes[node.inputs[0]] == graph.dtypes[node.outputs[0]] == "float32"


def _mish(graph: Graph, node: Node) -> list[Node]:
    if not _is_float(graph, node):
        return []
    x, shape, steps = node.inputs[0], graph.shapes[node.inputs[0]], _Steps(graph, node)
    return steps.last("Mul", (x, steps.add("Tanh", (steps.add("Softplus", (x,), shape),), shape)))


def _celu(graph: Graph, node: Node) -> list[Node]:
    """alpha * elu(x / alpha)"""
    alpha = float(node.attrs.get("alpha", 1.0))
    if not _is_float(graph, node) or not alpha:
        return []
    x, shape, steps = node.inputs[0], graph.shapes[node.inputs[0]], _Steps(graph, node)
    scaled = steps.add("Elu", (steps.add("Mul", (x, steps.constant(1 / alpha)), shape),), shape, alpha=1.0)
    return steps.last("Mul", (scaled, steps.constant(alpha)))


def _gelu(graph: Graph, node: Node) -> list[Node]:
    """The approximation by tanh: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))"""
    if node.attrs.get("approximate", "none") != "tanh" or not _is_float(graph, node):
        return []
    x, shape, steps = node.inputs[0], graph.shapes[node.inputs[0]], _Steps(graph, node)
    square = steps.add("Mul", (x, x), shape)
    slope = steps.add("Mul", (square, steps.constant(0.044715 * np.sqrt(2 / np.pi))), shape)
    inner = steps.add("Mul", (x, steps.add("Add", (slope, steps.constant(np.sqrt(2 / np.pi))), shape)), shape)
    gate = steps.add("Add", (steps.add("Tanh", (inner,), shape), steps.constant(1.0)), shape)
    return steps.last("Mul", (steps.add("Mul", (x, steps.constant(0.5)), shape), gate))


def _reduce_l2(graph: Graph, node: Node) -> list[Node]:
    if not _is_float(graph, node):
        return []
    x, steps = node.inputs[0], _Steps(graph, node)
    square = steps.add("Mul", (x, x), graph.shapes[x])
    total = steps.add("ReduceSum", (square, *node.inputs[1:]), graph.shapes[node.outputs[0]], **dict(node.attrs))
    return steps.last("Sqrt", (total,))


def _normalised(graph: Graph, node: Node, groups: int) -> list[Node]:
    """Instance and group norm: a layer norm of each group of channels, then a scale and a shift per channel."""
    x, scale, shift = node.inputs
    factors = [graph.constant(scale), graph.constant(shift)]
    shape = graph.shapes[x]
    if not _is_float(graph, node) or any(f is None for f in factors) or shape[1] % groups:
        return []
    n, c = shape[:2]
    size = elements(shape[1:]) // groups
    steps = _Steps(graph, node)
    rows = steps.add("Reshape", (x,), (n, groups, size))
    ones, zeros = steps.constant(np.ones(size)), steps.constant(np.zeros(size))
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    normal = steps.add("LayerNormalization", (rows, ones, zeros), (n, groups, size), axis=-1, epsilon=epsilon)
    back = steps.add("Reshape", (normal,), shape)
    per_channel = [np.repeat(f, c // f.size).reshape(1, c, *(1,) * (len(shape) - 2)) for f in factors if f is not None]
    scaled = steps.add("Mul", (back, steps.constant(per_channel[0])), shape)
    return steps.last("Add", (scaled, steps.constant(per_channel[1])))


def _instance_norm(graph: Graph, node: Node) -> list[Node]:
    return _normalised(graph, node, graph.shapes[node.inputs[0]][1])


def _group_norm(graph: Graph, node: Node) -> list[Node]:
    return _normalised(graph, node, int(node.attrs["num_groups"]))


def _depth_to_space(graph: Graph, node: Node) -> list[Node]:
    """A reshape, a transpose and a reshape: an index map, which its reader may see through."""
    if graph.dtypes[node.inputs[0]] != "float32":
        return []
    (n, c, h, w), b = graph.shapes[node.inputs[0]], int(node.attrs["blocksize"])
    steps, least = _Steps(graph, node), c // (b * b)
    if node.attrs.get("mode", "DCR") == "CRD":
        split, perm = (n, least, b, b, h, w), (0, 1, 4, 2, 5, 3)
    else:
        split, perm = (n, b, b, least, h, w), (0, 3, 4, 1, 5, 2)
    parts = steps.add("Reshape", node.inputs[:1], split)
    turned = steps.add("Transpose", (parts,), tuple(split[p] for p in perm), perm=perm)
    return steps.last("Reshape", (turned,))


def _space_to_depth(graph: Graph, node: Node) -> list[Node]:
    if graph.dtypes[node.inputs[0]] != "float32":
        return []
    (n, c, h, w), b = graph.shapes[node.inputs[0]], int(node.attrs["blocksize"])
    steps, split, perm = _Steps(graph, node), (n, c, h // b, b, w // b, b), (0, 3, 5, 1, 2, 4)
    parts = steps.add("Reshape", node.inputs[:1], split)
    turned = steps.add("Transpose", (parts,), tuple(split[p] for p in perm), perm=perm)
    return steps.last("Reshape", (turned,))


def _reduction(graph: Graph, node: Node) -> list[Node]:
    """Over axes that are not neighbours: one run of neighbours after the other, the last first."""
    axes = node.attrs.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] and (constant := graph.constant(node.inputs[1])) is not None:
        axes = constant.tolist()
    shape = graph.shapes[node.inputs[0]]
    if not axes or not _is_float(graph, node):
        return []
    where = sorted(int(a) % len(shape) for a in axes)
    runs = [list(run) for run in np.split(where, [i + 1 for i in range(len(where) - 1) if where[i + 1] != where[i] + 1])]
    if len(runs) == 1:
        return []
    steps, value, now = _Steps(graph, node), node.inputs[0], list(shape)
    for run in runs[::-1]:
        for axis in run:
            now[axis] = 1
        value = steps.add(node.op, (value,), tuple(now), axes=[int(a) for a in run], keepdims=1)
    return steps.last("Reshape", (value,))


_REWRITES: dict[str, Rewrite] = {
    "Mish": _mish,
    "Celu": _celu,
    "Gelu": _gelu,
    "ReduceL2": _reduce_l2,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "ReduceSum": _reduction,
    "ReduceMean": _reduction,
    "ReduceMax": _reduction,
    "ReduceMin": _reduction,
}
