"""Rewrites of the graph that need no schedule: fewer operators, of fewer kinds, with the same values.

Every pass keeps the names of the values it leaves alive, so that any of them can be compared with the reference.
"""

from dataclasses import replace

import numpy as np

from veltair.compiler.decompose import decompose
from veltair.compiler.graph import Graph, Node, elements

_RESHAPES = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout"}


def simplify(graph: Graph) -> Graph:
    """Edits `graph` in place and returns it."""
    for rewrite in (
        decompose,
        decompose,  # what it wrote may be composed itself
        _normalise,
        _merge_pads,
        _fold_batch_norm,
        _fold_affine_into_convolutions,
        _find_layer_norms,
        _find_embeddings,
        _multiply_instead_of_dividing,
        _scale_behind_products,
    ):
        rewrite(graph)
        graph.drop_dead()
    return graph


def _normalise(graph: Graph) -> None:
    """Views become Reshape, Gemm becomes MatMul and Add, whole-tensor slices and casts to the same type become views."""
    nodes: list[Node] = []
    for node in graph.nodes:
        out = node.outputs[0]
        if node.op == "Transpose" and _moves_no_data(graph, node):
            nodes.append(Node("Reshape", node.inputs, (out,), {}, node.name))
            continue
        same_type = bool(node.inputs) and bool(node.inputs[0]) and graph.dtypes.get(node.inputs[0]) == graph.dtypes[out]
        if node.op in _RESHAPES or (node.op == "Cast" and same_type) or _takes_all(graph, node):
            nodes.append(Node("Reshape", node.inputs[:1], (out,), {}, node.name))
        elif node.op == "Gemm":
            nodes += _gemm(graph, node)
        elif node.op == "Gather" and (taken := _gather_of_one(graph, node)):
            nodes += taken
        else:
            nodes.append(node)
    graph.nodes = nodes


def _takes_all(graph: Graph, node: Node) -> bool:
    if node.op != "Slice" or graph.shapes[node.inputs[0]] != graph.shapes[node.outputs[0]]:
        return False
    if len(node.inputs) <= 4 or not node.inputs[4]:
        return True
    steps = graph.constant(node.inputs[4])
    return steps is not None and bool((steps == 1).all())


def _moves_no_data(graph: Graph, node: Node) -> bool:
    """Whether a transpose leaves all dimensions but those of one element in their order."""
    shape = graph.shapes[node.inputs[0]]
    perm = [int(p) for p in node.attrs.get("perm", range(len(shape) - 1, -1, -1))]
    kept = [p for p in perm if shape[p] != 1]
    return kept == sorted(kept)


def _gather_of_one(graph: Graph, node: Node) -> list[Node]:
    """One constant index along an axis is a slice."""
    ids, shape = graph.constant(node.inputs[1]), graph.shapes[node.inputs[0]]
    if ids is None or ids.size != 1 or graph.constant(node.inputs[0]) is not None:
        return []
    axis, out = int(node.attrs.get("axis", 0)) % len(shape), node.outputs[0]
    at = int(ids.reshape(())) % shape[axis]
    part = graph.add_value(f"{out}__slice", (*shape[:axis], 1, *shape[axis + 1 :]), graph.dtypes[out])
    bounds = [graph.add_constant(f"{out}__bounds", np.array([value], np.int64)) for value in (at, at + 1, axis)]
    return [
        Node("Slice", (node.inputs[0], *bounds), (part,), {}, node.name),
        Node("Reshape", (part,), (out,), {}, node.name),
    ]


def _gemm(graph: Graph, node: Node) -> list[Node]:
    a, b, *rest = node.inputs
    out = node.outputs[0]
    alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
    weights = graph.constant(b)
    bias = graph.constant(rest[0]) if rest and rest[0] else None
    has_bias = bool(rest and rest[0])
    if weights is None or node.attrs.get("transA", 0) or (has_bias and bias is None and beta != 1.0):
        return [node]
    matrix = (weights.T if node.attrs.get("transB", 0) else weights) * np.float32(alpha)
    packed = graph.add_constant(b, np.ascontiguousarray(matrix.astype(np.float32)))
    if not has_bias:
        return [Node("MatMul", (a, packed), (out,), {}, node.name)]
    product = graph.add_value(f"{out}__product", graph.shapes[out], "float32")
    addend = graph.add_constant(rest[0], (bias * np.float32(beta)).astype(np.float32)) if bias is not None else rest[0]
    return [Node("MatMul", (a, packed), (product,), {}, node.name), Node("Add", (product, addend), (out,), {}, node.name)]


