"""Joins the records of a run into what people ask about: the story of each request and each unit that ran."""

from dataclasses import dataclass, field
from typing import Literal

from veltair.observe.read import Run
from veltair.observe.records import Arrived, Completed, Dispatched, Dropped, Finished, Refused

Outcome = Literal["answered", "refused", "dropped", "open"]


@dataclass(slots=True)
class UnitStory:
    """A unit from dispatch to its end. `end_us` is None where the log stops before it."""

    dispatched: Dispatched
    end_us: int | None = None
    measured_us: int | None = None
    failed: str | None = None


@dataclass(slots=True)
class RequestStory:
    id: str
    tenant: str
    model: str
    arrived_us: int
    deadline_us: int | None  # None: refused before a deadline was known
    outcome: Outcome = "open"
    end_us: int | None = None
    latency_us: int | None = None  # of answered ones, as the engine counted it
    predicted_us: int | None = None  # foretold on arrival
    interval_us: tuple[int, int] | None = None  # the latency was said to lie within, nine times out of ten
    code: str = ""
    reason: str = ""
    units: list[int] = field(default_factory=list)  # places in `Story.units`; those of a batch are in each of its requests

    @property
    def in_time(self) -> bool:
        return self.outcome == "answered" and self.end_us is not None and self.end_us <= (self.deadline_us or 0)

    def counts_at(self, end_us: int) -> bool:
        """Whether its fate is known: it has ended, or its deadline has passed without an answer."""
        return self.outcome != "open" or (self.deadline_us or 0) < end_us


@dataclass(frozen=True, slots=True)
class Story:
    run: Run
    requests: tuple[RequestStory, ...]  # in order of arrival
    units: tuple[UnitStory, ...]  # in order of dispatch

    def running_us(self, request: RequestStory) -> int:
        """Time on cores; the rest of its latency the request waited."""
        units = (self.units[i] for i in request.units)
        return sum((unit.end_us if unit.end_us is not None else self.run.end_us) - unit.dispatched.at_us for unit in units)


def tell(run: Run) -> Story:
    """Ids may come back after their request has ended (a client that sends again): then a new story begins."""
    requests: list[RequestStory] = []
    units: list[UnitStory] = []
    current: dict[str, RequestStory] = {}
    on_lease: dict[int, UnitStory] = {}
    batches: dict[str, list[RequestStory]] = {}  # by the first of each, who may have ended before the others
    deadline_after_us = {(tenant.name, tenant.model): tenant.qos_us for tenant in run.started.tenants}

    def story_of(record: Arrived | Dispatched | Completed | Refused | Dropped, arrived_us: int) -> RequestStory:
        story = current.get(record.request)
        if story is None:  # its arrival is not in the log: lost, or refused before it counted as arrived
            qos_us = deadline_after_us.get((record.tenant, record.model))
            story = RequestStory(
                record.request, record.tenant, record.model, arrived_us, None if qos_us is None else arrived_us + qos_us
            )
            current[record.request] = story
            requests.append(story)
        return story

    def aboard(record: Dispatched) -> list[RequestStory]:
        if not record.riders:
            return [story_of(record, record.at_us)]
        if record.first_block == 0 or record.request not in batches:
            riders = (current.get(rider) for rider in record.riders)
            batches[record.request] = [story_of(record, record.at_us), *(rider for rider in riders if rider is not None)]
        return batches[record.request]

    def end(story: RequestStory, outcome: Outcome, at_us: int) -> None:
        story.outcome, story.end_us = outcome, at_us
        del current[story.id]

    for record in run.records:
        match record:
            case Arrived():
                current.pop(record.request, None)
                story_of(record, record.at_us).deadline_us = record.deadline_us
            case Dispatched():
                unit = UnitStory(record)
                for story in aboard(record):
                    story.units.append(len(units))
                on_lease[record.lease] = unit
                units.append(unit)
            case Finished():
                if (finished := on_lease.pop(record.lease, None)) is not None:
                    finished.end_us, finished.measured_us, finished.failed = record.at_us, record.measured_us, record.failed
            case Completed():
                story = story_of(record, record.at_us - record.latency_us)
                story.latency_us, story.predicted_us, story.deadline_us = (
                    record.latency_us,
                    record.predicted_us,
                    record.deadline_us,
                )
                if record.low_us is not None and record.high_us is not None:
                    story.interval_us = record.low_us, record.high_us
                end(story, "answered", record.at_us)
            case Refused() | Dropped():
                story = story_of(record, record.at_us)
                story.code, story.reason = record.code, record.reason
                end(story, "refused" if isinstance(record, Refused) else "dropped", record.at_us)
            case _:
                pass  # Started and Lost are the run's own
    return Story(run, tuple(requests), tuple(units))
