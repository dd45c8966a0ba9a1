"""The default: earliest deadline first, at the granularity, on the cores and as the variants that the moment asks for."""

import heapq
from bisect import insort
from collections.abc import Iterable

from veltair.core.actions import Alternative
from veltair.core.admission import admit
from veltair.core.cores import fewest_cores, most_measured, widen
from veltair.core.granularity import SeenLately, threshold_us, unit_end
from veltair.core.interference import choose_line, pressure_on
from veltair.core.policies.protocol import Accepted, Refused, UnitPlan
from veltair.core.state import Job, Ledger, Unit

QOS_SHARE = 0.9  # of what is left until the deadline, to be used by the prediction


class Veltair:
    name = "veltair"

    def __init__(self) -> None:
        self._queue: list[Job] = []  # by deadline; jobs answered meanwhile are left in and skipped
        self._latest_start: list[tuple[int, int, Job]] = []
        self._seen = SeenLately()
        self._paused: tuple[Job, int] | None = None  # back from a unit at this very moment

    def admit(self, job: Job, ledger: Ledger, now_us: int) -> Accepted | Refused:
        slack_us = job.budget_us - job.costs.best_us
        if slack_us > 0:
            self._seen.add(_kind(job), slack_us, now_us)
        return admit(job, ledger, [j for j in self._queue if j.waits], now_us)

    def wait(self, job: Job, ledger: Ledger, now_us: int, after: Unit | None) -> None:
        insort(self._queue, job, key=_by_deadline)
        rest_us = round(job.costs.least_rest_us(job.next_block) * ledger.correction(job, now_us))
        heapq.heappush(self._latest_start, (job.request.deadline_us - rest_us, job.order, job))
        if after is not None:
            self._paused = job, now_us

    def hopeless(self, ledger: Ledger, now_us: int) -> Iterable[tuple[Job, str]]:
        while self._latest_start and self._latest_start[0][0] < now_us:
            start_us, _, job = heapq.heappop(self._latest_start)
            if job.waits and self._start_by(job, ledger, now_us) < now_us:
                yield job, f"had to go on {now_us - start_us} us ago to make its deadline, {job.next_block} blocks done"

    def next_unit(self, ledger: Ledger, now_us: int) -> UnitPlan | None:
        self._queue = [j for j in self._queue if j.waits]
        if not self._queue:
            return None
        head = self._queue[0]
        del self._queue[0]
        job = head
        return self._plan(job, ledger, now_us, "earliest deadline", ())

    def _plan(self, job: Job, ledger: Ledger, now_us: int, reason: str, rejected: tuple[Alternative, ...]) -> UnitPlan:
        costs, first = job.costs, job.next_block
        pressure, correction = pressure_on(ledger), ledger.correction(job, now_us)
        left_us = job.request.deadline_us - now_us
        wanted = fewest_cores(costs, first, left_us * QOS_SHARE, pressure, correction)
        cores = most_measured(costs, min(wanted, len(ledger.idle)))
        share = len(ledger.idle) // ledger.waiting
        if share > cores:
            cores = widen(costs, first, cores, share, pressure)
        limit_us = threshold_us(self._seen.tightest_us(_kind(job), now_us))
        end = unit_end(costs.fastest(cores, pressure), first, None if limit_us is None else limit_us / correction)
        line, spared = choose_line(ledger, job, cores, pressure, now_us, end)
        table_us = line.span_us(first, end)
        return UnitPlan(
            job=job,
            cores=cores,
            wanted_cores=wanted,
            end_block=end,
            variants=line.variants[first:end],
            table_us=table_us,
            predicted_us=max(1, round(table_us * correction)),
            traffic_bytes=line.span_bytes(first, end),
            pressure=pressure,
            reason=reason,
            rejected=rejected,
        )

    def _start_by(self, job: Job, ledger: Ledger, now_us: int) -> int:
        return job.request.deadline_us - round(job.costs.least_rest_us(job.next_block) * ledger.correction(job, now_us))


def _kind(job: Job) -> tuple:
    return job.request.tenant, job.request.model


def _by_deadline(job: Job) -> tuple[int, int]:
    return job.request.deadline_us, job.order
