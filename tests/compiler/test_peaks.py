"""The kernels behind the roofline's lines do the work they are timed for."""

import os
from typing import Any

import numpy as np
import pytest
import tvm

from veltair.bundle.format import TargetSpec
from veltair.compiler import peaks
from veltair.compiler.target import BF16
from veltair.errors import CompileError

from .small import HASWELL, HOST


def run(function: Any, target: TargetSpec, data: Any, sums: int) -> Any:
    sink = tvm.runtime.tensor(np.full(sums, np.nan, np.float32))
    peaks._compile(function, target)(tvm.runtime.tensor(data), sink)
    return sink.numpy()


@pytest.mark.parametrize("target", [HOST, HASWELL])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_stream_reads_every_number_once(target: TargetSpec, workers: int) -> None:
    sums = workers * peaks.CHAINS * target.lanes
    data = np.random.default_rng(0).random(sums * 7, np.float32)
    total = run(peaks._sum(workers, target.lanes, sums * 7), target, data, sums).sum(dtype=np.float64)
    assert total == pytest.approx(data.sum(dtype=np.float64), rel=1e-6)


@pytest.mark.parametrize("target", [HOST, HASWELL])
def test_every_chain_takes_every_step(target: TargetSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "STEPS", 3)
    ends = run(peaks._chains(2, target.lanes, False), target, np.float32([0.5, 1.0]), 2 * peaks.CHAINS * target.lanes)
    np.testing.assert_array_equal(ends, np.float32(1.75))  # ((0 * 0.5 + 1) * 0.5 + 1) * 0.5 + 1


@pytest.mark.skipif(BF16 not in HOST.features, reason="this CPU has no dot products of bf16")
def test_a_step_of_a_bf16_chain_adds_two_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "STEPS", 3)
    ends = run(peaks._chains(1, 16, True), HOST, np.full(2, 0x3F003F00, np.int32), peaks.CHAINS * 16)
    np.testing.assert_array_equal(ends, np.float32(3 * 2 * 0.25))


def test_a_peak_leaves_the_thread_where_it_was() -> None:
    before = os.sched_getaffinity(0)
    assert peaks.fma_peak_gflops() > 0
    assert os.sched_getaffinity(0) == before


def test_a_precision_the_cpu_lacks_is_named() -> None:
    with pytest.raises(CompileError, match=r"no peak of 'fp4' can be measured: this CPU computes fp32"):
        peaks.fma_peak_gflops("fp4")