def _merge_pads(graph: Graph) -> None:
    """A Pad before a window disappears into the window's own padding, where it fills with what that does."""
    makers, uses = graph.producers(), {name: len(found) for name, found in graph.consumers().items()}
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(node)
        pad = makers.get(node.inputs[0]) if node.op in ("Conv", "MaxPool") and node.inputs[0] else None
        if pad is None or pad.op != "Pad" or uses[node.inputs[0]] != 1 or node.inputs[0] in graph.outputs:
            continue
        amounts = graph.constant(pad.inputs[1]) if len(pad.inputs) > 1 else np.asarray(pad.attrs.get("pads", ()))
        fill = graph.scalar(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] else float(pad.attrs.get("value", 0.0))
        rank = len(graph.shapes[node.inputs[0]])
        if (
            amounts is None
            or amounts.size != 2 * rank
            or pad.attrs.get("mode", "constant") != "constant"
            or any(pad.inputs[3:])
            or node.attrs.get("auto_pad", "NOTSET") != "NOTSET"
            or len(node.outputs) != 1
            or fill != (0.0 if node.op == "Conv" else -np.inf)
        ):
            continue
        before, after = [int(a) for a in amounts[:rank]], [int(a) for a in amounts[rank:]]
        if any(before[:2] + after[:2]) or min(before + after) < 0:
            continue
        own = [int(p) for p in node.attrs.get("pads", (0,) * (2 * (rank - 2)))]
        pads = [a + b for a, b in zip(own, before[2:] + after[2:], strict=True)]
        window = [int(k) for k in node.attrs.get("kernel_shape", graph.shapes[node.inputs[1]][2:] if node.op == "Conv" else ())]
        if node.op == "MaxPool" and any(p >= k for p, k in zip(pads, window * 2, strict=True)):
            continue  # a window that lies in the padding alone
        nodes[-1] = replace(node, inputs=(pad.inputs[0], *node.inputs[1:]), attrs={**node.attrs, "pads": pads})
    graph.nodes = nodes


def _fold_batch_norm(graph: Graph) -> None:
    """Inference's batch norm is a scale and a shift per channel."""
    nodes: list[Node] = []
    for node in graph.nodes:
        parameters = [graph.constant(name) for name in node.inputs[1:5]] if node.op == "BatchNormalization" else [None]
        if any(p is None for p in parameters):
            nodes.append(node)
            continue
        gamma, beta, mean, variance = (np.asarray(p, np.float64) for p in parameters)
        scale = gamma / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
        x, out = node.inputs[0], node.outputs[0]
        shape = (1, -1, *(1,) * (len(graph.shapes[x]) - 2))
        factor = graph.add_constant(f"{out}__scale", scale.reshape(shape).astype(np.float32))
        shift = graph.add_constant(f"{out}__shift", (beta - mean * scale).reshape(shape).astype(np.float32))
        scaled = graph.add_value(f"{out}__scaled", graph.shapes[x], "float32")
        nodes += [Node("Mul", (x, factor), (scaled,), {}, node.name), Node("Add", (scaled, shift), (out,), {}, node.name)]
    graph.nodes = nodes


def _per_channel(graph: Graph, name: str, rank: int, channels: int) -> np.ndarray | None:
    """A constant that only varies over axis 1 of a rank-`rank` value, as (channels,); else None."""
    value = graph.constant(name)
    if value is None or value.dtype != np.float32:
        return None
    if value.size == 1:
        return np.full(channels, value.reshape(()), np.float32)
    shape = (1,) * (rank - value.ndim) + value.shape
    if value.ndim > rank or shape[1] != channels or elements(shape) != channels:
        return None
    return value.reshape(channels)


