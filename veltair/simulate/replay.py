"""A decision log through the core again: the same facts at the same times must lead to the same decisions.

The log holds what the scheduler was made of (`Started.core`), every arrival with what it was promised, the end of every unit,
what was told of outside pressure, and when the timer fired. That a request was cancelled follows from its being dropped for that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from veltair.core.events import (
    DrainStarted,
    Event,
    ModelLoaded,
    PressureChanged,
    RequestArrived,
    RequestCancelled,
    TimerFired,
    UnitFailed,
    UnitFinished,
    WeightsLoaded,
)
from veltair.core.policies import make_policy
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, LeaseId, ModelName, Request, RequestId, TenantId
from veltair.errors import LogError
from veltair.observe import records
from veltair.observe.read import Run
from veltair.simulate.trace_steps import StepRecords
from veltair.simulate.virtual import Step

OF_THE_CORE = frozenset({"deadline_missed", "cancelled", "engine_failed"})
"""Codes of requests that the scheduler drops; others are the engine's own, when it gives up."""

_Decision = (
    records.Dispatched | records.Completed | records.Refused | records.Dropped | records.WeightsAsked | records.WeightsEvicted
)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first decision that came out otherwise. `number` counts decisions from 1; None stands for no decision."""

    number: int
    at_us: int
    recorded: records.Record | None
    decided: records.Record | None

    def __str__(self) -> str:
        return f"decision {self.number}, {self.at_us / 1e6:.6f} s: recorded {_words(self.recorded)}; now {_words(self.decided)}"


@dataclass(frozen=True, slots=True)
class Replayed:
    events: int
    decisions: int  # that agree
    difference: Difference | None


def replay(run: Run, policy: str | None = None) -> Replayed:
    """Hand the facts of a recorded run to a fresh core; stops at the first difference.

    `policy` asks what another one would have decided first. Raises LogError for a log that cannot be replayed: it has a hole, or
    comes from a version that did not write down the tables.
    """
    if run.lost_records:
        raise LogError(f"the log lost {run.lost_records} records, so the facts behind its decisions are not all there")
    if run.started.core is None:
        raise LogError(f"the log has no tables to decide by (veltair {run.started.version}); record it again with this version")
    scheduler, words = Scheduler(run.started.core.machine, make_policy(policy or run.started.policy)), StepRecords()
    for model in run.started.core.models:
        scheduler.handle(ModelLoaded(model), run.started.at_us)
        list(words.of(Step(run.started.at_us, ModelLoaded(model), ())))
    events = decisions = 0
    for now_us, event, recorded in _facts(run.records):
        actions = scheduler.handle(event, now_us)
        events += 1
        said = list(words.of(Step(now_us, event, tuple(actions))))
        decided = [each for each in said[len(said) - len(actions) :] if isinstance(each, _Decision)]  # an alarm decides nothing
        for number in range(max(len(recorded), len(decided))):
            one = recorded[number] if number < len(recorded) else None
            other = decided[number] if number < len(decided) else None
            if one is None or other is None or _plain(one) != _plain(other):
                return Replayed(events, decisions, Difference(decisions + 1, now_us, one, other))
            decisions += 1
    return Replayed(events, decisions, None)


def _facts(log: Sequence[records.Record]) -> Iterator[tuple[int, Event, list[_Decision]]]:
    """Each fact with its time and the decisions that were recorded behind it."""
    fact: tuple[int, Event] | None = None
    decisions: list[_Decision] = []
    dispatched_us: dict[int, int] = {}

    def so_far() -> Iterator[tuple[int, Event, list[_Decision]]]:
        if fact is not None:
            yield *fact, decisions

    for record in log:
        following: tuple[int, Event] | None = None
        match record:
            case records.Arrived():
                following = record.at_us, RequestArrived(_request(record))
            case records.Woken():
                following = record.at_us, TimerFired()
            case records.DrainBegan():
                following = record.at_us, DrainStarted()
            case records.Finished():
                following = record.at_us, _end(record, dispatched_us.pop(record.lease))
            case records.WeightsLoaded():
                following = record.at_us, WeightsLoaded(ModelName(record.model))
            case records.PressureTold():
                following = record.at_us, PressureChanged(record.pressure, tuple(map(CoreId, record.held)))
            case records.Dropped() if record.code not in OF_THE_CORE:
                break  # the engine gave up: nothing was decided any more
            case records.Dropped() if record.code == "cancelled":
                following = record.at_us, RequestCancelled(RequestId(record.request))
            case records.Refused() if fact is None or not _is_of(fact, record):
                continue  # turned away at the door: the scheduler never heard of it
            case records.Started() | records.Lost():
                continue
        if following is not None:
            yield from so_far()
            fact, decisions = following, []
        if isinstance(record, _Decision):
            decisions.append(record)
            if isinstance(record, records.Dispatched):
                dispatched_us[record.lease] = record.at_us
    yield from so_far()


def _is_of(fact: tuple[int, Event], refused: records.Refused) -> bool:
    return isinstance(fact[1], RequestArrived) and fact[1].request.id == refused.request


def _request(arrived: records.Arrived) -> Request:
    return Request(
        RequestId(arrived.request),
        TenantId(arrived.tenant),
        ModelName(arrived.model),
        arrived.at_us,
        arrived.deadline_us,
        arrived.precision,
        arrived.priority,
        arrived.weight,
    )


def _end(finished: records.Finished, dispatched_us: int) -> UnitFinished | UnitFailed:
    """As the engine tells it: the time from the decision to the return of the cores, hand-over included."""
    if finished.failed is not None:
        return UnitFailed(LeaseId(finished.lease), finished.failed)
    return UnitFinished(LeaseId(finished.lease), finished.at_us - dispatched_us)


def _plain(record: records.Record) -> records.Record:
    """Without what is not decided: how many wait is the log's own count."""
    return msgspec.structs.replace(record, waiting=0) if isinstance(record, records.Dispatched) else record


def _words(record: records.Record | None) -> str:
    if record is None:
        return "nothing"
    said = msgspec.to_builtins(record)
    kind, _ = said.pop("type"), said.pop("at_us")
    fields = ", ".join(
        f"{key}={value}" for key, value in said.items() if key not in ("rejected", "waiting") and value not in ((), None)
    )
    return f"{kind} ({fields})"
