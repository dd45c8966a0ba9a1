"""Memory plan, cuts and records: the parts between kernels and bundle."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from veltair.compiler.blocks import cut
from veltair.compiler.line import Call, Line, plan_memory
from veltair.compiler.schedules.base import Chain, Operand
from veltair.compiler.schedules.gemm import Gemm
from veltair.compiler.schedules.move import Move


def add(line: Line, a: int, b: int, value: str | None = None) -> int:
    shape = line.tensors[a].shape
    whole = Operand(shape, "float32", tuple(range(len(shape))))
    kernel = Move("identity", (), (), shape, 16, chain=Chain(("Add", (), ("in", 0), ("in", 1)), (whole, whole)))
    out = line.new(shape, "float32")
    line.tensors[out].value = value
    line.calls.append(Call(kernel, (a, b, out), "Add"))
    return out


def chain_of(calls: int, size: int = 16) -> Line:
    """x, then `calls` additions of the last value to itself, each named v0, v1, ..."""
    line = Line()
    last = line.inputs["x"] = line.new((size,), "float32", "input")
    line.tensors[last].value = "x"
    for number in range(calls):
        last = add(line, last, last, f"v{number}")
    line.tensors[last].kind = "output"
    line.outputs["y"] = last
    return line


def names(line: Line) -> frozenset[str]:
    return frozenset(t.value for t in line.tensors if t.value)


@st.composite
def lines(draw: st.DrawFn) -> Line:
    line = Line()
    sizes = st.sampled_from([1, 16, 17, 100])
    made = [line.new((draw(sizes), 16), "float32", "input") for _ in range(draw(st.integers(1, 3)))]
    line.inputs = {f"x{t}": t for t in made}
    for _ in range(draw(st.integers(1, 12))):
        reads = [line.view(t, line.tensors[t].shape[::-1]) for t in draw(st.lists(st.sampled_from(made), min_size=1, max_size=3))]
        out = line.new((draw(sizes), 16), "float32")
        line.calls.append(Call(Gemm(1, 1, 16, 16, 16), (*reads, out), "any"))
        made.append(out)
    for t in draw(st.lists(st.sampled_from(made[len(line.inputs) :]), min_size=1, max_size=2, unique=True)):
        line.outputs[f"y{t}"] = t
    return line


@settings(max_examples=150, deadline=None)
@given(lines())
def test_no_two_buffers_that_live_at_once_overlap(line: Line) -> None:
    specs, arena_bytes, _ = plan_memory(line)
    lives = list(line.lifetimes().items())
    for position, (root, (made, last)) in enumerate(lives):
        start, end = specs[root].offset, specs[root].offset + line.tensors[root].size_bytes
        assert start % 64 == 0
        assert end <= arena_bytes
        for other, (other_made, other_last) in lives[position + 1 :]:
            if made <= other_last and other_made <= last:
                assert end <= specs[other].offset or specs[other].offset + line.tensors[other].size_bytes <= start


def test_views_share_the_memory_of_what_they_view() -> None:
    line = chain_of(2)
    view = line.view(line.outputs["y"], (4, 4))
    specs, _, _ = plan_memory(line)
    assert specs[view].offset == specs[line.outputs["y"]].offset
    assert specs[view].kind == "output"


def test_a_long_chain_needs_memory_for_two_values() -> None:
    _, arena_bytes, _ = plan_memory(chain_of(20))
    assert arena_bytes == 2 * 64


def test_blocks_cover_the_line_without_gaps_near_their_target() -> None:
    spans = cut(line := chain_of(40), [250.0] * 40, names(line))
    assert [s.first for s in spans] == [0, *(s.end for s in spans[:-1])]
    assert spans[-1].end == 40
    assert {s.end - s.first for s in spans} <= {3, 4, 5}


def test_a_kernel_longer_than_a_block_stands_alone() -> None:
    spans = cut(line := chain_of(5), [100.0, 100.0, 9000.0, 100.0, 100.0], names(line))
    assert [(s.first, s.end) for s in spans] == [(0, 2), (2, 3), (3, 5)]


def test_no_cut_where_a_value_has_no_counterpart_in_the_reference() -> None:
    line = chain_of(8)
    spans = cut(line, [1000.0] * 8, names(line) - {"v2", "v5"})
    ends = {s.end for s in spans}
    assert 3 not in ends
    assert 6 not in ends
    assert spans[-1].end == 8


def test_a_cut_says_how_many_bytes_live_behind_it() -> None:
    spans = cut(line := chain_of(3, size=32), [1000.0] * 3, names(line))
    assert [s.live_bytes for s in spans] == [128, 128, 0]


def test_weights_lie_aligned_in_ascending_order() -> None:
    line = chain_of(1)
    for size in (1, 16, 17):
        line.weight(np.zeros(size, np.float32))
    _, _, weights = plan_memory(line)
    assert [offset for offset, _ in weights] == [0, 64, 128]
