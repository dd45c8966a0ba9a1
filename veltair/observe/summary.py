"""The numbers of a run: what each tenant got, and what the scheduler did with the cores."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from veltair.observe.story import RequestStory, Story


def percentile_us(sorted_us: Sequence[int], percentile: float) -> int | None:
    """Nearest rank: the smallest time that at least this share of the times do not exceed. None of nothing."""
    if not sorted_us:
        return None
    rank = -(-len(sorted_us) * round(percentile * 10_000) // 10_000)  # exact ceiling, free of float dust
    return sorted_us[max(rank, 1) - 1]


@dataclass(frozen=True, slots=True)
class TenantSummary:
    """One tenant's requests for one model.

    Percentiles are over answered requests; `attainment` is over all, so that refusing does not flatter it.
    """

    name: str
    model: str
    qos_us: int
    percentile: float
    requests: int
    in_time: int
    answered: int
    refused: int
    dropped: int
    unanswered: int  # deadline passed, no answer in the log
    p50_us: int | None
    p95_us: int | None
    p99_us: int | None
    coverage: float | None  # answers within the interval that was foretold for them, as a share; 0.9 is what it aims at

    @property
    def attainment(self) -> float | None:
        return self.in_time / self.requests if self.requests else None

    @property
    def met(self) -> bool | None:
        return None if self.attainment is None else self.attainment >= self.percentile


@dataclass(frozen=True, slots=True)
class RunSummary:
    policy: str
    machine: str
    duration_us: int  # first arrival to last record
    tenants: tuple[TenantSummary, ...]
    units: int
    variant_blocks: Mapping[str, Mapping[str, int]]  # model -> variant -> blocks that ran as it
    cores_units: Mapping[int, int]  # cores of the lease -> units
    measured_over_predicted: float | None  # median over units; above 1 means predictions are too short
    core_busy: Mapping[int, float]  # core -> share of the duration under lease
    lost_records: int


def summarize(story: Story) -> RunSummary:
    started = story.run.started
    end_us = story.run.end_us
    begin_us = min((request.arrived_us for request in story.requests), default=started.at_us)
    duration_us = end_us - begin_us
    variants: dict[str, Counter[str]] = {model.name: Counter() for model in started.models}
    cores_units: Counter[int] = Counter()
    busy_us: Counter[int] = Counter()
    ratios = []
    for unit in story.units:
        what = unit.dispatched
        variants.setdefault(what.model, Counter()).update(what.variants)
        cores_units[len(what.cores)] += 1
        for core in what.cores:
            busy_us[core] += (end_us if unit.end_us is None else unit.end_us) - what.at_us
        if unit.measured_us is not None and unit.failed is None and what.predicted_us > 0:
            ratios.append(unit.measured_us / what.predicted_us)
    return RunSummary(
        policy=started.policy,
        machine=started.machine,
        duration_us=duration_us,
        tenants=_tenants(story, end_us),
        units=len(story.units),
        variant_blocks={model: dict(counts) for model, counts in variants.items()},
        cores_units=dict(sorted(cores_units.items())),
        measured_over_predicted=median(ratios) if ratios else None,
        core_busy={core: min(busy_us[core] / duration_us, 1.0) if duration_us else 0.0 for core in started.cores},
        lost_records=story.run.lost_records,
    )


def _tenants(story: Story, end_us: int) -> tuple[TenantSummary, ...]:
    promises = story.run.started.tenants
    by_tenant: dict[tuple[str, str], list[RequestStory]] = {(tenant.name, tenant.model): [] for tenant in promises}
    for request in story.requests:
        promised = by_tenant.get((request.tenant, request.model))
        if promised is not None and request.counts_at(end_us):
            promised.append(request)
    summaries = []
    for tenant in promises:
        requests = by_tenant[tenant.name, tenant.model]
        outcomes = Counter(request.outcome for request in requests)
        foretold = [request for request in requests if request.interval_us is not None]
        latencies = sorted(request.latency_us for request in requests if request.latency_us is not None)
        summaries.append(
            TenantSummary(
                name=tenant.name,
                model=tenant.model,
                qos_us=tenant.qos_us,
                percentile=tenant.percentile,
                requests=len(requests),
                in_time=sum(request.in_time for request in requests),
                answered=outcomes["answered"],
                refused=outcomes["refused"],
                dropped=outcomes["dropped"],
                unanswered=outcomes["open"],
                p50_us=percentile_us(latencies, 0.50),
                p95_us=percentile_us(latencies, 0.95),
                p99_us=percentile_us(latencies, 0.99),
                coverage=sum(_as_foretold(request) for request in foretold) / len(foretold) if foretold else None,
            )
        )
    return tuple(summaries)


def _as_foretold(request: RequestStory) -> bool:
    assert request.interval_us is not None
    assert request.latency_us is not None
    low_us, high_us = request.interval_us
    return low_us <= request.latency_us <= high_us
