"""Ours against theirs, as rows: every peer of the same precision by itself, and the mean over models against the best one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from veltair.bench.rows import Row
from veltair.bench.turns import middle

NO_SLOWER, MEAN_FASTER = 1.0, 1.15


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to run a model on `cores` cores; `seconds` has one time a round, in the same rounds for all."""

    name: str
    version: str
    precision: str
    ours: bool
    seconds: tuple[float, ...]

    @property
    def label(self) -> str:
        return f"{self.name} {self.version} {self.precision}"


@dataclass(frozen=True, slots=True)
class Contest:
    """All contenders of one model on one number of cores."""

    model: str
    cores: int
    contenders: tuple[Contender, ...]

    @property
    def where(self) -> str:
        return f"{self.model}, {on_cores(self.cores)}"


@dataclass(frozen=True, slots=True)
class Versus:
    """One of ours against one peer of its precision. `ratio`: how many times as fast ours is, the median over rounds."""

    contest: Contest
    ours: Contender
    peer: Contender
    ratio: float
    spread: float
    best: bool  # of the peers of this precision, the one to beat


def on_cores(cores: int) -> str:
    return f"{cores} core{'s' if cores != 1 else ''}"


def versus(contest: Contest) -> list[Versus]:
    """Ours first by precision, peers in their order."""
    found = []
    for ours in (c for c in contest.contenders if c.ours):
        pairs = []
        for peer in (c for c in contest.contenders if not c.ours and c.precision == ours.precision):
            pairs.append((peer, *middle([t / o for t, o in zip(peer.seconds, ours.seconds, strict=True)])))
        best = min(pairs, key=lambda pair: pair[1], default=None)
        found += [Versus(contest, ours, *pair, best=pair is best) for pair in pairs]
    return found


def rows(contest: Contest, machine: str, seed: int) -> list[Row]:
    """The latency of each contender, then what ours does in a second against each peer; only the best peer is a target."""
    made = []
    for each in contest.contenders:
        seconds, spread = middle(each.seconds)
        made.append(
            Row(
                case=f"{contest.where}, {each.precision}, {each.name}", metric="latency p50", value=seconds * 1e3, unit="ms",
                spread=spread, machine=machine, seed=seed,
            )
        )  # fmt: skip
    for pair in versus(contest):
        made.append(
            Row(
                case=f"{contest.where}, {pair.ours.precision}", metric="rate, one at a time",
                value=1 / middle(pair.ours.seconds)[0], unit="/s", against=pair.peer.label,
                ratio=pair.ratio, target=f">= {NO_SLOWER:.2f}x the best" if pair.best else None,
                met=pair.ratio >= NO_SLOWER if pair.best else None, spread=pair.spread, machine=machine, seed=seed,
            )
        )  # fmt: skip
    return made


def mean_rows(contests: Sequence[Contest], machine: str, seed: int) -> list[Row]:
    """For every number of cores and precision the geometric mean over models of the ratio to the best peer."""
    ratios: dict[tuple[int, str], list[float]] = {}
    for contest in contests:
        for pair in versus(contest):
            if pair.best:
                ratios.setdefault((contest.cores, pair.ours.precision), []).append(pair.ratio)
    made = []
    for (cores, precision), found in sorted(ratios.items()):
        mean = math.exp(sum(map(math.log, found)) / len(found))
        slower = sum(ratio < NO_SLOWER for ratio in found)
        made.append(
            Row(
                case=f"{len(found)} model{'s' if len(found) != 1 else ''}, {on_cores(cores)}, {precision}",
                metric="speed, geometric mean", value=mean, unit="x", against="the best peer of each model", ratio=mean,
                target=f">= {MEAN_FASTER}x", met=mean >= MEAN_FASTER, machine=machine, seed=seed,
            )
        )  # fmt: skip
        made.append(
            Row(
                case=made[-1].case, metric="models slower than the best peer", value=slower, unit="", target="0",
                met=not slower, machine=machine, seed=seed,
            )
        )  # fmt: skip
    return made
