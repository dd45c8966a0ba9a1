"""How long a block takes beside others: what a model of that is told, and what the measured tables answer.

A model foretells the median and the p95 of a block's time from its variant, its cores and what presses on it. What presses is
one number, as the scheduler core reckons it, so that whatever is foretold can be asked for by the core at each decision.
`Table` interpolates what the compiler measured; `Anchored` does so from times measured on this host with nobody beside.
Another model (`learnt`) is to beat both on co-runs that none of them has seen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import log
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from veltair.bundle.format import BlockSpec, VariantSpec
from veltair.core.values import LatencyTable
from veltair.interference.corun import CoRun, Outsider, Subject, Unit
from veltair.interference.profile import HostProfile

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Key(NamedTuple):
    """What has a time of its own."""

    bundle: str
    block: int
    variant: int
    cores: int


@dataclass(frozen=True, slots=True)
class Host:
    """What pressures are shares of."""

    profile: HostProfile
    subjects: Mapping[str, Subject]

    @property
    def bandwidth_bytes_per_us(self) -> float:
        return 1e3 * self.profile.bandwidth_gb_per_s.all_cores

    def spec(self, key: Key) -> tuple[BlockSpec, VariantSpec]:
        block = self.subjects[key.bundle].manifest.blocks[key.block]
        return block, block.variants[key.variant]

    def table_us(self, key: Key, pressure: float) -> int:
        """As the bundle has it."""
        levels = self.subjects[key.bundle].manifest.pressure_levels
        return LatencyTable(levels, self.spec(key)[1].latency_us).latency_us(key.cores, pressure)

    def kind(self, key: Key) -> str:
        """The class of a block: the layer it is named after, or the algorithm where that is another than the plain one."""
        block, variant = self.spec(key)
        return variant.algorithm if variant.algorithm != "direct" else block.name.partition("-")[2] or block.name

    def keys(self, unit: Unit) -> list[Key]:
        chosen = self.subjects[unit.bundle].chosen(unit)
        return [Key(unit.bundle, unit.first_block + i, variant, unit.cores) for i, variant in enumerate(chosen)]

    def pressure_of(self, beside: Unit | Outsider | None) -> float:
        """What somebody beside presses with, 0..1: a unit by its traffic over its time, as the core reckons it; an outsider by
        the level of streaming antagonists that the probe cannot tell from it, as a sampler would say."""
        match beside:
            case Unit():
                keys = self.keys(beside)
                moved = sum(self.spec(key)[1].traffic_bytes for key in keys)
                return min(1.0, moved / sum(self.table_us(key, 0.0) for key in keys) / self.bandwidth_bytes_per_us)
            case Outsider(kind, level):
                rungs = self.profile.rungs(kind)
                felt = np.interp(level, [0.0, *(r.level for r in rungs)], [1.0, *(r.slowdown_median for r in rungs)])
                return self.profile.pressure(float(felt))
            case None:
                return 0.0


@dataclass(frozen=True, slots=True)
class Examples:
    """Blocks in co-runs, one a row."""

    keys: tuple[Key, ...]
    kinds: npt.NDArray[np.str_]
    features: Floats  # what a learner may look at, pressure first
    table_us: Floats  # by the bundle's table, at this pressure
    quiet_us: Floats  # as measured here, with nobody beside
    slowdown: Floats  # by the bundle's table: at this pressure over on a quiet machine
    runs: Ints  # number of the co-run
    times: tuple[Floats, ...]  # microseconds, one a run of the block

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: npt.NDArray[np.bool_]) -> "Examples":
        def of(values: Sequence[object]) -> tuple[object, ...]:
            return tuple(value for value, wanted in zip(values, rows, strict=True) if wanted)

        arrays = (a[rows] for a in (self.kinds, self.features, self.table_us, self.quiet_us, self.slowdown, self.runs))
        return Examples(of(self.keys), *arrays, of(self.times))  # type: ignore[arg-type]

    def plus(self, others: "Examples") -> "Examples":
        """`others` behind these; their co-runs get other numbers."""
        later = replace(others, runs=others.runs + 1 + max(self.runs, default=-1))
        columns = ((getattr(self, field.name), getattr(later, field.name)) for field in fields(Examples))
        return Examples(*(a + b if isinstance(a, tuple) else np.concatenate([a, b]) for a, b in columns))


class Predictor(Protocol):
    """Foretells examples' times, one each, in microseconds. What its p95 covers is for a margin to see to."""

    @property
    def name(self) -> str: ...

    def median_us(self, examples: Examples) -> Floats: ...

    def p95_us(self, examples: Examples) -> Floats: ...


