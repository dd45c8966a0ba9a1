"""Latency tables: every block and variant on 1..C cores, alone and beside a streaming antagonist, in one process.

Blocks are timed inside runs of the whole model, so each meets its weights and inputs as it will in service. Settings take
turns within every round, so that a drifting clock hits all alike.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from veltair.bundle.format import Manifest
from veltair.engine.lanes import set_cores
from veltair.engine.program import Program

WARMUP, REPEATS = 2, 12
ATTEMPTS = 3
QUIET_SPREAD = 0.25  # a quiet machine stays under a tenth
SCALES_AT_LEAST = 0.9  # time on all cores over time on one; no model with any parallel kernel stays above
WORTH_SHARING_US = 1000  # smaller models may well gain nothing from a second core
DEFAULT_BANDWIDTH = 20_000.0  # bytes per us: where a single core leaves no room for an antagonist
LEVELS = (0.0, 0.5, 1.0)  # of the bandwidth the antagonist reaches alone


@dataclass(frozen=True, slots=True)
class Measured:
    """`latency_us[block][variant][cores]` has one time per pressure level."""

    pressure_levels: tuple[float, ...]
    latency_us: list[list[dict[int, tuple[int, ...]]]]
    spread: float  # median over settings of (upper - lower quartile) / median
    bandwidth_bytes_per_us: float


def measure(program: Program, inputs: Mapping[str, Any], cores: Sequence[int], done: Callable[[int, int], None]) -> Measured:
    """Time every block on the first 1..len(cores) of `cores`; the last core makes the pressure while it is not used.

    With all cores taken no co-runner can exist, so that row scales by what the next narrower one lost to pressure.
    A disturbed measurement (wide spread, or all cores no faster than one) is made again, ATTEMPTS times at most, and the
    quietest counts. The calling thread is left on all cores.
    """
    attempts: list[Measured] = []
    while len(attempts) < ATTEMPTS:
        attempts.append(_measure_once(program, inputs, cores, done))
        if not _disturbed(attempts[-1]):
            break
    return min(attempts, key=lambda m: _whole_us(m, 1) + _whole_us(m, len(cores)))


def _disturbed(measured: Measured) -> bool:
    widest = max(measured.latency_us[0][0])
    slow = (
        widest > 1
        and _whole_us(measured, 1) > WORTH_SHARING_US
        and _whole_us(measured, widest) > SCALES_AT_LEAST * _whole_us(measured, 1)
    )
    return slow or measured.spread > QUIET_SPREAD


def _whole_us(measured: Measured, cores: int) -> int:
    return sum(min(rows[cores][0] for rows in block) for block in measured.latency_us)


def _measure_once(
    program: Program, inputs: Mapping[str, Any], cores: Sequence[int], done: Callable[[int, int], None]
) -> Measured:
    manifest = program.bundle.manifest
    widths = range(1, len(cores) + 1)
    levels = LEVELS if len(cores) > 1 else LEVELS[:1]
    variants = max(len(b.variants) for b in manifest.blocks)
    samples: dict[tuple[int, int, int, int], list[int]] = {}  # block, variant, cores, level -> us
    arena = program.new_arena()
    settings = [(v, w) for w in widths for v in range(variants)]
    bandwidth = 0.0
    try:
        for level_number, level in enumerate(levels):
            with antagonist(level, cores[-1]) as rate:
                bandwidth = max(bandwidth, rate)
                usable = [(v, w) for v, w in settings if level == 0.0 or w < len(cores)]
                for turn in range(WARMUP + REPEATS):
                    for v, w in usable:
                        set_cores(tuple(cores[:w]))
                        program.write_inputs(arena, inputs)  # their memory is reused by the end of a run
                        chosen = tuple(min(v, len(b.variants) - 1) for b in manifest.blocks)
                        times = program.run(arena, 0, len(manifest.blocks), chosen)
                        if turn >= WARMUP:
                            for b, us in enumerate(times):
                                samples.setdefault((b, v, w, level_number), []).append(us)
                    done(level_number * (WARMUP + REPEATS) + turn + 1, len(levels) * (WARMUP + REPEATS))
    finally:
        set_cores(tuple(cores))
        program.release(arena)
    return Measured(
        tuple(levels), _tables(samples, manifest, len(cores), len(levels)), _spread(samples), bandwidth or DEFAULT_BANDWIDTH
    )


def _tables(
    samples: Mapping[tuple[int, int, int, int], Sequence[int]], manifest: Manifest, cores: int, levels: int
) -> list[list[dict[int, tuple[int, ...]]]]:
    typical = {key: max(1, round(statistics.median(us))) for key, us in samples.items()}
    tables = []
    for b, block in enumerate(manifest.blocks):
        rows_of: list[dict[int, tuple[int, ...]]] = []
        for v in range(len(block.variants)):
            rows = {w: tuple(typical[b, v, w, k] for k in range(levels)) for w in range(1, cores + 1) if w < cores or levels == 1}
            if levels > 1:
                widest, narrower = typical[b, v, cores, 0], rows[cores - 1]
                rows[cores] = tuple(max(1, round(widest * us / narrower[0])) for us in narrower)
            rows_of.append(rows)
        tables.append(rows_of)
    return tables


def _spread(samples: Mapping[tuple[int, int, int, int], Sequence[int]]) -> float:
    quartiles = [statistics.quantiles(us, n=4) for us in samples.values()]
    return statistics.median((upper - lower) / max(middle, 1) for lower, middle, upper in quartiles)


@contextmanager
def antagonist(level: float, core: int) -> Iterator[float]:
    """Stream through memory on `core` for the share `level` of the time; yields the bytes per microsecond it reached alone."""
    if level <= 0.0:
        yield 0.0
        return
    process = subprocess.Popen(
        [sys.executable, "-c", "from veltair.compiler.measure import stream; stream()", str(level), str(core)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield float(process.stdout.readline() or 0.0)
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def stream() -> None:
    """The antagonist's own process: copy between two arrays that no cache holds, at a duty cycle, until killed."""
    level, core = float(sys.argv[1]), int(sys.argv[2])
    os.sched_setaffinity(0, {core})
    source, sink = np.ones(8 << 20, np.float64), np.zeros(8 << 20, np.float64)
    start = time.perf_counter()
    for _ in range(3):
        np.copyto(sink, source)
    print(3 * 2 * source.nbytes / (time.perf_counter() - start) / 1e6, flush=True)
    part = len(source) // 32
    while os.getppid() > 1:  # an orphan ends by itself
        for k in range(32):
            start = time.perf_counter()
            np.copyto(sink[k * part : (k + 1) * part], source[k * part : (k + 1) * part])
            busy = time.perf_counter() - start
            if level < 1.0:
                time.sleep(busy * (1.0 - level) / level)
