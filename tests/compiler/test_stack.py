"""Kernels align their own stack, so that what registers cannot hold never lies across two cache lines."""

from typing import Any

import pytest
import tvm

from veltair.compiler.schedules.base import Kernel
from veltair.compiler.schedules.conv import Conv, Window, row_values
from veltair.compiler.schedules.pool import Pool
from veltair.compiler.target import tvm_target

from .small import HOST

WINDOW = Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
FIRST_LAYER = Conv(1, 3, 1, 64, 64, 1, 16, WINDOW)


def assembly(function: Any) -> str:
    return str(tvm.compile(tvm.IRModule({"main": function}), target=tvm_target(HOST)).mod.inspect_source("asm"))


@pytest.mark.skipif(HOST.arch != "x86_64", reason="reads x86 assembly")
@pytest.mark.parametrize(
    "kernel", [FIRST_LAYER, Pool("max", 1, 2, 16, 32, 32, WINDOW, (32, 32))], ids=["written out", "scheduled"]
)
def test_the_body_of_a_parallel_loop_aligns_the_stack(kernel: Kernel) -> None:
    knobs = kernel.candidates()[0]
    assert "$-64, %rsp" not in assembly(kernel.build(knobs).with_attr("global_symbol", "main"))
    assert "$-64, %rsp" in assembly(kernel.function(knobs, "main"))


def test_a_first_layer_keeps_a_row_of_its_input_and_its_sums_in_registers() -> None:
    for columns in (64, 112, 208, 416):
        for blocks in (1, 2, 4):
            k = Conv(1, 3, 1, 64, columns, blocks, 16, WINDOW)
            best = k.candidates()[0]
            assert best["cb"] * best["ow"] + best["cb"] + row_values(k, best["ow"]) <= 33
