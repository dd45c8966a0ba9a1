"""What the page's scripts draw from, as columns: a hundred thousand units are numbers, not a hundred thousand objects.

Strings that repeat (reasons, variants, rejected choices) are written once and referred to by their place.
"""

from collections.abc import Hashable, Sequence
from dataclasses import asdict
from typing import Any, Generic, TypeVar

from veltair.observe.attribution import Split, attribute, matrix
from veltair.observe.dashboard.disturbed import drifts, outsiders
from veltair.observe.story import RequestStory, Story
from veltair.observe.summary import summarize

# A page of this many units is about 15 MB; beyond it the oldest ones are left out of the charts (never of the numbers).
MAX_UNITS = 200_000
SLOWEST = 60  # listed per run

T = TypeVar("T", bound=Hashable)


class _Table(Generic[T]):
    """Each distinct value once, in order of appearance."""

    def __init__(self) -> None:
        self._places: dict[T, int] = {}

    def place(self, value: T) -> int:
        return self._places.setdefault(value, len(self._places))

    def values(self) -> list[T]:
        return list(self._places)


def run_data(story: Story, label: str, source: str, *, max_units: int = MAX_UNITS) -> dict[str, Any]:
    started, summary = story.run.started, summarize(story)
    tenants: _Table[tuple[str, str]] = _Table()
    for tenant in started.tenants:
        tenants.place((tenant.name, tenant.model))
    first_unit = max(len(story.units) - max_units, 0)
    shown = [
        i for i, request in enumerate(story.requests) if not first_unit or not request.units or request.units[-1] >= first_unit
    ]
    place_of = {id(story.requests[i]): place for place, i in enumerate(shown)}
    request_of_unit: dict[int, int] = {}
    for i in shown:
        request = story.requests[i]
        for unit in request.units:  # of a batch, the request it goes by
            if unit not in request_of_unit or story.units[unit].dispatched.request == request.id:
                request_of_unit[unit] = place_of[id(request)]
    requests = [story.requests[i] for i in shown]
    splits = attribute(story.run)
    begin_us = story.run.end_us - summary.duration_us
    summaries = [{**asdict(tenant), "attainment": tenant.attainment, "met": tenant.met} for tenant in summary.tenants]
    return {
        "label": label,
        "source": source,
        "policy": started.policy,
        "machine": started.machine,
        "version": started.version,
        "wall_time_s": started.wall_time_s,
        "cores": list(started.cores),
        "begin_us": begin_us,
        "end_us": story.run.end_us,
        "lost": story.run.lost_records,
        "hidden_units": first_unit,
        "summary": {**asdict(summary), "tenants": summaries},
        "requests": _requests(requests, tenants),
        "units": _units(story, range(first_unit, len(story.units)), request_of_unit),
        "blocks": {model.name: len(model.blocks) for model in started.models},
        "slowest": _slowest(story, requests, splits),
        "costs": _costs(story, splits),
        "drifts": drifts(story.run),
        "outsiders": outsiders(story.run, begin_us),
        "tenants": [{"name": name, "model": model} for name, model in tenants.values()],
    }


def _requests(requests: Sequence[RequestStory], tenants: _Table[tuple[str, str]]) -> dict[str, Any]:
    why: _Table[tuple[str, str]] = _Table()
    return {
        "id": [request.id for request in requests],
        "tenant": [tenants.place((request.tenant, request.model)) for request in requests],
        "arrived": [request.arrived_us for request in requests],
        "deadline": [request.deadline_us for request in requests],
        "end": [request.end_us for request in requests],
        "outcome": [request.outcome for request in requests],
        "in_time": [int(request.in_time) for request in requests],
        "why": [why.place((request.code, request.reason)) for request in requests],
        "whys": [list(pair) for pair in why.values()],
    }


