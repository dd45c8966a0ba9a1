"""Latency tables and footprints: every block and variant on 1..C cores, alone and under a ladder of pressure, in one process.

Blocks are timed inside runs of the whole model, so each meets its weights and inputs as it will in service. Settings take
turns within every round, so that a drifting clock hits all alike.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from veltair.compiler.pressure import Pressure, Resource, antagonist, probe
from veltair.engine.lanes import hold_cores, set_cores
from veltair.engine.program import Program

WARMUP = 1
MOST_REPEATS, LEAST_REPEATS = 12, 3
BUDGET_S = 40.0  # of all runs of one attempt, for models so long that MOST_REPEATS would take more
ATTEMPTS = 3
QUIET_SPREAD = 0.25  # a quiet machine stays under a tenth
SCALES_AT_LEAST = 0.9  # time on all cores over time on one; no model with any parallel kernel stays above
WORTH_SHARING_US = 1000  # smaller models may well gain nothing from a second core
DEFAULT_BANDWIDTH = 20_000.0  # bytes per us: where a single core leaves no room for an antagonist
REPEATS_WHEN_CHOSEN, PRESSED_WHEN_CHOSEN = 6, 3  # only the table's times are wanted then, no choice between candidates
LEVELS = (0.0, 0.5, 1.0)  # of each resource
PROBED_S = 0.25  # of runs of each setting while the probe feels what they exert
LEAST_FELT = 0.03  # an antagonist at full level that slows the probe by less shows nothing about anyone's pressure
LEAST_SAMPLES = 5  # of the probe within a block

Tables = list[list[dict[int, tuple[int, ...]]]]
"""block -> variant -> cores -> microseconds at each level of one resource."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a program."""

    levels: tuple[float, ...]  # of both resources
    bandwidth_us: Tables
    cache_us: Tables
    pressure: list[list[float]]  # block -> variant -> what it puts on the probe; 1 is what the antagonist does
    spread: float  # median over settings of (upper - lower quartile) / median
    bandwidth_bytes_per_us: float
    repeats: int

    def at_points(self, block: int, variant: int) -> tuple[float, ...]:
        """Times at every point, in the order of `points`."""
        bandwidth, cache = self.bandwidth_us[block][variant], self.cache_us[block][variant]
        alone = [float(row[0]) for _, row in sorted(bandwidth.items())]
        pressed = [float(us) for table in (bandwidth, cache) for cores in self._narrow for us in table[cores][1:]]
        return (*alone, *pressed)

    def points(self) -> list[tuple[int, Pressure | None]]:
        """(cores, pressure) of each point: every core count alone, then those that leave room for an antagonist."""
        alone: list[tuple[int, Pressure | None]] = [(cores, None) for cores in sorted(self.bandwidth_us[0][0])]
        resources: tuple[Resource, ...] = ("bandwidth", "cache")
        return alone + [(c, Pressure(r, level)) for r in resources for c in self._narrow for level in self.levels[1:]]

    @property
    def _narrow(self) -> list[int]:
        """Core counts measured under pressure; the widest row is derived from them."""
        return sorted(self.bandwidth_us[0][0])[:-1]


def measure(
    program: Program, inputs: Mapping[str, Any], cores: Sequence[int], done: Callable[[int, int], None], *, chosen: bool = False
) -> Measured:
    """Time every block on the first 1..len(cores) of `cores`; the last core makes the pressure while it is not used.

    With all cores taken no co-runner can exist, so that row scales by what the next narrower one lost to pressure.
    A disturbed measurement (wide spread, or all cores no faster than one) is made again, ATTEMPTS times at most, and the
    quietest counts. Where the variants are `chosen` already fewer repeats do. The calling thread is left on all cores.
    """
    attempts: list[Measured] = []
    while len(attempts) < ATTEMPTS:
        attempts.append(_measure_once(program, inputs, cores, done, chosen))
        if not _disturbed(attempts[-1]):
            break
    return min(attempts, key=lambda m: _whole_us(m, 1) + _whole_us(m, len(cores)))


def _disturbed(measured: Measured) -> bool:
    widest = max(measured.bandwidth_us[0][0])
    slow = (
        widest > 1
        and _whole_us(measured, 1) > WORTH_SHARING_US
        and _whole_us(measured, widest) > SCALES_AT_LEAST * _whole_us(measured, 1)
    )
    return slow or measured.spread > QUIET_SPREAD


def _whole_us(measured: Measured, cores: int) -> int:
    return sum(min(rows[cores][0] for rows in block) for block in measured.bandwidth_us)


Setting = tuple[int, int]  # variant (or the last one of a block that has fewer), cores
Samples = dict[tuple[int, int, int], list[int]]  # block, variant, cores -> us


class _Runner:
    """The program with inputs of its own, run as one setting at a time."""

    def __init__(self, program: Program, inputs: Mapping[str, Any], cores: Sequence[int]) -> None:
        self.program, self._inputs, self._cores = program, inputs, tuple(cores)
        self._arena = program.new_arena()
        self.blocks = program.bundle.manifest.blocks
        self.variants = max(len(b.variants) for b in self.blocks)

    def chosen(self, variant: int) -> tuple[int, ...]:
        return tuple(min(variant, len(b.variants) - 1) for b in self.blocks)

    def run(self, setting: Setting) -> tuple[int, ...]:
        variant, width = setting
        hold_cores(self._cores[:width])
        self.program.write_inputs(self._arena, self._inputs)  # their memory is reused by the end of a run
        return self.program.run(self._arena, 0, len(self.blocks), self.chosen(variant))

    def close(self) -> None:
        set_cores(self._cores)
        self.program.release(self._arena)


