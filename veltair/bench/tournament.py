"""The largest load of every contender of a mix, probe by probe in turns (A B C, C B A, ...), so that drift hits all alike.

Every round draws its arrivals from its own seed, and those of a probe from that and its load alone: contenders that are probed at
one load meet the very same requests at the very same times.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np

from veltair.bench.contenders import BF16, Contender, Server
from veltair.bench.foresee import at_load
from veltair.bench.largest import Estimate, Floats, LargestLoad, drawn_anew, estimate, margin, probe_of, probe_seconds
from veltair.bench.openloop import NO_ANSWER
from veltair.bench.result import LATENESS_LIMIT_US, PolicyResult
from veltair.bench.rows import Row
from veltair.bench.scenario import Scenario

LOAD = "load with every tenant in QoS"
OVER_FCFS, OVER_PEER = f"{LOAD}, over fcfs", f"{LOAD}, over the best peer"
LATENESS = "generator lateness p99"
BASE, OURS = "fcfs", "veltair"
OVER_BASE = {"light": 2.0, "medium": 1.15, "heavy": 1.15, "mixed": 2.5}  # of OURS, by mix
OVER_BEST_PEER = 1.5
SECONDS_A_PROBE = 8.0  # until some were counted


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: how many probes of each contender, and of each tenant alone."""

    rounds: int
    alone_rounds: int
    requests: int  # in one probe, within `least_s` and `most_s`
    least_s: float
    most_s: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender and what it is to serve: the mix, or one tenant of it alone."""

    contender: Contender
    scenario: Scenario
    alone: bool = False

    @property
    def case(self) -> str:
        return f"{self.scenario.name}, {self.contender.label}"


@dataclass
class Standing:
    """What was found of one entry."""

    entry: Entry
    search: LargestLoad
    seed: int
    lateness_us: int | None = None  # the largest p99 of the generator in a probe that was kept

    @cached_property
    def drawn(self) -> Floats:
        return drawn_anew(self.search, self.seed)

    @property
    def load(self) -> float:
        """In requests a second."""
        return float(self.drawn[0])


@dataclass(slots=True)
class Pace:
    """How much is left, from what a probe took so far."""

    all_probes: int
    now_s: Callable[[], float] = time.monotonic
    probes: int = 0
    spent_s: float = 0.0

    @contextmanager
    def probe(self) -> Iterator[None]:
        began_s = self.now_s()
        yield
        self.probes += 1
        self.spent_s += self.now_s() - began_s

    def left_s(self) -> float:
        a_probe = self.spent_s / self.probes if self.probes else SECONDS_A_PROBE
        return (self.all_probes - self.probes) * a_probe


Told = Callable[[str], None]


def rounds_of(entry: Entry, effort: Effort) -> int:
    return effort.alone_rounds if entry.alone else effort.rounds


def compete(
    entries: Sequence[Entry],
    servers: Sequence[Server],
    starts: Sequence[float],
    effort: Effort,
    seed: int,
    pace: Pace,
    told: Told,
) -> list[Standing]:
    """`starts`: the load at which to probe each entry first."""
    standings = [
        Standing(entry, LargestLoad(start, rounds_of(entry, effort)), seed) for entry, start in zip(entries, starts, strict=True)
    ]
    for turn in range(effort.rounds):
        pairs = list(zip(standings, servers, strict=True))
        for standing, server in pairs if turn % 2 == 0 else reversed(pairs):
            if turn >= rounds_of(standing.entry, effort):
                continue
            if (load := standing.search.next_load()) is None:  # it carries nothing
                pace.all_probes -= 1
                continue
            seeded = msgspec.structs.replace(standing.entry.scenario, seed=seed + turn)
            seconds = probe_seconds(load, requests=effort.requests, least_s=effort.least_s, most_s=effort.most_s)
            with pace.probe():
                result = server.probe(at_load(seeded, load, seconds))
            standing.search.tell(probe_of(load, result.tenants))
            if margin(result) >= 0:
                standing.lateness_us = max(standing.lateness_us or 0, result.lateness_p99_us)
            told(_line(standing, seeded.seed, load, result, pace))
    return standings


def _line(standing: Standing, seed: int, load: float, result: PolicyResult, pace: Pace) -> str:
    minutes, seconds = divmod(round(pace.left_s()), 60)
    shares = ", ".join(f"{t.name} {t.in_qos or 0:.1%}" for t in result.tenants)
    given_up = "; given up" if any(NO_ANSWER in t.errors for t in result.tenants) else ""
    late = f"; the generator was late by {result.lateness_p99_us / 1000:.1f} ms" if result.generator_was_late else ""
    left, so_far = f"about {minutes}:{seconds:02} left", standing.search.answer()
    return f"[{left}] {standing.entry.case}, seed {seed}, {load:.1f}/s: {shares}{given_up}{late} (carries about {so_far:.1f}/s)"


# Rows ------------------------------------------------------------------------------------------------------------------


def rows(mix: str, standings: Sequence[Standing], machine: str, seed: int) -> list[Row]:
    """The load of each entry; of ours over FCFS and over the best peer that its tenants would permit; then the lateness.

    A spread is that of what the row is about: of the load, or of the ratio. A goal is met where the ratio reaches it.
    """
    made: list[Row] = []
    by_name = {standing.entry.contender.name: standing for standing in standings if not standing.entry.alone}
    for standing in standings:
        contender = standing.entry.contender
        made.append(
            Row(case=standing.entry.case, metric=LOAD, value=standing.load, unit="/s", spread=estimate(standing.drawn).spread,
                machine=machine, seed=seed)
        )  # fmt: skip
        if not contender.ours or standing.entry.alone:
            continue
        base = by_name.get(BASE + BF16 * (contender.precision == "bf16"))
        for metric, other, goal in (
            (OVER_FCFS, base, OVER_BASE.get(mix)),
            (OVER_PEER, best_peer(contender, by_name), OVER_BEST_PEER),
        ):
            if other is None or other is standing:
                continue
            ratio = over(standing, other) if other.load else None
            target = goal if contender.policy == OURS else None
            made.append(
                Row(
                    case=standing.entry.case, metric=metric, value=standing.load, unit="/s", against=other.entry.contender.label,
                    ratio=None if ratio is None else ratio.value, target=None if target is None else f">= {target:g}x",
                    met=None if target is None else ratio is not None and ratio.value >= target,
                    spread=None if ratio is None else ratio.spread, machine=machine, seed=seed,
                )
            )  # fmt: skip
    for standing in standings:
        late_us = standing.lateness_us
        made.append(
            Row(
                case=standing.entry.case, metric=LATENESS, value=None if late_us is None else late_us / 1000, unit="ms",
                target=f"<= {LATENESS_LIMIT_US / 1000:g} ms", met=None if late_us is None else late_us <= LATENESS_LIMIT_US,
                machine=machine, seed=seed,
            )
        )  # fmt: skip
    return made


def best_peer(contender: Contender, by_name: Mapping[str, Standing]) -> Standing | None:
    """The peer that carried most, of those no coarser than `contender`."""
    peers = [s for s in by_name.values() if not s.entry.contender.ours]
    permitted = [s for s in peers if contender.precision == "bf16" or s.entry.contender.precision == "fp32"]
    return max(permitted, key=lambda s: s.load, default=None)


def over(mine: Standing, theirs: Standing) -> Estimate:
    """What one carries over the other, by rounds drawn alike."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = mine.drawn / theirs.drawn
    return estimate(ratios[np.isfinite(ratios)])
