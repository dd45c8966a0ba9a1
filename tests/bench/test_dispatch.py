"""The cost of a dispatch: what a kernel that does next to nothing costs in a unit, and as a unit of its own."""

from pathlib import Path

import numpy as np
import pytest

from veltair.bench.dispatch import BLOCKS, NUMBERS, Dispatch, empty_chain, measure_dispatch, rows

MORE = BLOCKS - 1


def test_each_figure_is_what_one_block_more_adds() -> None:
    one_block, one_unit, units, moved = 1e-6, 1e-6 + MORE * 1e-7, 1e-6 + MORE * 3.1e-6, 1e-6 + MORE * 11.1e-6
    found = Dispatch(2, *((s, s) for s in (one_block, one_unit, units, moved)))
    made = rows(found, "here", 0)
    assert [row.value for row in made] == pytest.approx([0.1, 3.0, 11.0])
    assert [row.met for row in made] == [True, True, False]


def test_one_core_leaves_no_unit_to_move() -> None:
    assert len(rows(Dispatch(1, (1e-6,), (1e-6,), (1e-6,), ()), "here", 0)) == 2


@pytest.mark.parametrize("blocks", [1, BLOCKS])
def test_the_chain_computes_a_relu_however_it_is_cut(blocks: int, tmp_path: Path) -> None:
    program = empty_chain(tmp_path, blocks)
    assert len(program.bundle.manifest.blocks) == blocks
    arena = program.new_arena()
    x = np.linspace(-1, 1, NUMBERS, dtype=np.float32)[None]
    program.write_inputs(arena, {"x": x})
    program.run(arena, 0, blocks, (0,) * blocks)
    assert np.array_equal(program.read_outputs(arena)["y"], np.maximum(x, 0))


def test_every_way_is_timed_in_the_same_rounds(tmp_path: Path) -> None:
    found = measure_dispatch((0,), tmp_path, budget_s=0.01)
    assert len(found.one_block) == len(found.one_unit) == len(found.units) > 1
    assert found.moved == ()