def _measure_once(
    program: Program, inputs: Mapping[str, Any], cores: Sequence[int], done: Callable[[int, int], None], chosen: bool
) -> Measured:
    runner = _Runner(program, inputs, cores)
    levels = LEVELS if len(cores) > 1 else LEVELS[:1]
    ladder = [
        Pressure("bandwidth", 0.0),
        *(Pressure("bandwidth", v) for v in levels[1:]),
        *(Pressure("cache", v) for v in levels[1:]),
    ]
    settings = [(v, w) for w in range(1, len(cores) + 1) for v in range(runner.variants)]
    bandwidth = 0.0
    try:
        for setting in settings:
            runner.run(setting)
        repeats = _repeats(runner, settings, len(ladder))
        pressed = min(PRESSED_WHEN_CHOSEN, repeats) if chosen else repeats
        repeats = min(REPEATS_WHEN_CHOSEN, repeats) if chosen else repeats
        found: dict[Pressure, Samples] = {}
        for step, pressure in enumerate(ladder):
            usable = [(v, w) for v, w in settings if pressure.level == 0.0 or w < len(cores)]
            with antagonist(pressure, cores[-1]) as rate:
                bandwidth = max(bandwidth, rate if pressure.resource == "bandwidth" else 0.0)
                found[pressure] = _rounds(runner, usable, pressed if pressure.level else repeats)
            done(step + 1, len(ladder) + 1)
        exerted = _exerted(runner, cores) if len(cores) > 1 else [[0.0] * len(b.variants) for b in runner.blocks]
        done(len(ladder) + 1, len(ladder) + 1)
    finally:
        runner.close()
    quiet = found[ladder[0]]
    bandwidth_samples = [quiet, *(found[p] for p in ladder[1:] if p.resource == "bandwidth")]
    cache_samples = [quiet, *(found[p] for p in ladder[1:] if p.resource == "cache")]
    counts = [len(b.variants) for b in runner.blocks]
    return Measured(
        tuple(levels),
        _tables(bandwidth_samples, counts, len(cores)),
        _tables(cache_samples, counts, len(cores)),
        exerted,
        _spread(quiet),
        bandwidth or DEFAULT_BANDWIDTH,
        repeats,
    )


def _repeats(runner: _Runner, settings: Sequence[Setting], steps: int) -> int:
    start = time.perf_counter()
    runner.run(settings[0])
    once = time.perf_counter() - start
    rounds = BUDGET_S / max(once * (len(settings) + (steps - 1) * runner.variants), 1e-9)
    return int(min(MOST_REPEATS, max(LEAST_REPEATS, rounds - WARMUP)))


def _rounds(runner: _Runner, settings: Sequence[Setting], repeats: int) -> Samples:
    samples: Samples = {}
    for turn in range(WARMUP + repeats):
        for v, w in settings:
            times = runner.run((v, w))
            if turn >= WARMUP:
                for b, (us, chosen) in enumerate(zip(times, runner.chosen(v), strict=True)):
                    samples.setdefault((b, chosen, w), []).append(us)
    return samples


def _exerted(runner: _Runner, cores: Sequence[int]) -> list[list[float]]:
    """How much each block's variants, on one core, slow the probe, as a share of what the streaming antagonist does to it.

    The probe runs beside whole models and each of its samples counts for the block that ran just then.
    """
    felt: list[list[float]] = [[0.0] * len(b.variants) for b in runner.blocks]
    with probe(cores[-1]) as feeler:
        quiet = feeler.quiet_ns(PROBED_S)
        with antagonist(Pressure("bandwidth", 1.0), cores[0]):
            worst = feeler.quiet_ns(PROBED_S) / max(quiet, 1.0) - 1.0
        if worst < LEAST_FELT:
            return felt
        for v in range(runner.variants):
            intervals: list[list[tuple[int, int]]] = [[] for _ in runner.blocks]
            end = time.perf_counter() + PROBED_S
            while time.perf_counter() < end:
                start_ns = time.monotonic_ns()
                for b, us in enumerate(runner.run((v, 1))):
                    intervals[b].append((start_ns, start_ns + 1000 * us))
                    start_ns += 1000 * us
            samples = feeler.read()
            for b, chosen in enumerate(runner.chosen(v)):
                took = samples.between(intervals[b])
                if len(took) >= LEAST_SAMPLES:
                    slowed = statistics.median(took.tolist()) / max(quiet, 1.0) - 1.0
                    felt[b][chosen] = round(min(1.0, max(0.0, slowed / worst)), 3)
    return felt


def _tables(levels: Sequence[Samples], variants: Sequence[int], cores: int) -> Tables:
    """`levels` hold samples at each level of one resource; the widest row exists at the first alone."""
    typical = [{key: max(1, round(statistics.median(us))) for key, us in samples.items()} for samples in levels]
    tables: Tables = []
    for b, count in enumerate(variants):
        rows_of = []
        for v in range(count):
            narrow = [w for w in range(1, cores + 1) if w < cores or len(levels) == 1]
            rows = {w: tuple(level[b, v, w] for level in typical) for w in narrow}
            if len(levels) > 1:
                widest, narrower = typical[0][b, v, cores], rows[cores - 1]
                rows[cores] = tuple(max(1, round(widest * us / narrower[0])) for us in narrower)
            rows_of.append(rows)
        tables.append(rows_of)
    return tables


def _spread(samples: Samples) -> float:
    quartiles = [statistics.quantiles(us, n=4) for us in samples.values()]
    return statistics.median((upper - lower) / max(middle, 1) for lower, middle, upper in quartiles)
