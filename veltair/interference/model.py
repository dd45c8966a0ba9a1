"""How long a block takes beside others: what a model of that is told, and what the measured tables answer.

A model foretells the median and the p95 of a block's time from its variant, its cores and what presses on it. What presses is
one number, as the scheduler core reckons it, so that whatever is foretold can be asked for by the core at each decision.
`Table` interpolates what the compiler measured; `Anchored` does so from times measured on this host with nobody beside.
Another model (`learnt`) is to beat both on co-runs that none of them has seen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from veltair.bundle.format import BlockSpec, VariantSpec
from veltair.core.interference import own_pressure
from veltair.core.values import LatencyTable
from veltair.interference.corun import CoRun, Outsider, Subject, Unit
from veltair.interference.profile import HostProfile

Floats = npt.NDArray[np.float64]


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
                return own_pressure(moved, sum(self.table_us(key, 0.0) for key in keys), self.bandwidth_bytes_per_us)
            case Outsider("stream", level):
                return level
            case Outsider("cache", level):
                rungs = self.profile.rungs("cache")
                felt = np.interp(level, [0.0, *(r.level for r in rungs)], [1.0, *(r.slowdown_median for r in rungs)])
                return self.profile.pressure(float(felt))
            case _:  # nobody, or one that only computes
                return 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A block in a co-run, or what is to be foretold of one: then it has no times."""

    key: Key
    kind: str
    run: int  # number of the co-run
    features: tuple[float, ...]  # what a learner may look at
    table_us: float  # by the bundle's table, at this pressure
    slowdown: float  # the same over its time on a quiet machine
    quiet_us: float  # as measured here, with nobody beside
    times: Floats  # microseconds, one a run of the block


Examples = Sequence[Example]


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
        return np.array([each.table_us for each in examples])

    p95_us = median_us


class Anchored:
    """The slowdown is the tables', the time that is slowed down is what it was on this host with nobody beside."""

    name = "anchored table"

    def median_us(self, examples: Examples) -> Floats:
        return np.array([each.quiet_us * each.slowdown for each in examples])

    p95_us = median_us


class Alone:
    """What was measured on this host with nobody beside, whoever is: how far one gets without knowing."""

    name = "time alone"

    def median_us(self, examples: Examples) -> Floats:
        return np.array([each.quiet_us for each in examples])

    p95_us = median_us


def errors(examples: Sequence[Floats], foretold_us: Floats) -> Floats:
    """Of each example's times: how far what was foretold lies from their median, as a share of that."""
    measured = np.array([np.median(times) for times in examples])
    off: Floats = np.abs(foretold_us - measured) / measured
    return off


def quiet_times(runs: Iterable[CoRun], host: Host) -> dict[Key, float]:
    """The median of each block's time over its runs with nobody beside."""
    alone: dict[Key, list[int]] = {}
    for run in runs:
        if run.beside is None:
            for key, times in zip(host.keys(run.victim), run.block_us, strict=True):
                alone.setdefault(key, []).extend(times)
    return {key: float(np.median(times)) for key, times in alone.items()}


def examples_of(runs: Sequence[CoRun], quiet: Mapping[Key, float], host: Host) -> list[Example]:
    """One for each block of each co-run. Where a block's quiet time was never measured here, the table's stands in."""
    pressures = [host.pressure_of(run.beside) for run in runs]
    return [
        _example(key, pressures[number], quiet, host, number, times)
        for number, run in enumerate(runs)
        for key, times in zip(host.keys(run.victim), run.block_us, strict=True)
    ]


def questions(keys: Sequence[Key], pressure: float, quiet: Mapping[Key, float], host: Host) -> list[Example]:
    """What is to be foretold at this pressure."""
    return [_example(key, pressure, quiet, host) for key in keys]


def _example(
    key: Key, pressure: float, quiet: Mapping[Key, float], host: Host, run: int = 0, times: Sequence[int] = ()
) -> Example:
    calm_us, table_us = host.table_us(key, 0.0), host.table_us(key, pressure)
    quiet_us = quiet.get(key, float(calm_us))
    features = _features(host, key, pressure, quiet_us)
    measured = np.array(times, float)
    return Example(key, host.kind(key), run, features, float(table_us), table_us / calm_us, quiet_us, measured)


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
