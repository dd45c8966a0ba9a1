"""Rows about a model run block by block."""

from pathlib import Path

import pytest
from tiny import tiny_inputs

from veltair.bench.blocks import Pieces, measure_pieces, rows
from veltair.bundle.store import open_bundle
from veltair.engine.program import Program


def test_blocks_that_take_longer_than_the_whole_do_not_add_up() -> None:
    [adds_up] = rows("m", 1, Pieces(5, (10e-3, 10e-3), (10.6e-3, 10.6e-3)), "here", 0)
    assert (adds_up.ratio, adds_up.met) == (pytest.approx(1.06), False)


def test_a_model_of_one_block_has_nothing_to_add_up() -> None:
    [adds_up] = rows("m", 2, Pieces(1, (1e-3, 1e-3), (1e-3, 1e-3)), "here", 0)
    assert adds_up.met
    assert adds_up.case == "m, 2 cores, 1 blocks"


def test_the_whole_and_its_blocks_are_timed_in_the_same_rounds(artifacts: Path) -> None:
    program = Program(open_bundle(artifacts / "tiny"))
    found = measure_pieces(program, (0, 0), tiny_inputs(), budget_s=0.02)
    assert found.blocks == 2
    assert all(s > 0 for s in found.whole_s)
    assert len(found.sum_s) >= len(found.whole_s)
