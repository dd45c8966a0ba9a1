"""Measure each kernel's candidates, alone, on one core and on all, with the weights as cold as a model meets them.

The candidates of a kernel are few (a rule ranks register tiles by loads per multiply-add), so each is built and timed.
A candidate that TVM refuses or that fails is a result, not an error: it is left out and counted.
"""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tvm

from veltair.bundle.format import TargetSpec
from veltair.compiler.records import Ranked, Records, Timed
from veltair.compiler.schedules.base import Kernel
from veltair.compiler.target import tvm_target
from veltair.engine.lanes import set_cores
from veltair.errors import CompileError

COLD_BYTES = 16 << 20  # copies of the inputs cycled through: past any private cache
MOST_COPIES = 48
BUDGET_S = 0.012  # of runs for each candidate and round
ROUNDS = 2


def search(
    kernels: Sequence[Kernel], target: TargetSpec, records: Records, seed: int, done: Callable[[int, int], None]
) -> Counter[str]:
    """Fill `records` for every kernel that has none; returns how many candidates failed, by reason."""
    failures: Counter[str] = Counter()
    for number, kernel in enumerate(kernels):
        if records.get(kernel.key) is None:
            records.put(kernel.key, _rank(kernel, target, seed, failures))
        done(number + 1, len(kernels))
    return failures


def _rank(kernel: Kernel, target: TargetSpec, seed: int, failures: Counter[str]) -> Ranked:
    candidates = kernel.candidates()
    functions: dict[int, Any] = {}
    for i, knobs in enumerate(candidates):
        try:
            functions[i] = kernel.build(knobs).with_attr("global_symbol", f"f{i}")
        except Exception as error:  # every layer of TVM raises its own kind
            failures[_reason(error)] += 1
    if not functions:
        raise CompileError(f"no schedule fits the kernel {kernel} ({_most(failures)}); report it with the model's shapes")
    try:
        library = tvm.compile(tvm.IRModule({f"f{i}": f for i, f in functions.items()}), target=tvm_target(target))
    except Exception as error:
        if len(functions) == 1:
            raise CompileError(
                f"no code could be made for the kernel {kernel} ({_reason(error)}); report it with the shapes"
            ) from error
        failures[_reason(error)] += 1  # one of them breaks the code generator: build them one by one
        library = _one_by_one(functions, target, failures)
    arguments = _arguments(kernel, seed)
    cores = tuple(sorted(os.sched_getaffinity(0)))
    widths = [cores[:1], cores] if len(cores) > 1 else [cores]
    times: dict[tuple[int, int], list[float]] = {(i, len(width)): [] for i in functions for width in widths}
    try:
        for _ in range(ROUNDS):
            for width in widths:
                set_cores(width)
                for i in functions:
                    times[i, len(width)] += _time(library[f"f{i}"], arguments)
    finally:
        set_cores(cores)
    return [Timed(dict(candidates[i]), *(statistics.median(times[i, n]) * 1e6 for n in (1, len(cores)))) for i in functions]


def _one_by_one(functions: dict[int, Any], target: TargetSpec, failures: Counter[str]) -> dict[str, Any]:
    built = {}
    for i in list(functions):
        try:
            built[f"f{i}"] = tvm.compile(tvm.IRModule({f"f{i}": functions[i]}), target=tvm_target(target))[f"f{i}"]
        except Exception as error:
            failures[_reason(error)] += 1
            del functions[i]
    return built


def _most(failures: Counter[str]) -> str:
    return failures.most_common(1)[0][0]


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:160]


def _arguments(kernel: Kernel, seed: int) -> list[list[Any]]:
    rng = np.random.default_rng(seed)
    specs = kernel.argument_specs()
    size = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in specs)
    copies = int(min(MOST_COPIES, max(1, COLD_BYTES // max(size, 1))))

    def make(shape: Sequence[int], dtype: str) -> Any:
        if dtype == "float32":
            return tvm.runtime.tensor(rng.random(tuple(shape), dtype=np.float32) - np.float32(0.5))
        return tvm.runtime.tensor(np.zeros(tuple(shape), dtype))

    return [[make(shape, dtype) for shape, dtype in specs] for _ in range(copies)]


def _time(function: Any, arguments: list[list[Any]]) -> list[float]:
    function(*arguments[0])
    start = time.perf_counter()
    function(*arguments[-1])
    once = max(time.perf_counter() - start, 1e-6)
    runs = int(min(200, max(4, BUDGET_S / once)))
    times = []
    for i in range(runs):
        chosen = arguments[i % len(arguments)]
        start = time.perf_counter()
        function(*chosen)
        times.append(time.perf_counter() - start)
    return times
