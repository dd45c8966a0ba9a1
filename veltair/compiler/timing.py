"""How a kernel is timed: with the weights as cold as a model meets them, and the activations as warm.

A model walks through all its weights before it comes back to a kernel, and co-tenants through theirs; so every run reads
another copy of the constants, from a pool twice as large as the last-level cache. Activations were written by the kernel
before, so there is one copy of them.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm

from veltair.bundle.format import ALIGNMENT_BYTES
from veltair.compiler.graph import elements
from veltair.compiler.schedules.base import Kernel, width

MOST_COPIES = 256  # wrapping one costs 10 us; beyond this the constants are too small for the rest of a run to be warm
MOST_CACHE_BYTES = 128 << 20  # servers with more share it between more cores than a compile uses
LEAST_CACHE_BYTES = 16 << 20  # where Linux does not tell
REPEATED_BYTES = 1 << 20  # of random numbers; what matters is that memory differs, not what is in it
WARMUP_RUNS = 2
LEAST_RUNS, MOST_RUNS = 4, 200


class Pool:
    """Random constants that no cache holds whole. `seed` decides them."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._bytes = self._make(2 * last_level_cache_bytes())

    def _make(self, size: int) -> npt.NDArray[np.uint8]:
        words = (self._rng.random(REPEATED_BYTES // 4, np.float32) - np.float32(0.5)).view(np.uint32)
        words = words & np.uint32(0xFFFF0000) | words >> np.uint32(16)  # as fp32 and as pairs of bf16: plain small numbers
        memory = np.empty(size + ALIGNMENT_BYTES, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT_BYTES
        memory = memory[start : start + size]
        memory[:] = np.resize(words.view(np.uint8), size)
        return memory

    def arguments(self, kernel: Kernel) -> Iterator[list[Any]]:
        """What to call the kernel with, without end: the same activations, another copy of the constants.

        Share one iterator between all timings of a kernel: another one would start where the first is still warm.
        """
        specs = kernel.argument_specs()
        offsets, each = {}, 0
        for i, spec in enumerate(kernel.inputs):
            if spec in kernel.constants and _is_random(kernel, spec[1]):
                offsets[i] = each
                each += -(-_size(*spec) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        if each > len(self._bytes):
            self._bytes = self._make(2 * each)
        plain = {i: self._plain(*spec) for i, spec in enumerate(specs) if i not in offsets}
        copies = min(MOST_COPIES, len(self._bytes) // each) if each else 1
        return cycle(
            [
                [plain[i] if i in plain else self._slice(n * each + offsets[i], *spec) for i, spec in enumerate(specs)]
                for n in range(copies)
            ]
        )

    def _slice(self, offset: int, shape: Sequence[int], dtype: str) -> Any:
        return tvm.runtime.from_dlpack(self._bytes[offset : offset + _size(shape, dtype)].view(dtype).reshape(tuple(shape)))

    def _plain(self, shape: Sequence[int], dtype: str) -> Any:
        """Random where the value is a number; zero where it may be an index."""
        if dtype == "float32":
            return tvm.runtime.tensor(self._rng.random(tuple(shape), np.float32) - np.float32(0.5))
        return tvm.runtime.tensor(np.zeros(tuple(shape), dtype))


def time_us(function: Any, arguments: Iterator[Sequence[Any]], budget_s: float) -> list[float]:
    """Microseconds of each of LEAST_RUNS to MOST_RUNS runs, as many as fit the budget, after WARMUP_RUNS others."""
    function(*next(arguments))
    chosen = next(arguments)
    start = time.perf_counter()
    function(*chosen)
    once = max(time.perf_counter() - start, 1e-6)
    times = []
    for _ in range(int(min(MOST_RUNS, max(LEAST_RUNS, budget_s / once)))):
        chosen = next(arguments)
        start = time.perf_counter()
        function(*chosen)
        times.append((time.perf_counter() - start) * 1e6)
    return times


def spread(times: Sequence[float]) -> float:
    """(Upper - lower quartile) / median: a quiet machine stays under a tenth."""
    lower, middle, upper = statistics.quantiles(times, n=4)
    return (upper - lower) / max(middle, 1e-9)


def last_level_cache_bytes() -> int:
    """Of the first core, as Linux tells it."""
    sizes = [LEAST_CACHE_BYTES]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        sizes.append(int(text.rstrip("KMG")) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1))
    return min(max(sizes), MOST_CACHE_BYTES)


def _is_random(kernel: Kernel, dtype: str) -> bool:
    """Other constants are indices. Packed bf16 is declared int32, two of them each."""
    return dtype == "float32" or (dtype == "int32" and kernel.precision == "bf16")


def _size(shape: Sequence[int], dtype: str) -> int:
    return elements(tuple(shape)) * width(dtype)
