"""From the graph to the straight line: each anchor operator becomes a kernel, and the elementwise operators behind it its chain.

Two passes. `_partition` walks the nodes in order, turns each that is not yet taken into an anchor, and lets its chain
grow over the elementwise operators that read it, as long as one value alone is needed outside. `_emit` then writes the
kernels in the order of each group's last node, by when every other operand exists; what lies in another layout than
its reader wants is moved on demand, once.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from veltair.bundle.format import TargetSpec
from veltair.compiler import layout
from veltair.compiler.expr import Tree, is_elementwise, to_tree
from veltair.compiler.graph import Graph, Node, Shape, elements
from veltair.compiler.line import Call, Line
from veltair.compiler.schedules.base import Chain, Kernel, Operand
from veltair.compiler.schedules.move import Move
from veltair.compiler.target import BF16, accumulators
from veltair.compiler.views import View, broadcast, in_blocks, packed, through, view_of, whole

_POLYNOMIALS = {"Sigmoid", "Tanh", "Exp", "Erf", "Gelu", "Elu", "Softplus"}
_MAX_POLYNOMIALS = 2  # one inside the other: TVM's simplifier takes 0.1 s for two nested tanh, 30 s for three
_UNSAFE_ON_ZEROS = {"Div", "Log", "Pow", "Reciprocal", "Sqrt", "Exp"}
_MAX_TREE = 160  # expression nodes of a chain: past it the loop body no longer fits the registers


@dataclass(frozen=True, slots=True)
class Space:
    """The index space of a kernel's output: `shape` as the kernel sees it, for the value of shape `logical`.

    Plain (block 0): output axis a stands for the logical dimensions `groups[a]`. Packed: axes are n, channel block, rows,
    columns, lane; `flat` says that rows and columns were merged into one axis.
    """

    logical: Shape
    shape: Shape
    block: int = 0
    groups: tuple[tuple[int, ...], ...] = ()
    flat: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """An operand of a chain before its tensor exists."""

    value: str
    block: int
    view: Shape
    operand: Operand


@dataclass(slots=True)
class Group:
    """An anchor and its chain, decided but not yet written."""

    anchor: Node
    last: int  # index of the last node of the group
    final: str  # the one value that is needed outside
    write: Callable[["Lowering", "Group"], None]
    space: Space | None = None
    tree: Tree = ("acc",)
    sources: list[Source] = field(default_factory=list)
    ops: list[str] = field(default_factory=list)


Form = tuple[Kernel, list[int]]
"""Another kernel for a call, and its anchor inputs."""

Handler = Callable[["Lowering", int, Node], Group | None]


class Lowering:
    """State of one lowering. `handlers` maps an ONNX operator to what turns it into a group (None: not in this form)."""

    def __init__(self, graph: Graph, target: TargetSpec, handlers: Mapping[str, Handler], fallback: Handler) -> None:
        self.graph = graph
        self.lanes = target.lanes
        self.bf16 = BF16 in target.features
        self.registers = accumulators(target)
        self.line = Line()
        self.taken: set[int] = set()
        self.block_of: dict[str, int] = {}  # layout in which a value is first made
        self.makers = graph.producers()
        self._placed: dict[tuple[str, int], int] = {}
        self._deferred: dict[str, Callable[[], None]] = {}
        self._inside: set[str] = set()  # values between the first and the last of several nodes that are deferred as one
        self._weights: dict[tuple[str, str], int] = {}
        self._handlers, self._fallback = handlers, fallback
        self._consumers = graph.consumers()

    def run(self) -> Line:
        for name in self.graph.inputs:
            number = self.line.new(self.graph.shapes[name], self.graph.dtypes[name], "input")
            self.line.inputs[name] = number
            self.place(name, number, 0)
        for group in sorted(self._partition(), key=lambda g: g.last):
            group.write(self, group)
        self._outputs()
        return self.line

    # --- deciding -----------------------------------------------------------------------------------------------------

    def _partition(self) -> list[Group]:
        groups = []
        for index, node in enumerate(self.graph.nodes):
            if index in self.taken:
                continue
            self.taken.add(index)
            handler = self._handlers.get(node.op)
            group = handler(self, index, node) if handler else None
            if group is None and is_elementwise(self.graph, node):
                group = self._elementwise(index, node)
            if group is None:
                group = self._fallback(self, index, node)
            assert group is not None, f"fallback must take {node.label}"
            groups.append(group)
            for name in node.outputs:
                self.block_of.setdefault(name, 0)
            self.block_of[group.final] = group.space.block if group.space else self.block_of[group.final]
        return groups

    def group(self, index: int, node: Node, space: Space, write: Callable[["Lowering", Group], None]) -> Group:
        return Group(node, index, node.outputs[0], write, space, ops=[node.op])

    def grow(self, group: Group) -> Group:
        """Take the elementwise operators behind the group's value into its chain, as far as one value stays the only exit."""
        assert group.space is not None
        graph, space = self.graph, group.space
        trees: dict[str, Tree] = {group.final: group.tree}
        sources, ops, accepted = list(group.sources), list(group.ops), set[int]()
        shapes = {group.final: space.logical}
        queue = list(self._consumers.get(group.final, ()))
        heapq.heapify(queue)
        seen: set[int] = set()
        while queue:
            j = heapq.heappop(queue)
            if j in seen or j in self.taken:
                continue
            seen.add(j)
            node = graph.nodes[j]
            before = len(sources)
            tree = self._take(node, trees, shapes, sources, space)
            if tree is None or _size(tree) > _MAX_TREE or _polynomials(tree) > _MAX_POLYNOMIALS:
                del sources[before:]
                continue
            out = node.outputs[0]
            trees[out], shapes[out] = tree, graph.shapes[out]
            ops.append(node.op)
            accepted.add(j)
            for k in self._consumers.get(out, ()):
                heapq.heappush(queue, k)
            inner = [name for name in trees if name != out]
            if all(name not in graph.outputs and all(k in accepted for k in self._consumers.get(name, ())) for name in inner):
                group.final, group.tree, group.last = out, tree, max(group.last, j)
                group.sources, group.ops = list(sources), list(ops)
                self.taken |= accepted
        return group

    def _take(
        self, node: Node, trees: dict[str, Tree], shapes: dict[str, Shape], sources: list[Source], space: Space
    ) -> Tree | None:
        graph = self.graph
        if node.op == "Reshape":
            source, out = node.inputs[0], graph.shapes[node.outputs[0]]
            return trees[source] if _same_axes(shapes[source], out, packed=bool(space.block)) else None
        if not is_elementwise(graph, node):
            return None
        current = graph.shapes[node.outputs[0]]
        if any(name in trees and shapes[name] != current for name in node.inputs):
            return None
        ok = True

        def argument(name: str) -> Tree:
            nonlocal ok
            if name in trees:
                return trees[name]
            tree = self.operand(name, current, space, sources)
            ok = ok and tree is not None
            return tree or ("acc",)

        if space.block and not self._stays_finite(node, space):
            return None
        tree = to_tree(graph, node, argument)
        return tree if ok else None

    def _stays_finite(self, node: Node, space: Space) -> bool:
        """Whether the zeros behind the last channel stay finite: the next conv multiplies them by zero weights."""
        return node.op not in _UNSAFE_ON_ZEROS or space.logical[1] % space.block == 0

    def operand(self, name: str, current: Shape, space: Space, sources: list[Source]) -> Tree | None:
        """The tree that reads `name`, broadcast to `current`, in `space`; None where its layout allows no such reading."""
        value = self.graph.constant(name)
        if value is not None and value.size == 1:
            return ("const", value.reshape(()).item(), str(value.dtype))
        shape = self.graph.shapes[name]
        source = self._packed(name, shape, current, space) if space.block else self._plain(name, shape, current, space)
        if source is None:
            return None
        if source not in sources:
            sources.append(source)
        return ("in", sources.index(source))

    def _plain(self, name: str, shape: Shape, current: Shape, space: Space) -> Source | None:
        rank, shift = len(space.logical), len(space.logical) - len(current)
        dims = [1] * rank
        for d, size in enumerate(shape):
            axis = d + len(current) - len(shape) + shift
            if axis < 0:
                if size != 1:
                    return None
                continue
            dims[axis] = size
        view: list[int] = []
        axes: list[int | None] = []
        for a, group in enumerate(space.groups):
            here, full = [dims[d] for d in group], [space.logical[d] for d in group]
            if here != full and any(size != 1 for size in here):
                return None
            if here == full:
                view.append(elements(full))
                axes.append(a)
        return Source(name, 0, tuple(view), Operand(tuple(view), self.graph.dtypes[name], tuple(axes)))

    def _packed(self, name: str, shape: Shape, current: Shape, space: Space) -> Source | None:
        o = (1,) * (len(current) - len(shape)) + shape
        if len(o) != len(current) or self.graph.dtypes[name] != "float32":
            return None
        if len(shape) < len(current) and o[1] != 1:  # its first axis is the channels: packing wants it second
            value = self.graph.constant(name)
            if value is None:
                return None
            name = self.graph.aligned_constant(name, o)
        n, _, h, w, b = space.shape
        inner, full = o[2:], current[2:]
        spread = inner == full
        if not spread and any(size != 1 for size in inner):
            return None
        if o[0] not in (1, n) or o[1] not in (1, current[1]):
            return None
        if spread and (1 if len(current) == 3 else current[2], current[-1]) != (h, w) and not space.flat:
            return None
        rows = (h, w) if spread else (1, 1)
        first: int | None = 0 if o[0] == n and n > 1 else None
        row, column = (2, 3) if spread else (None, None)
        if o[1] == current[1]:
            view: Shape = (o[0], layout.blocks_of(o[1], b), *rows, b)
            axes: tuple[int | None, ...] = (first, 1, row, column, 4)
            return Source(name, b, view, Operand(view, "float32", axes))
        view = (o[0], 1, *rows)
        return Source(name, 0, view, Operand(view, "float32", (first, None, row, column)))

    def _elementwise(self, index: int, node: Node) -> Group | None:
        """An elementwise operator with no anchor before it: a kernel that is all chain."""
        shape = self.graph.shapes[node.outputs[0]]
        blocks = [
            self.block_of.get(name, 0)
            for name in node.inputs
            if name and self.graph.shapes[name] == shape and layout.can_pack(shape)
        ]
        for block in dict.fromkeys([*sorted(blocks, reverse=True), 0]):
            space = self.space(shape, block)
            if block and not self._stays_finite(node, space):
                continue
            sources: list[Source] = []
            tree = to_tree(self.graph, node, lambda name, sp=space, so=sources: self.operand(name, shape, sp, so) or ("none",))  # type: ignore[misc]
            if "none" not in _flat(tree):
                group = Group(node, index, node.outputs[0], _write_elementwise, space, tree, sources, [node.op])
                return self._settled(self.grow(group))
        return None

    def _settled(self, group: Group) -> Group:
        """Where an elementwise kernel's value is only transposed and packed for a convolution, it is written so at once."""
        graph, nodes, name = self.graph, list[int](), group.final
        if group.space is None or group.space.block:
            return group
        while name not in graph.outputs and len(readers := self._consumers.get(name, [])) == 1:
            node = graph.nodes[readers[0]]
            if node.op not in ("Reshape", "Transpose"):
                break
            nodes.append(readers[0])
            name = node.outputs[0]
        else:
            return group
        shape = graph.shapes[name]
        block = layout.channel_block(shape[1], self.lanes) if layout.can_pack(shape) else 0
        if graph.nodes[self._consumers[name][0]].op != "Conv" or not nodes or not block:
            return group
        sources: list[Source] = []
        for source in group.sources:
            view = whole(source.value, graph.shapes[source.value])
            seen = broadcast(view, graph.shapes[group.final]) if not source.block else None
            for k in nodes:
                seen = through(graph, graph.nodes[k], seen) if seen else None
            final = in_blocks(seen, block) if seen else None
            if final is None:
                return group
            flat = (final.size,)
            operand = Operand(flat, source.operand.dtype, (), final.layout)
            sources.append(Source(final.base, 0, flat, operand))
        group.sources, group.final, group.last = sources, name, max(group.last, *nodes)
        group.space = self.space(shape, block)
        self.taken.update(nodes)
        return self.grow(group)

    def space(self, shape: Shape, block: int = 0) -> Space:
        """The space of a kernel whose output axes are the value's own dimensions."""
        if block:
            return Space(shape, layout.packed_shape(shape, block), block)
        return Space(shape, shape, 0, tuple((d,) for d in range(len(shape))))

    # --- writing ------------------------------------------------------------------------------------------------------

    def chain(self, group: Group) -> Chain:
        return Chain(group.tree, tuple(s.operand for s in group.sources), self.graph.dtypes[group.final])

    def call(self, group: Group, kernel: Kernel, inputs: list[int], others: Sequence[Form] = ()) -> None:
        """Write the kernel of a group: anchor inputs, chain operands, output. `others` have the same chain and output."""
        assert group.space is not None
        operands = [self.line.view(self.get(s.value, s.block), s.view) for s in group.sources]
        out = self.line.new(kernel.output, kernel.chain.dtype)
        label = "+".join(group.ops)
        forms = tuple(Call(other, (*reads, *operands, out), label) for other, reads in others)
        self.line.calls.append(Call(kernel, (*inputs, *operands, out), label, forms))
        self.place(group.final, out, group.space.block)

    def append(self, kernel: Kernel, reads: list[int], out: int, label: str) -> None:
        self.line.calls.append(Call(kernel, (*reads, out), label))

    def place(self, name: str, number: int, block: int) -> None:
        shape = self.graph.shapes[name]
        number = self.line.view(number, layout.packed_shape(shape, block) if block else shape)
        self._placed[name, block] = number
        self.line.tensors[number].value, self.line.tensors[number].block = name, block

    def defer(self, name: str, write: Callable[[], None], origin: str) -> None:
        """Make `name`, an index map of what the maker of `origin` reads, by `write` when it is first wanted.

        Where every reader sees through index maps, it never is.
        """
        self._deferred[name] = write
        while name != origin:
            name = self.makers[name].inputs[0]
            self._inside.add(name)

    def view(self, name: str) -> View:
        """The value as an index map of one that is made, in its plain layout. Known when groups are written."""
        return view_of(self.graph, self.makers, name, self._deferred.keys() | self._inside)

    def blocks_at(self, name: str) -> list[int]:
        return [block for value, block in self._placed if value == name]

    def get(self, name: str, block: int = 0) -> int:
        """The tensor of a value in a layout: a constant is packed now, anything else moved by a kernel if need be."""
        if name in self._deferred and not self._relayout(name, block):
            self._deferred.pop(name)()
        if (name, block) in self._placed:
            return self._placed[name, block]
        constant = self.graph.constant(name)
        if constant is not None:
            shape = tuple(constant.shape)
            four = constant.reshape(shape if len(shape) >= 3 else (1,) * (4 - len(shape)) + shape) if block else constant
            number = self.weight(name, f"layout {block}", lambda: layout.pack(four, block) if block else constant)
            self._placed[name, block] = number
            return number
        have = self.blocks_at(name)
        assert have, f"{name} is read before it is made"
        self._convert(name, have[0], block)
        return self._placed[name, block]

    def _relayout(self, name: str, block: int) -> bool:
        """Whether the deferred value could be made in one move where a transpose and a change of layout would be two."""
        view = view_of(self.graph, self.makers, name, self._deferred.keys() | self._inside, self.block_of)
        have = self.block_of.get(view.base, 0)
        if have not in self.blocks_at(view.base) or (not have and not block) or view.base == name:
            return False
        if have and packed(view.base, self.graph.shapes[view.base], have) is None:
            return False
        if self.view(name).is_whole():  # a reshape: no move at all, or the plain form is wanted
            return False
        shape = self.graph.shapes[name]
        seen = in_blocks(view, block) if block and layout.can_pack(shape) else view if not block else None
        if seen is None:
            return False
        del self._deferred[name]
        dtype = self.graph.dtypes[name]
        source = self.line.view(self._placed[view.base, have], (view.size,))
        out = self.line.new(seen.shape, dtype)
        kernel = Move("relayout", (seen.layout,), (((view.size,), dtype),), seen.shape, self.lanes, chain=Chain(dtype=dtype))
        self.append(kernel, [source], out, "relayout")
        self.place(name, out, block)
        return True

    def weight(self, name: str, form: str, make: Callable[[], Any], spec: tuple[Shape, str] | None = None) -> int:
        """The constant `name` packed as `form` says, once. With its `spec` known it is not packed before it is wanted."""
        if (name, form) not in self._weights:
            self._weights[name, form] = self.line.packed_weight(*spec, make) if spec else self.line.weight(make())
        return self._weights[name, form]

    def _convert(self, name: str, have: int, want: int) -> None:
        shape = self.graph.shapes[name]
        source = self._placed[name, have]
        (h, w), c = layout.spatial(shape) if len(shape) > 2 else (1, 1), shape[1]
        if h * w == 1 and not c % (have or want) and (not have or not want or not c % want):
            self.place(name, source, want)  # one pixel: the blocks already lie in channel order
            return
        four = (shape[0], c, h, w)
        if not have:
            how, params, source, out_shape = "pack", (want,), self.line.view(source, four), layout.packed_shape(shape, want)
        elif not want:
            how, params, out_shape = "unpack", (have,), four
        else:
            how, params, out_shape = "repack", (want,), layout.packed_shape(shape, want)
        tensor = self.line.tensors[source]
        kernel = Move(how, params, ((tensor.shape, tensor.dtype),), out_shape, self.lanes, chain=Chain(dtype=tensor.dtype))
        out = self.line.new(out_shape, tensor.dtype)
        self.append(kernel, [source], out, how)
        self.place(name, out, want)

    def _outputs(self) -> None:
        for name in self.graph.outputs:
            number = self.get(name)
            root = self.line.tensors[self.line.root(number)]
            if root.kind != "activation":
                tensor = self.line.tensors[number]
                chain = Chain(("in", 0), (Operand(tensor.shape, tensor.dtype, tuple(range(len(tensor.shape)))),), tensor.dtype)
                copy = self.line.new(tensor.shape, tensor.dtype)
                self.append(Move("identity", (), (), tensor.shape, self.lanes, chain=chain), [number], copy, "copy")
                number, root = copy, self.line.tensors[copy]
                root.value = name
            root.kind = "output"
            self.line.outputs[name] = number


def _write_elementwise(low: Lowering, group: Group) -> None:
    assert group.space is not None
    low.call(group, Move("identity", (), (), group.space.shape, low.lanes, chain=low.chain(group)), [])


def _same_axes(before: Shape, after: Shape, *, packed: bool) -> bool:
    """Whether a reshape leaves the elements of a kernel's space where they are, as far as broadcasting can tell."""
    if packed:
        return len(after) in (3, 4) and len(before) in (3, 4) and before[:2] == after[:2] and elements(before) == elements(after)
    strip = [tuple(s[next((i for i, d in enumerate(s) if d != 1), len(s)) :]) for s in (before, after)]
    return strip[0] == strip[1]


def _size(tree: Tree) -> int:
    return 1 + sum(_size(t) for t in tree[2:] if isinstance(t, tuple))


def _polynomials(tree: Tree) -> int:
    """How deep polynomials are nested in it."""
    return (tree[0] in _POLYNOMIALS) + max((_polynomials(t) for t in tree[2:] if isinstance(t, tuple)), default=0)


def _flat(tree: Tree) -> set[Any]:
    return {tree[0]}.union(*(_flat(t) for t in tree[2:] if isinstance(t, tuple)))
