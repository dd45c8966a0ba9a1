"""What adapting to interference is worth: three servers, alike but for what they know and may choose, at the same arrivals.

- ADAPTIVE    all variants; tables that know pressure; told of processes that are not ours
- STATIC      the same with one variant for each layer: the one that is fastest at some level of pressure, the best such level
- UNAWARE     all variants; tables of a quiet machine alone; told of nothing

One server is up at a time, so that nobody is measured beside a watch of another's. They take turns by search and seed
(A B C A B C), and an outsider, where there is one, runs during probes alone.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import msgspec

from veltair.bench.contenders import Server, total_per_s
from veltair.bench.foresee import at_load
from veltair.bench.largest import LargestLoad, margin, middle, probe_of, probe_seconds
from veltair.bench.openloop import NO_ANSWER
from veltair.bench.outsider import Switch
from veltair.bench.result import LATENESS_LIMIT_US, PolicyResult
from veltair.bench.rows import Row
from veltair.bench.scenario import Scenario

ADAPTIVE, STATIC, UNAWARE = "adaptive", "best static variants", "no interference awareness"
ORDER = (ADAPTIVE, STATIC, UNAWARE)
LOAD, LATENESS = "load at 95 %", "generator lateness p99"

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. Seeds after the first are left out where `budget_s` of one scenario would not do."""

    seeds: int
    probes: int
    requests: int  # in one probe, within `least_s` and `most_s`
    least_s: float
    most_s: float
    budget_s: float


@dataclass(slots=True)
class Carried:
    """What one contender carries, in requests a second, a load for each seed."""

    label: str
    loads: list[float] = field(default_factory=list)
    lateness_us: int | None = None  # the largest p99 of the generator in a probe that was kept


class Disturbed:
    """A server that is probed beside an outsider, which rests at other times."""

    def __init__(self, server: Server, switch: Switch) -> None:
        self._server, self._switch = server, switch

    def probe(self, scenario: Scenario) -> PolicyResult:
        self._switch(True)
        try:
            return self._server.probe(scenario)
        finally:
            self._switch(False)

    def close(self) -> None:
        self._server.close()


Opened = AbstractContextManager[Server]


def compete(
    scenario: Scenario,
    servers: Mapping[str, Callable[[], Opened]],
    statics: Mapping[str, Callable[[], Opened]],
    effort: Effort,
    seed: int,
    told: Told,
    now_s: Callable[[], float] = time.monotonic,
) -> list[Carried]:
    """`servers` opens ADAPTIVE and UNAWARE, `statics` the choices for STATIC, by what to call them.

    The static choice is that which fares best at the load that ADAPTIVE carries with the first seed.
    """
    until_s = now_s() + effort.budget_s
    found = {name: Carried(name) for name in ORDER}
    opened, starts = dict(servers), dict.fromkeys(ORDER, 0.0)
    for turn in range(effort.seeds):
        began_s = now_s()
        seeded = msgspec.structs.replace(scenario, seed=seed + turn)
        for name in ORDER:
            own, start = found[name], starts[name] or starts[ADAPTIVE] or total_per_s(scenario)
            if name not in opened:
                picking_s = now_s()
                label = _best_static(seeded, statics, start, effort, told)
                own.label, opened[name] = f"{name} ({label})", statics[label]
                began_s += now_s() - picking_s
            with opened[name]() as server:
                own.loads.append(_largest(server, seeded, own, start, effort, told))
            starts[name] = own.loads[-1]
        if turn + 1 < effort.seeds and 2 * now_s() - began_s > until_s:
            told(f"{scenario.name}: no time for more than {turn + 1} of {effort.seeds} seeds")
            break
    return list(found.values())


def _best_static(scenario: Scenario, statics: Mapping[str, Callable[[], Opened]], load: float, effort: Effort, told: Told) -> str:
    """One probe each at this load."""
    if len(statics) == 1:
        return next(iter(statics))
    margins = {}
    for label, opened in statics.items():
        with opened() as server:
            margins[label] = margin(_probed(server, scenario, load, effort, label, told))
    return max(margins, key=lambda label: margins[label])


def _largest(server: Server, scenario: Scenario, own: Carried, start: float, effort: Effort, told: Told) -> float:
    search = LargestLoad(start, effort.probes)
    while (load := search.next_load()) is not None:
        result = _probed(server, scenario, load, effort, own.label, told)
        search.tell(probe_of(load, result.tenants))
        if margin(result) >= 0:
            own.lateness_us = max(own.lateness_us or 0, result.lateness_p99_us)
    return search.answer()


def _probed(server: Server, scenario: Scenario, load: float, effort: Effort, label: str, told: Told) -> PolicyResult:
    """What the tenants that count got."""
    seconds = probe_seconds(load, requests=effort.requests, least_s=effort.least_s, most_s=effort.most_s)
    result = server.probe(at_load(scenario, load, seconds))
    counted = tuple(t for t, asked in zip(result.tenants, scenario.tenant, strict=True) if not asked.background)
    shares = ", ".join(f"{t.name} {t.in_qos or 0:.1%}" for t in result.tenants)
    given_up = "; given up" if any(NO_ANSWER in tenant.errors for tenant in result.tenants) else ""
    late = f"; the generator was late by {result.lateness_p99_us / 1000:.1f} ms" if result.generator_was_late else ""
    told(f"{scenario.name}, {label}, seed {scenario.seed}, {load:.1f}/s: {shares}{given_up}{late}")
    return replace(result, tenants=counted)


# Rows ------------------------------------------------------------------------------------------------------------------


def rows(case: str, found: Sequence[Carried], machine: str, seed: int, resolution: float) -> list[Row]:
    """What each carries; ADAPTIVE over each of the others, seed by seed; the generator's lateness, where there was one.

    `resolution` is how far, relatively, the ratio of two searches may be off though nothing was by chance.
    """
    made = []
    for each in found:
        load, spread = middle(each.loads)
        several = len(each.loads) > 1
        made.append(
            Row(case=f"{case}, {each.label}", metric=LOAD, value=load, unit="/s", spread=spread if several else None,
                machine=machine, seed=seed)
        )  # fmt: skip
    adaptive = found[0]
    for other in found[1:]:
        made.append(_gain(case, adaptive, other, machine, seed, resolution))
    for each in found:
        if (late_us := each.lateness_us) is not None:
            made.append(
                Row(
                    case=f"{case}, {each.label}", metric=LATENESS, value=late_us / 1000, unit="ms",
                    target=f"<= {LATENESS_LIMIT_US / 1000:g} ms", met=late_us <= LATENESS_LIMIT_US, machine=machine, seed=seed,
                )
            )  # fmt: skip
    return made


def _gain(case: str, adaptive: Carried, other: Carried, machine: str, seed: int, resolution: float) -> Row:
    """A gain is one that is above 1 by more than it spreads over seeds and than the searches can tell; one seed cannot say."""
    ratios = [mine / theirs for mine, theirs in zip(adaptive.loads, other.loads, strict=True) if theirs]
    ratio, spread = middle(ratios) if ratios else (None, 0.0)
    several = ratio is not None and len(ratios) > 1
    return Row(
        case=f"{case}, {ADAPTIVE} over {other.label}", metric=LOAD, value=ratio, unit="x", spread=spread if several else None,
        target=f"> 1x, beyond spread and ±{resolution:.0%}",
        met=(ratio or 0.0) * (1 - max(spread, resolution)) > 1 if several else None, machine=machine, seed=seed,
    )  # fmt: skip