def _fold_affine_into_convolutions(graph: Graph) -> None:
    """Mul and Add by constants per channel behind a convolution disappear into its weights and bias."""
    nodes: list[Node] = []
    where: dict[str, int] = {}  # value made by a convolution that may still be folded into -> its place in `nodes`
    uses = {name: len(found) for name, found in graph.consumers().items()}
    for node in graph.nodes:
        folded = _fold_one(graph, node, nodes, where, uses)
        if not folded:
            nodes.append(node)
            if node.op in ("Conv", "ConvTranspose") and graph.constant(node.inputs[1]) is not None:
                where[node.outputs[0]] = len(nodes) - 1
    graph.nodes = nodes


def _fold_one(graph: Graph, node: Node, nodes: list[Node], where: dict[str, int], uses: dict[str, int]) -> bool:
    if node.op not in ("Mul", "Add", "Sub", "Div") or len(node.inputs) != 2:
        return False
    swapped = node.inputs[0] not in where
    x, other = (node.inputs[1], node.inputs[0]) if swapped else node.inputs
    if x not in where or uses.get(x, 0) != 1 or x in graph.outputs or (swapped and node.op in ("Sub", "Div")):
        return False
    conv = nodes[where[x]]
    shape = graph.shapes[x]
    value = _per_channel(graph, other, len(shape), shape[1])
    if value is None or graph.shapes[node.outputs[0]] != shape:
        return False
    weights = graph.constants[conv.inputs[1]]
    has_bias = len(conv.inputs) > 2 and conv.inputs[2]
    bias = graph.constant(conv.inputs[2]) if has_bias else np.zeros(shape[1], np.float32)
    if bias is None or (node.op == "Div" and not np.all(value)):
        return False
    if node.op in ("Mul", "Div"):
        factor = value if node.op == "Mul" else (1.0 / value).astype(np.float32)
        if conv.op == "Conv":
            weights = weights * factor.reshape(-1, *(1,) * (weights.ndim - 1))
        elif int(conv.attrs.get("group", 1)) == 1:
            weights = weights * factor.reshape(1, -1, *(1,) * (weights.ndim - 2))
        else:
            return False
        bias = bias * factor
    else:
        bias = bias + (value if node.op == "Add" else -value)
    names = (conv.inputs[0], graph.add_constant(conv.inputs[1], weights), graph.add_constant("bias", bias.astype(np.float32)))
    nodes[where[x]] = replace(conv, inputs=names, outputs=node.outputs)
    where[node.outputs[0]] = where.pop(x)
    return True


def _find_layer_norms(graph: Graph) -> None:
    """(x - mean) / sqrt(mean((x - mean)^2) + eps) * gamma + beta over the last axis, as exporters write it out."""
    makers = graph.producers()

    def made(name: str, op: str) -> Node | None:
        node = makers.get(name)
        return node if node is not None and node.op == op else None

    def last_axis_mean(node: Node | None) -> bool:
        if node is None or node.op != "ReduceMean" or not node.attrs.get("keepdims", 1):
            return False
        axes = node.attrs.get("axes")
        if axes is None and len(node.inputs) > 1 and (constant := graph.constant(node.inputs[1])) is not None:
            axes = constant.tolist()
        rank = len(graph.shapes[node.inputs[0]])
        return axes is not None and [int(a) % rank for a in axes] == [rank - 1]

    found: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op != "Add":
            continue
        scaled, beta = made(node.inputs[0], "Mul"), graph.constant(node.inputs[1])
        if scaled is None or beta is None or (gamma := graph.constant(scaled.inputs[1])) is None:
            continue
        quotient = made(scaled.inputs[0], "Div")
        root = made(quotient.inputs[1], "Sqrt") if quotient else None
        shifted = made(root.inputs[0], "Add") if root else None
        centred = made(quotient.inputs[0], "Sub") if quotient else None
        if shifted is None or centred is None or (epsilon := graph.scalar(shifted.inputs[1])) is None:
            continue
        variance = makers.get(shifted.inputs[0])
        square = makers.get(variance.inputs[0]) if variance and last_axis_mean(variance) else None
        mean = makers.get(centred.inputs[1])
        length = graph.shapes[node.outputs[0]][-1]
        if (
            square is None
            or mean is None
            or not last_axis_mean(mean)
            or mean.inputs[0] != centred.inputs[0]
            or square.inputs[0] != centred.outputs[0]
            or not (
                (square.op == "Pow" and graph.scalar(square.inputs[1]) == 2.0)
                or (square.op == "Mul" and len(set(square.inputs)) == 1)
            )
            or graph.shapes[centred.inputs[0]] != graph.shapes[node.outputs[0]]
            or any(c.size != length or c.shape[-1:] != (length,) for c in (gamma, beta))
        ):
            continue
        names = tuple(graph.add_constant("layernorm", np.ascontiguousarray(c.reshape(length), np.float32)) for c in (gamma, beta))
        found[node.outputs[0]] = Node(
            "LayerNormalization", (centred.inputs[0], *names), node.outputs, {"axis": -1, "epsilon": epsilon}, node.name
        )
    graph.nodes = [found.get(n.outputs[0], n) for n in graph.nodes]