def _units(story: Story, shown: range, request_of_unit: dict[int, int]) -> dict[str, Any]:
    cores: _Table[tuple[int, ...]] = _Table()
    variants: _Table[tuple[str, ...]] = _Table()
    reasons: _Table[str] = _Table()
    rejected: _Table[tuple[tuple[str, str], ...]] = _Table()
    units = [story.units[i] for i in shown]
    whats = [unit.dispatched for unit in units]
    return {
        "request": [request_of_unit[i] for i in shown],
        "start": [what.at_us for what in whats],
        "end": [story.run.end_us if unit.end_us is None else unit.end_us for unit in units],
        "measured": [unit.measured_us for unit in units],
        "predicted": [what.predicted_us for what in whats],
        "first": [what.first_block for what in whats],
        "last": [what.end_block for what in whats],
        "pressure": [round(what.pressure, 3) for what in whats],
        "waiting": [what.waiting for what in whats],
        "riders": {place: len(what.riders) for place, what in enumerate(whats) if what.riders},
        "core": [cores.place(what.cores) for what in whats],
        "variant": [variants.place(what.variants) for what in whats],
        "reason": [reasons.place(what.reason) for what in whats],
        "rejected": [rejected.place(tuple((choice.what, choice.why) for choice in what.rejected)) for what in whats],
        "failed": {place: unit.failed for place, unit in enumerate(units) if unit.failed is not None},
        "cores": [list(value) for value in cores.values()],
        "variants": [list(value) for value in variants.values()],
        "reasons": reasons.values(),
        "rejecteds": [[list(pair) for pair in value] for value in rejected.values()],
    }


def _slowest(story: Story, requests: Sequence[RequestStory], splits: Sequence[Split]) -> list[dict[str, Any]]:
    """The misses and the slowest answers, worst first: by how much of its deadline each request took."""

    def took_us(request: RequestStory) -> int:
        return (story.run.end_us if request.end_us is None else request.end_us) - request.arrived_us

    def badness(place: int) -> tuple[bool, float]:
        request = requests[place]
        budget_us = max((request.deadline_us or request.arrived_us) - request.arrived_us, 1)
        return (not request.in_time, took_us(request) / budget_us)

    end_us = story.run.end_us
    known = (place for place, request in enumerate(requests) if request.counts_at(end_us))
    worst = sorted(known, key=badness, reverse=True)[:SLOWEST]
    split_of = {(split.request, split.at_us): split for split in splits}  # ids may come back
    return [
        {
            "request": place,
            "took_us": took_us(requests[place]),
            "running_us": min(story.running_us(requests[place]), took_us(requests[place])),
            "causes": _causes(split_of.get((requests[place].id, requests[place].end_us or 0))),
        }
        for place in worst
    ]


def _causes(split: Split | None) -> list[tuple[str, int]]:
    """What an answer's excess is made of, the largest part first."""
    if split is None:
        return []
    parts = [(f"waiting for {name}", us) for name, us in split.waited_us.items()]
    parts += [(f"beside {name}", us) for name, us in split.slowed_us.items()]
    parts += [("outsiders", split.outsiders_us), ("itself", split.self_us)]
    return sorted((part for part in parts if part[1] > 0), key=lambda part: -part[1])


def _costs(story: Story, splits: Sequence[Split]) -> dict[str, Any]:
    """The matrix of who cost whom how much, in sums over each tenant's answers."""
    rows = matrix(splits, [tenant.name for tenant in story.run.started.tenants])
    names = list(dict.fromkeys([*rows, *(name for row in rows.values() for name in (*row.waited_us, *row.slowed_us))]))
    return {
        "names": names,
        "rows": [
            {
                "tenant": row.tenant,
                "requests": row.requests,
                "solo_us": row.solo_us,
                "excess_us": row.excess_us,
                "waited_us": [row.waited_us[name] for name in names],
                "slowed_us": [row.slowed_us[name] for name in names],
                "outsiders_us": row.outsiders_us,
                "self_us": row.self_us,
                "chosen_us": row.chosen_us,
                "noisiest": row.noisiest,
            }
            for row in rows.values()
        ],
    }
