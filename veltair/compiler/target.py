"""The CPU that is compiled for: what this machine offers, or an older one that it can stand in for.

The code generator knows CPUs by name, and a name stands for features. A virtual machine may hide some of its CPU's, so the
name is taken only if the system shows every feature that its code may use; else the next generic level is.
"""

import os
import platform
from pathlib import Path
from typing import Any

import tvm

from veltair.bundle.format import TargetSpec
from veltair.bundle.store import this_cpu_features
from veltair.errors import CompileError

BF16 = "avx512_bf16"  # dot products of bf16 pairs, summed in fp32
VARIABLE = "VELTAIR_TARGET"
LEVELS = ("x86-64-v4", "x86-64-v3", "x86-64-v2", "x86-64")  # of the x86-64 psABI, the newest first

# Features of which generated code makes use, by LLVM's name and by the system's (in /proc/cpuinfo).
_SYSTEM_NAMES = {
    "sse3": "pni", "ssse3": "ssse3", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "popcnt": "popcnt", "lzcnt": "abm", "bmi": "bmi1",
    "bmi2": "bmi2", "movbe": "movbe", "f16c": "f16c", "fma": "fma", "avx": "avx", "avx2": "avx2", "gfni": "gfni",
    "avx512f": "avx512f", "avx512bw": "avx512bw", "avx512cd": "avx512cd", "avx512dq": "avx512dq", "avx512vl": "avx512vl",
    "avx512ifma": "avx512ifma", "avx512vbmi": "avx512vbmi", "avx512vbmi2": "avx512_vbmi2", "avx512vnni": "avx512_vnni",
    "avx512bitalg": "avx512_bitalg", "avx512vpopcntdq": "avx512_vpopcntdq", "avx512bf16": BF16, "avxvnni": "avx_vnni",
    "avx512fp16": "avx512_fp16",
}  # fmt: skip
_AVX512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "fma", "avx2"}
_AVX2 = {"fma", "avx2"}


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown CPU"


def host_target(name: str | None = None) -> TargetSpec:
    """What to compile for: the CPU `name` (or that of the variable VELTAIR_TARGET), as LLVM calls it, else this machine's.

    16 fp32 lanes with AVX-512, 8 with AVX2, else 4. Raises CompileError for a name that LLVM does not know, or whose code
    this machine could not run and so not measure.
    """
    flags = this_cpu_features()
    name = name or os.environ.get(VARIABLE)
    if name:
        missing = _needed(name) - flags
        if missing:
            raise CompileError(
                f"target {name!r} needs {', '.join(sorted(missing))}, which this machine lacks, so its code cannot be measured "
                "here; compile on such a machine, or for an older target"
            )
        return _spec(name)
    system = str(tvm.target.codegen.llvm_get_system_cpu())
    return _spec(next((cpu for cpu in (system, *LEVELS) if _needed(cpu) <= flags), LEVELS[-1]))


def _needed(cpu: str) -> set[str]:
    """The system's names of the features that code for `cpu` may use."""
    triple = str(tvm.target.codegen.llvm_get_system_triple())
    if not tvm.target.codegen.llvm_is_valid_cpu(cpu, triple):
        raise CompileError(f"LLVM knows no CPU {cpu!r} (--target, {VARIABLE}); name one like haswell, znver4 or {LEVELS[1]}")
    features = tvm.target.codegen.llvm_get_cpu_features(tvm.target.Target({"kind": "llvm", "mcpu": cpu}))
    return {_SYSTEM_NAMES[str(f)] for f in features if str(f) in _SYSTEM_NAMES}


def _spec(cpu: str) -> TargetSpec:
    features = _needed(cpu)
    lanes = 16 if features >= _AVX512 else 8 if features >= _AVX2 else 4
    return TargetSpec(arch=platform.machine(), mcpu=cpu, lanes=lanes, features=tuple(sorted(features)))


def tvm_target(spec: TargetSpec) -> Any:
    return tvm.target.Target({"kind": "llvm", "mcpu": spec.mcpu})


def accumulators(spec: TargetSpec) -> int:
    """Vector registers a register tile may fill: 32 zmm (16 ymm) less those for loads and broadcasts."""
    return 24 if spec.lanes == 16 else 12
