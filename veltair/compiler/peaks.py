"""What this machine can do at most: fused multiply-adds a second, and bytes a second from memory. The roofline's two lines.

Both are measured, by kernels so simple that nothing but the hardware limits them: independent chains of multiply-adds that
never leave the registers (Williams, Waterman and Patterson 2009, "Roofline"), and a sum over an array that no cache holds.
"""

import os
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T  # noqa: N812 (the name TVM's own code gives it)

from veltair.bundle.format import ALIGNMENT_BYTES, TargetSpec
from veltair.compiler.target import BF16, host_target, tvm_target
from veltair.engine.lanes import hold_cores, set_cores
from veltair.errors import CompileError

CHAINS = 12  # latency (4) x units (2) = 8 hide each other; with two operands more they still fit AVX2's 16 registers
STEPS = 40_000  # of each chain in a call: about 0.15 ms
PIECES = 4  # of memory, read in turn: a run of 1 ms is likely to go undisturbed, and together they are past any cache
PIECE_BYTES = 32 << 20
ROUNDS = 24  # the best counts: whatever disturbs only makes it slower
PRECISIONS = ("fp32", "bf16")

# Two bf16 in each int32: TVM would promote a bfloat16 to fp32. The instruction sums both products of a pair in fp32.
_DOT = """
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>, <32 x bfloat>, <32 x bfloat>)
define <16 x float> @peak_dot_bf16(<16 x float> %c, <16 x i32> %a, <16 x i32> %b) alwaysinline #0 {
  %x = bitcast <16 x i32> %a to <32 x bfloat>
  %y = bitcast <16 x i32> %b to <32 x bfloat>
  %r = call <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float> %c, <32 x bfloat> %x, <32 x bfloat> %y)
  ret <16 x float> %r
}
attributes #0 = { "target-features"="+avx512bf16,+avx512f,+avx512bw,+avx512vl" }
"""


def fma_peak_gflops(precision: str = "fp32", cores: Sequence[int] = ()) -> float:
    """Floating-point operations per nanosecond on all of `cores` together (the first one this thread may use where none are
    given); a multiply-add counts as two. Takes under 0.1 s. Raises CompileError where the CPU lacks the precision.
    """
    target, cores = host_target(), _chosen(cores)
    if precision not in PRECISIONS or (precision == "bf16" and BF16 not in target.features):
        has = "fp32 and bf16" if BF16 in target.features else "fp32"
        raise CompileError(f"no peak of {precision!r} can be measured: this CPU computes {has}")
    bf16 = precision == "bf16"
    lanes, pairs = (16, 2) if bf16 else (target.lanes, 1)
    function = _compile(_chains(len(cores), lanes, bf16), target)
    operands = tvm.runtime.tensor(np.full(2, 0x3F003F00, np.int32) if bf16 else np.full(2, 0.5, np.float32))
    sink = tvm.runtime.tensor(np.zeros(len(cores) * CHAINS * lanes, np.float32))
    seconds = _best(lambda: function(operands, sink), cores)
    return 2 * pairs * lanes * CHAINS * STEPS * len(cores) / seconds / 1e9


def stream_bandwidth(cores: Sequence[int] = ()) -> float:
    """Bytes per microsecond that all of `cores` together (or the first) read from memory. Takes under 0.5 s."""
    target, cores = host_target(), _chosen(cores)
    step = len(cores) * CHAINS * target.lanes
    count = PIECE_BYTES // 4 // step * step
    function = _compile(_sum(len(cores), target.lanes, count), target)
    memory = np.ones(PIECES * count + ALIGNMENT_BYTES // 4, np.float32)  # NumPy asks for huge pages: a third slower without
    memory = memory[-memory.ctypes.data % ALIGNMENT_BYTES // 4 :]
    pieces = cycle([tvm.runtime.from_dlpack(memory[k * count : (k + 1) * count]) for k in range(PIECES)])
    sink = tvm.runtime.tensor(np.zeros(step, np.float32))
    return count * 4 / (_best(lambda: function(next(pieces), sink), cores) * 1e6)


def _chosen(cores: Sequence[int]) -> Sequence[int]:
    return cores or sorted(os.sched_getaffinity(0))[:1]


def _best(run: Callable[[], object], cores: Sequence[int]) -> float:
    before = tuple(sorted(os.sched_getaffinity(0)))
    times = []
    try:
        hold_cores(tuple(cores))
        run()  # loads the code and touches the memory
        for _ in range(ROUNDS):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    finally:
        set_cores(before)
    return min(times)


def _compile(function: Any, target: TargetSpec) -> Any:
    return tvm.compile(tvm.IRModule({"main": function}), target=tvm_target(target))["main"]


def _chains(workers: int, lanes: int, bf16: bool) -> Any:
    """CHAINS accumulators a worker, each STEPS times acc = acc * operands[0] + operands[1] (bf16: acc + a pair's products).

    With operands of 0.5 the fp32 ones settle at 1 and the bf16 ones grow slowly: no overflow, no denormals.
    """
    vector = f"float32x{lanes}"
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        operands = T.arg("operands", T.Buffer((2,), "int32" if bf16 else "float32"))
        sink = T.arg("sink", T.Buffer((workers * CHAINS * lanes,), "float32"))
        with T.parallel(0, workers) as worker:
            sums = T.alloc_buffer((CHAINS * lanes,), "float32", scope="local")
            a, b = (tirx.Broadcast(operands[k], lanes) for k in (0, 1))
            with T.unroll(0, CHAINS) as t:
                T.buffer_store(sums, tirx.Broadcast(tirx.const(0, "float32"), lanes), [T.ramp(t * lanes, 1, lanes)])
            with T.serial(0, STEPS), T.unroll(0, CHAINS) as t:
                at = T.ramp(t * lanes, 1, lanes)
                step = T.call_pure_extern(vector, "peak_dot_bf16", sums[at], a, b) if bf16 else sums[at] * a + b
                T.buffer_store(sums, step, [at])
            with T.unroll(0, CHAINS) as t:
                T.buffer_store(sink, sums[T.ramp(t * lanes, 1, lanes)], [T.ramp((worker * CHAINS + t) * lanes, 1, lanes)])
    function = builder.get()
    if bf16:
        function = function.with_body(
            tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", tvm.ir.StringImm(_DOT), function.body)
        )
    return function


def _sum(workers: int, lanes: int, count: int) -> Any:
    """Each worker's share of `count` floats, in CHAINS streams of vector sums, so that loads and not additions are waited for."""
    steps = count // (workers * CHAINS * lanes)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        data = T.arg("data", T.Buffer((count,), "float32"))
        sink = T.arg("sink", T.Buffer((workers * CHAINS * lanes,), "float32"))
        with T.parallel(0, workers) as worker:
            sums = T.alloc_buffer((CHAINS * lanes,), "float32", scope="local")
            with T.unroll(0, CHAINS) as t:
                T.buffer_store(sums, tirx.Broadcast(tirx.const(0, "float32"), lanes), [T.ramp(t * lanes, 1, lanes)])
            with T.serial(0, steps) as step, T.unroll(0, CHAINS) as t:
                at = T.ramp(t * lanes, 1, lanes)
                place = ((worker * steps + step) * CHAINS + t) * lanes
                T.buffer_store(sums, sums[at] + data[T.ramp(place, 1, lanes)], [at])
            with T.unroll(0, CHAINS) as t:
                T.buffer_store(sink, sums[T.ramp(t * lanes, 1, lanes)], [T.ramp((worker * CHAINS + t) * lanes, 1, lanes)])
    return builder.get()
