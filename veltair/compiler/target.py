"""The CPU that is compiled for, read from the machine that compiles."""

import platform
from pathlib import Path
from typing import Any

import tvm

from veltair.bundle.format import TargetSpec
from veltair.bundle.store import this_cpu_features

# Names as in /proc/cpuinfo. A bundle needs every one of these that its code generator was allowed to use.
_FEATURES_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "fma", "avx2")
_FEATURES_AVX2 = ("fma", "avx2")
BF16 = "avx512_bf16"  # dot products of bf16 pairs, summed in fp32


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown CPU"


def host_target() -> TargetSpec:
    """What this machine offers: 16 fp32 lanes with AVX-512, else 8 with AVX2, else 4."""
    flags, mcpu = this_cpu_features(), str(tvm.target.codegen.llvm_get_system_cpu())
    if flags.issuperset(_FEATURES_AVX512):
        bf16 = (BF16,) if BF16 in flags else ()
        return TargetSpec(arch=platform.machine(), mcpu=mcpu, lanes=16, features=_FEATURES_AVX512 + bf16)
    if flags.issuperset(_FEATURES_AVX2):
        return TargetSpec(arch=platform.machine(), mcpu=mcpu, lanes=8, features=_FEATURES_AVX2)
    return TargetSpec(arch=platform.machine(), mcpu=mcpu, lanes=4, features=())


def tvm_target(spec: TargetSpec) -> Any:
    return tvm.target.Target({"kind": "llvm", "mcpu": spec.mcpu})


def accumulators(spec: TargetSpec) -> int:
    """Vector registers a register tile may fill: 32 zmm (16 ymm) less those for loads and broadcasts."""
    return 24 if spec.lanes == 16 else 12