def _find_embeddings(graph: Graph) -> None:
    """MatMul(Cast(Equal(ids, 0..n-1)), table): a table look-up written as a product with one-hot rows."""
    makers = graph.producers()
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(node)
        table = graph.constant(node.inputs[1]) if node.op == "MatMul" else None
        cast = makers.get(node.inputs[0]) if node.op == "MatMul" else None
        equal = makers.get(cast.inputs[0]) if cast is not None and cast.op == "Cast" else None
        if table is None or table.ndim != 2 or equal is None or equal.op != "Equal":
            continue
        for ids, classes in (equal.inputs, equal.inputs[::-1]):
            values = graph.constant(classes)
            if (
                values is not None
                and values.shape[-1:] == (table.shape[0],)
                and values.size == table.shape[0]
                and np.array_equal(values.reshape(-1), np.arange(table.shape[0]))
                and graph.shapes[ids][-1:] == (1,)
                and graph.dtypes[ids] in ("int32", "int64")
            ):
                nodes[-1] = Node("Embedding", (ids, node.inputs[1]), node.outputs, {}, node.name)
    graph.nodes = nodes


# Readers that turn the last bit of a quotient into a whole step.
_STEPS = {"Floor", "Ceil", "Round", "Cast", "Mod", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"}


def _multiply_instead_of_dividing(graph: Graph) -> None:
    """Dividing by a constant, as exported hard swishes do at every pixel, costs ten times the multiplication."""
    consumers = graph.consumers()
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(node)
        divisor = graph.scalar(node.inputs[1]) if node.op == "Div" and graph.dtypes[node.outputs[0]] == "float32" else None
        if not divisor or any(graph.nodes[k].op in _STEPS for k in consumers.get(node.outputs[0], ())):
            continue
        factor = (1.0 / graph.constants[node.inputs[1]].astype(np.float64)).astype(np.float32)
        if np.isfinite(factor).all():
            nodes[-1] = replace(node, op="Mul", inputs=(node.inputs[0], graph.add_constant(node.inputs[1], factor)))
    graph.nodes = nodes


def _scale_behind_products(graph: Graph) -> None:
    """(a * c) @ b = (a @ b) * c: behind the product of two activations the factor costs nothing, before it a pass.

    It is what attention needs, whose exporters scale queries, keys or both.
    """
    makers, uses = graph.producers(), {name: len(found) for name, found in graph.consumers().items()}
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(node)
        if node.op != "MatMul" or any(graph.constant(name) is not None for name in node.inputs):
            continue
        factor, sides = 1.0, list(node.inputs)
        for k, name in enumerate(node.inputs):
            scaled = makers.get(name)
            if scaled is None or scaled.op not in ("Mul", "Div") or uses[name] != 1 or name in graph.outputs:
                continue
            x, by = scaled.inputs if scaled.op == "Div" or graph.scalar(scaled.inputs[1]) is not None else scaled.inputs[::-1]
            value = graph.scalar(by)
            if value is None or graph.shapes[x] != graph.shapes[name] or (scaled.op == "Div" and not value):
                continue
            factor *= value if scaled.op == "Mul" else 1.0 / value
            sides[k] = x
        if sides == list(node.inputs) or not np.isfinite(np.float32(factor)):
            continue
        out = node.outputs[0]
        product = graph.add_value(f"{out}__unscaled", graph.shapes[out], "float32")
        by = graph.add_constant("factor", np.asarray(factor, np.float32))
        nodes[-1:] = [replace(node, inputs=tuple(sides), outputs=(product,)), Node("Mul", (product, by), (out,), {}, node.name)]
    graph.nodes = nodes
