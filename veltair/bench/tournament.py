"""The largest load of every contender of a mix, probe by probe in turns (A B C A B C), so that drift hits all alike.

Every probe of one seed draws its arrivals from that seed and its load alone: contenders that are probed at one load meet the
very same requests at the very same times.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from veltair.bench.contenders import BF16, Contender, Server
from veltair.bench.foresee import at_load
from veltair.bench.largest import LargestLoad, margin, middle, probe_seconds
from veltair.bench.openloop import NO_ANSWER
from veltair.bench.result import LATENESS_LIMIT_US, PolicyResult
from veltair.bench.rows import Row
from veltair.bench.scenario import Scenario

LOAD = "load with every tenant in QoS"
OVER_PEER = f"{LOAD}, over the best peer"
LATENESS = "generator lateness p99"
BASE, OURS = "fcfs", "veltair"
OVER_BASE = {"light": 2.0, "medium": 1.15, "heavy": 1.15, "mixed": 2.5}  # of OURS, by mix
OVER_BEST_PEER = 1.5
PROBES_A_SEARCH, SECONDS_A_PROBE = 3.0, 8.0  # until some were counted


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. `rival_seeds`: of contenders without a target; the others run `seeds`."""

    seeds: int
    rival_seeds: int
    probes: int
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

    @property
    def held(self) -> bool:
        """It has a target, or is what a target is held against."""
        return not self.alone and (self.contender.policy in (None, OURS) or self.contender.name.removesuffix(BF16) == BASE)


@dataclass(slots=True)
class Standing:
    """What was found of one entry: a load for each seed, in requests a second."""

    entry: Entry
    loads: list[float] = field(default_factory=list)
    lateness_us: int | None = None  # the largest p99 of the generator in a probe that was kept


@dataclass(slots=True)
class Pace:
    """How much is left, from what a probe and a search took so far."""

    searches: int
    now_s: Callable[[], float] = time.monotonic
    started_s: float = 0.0
    probes: int = 0
    ended: int = 0
    probes_of_ended: int = 0

    def __post_init__(self) -> None:
        self.started_s = self.now_s()

    def end(self, probes: int) -> None:
        """A search was done after so many probes."""
        self.ended += 1
        self.probes_of_ended += probes

    def left_s(self) -> float:
        a_probe = (self.now_s() - self.started_s) / self.probes if self.probes else SECONDS_A_PROBE
        a_search = self.probes_of_ended / self.ended if self.ended else PROBES_A_SEARCH
        return max(self.searches * a_search - self.probes, self.searches - self.ended) * a_probe


Told = Callable[[str], None]


def seeds_of(entry: Entry, effort: Effort) -> int:
    return effort.seeds if entry.held else min(effort.rival_seeds, effort.seeds)


def searches(entries: Sequence[Entry], effort: Effort) -> int:
    return sum(seeds_of(entry, effort) for entry in entries)


def compete(
    entries: Sequence[Entry],
    servers: Sequence[Server],
    starts: Sequence[float],
    effort: Effort,
    seed: int,
    pace: Pace,
    told: Told,
) -> list[Standing]:
    """`starts`: the load at which to probe each entry first. Later seeds start where the one before ended."""
    standings = [Standing(entry) for entry in entries]
    start = list(starts)
    for turn in range(effort.seeds):
        under_way = {
            number: LargestLoad(start[number], effort.probes)
            for number, entry in enumerate(entries)
            if turn < seeds_of(entry, effort)
        }
        while under_way:
            for number, search in list(under_way.items()):
                if (load := search.next_load()) is None:
                    standings[number].loads.append(search.answer())
                    start[number] = search.answer() or start[number]
                    pace.end(len(search.seen))
                    del under_way[number]
                    continue
                seeded = msgspec.structs.replace(entries[number].scenario, seed=seed + turn)
                seconds = probe_seconds(load, requests=effort.requests, least_s=effort.least_s, most_s=effort.most_s)
                result = servers[number].probe(at_load(seeded, load, seconds))
                search.tell(load, margin(result))
                if search.seen[-1].kept:
                    standings[number].lateness_us = max(standings[number].lateness_us or 0, result.lateness_p99_us)
                pace.probes += 1
                told(_line(entries[number], seeded.seed, load, result, pace))
    return standings


def _line(entry: Entry, seed: int, load: float, result: PolicyResult, pace: Pace) -> str:
    minutes, seconds = divmod(round(pace.left_s()), 60)
    shares = ", ".join(f"{t.name} {t.in_qos or 0:.1%}" for t in result.tenants)
    given_up = "; given up" if any(NO_ANSWER in t.errors for t in result.tenants) else ""
    late = f"; the generator was late by {result.lateness_p99_us / 1000:.1f} ms" if result.generator_was_late else ""
    return f"[about {minutes}:{seconds:02} left] {entry.case}, seed {seed}, {load:.1f}/s: {shares}{given_up}{late}"


# Rows ------------------------------------------------------------------------------------------------------------------


def rows(mix: str, standings: Sequence[Standing], machine: str, seed: int) -> list[Row]:
    """The load of each entry, of ours over FCFS and over the best peer that its tenants would permit; then the lateness."""
    made: list[Row] = []
    by_name = {standing.entry.contender.name: standing for standing in standings if not standing.entry.alone}
    for standing in standings:
        contender = standing.entry.contender
        load, spread = middle(standing.loads)
        ours = contender.ours and not standing.entry.alone
        base = by_name.get(BASE + BF16 * (contender.precision == "bf16")) if ours else None
        peer = best_peer(contender, by_name) if ours else None
        against = [(LOAD, base if base is not standing else None, OVER_BASE.get(mix)), (OVER_PEER, peer, OVER_BEST_PEER)]
        for metric, other, target in against:
            if metric == OVER_PEER and other is None:
                continue
            ratio = None if other is None else paired(standing.loads, other.loads)
            goal = target if contender.policy == OURS and other is not None else None
            made.append(
                Row(
                    case=standing.entry.case, metric=metric, value=load, unit="/s",
                    against=None if other is None else other.entry.contender.label, ratio=ratio,
                    target=None if goal is None else f">= {goal:g}x",
                    met=None if goal is None else ratio is not None and ratio >= goal,
                    spread=spread if len(standing.loads) > 1 else None, machine=machine, seed=seed,
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
    return max(permitted, key=lambda s: middle(s.loads)[0], default=None)


def paired(mine: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The median over seeds of mine over theirs at the same seed; None where theirs carried nothing."""
    ratios = [a / b for a, b in zip(mine, theirs, strict=False) if b]
    return middle(ratios)[0] if ratios else None
