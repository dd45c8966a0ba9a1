"""What the page draws from: the result, put in the order of its tenants, with what must be computed computed here.

Scripts only draw: every number on the page is in this data and can be tested. Timelines are columns, and strings that repeat
(reasons, sets of cores, requests) are written once and referred to by their place.
"""

from collections.abc import Hashable, Sequence
from math import log2
from typing import Any, Generic, TypeVar

import msgspec

from veltair.simulate.result import Detail, Latency, LoadPoint, PolicyResult, Result, Scenario, TenantOutcome, Timeline

BASELINE = "fcfs"
OWN = "veltair"  # and its parts, "veltair-...", which are no rivals of it

T = TypeVar("T", bound=Hashable)


class _Once(Generic[T]):
    """Each distinct value once, in order of appearance."""

    def __init__(self) -> None:
        self._places: dict[T, int] = {}

    def place(self, value: T) -> int:
        return self._places.setdefault(value, len(self._places))

    def values(self) -> list[T]:
        return list(self._places)


def page_data(result: Result) -> dict[str, Any]:
    """Plain JSON values. Tenants are named by their place in `scenario.tenants`, policies by theirs in `policies`."""
    policies = result.policies
    names = [each.name for each in policies]
    rivals = [i for i, name in enumerate(names) if name != OWN and not name.startswith(f"{OWN}-")]
    best_rival = max(rivals, key=lambda i: policies[i].largest.per_s, default=None)
    baseline = names.index(BASELINE) if BASELINE in names else None
    return {
        "scenario": msgspec.to_builtins(result.scenario, str_keys=True),
        "lead": names.index(OWN) if OWN in names else 0,
        "baseline": baseline,
        "best_rival": best_rival,
        "policies": [
            {
                "name": each.name,
                "largest": msgspec.to_builtins(each.largest),
                "over_baseline": _ratio(each, None if baseline is None else policies[baseline]),
                "over_best_rival": _ratio(each, None if best_rival is None else policies[best_rival]),
                "limit": _limit(each.curve, result.scenario),
                "curve": _curve(each.curve, result.scenario),
                "at_load": _detail(each.at_load, result.scenario),
                "at_largest": None if each.at_largest is None else _detail(each.at_largest, result.scenario),
            }
            for each in policies
        ],
    }


def _ratio(policy: PolicyResult, other: PolicyResult | None) -> dict[str, Any] | None:
    """Of largest loads; seeds are compared with themselves, since they bring the same arrivals."""
    if other is None or other is policy or other.largest.per_s <= 0:
        return None
    pairs = zip(policy.largest.per_seed_per_s, other.largest.per_seed_per_s, strict=True)
    return {"of": policy.largest.per_s / other.largest.per_s, "by_seed": [mine / its for mine, its in pairs if its > 0]}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _worst(point: LoadPoint, scenario: Scenario) -> int | None:
    """The tenant that is furthest below what it was promised, or nearest to it; the mean of the seeds decides."""
    margins = [
        (mean - tenant.percentile, place)
        for place, tenant in enumerate(scenario.tenants)
        if (mean := _mean(point.attainment.get(tenant.name, ()))) is not None
    ]
    return min(margins)[1] if margins else None


def _limit(curve: Sequence[LoadPoint], scenario: Scenario) -> dict[str, Any] | None:
    """Who was the first to lose what it was promised, and at which of the loads tried. None: nobody at any of them."""
    for point in curve:
        worst = _worst(point, scenario)
        if worst is None:
            continue
        share = _mean(point.attainment[scenario.tenants[worst].name])
        if share is not None and share < scenario.tenants[worst].percentile:
            return {"tenant": worst, "per_s": point.per_s, "attainment": share}
    return None


def _curve(curve: Sequence[LoadPoint], scenario: Scenario) -> dict[str, Any]:
    def over_seeds(point: LoadPoint, name: str) -> list[float] | None:
        shares = point.attainment.get(name, ())
        mean = _mean(shares)
        return None if mean is None else [mean, min(shares), max(shares)]

    return {
        "per_s": [point.per_s for point in curve],
        "of_capacity": [point.of_capacity for point in curve],
        "kept": [sum(point.kept) for point in curve],  # seeds
        "worst": [_worst(point, scenario) for point in curve],
        "attainment": [[over_seeds(point, tenant.name) for point in curve] for tenant in scenario.tenants],
    }


def _detail(detail: Detail, scenario: Scenario) -> dict[str, Any]:
    of_tenant = {outcome.name: outcome for outcome in detail.tenants}
    plain = {name: getattr(detail, name) for name in detail.__struct_fields__ if name not in ("tenants", "timeline")}
    return plain | {
        "tenants": [_outcome(of_tenant.get(tenant.name)) for tenant in scenario.tenants],
        "timeline": None if detail.timeline is None else _timeline(detail.timeline, scenario),
    }


def _outcome(outcome: TenantOutcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    plain = {name: getattr(outcome, name) for name in outcome.__struct_fields__ if name != "latency"}
    latency = outcome.latency
    if latency is None:
        return plain | {"latency": None}
    times = {name: getattr(latency, name) for name in ("mean_us", "p50_us", "p95_us", "p99_us")}
    return plain | {"latency": times | {"answered_within": _answered_within(latency, outcome.asked)}}


def _answered_within(latency: Latency, asked: int) -> list[list[float]]:
    """(time in us, share of all requests answered within it): what was refused or dropped is never answered."""
    points: list[list[float]] = []
    seen = 0
    for low_us, count in latency.histogram:
        bin_ = round(8 * log2(max(low_us, 1)))
        begin_us, end_us = 2 ** (bin_ / 8), 2 ** ((bin_ + 1) / 8)
        if not points or points[-1][0] < begin_us * 0.999:
            points.append([round(begin_us, 1), seen / asked])
        seen += count
        points.append([round(end_us, 1), seen / asked])
    return points


def _timeline(timeline: Timeline, scenario: Scenario) -> dict[str, Any]:
    place_of = {tenant.name: place for place, tenant in enumerate(scenario.tenants)}
    requests: _Once[str] = _Once()
    reasons: _Once[str] = _Once()
    models: _Once[str] = _Once()  # of a tenant with many copies of one, the copy
    cores: _Once[tuple[int, ...]] = _Once()
    whats: _Once[str] = _Once()
    leases, marks = timeline.leases, timeline.marks
    return {
        "begin_us": timeline.begin_us,
        "end_us": timeline.end_us,
        "lease": {
            "begin": [each.begin_us for each in leases],
            "end": [each.end_us for each in leases],
            "cores": [cores.place(each.cores) for each in leases],
            "tenant": [place_of[each.tenant] for each in leases],
            "model": [models.place(each.model) for each in leases],
            "request": [requests.place(each.request) for each in leases],
            "first": [each.first_block for each in leases],
            "last": [each.end_block for each in leases],
            "predicted": [each.predicted_us for each in leases],
            "pressure": [round(each.pressure, 3) for each in leases],
            "reason": [reasons.place(each.reason) for each in leases],
            "riders": [each.riders for each in leases],
        },
        "mark": {
            "at": [each.at_us for each in marks],
            "what": [whats.place(each.what) for each in marks],
            "tenant": [place_of.get(each.tenant, -1) for each in marks],  # weights belong to a model, not to a tenant
            "model": [models.place(each.model) for each in marks],
            "request": [requests.place(each.request) for each in marks],
            "reason": [reasons.place(each.reason) for each in marks],
        },
        "cores": [list(each) for each in cores.values()],
        "models": models.values(),
        "requests": requests.values(),
        "reasons": reasons.values(),
        "whats": whats.values(),
    }