class Table:
    """The bundles' tables, as they are."""

    name = "table"

    def median_us(self, examples: Examples) -> Floats:
        return examples.table_us

    p95_us = median_us


class Anchored:
    """The slowdown is the tables', the time that is slowed down is what it was on this host with nobody beside."""

    name = "anchored table"

    def median_us(self, examples: Examples) -> Floats:
        return examples.quiet_us * examples.slowdown

    p95_us = median_us


def errors(times: Sequence[Floats], foretold_us: Floats) -> Floats:
    """Of each example: how far what was foretold lies from the median of its times, as a share of that."""
    measured = np.array([np.median(each) for each in times])
    return np.abs(foretold_us - measured) / measured


def quiet_times(runs: Iterable[CoRun], host: Host) -> dict[Key, float]:
    """The median of each block's time over its runs with nobody beside."""
    alone: dict[Key, list[int]] = {}
    for run in runs:
        if run.beside is None:
            for key, times in zip(host.keys(run.victim), run.block_us, strict=True):
                alone.setdefault(key, []).extend(times)
    return {key: float(np.median(times)) for key, times in alone.items()}


def examples_of(runs: Sequence[CoRun], quiet: Mapping[Key, float], host: Host) -> Examples:
    """One for each block of each co-run. Where a block's quiet time was never measured here, the table's stands in."""
    rows = [
        (key, host.pressure_of(run.beside), number, np.array(times, float))
        for number, run in enumerate(runs)
        for key, times in zip(host.keys(run.victim), run.block_us, strict=True)
    ]
    return _examples(rows, quiet, host)


def questions(keys: Sequence[Key], pressure: float, quiet: Mapping[Key, float], host: Host) -> Examples:
    """Examples without times: what is to be foretold at this pressure."""
    return _examples([(key, pressure, 0, np.empty(0)) for key in keys], quiet, host)


def _examples(rows: Sequence[tuple[Key, float, int, Floats]], quiet: Mapping[Key, float], host: Host) -> Examples:
    keys, pressures, numbers, times = ([row[i] for row in rows] for i in range(4)) if rows else ([], [], [], [])
    calm = [float(host.table_us(key, 0.0)) for key in keys]
    table = [float(host.table_us(key, pressure)) for key, pressure in zip(keys, pressures, strict=True)]
    quiet_us = [quiet.get(key, us) for key, us in zip(keys, calm, strict=True)]
    features = [_features(host, *asked) for asked in zip(keys, pressures, quiet_us, strict=True)]
    return Examples(
        keys=tuple(keys),
        kinds=np.array([host.kind(key) for key in keys], str),
        features=np.array(features, float).reshape(len(keys), -1),
        table_us=np.array(table),
        quiet_us=np.array(quiet_us),
        slowdown=np.array(table) / np.array(calm),
        runs=np.array(numbers, np.int64),
        times=tuple(times),
    )


def _features(host: Host, key: Key, pressure: float, quiet_us: float) -> tuple[float, ...]:
    block, variant = host.spec(key)
    machine = host.profile.machine

    def slowed(rows: Mapping[int, tuple[int, ...]]) -> float:
        """At full pressure, by the compiler's measurement; 1.0 where it made none."""
        row = rows.get(key.cores) or next(iter(rows.values()), (1,))
        return row[-1] / row[0]

    return (
        pressure,
        log(quiet_us),
        variant.traffic_bytes / quiet_us / host.bandwidth_bytes_per_us,
        variant.working_set_bytes / machine.l2_bytes,
        block.flops / quiet_us / 1e3,  # GFLOP/s
        slowed(variant.latency_us),
        slowed(variant.cache_latency_us),
        variant.pressure,
        float(variant.precision == "bf16"),
        float(key.cores),
    )
