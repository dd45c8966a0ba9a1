"""Runs of one load turned into figures."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from veltair.core.actions import LoadWeights
from veltair.core.values import LeaseId
from veltair.simulate.result import Detail, Latency, LeaseSpan, Mark, TenantOutcome, Timeline
from veltair.simulate.setting import Setting, serve
from veltair.simulate.virtual import Outcome, Run, Span

BINS_PER_OCTAVE = 8
MOST_LEASES = 1_000  # of a timeline: more cannot be told apart on a screen, and a page must stay small


def look(setting: Setting, policy: str, per_s: float, seeds: Sequence[int], *, timeline: bool = True) -> Detail:
    """Run the load with every seed and count."""
    runs, watched = [], []
    for seed in seeds:
        watch = _Watch(setting.counted_from_us(per_s), round(setting.seconds(per_s) * 1e6), keeps=timeline and seed == seeds[0])
        runs.append(serve(setting, policy, per_s, seed, span_ended=watch.add))
        watched.append(watch)
    counted_from_us = setting.counted_from_us(per_s)
    outcomes = [o for run in runs for o in run.outcomes if o.request.arrived_us >= counted_from_us]
    answered = [o for o in outcomes if o.error is None]
    units = sum(run.units for run in runs)
    core_us = sum(watch.until_us - watch.from_us for watch in watched) * len(setting.machine.cores)
    return Detail(
        per_s=per_s,
        of_capacity=per_s / setting.capacity_per_s,
        tenants=tuple(
            _tenant(tenant.name, [o for o in outcomes if o.request.tenant == tenant.name]) for tenant in setting.workload.tenant
        ),
        attainment=sum(o.in_time for o in outcomes) / max(1, len(outcomes)),
        mean_latency_us=fmean(o.latency_us for o in answered) if answered else 0.0,
        core_use=sum(watch.busy_core_us for watch in watched) / core_us,
        conflict_rate=sum(run.conflicts for run in runs) / max(1, units),
        decisions=sum(run.decisions for run in runs),
        units=units,
        loads=sum(run.loads for run in runs),
        evictions=sum(run.evictions for run in runs),
        timeline=watched[0].timeline(runs[0]) if timeline else None,
    )


@dataclass(slots=True)
class _Watch:
    """Core time between the end of the warm-up and the last arrival, and the first leases of that stretch."""

    from_us: int
    until_us: int
    keeps: bool
    busy_core_us: int = 0
    _spans: dict[LeaseId, Span] = field(default_factory=dict)

    def add(self, span: Span) -> None:
        within_us = min(span.end_us, self.until_us) - max(span.begin_us, self.from_us)
        if within_us > 0:
            self.busy_core_us += within_us * len(span.unit.lease.cores)
            # Spans come as they end; a little more than the most, so that none that began early is missed.
            if self.keeps and len(self._spans) < 2 * MOST_LEASES:
                self._spans[span.unit.lease.id] = span

    def timeline(self, run: Run) -> Timeline:
        spans = sorted(self._spans.values(), key=lambda s: (s.begin_us, s.unit.lease.id))
        kept = spans[:MOST_LEASES]
        until_us = max((span.end_us for span in kept), default=self.until_us)
        if len(kept) < len(spans):  # what began later may have ended before: the stretch ends where the first left out begins
            until_us = spans[MOST_LEASES].begin_us
        marks = [mark for outcome in run.outcomes for mark in _marks(outcome) if self.from_us <= mark.at_us <= until_us]
        marks += [
            Mark(at_us=at_us, what="load" if isinstance(action, LoadWeights) else "evict", tenant="", model=action.model)
            for at_us, action in run.moved_weights
            if self.from_us <= at_us <= until_us
        ]
        return Timeline(
            begin_us=self.from_us,
            end_us=until_us,
            leases=tuple(_lease(span) for span in kept),
            marks=tuple(sorted(marks, key=lambda mark: (mark.at_us, mark.request))),
        )


def _lease(span: Span) -> LeaseSpan:
    unit, request = span.unit, span.request
    return LeaseSpan(
        begin_us=span.begin_us,
        end_us=span.end_us,
        cores=unit.lease.cores,
        tenant=request.tenant,
        model=request.model,
        request=unit.request_id,
        first_block=unit.first_block,
        end_block=unit.end_block,
        predicted_us=unit.predicted_us,
        pressure=unit.pressure,
        reason=unit.reason,
        riders=len(unit.riders),
    )


def _marks(outcome: Outcome) -> tuple[Mark, Mark]:
    request = outcome.request
    answered, given_up = "answered" if outcome.in_time else "late", "refused" if outcome.refused else "dropped"
    ended = answered if outcome.error is None else given_up

    def mark(at_us: int, what: str, reason: str = "") -> Mark:
        return Mark(at_us=at_us, what=what, tenant=request.tenant, model=request.model, request=request.id, reason=reason)

    return mark(request.arrived_us, "arrived"), mark(outcome.finished_us, ended, outcome.error or "")


def _tenant(name: str, outcomes: Sequence[Outcome]) -> TenantOutcome:
    answered = [o for o in outcomes if o.error is None]
    in_qos = sum(o.in_time for o in answered)
    refused = sum(o.refused for o in outcomes)
    units = sum(o.units for o in answered)
    return TenantOutcome(
        name=name,
        asked=len(outcomes),
        in_qos=in_qos,
        late=len(answered) - in_qos,
        refused=refused,
        dropped=len(outcomes) - len(answered) - refused,
        attainment=in_qos / len(outcomes) if outcomes else 1.0,
        latency=_latency(sorted(o.latency_us for o in answered)),
        queued_mean_us=_mean([o.latency_us - o.running_us for o in answered]),
        core_us_per_request=_mean([o.core_us for o in answered]),
        units_per_request=units / max(1, len(answered)),
        cores_per_unit=sum(o.unit_cores for o in answered) / max(1, units),
        coverage=_mean([o.low_us <= o.latency_us <= o.high_us for o in answered]) if answered else None,
    )


def _latency(ascending_us: Sequence[int]) -> Latency | None:
    if not ascending_us:
        return None
    bins = Counter(math.floor(BINS_PER_OCTAVE * math.log2(max(1, us))) for us in ascending_us)

    def percentile(share: float) -> int:
        """Nearest rank."""
        return ascending_us[max(0, math.ceil(share * len(ascending_us)) - 1)]

    return Latency(
        mean_us=fmean(ascending_us),
        p50_us=percentile(0.50),
        p95_us=percentile(0.95),
        p99_us=percentile(0.99),
        histogram=tuple((round(2 ** (i / BINS_PER_OCTAVE)), count) for i, count in sorted(bins.items())),
    )


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
