"""Finds attention in the graph: product, elementwise chain, softmax, product, and the transposes around them."""

from dataclasses import replace

from veltair.compiler.bf16_forms import attention_bf16_forms
from veltair.compiler.graph import Graph, Node
from veltair.compiler.lower import Group, Lowering, Space
from veltair.compiler.schedules.attention import Attention
from veltair.compiler.views import whole


def attention(low: Lowering, index: int, node: Node) -> Group | None:
    """The group of the whole attention that begins at this MatMul, or None where it is another kind of product.

    Queries, keys and values may be any index map of what GEMMs wrote (heads split off, transposed, sliced out of one
    merged product), so no transpose of them is ever run.
    """
    graph = low.graph
    shape = graph.shapes[node.outputs[0]]
    rank = len(shape)
    if rank < 3 or graph.dtypes[node.outputs[0]] != "float32" or any(graph.constant(n) is not None for n in node.inputs):
        return None
    if any(graph.shapes[name][:-2] != shape[:-2] for name in node.inputs):
        return None
    before = set(low.taken)
    scores = low.grow(low.group(index, node, Space(shape, shape, 0, tuple((d,) for d in range(rank))), _never))
    found = _behind(low, scores.final)
    if found is None or graph.shapes[found.product.inputs[1]][:-2] != shape[:-2]:
        low.taken.clear()
        low.taken.update(before)
        return None
    m, n = shape[-2:]
    width = graph.shapes[found.product.outputs[0]][-1]
    names = (*node.inputs, found.product.inputs[1])
    shapes = [graph.shapes[name] for name in names]
    q, k, v = (whole(name, shape).layout for name, shape in zip(names, shapes, strict=True))
    kernel = Attention(
        shape[:-2],
        m,
        n,
        shapes[0][-1],
        width,
        q,
        k,
        v,
        low.chain(scores),
        found.perm,
        found.zero_masked,
        low.lanes,
        low.registers,
    )  # plain layouts for now: what is made, and how, is known when it is written

    def write(lw: Lowering, g: Group) -> None:
        views = [lw.view(name) for name in names]
        queries, keys, values = (view.layout for view in views)
        full = replace(kernel, q=queries, k=keys, v=values, chain=lw.chain(g))
        data = [lw.line.view(lw.get(view.base), (view.size,)) for view in views]
        masks = [lw.line.view(lw.get(s.value, s.block), s.view) for s in scores.sources]
        lw.call(g, full, [*data, *masks], attention_bf16_forms(lw, full, [*data, *masks]))

    out = kernel.output
    group = Group(node, found.last, found.final, write, Space(out, out, 0, tuple((d,) for d in range(rank))))
    group.ops = [*scores.ops, "Softmax", "MatMul"]
    low.taken.update(found.nodes)
    return low.grow(group)


def _never(low: Lowering, group: Group) -> None:
    raise AssertionError("scores of an attention are written with it")


class _Behind:
    """What follows the scores: softmax, perhaps a guard against rows masked whole, the product, perhaps a transpose."""

    def __init__(self) -> None:
        self.nodes: list[int] = []
        self.zero_masked = False
        self.product: Node
        self.perm: tuple[int, ...] = ()
        self.final = ""

    @property
    def last(self) -> int:
        return max(self.nodes)


def _behind(low: Lowering, scores: str) -> _Behind | None:
    graph, found = low.graph, _Behind()
    rank = len(graph.shapes[scores])
    consumers = graph.consumers()

    def readers(name: str) -> list[int]:
        return [] if name in graph.outputs else list(consumers.get(name, ()))

    match readers(scores):
        case [k] if graph.nodes[k].op == "Softmax" and _over_last_axis(graph, graph.nodes[k], rank):
            found.nodes.append(k)
        case _:
            return None
    shares = graph.nodes[found.nodes[0]].outputs[0]
    if len(reads := readers(shares)) == 2 and {graph.nodes[k].op for k in reads} == {"IsNaN", "Where"}:
        check, choice = sorted(reads, key=lambda k: graph.nodes[k].op)
        where = graph.nodes[choice]
        if (
            readers(graph.nodes[check].outputs[0]) != [choice]
            or where.inputs[0] != graph.nodes[check].outputs[0]
            or where.inputs[2] != shares
            or graph.scalar(where.inputs[1]) != 0.0
        ):
            return None
        found.nodes += [check, choice]
        found.zero_masked = True
        shares = where.outputs[0]
    match readers(shares):
        case [k] if graph.nodes[k].op == "MatMul" and graph.nodes[k].inputs[0] == shares:
            found.nodes.append(k)
            found.product = graph.nodes[k]
        case _:
            return None
    found.final, found.perm = found.product.outputs[0], tuple(range(rank))
    if found.product.inputs[1] == shares or graph.constant(found.product.inputs[1]) is not None:
        return None
    match readers(found.final):
        case [k] if graph.nodes[k].op == "Transpose":
            found.nodes.append(k)
            default = range(rank - 1, -1, -1)
            found.perm = tuple(int(p) for p in graph.nodes[k].attrs.get("perm", default))
            found.final = graph.nodes[k].outputs[0]
    return found


def _over_last_axis(graph: Graph, node: Node, rank: int) -> bool:
    return int(node.attrs.get("axis", -1 if graph.opset >= 13 else 1)) % rank == rank - 1
