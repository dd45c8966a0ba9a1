"""The default policy: earliest deadline first, at the granularity, on the cores and as the variants the moment asks for.

Order: among requests of known length, earliest deadline first keeps every deadline that one core can keep. A request that
is set aside for a tighter one goes on at its next block; it is not set aside for one like itself that can wait. What can
no longer be met is given up at once, and what could not be met is not accepted.
"""

import heapq
from bisect import insort
from collections.abc import Iterable

from veltair.core.actions import Alternative
from veltair.core.admission import Fares, admit
from veltair.core.cores import fewest_cores, most_measured, widen
from veltair.core.granularity import SeenLately, threshold_us, unit_end
from veltair.core.interference import choose_line, pressure_on
from veltair.core.policies.protocol import Accepted, Policy, Refused, UnitPlan
from veltair.core.state import Job, Ledger, Unit

QOS_SHARE = 0.9  # of the time left, to be filled by the prediction: what else it needs comes from the margin
PATIENCE = 0.6  # of the time from arrival to deadline, by which one that is made to wait must be done: what is foretold errs
ALIKE = 0.75  # a newcomer this long, measured by what the other still needs, gains too little from going first


class Veltair(Policy):
    name = "veltair"

    def __init__(self) -> None:
        self._queue: list[Job] = []  # by deadline; a job answered meanwhile stays in until it is met
        self._latest_starts: list[tuple[int, int, Job]] = []  # heap; the same
        self._seen = SeenLately()
        self._fares = Fares()
        self._paused: tuple[Job, int] | None = None  # back from a unit, and when

    def admit(self, job: Job, ledger: Ledger, now_us: int) -> Accepted | Refused:
        waiting = [j for j in self._queue if j.waits]
        verdict = admit(job, ledger, waiting, now_us, self._fares.room_us(job, now_us))
        if job.slack_us > 0:  # what nobody could serve tells nothing about who is served
            self._seen.add(job.kind, job.slack_us, now_us)
            self._fares.add(job, isinstance(verdict, Accepted), now_us)
        return verdict

    def wait(self, job: Job, ledger: Ledger, now_us: int, after: Unit | None) -> None:
        insort(self._queue, job, key=_by_deadline)
        heapq.heappush(self._latest_starts, (_latest_start_us(job, ledger, now_us), job.order, job))
        if len(self._latest_starts) > 4 * ledger.waiting + 64:  # far deadlines would keep answered jobs in it
            self._latest_starts = [(_latest_start_us(j, ledger, now_us), j.order, j) for j in self._queue if j.waits]
            heapq.heapify(self._latest_starts)
        if after is not None:
            self._paused = job, now_us

    def hopeless(self, ledger: Ledger, now_us: int) -> Iterable[tuple[Job, str]]:
        while self._latest_starts and self._latest_starts[0][0] < now_us:
            _, _, job = heapq.heappop(self._latest_starts)
            if not job.waits:
                continue
            start_us = _latest_start_us(job, ledger, now_us)  # corrections have moved since it was queued
            if start_us < now_us:
                yield job, f"needed to go on {_ms(now_us - start_us)} ago, {job.next_block} blocks done"
            else:
                heapq.heappush(self._latest_starts, (start_us, job.order, job))

    def wake_us(self, ledger: Ledger) -> int | None:
        while self._latest_starts and not self._latest_starts[0][2].waits:
            heapq.heappop(self._latest_starts)
        return self._latest_starts[0][0] + 1 if self._latest_starts else None

    def next_unit(self, ledger: Ledger, now_us: int) -> UnitPlan | None:
        while self._queue and not self._queue[0].waits:
            del self._queue[0]
        if not self._queue:
            return None
        job, reason, rejected = self._next_job(ledger, now_us)
        self._queue.remove(job)
        return self._plan(job, ledger, now_us, reason, rejected)

    def _next_job(self, ledger: Ledger, now_us: int) -> tuple[Job, str, list[Alternative]]:
        head = self._queue[0]
        paused = self._paused[0] if self._paused is not None and self._paused[1] == now_us else None
        if paused is None or not paused.waits or paused is head:
            return head, "earliest deadline", [_later(j, head) for j in self._queue[1:2]]
        head_us, rest_us = _rest_us(head, ledger, now_us), _rest_us(paused, ledger, now_us)
        patient_until_us = head.request.arrived_us + PATIENCE * (head.request.deadline_us - head.request.arrived_us)
        if head_us > ALIKE * rest_us and now_us + rest_us + head_us <= patient_until_us:
            why = f"its deadline is earlier, but it can wait for the {_ms(rest_us)} left of this one"
            return paused, "goes on", [Alternative(f"request {head.request.id}", why)]
        return head, "earliest deadline", [_later(paused, head)]

    def _plan(self, job: Job, ledger: Ledger, now_us: int, reason: str, rejected: list[Alternative]) -> UnitPlan:
        costs, first = job.costs, job.next_block
        pressure, correction = pressure_on(ledger), ledger.correction(job, now_us)

        left_us = job.request.deadline_us - now_us
        wanted, _ = fewest_cores(costs.by_cores(pressure), first, left_us * QOS_SHARE, correction)
        cores = most_measured(costs, min(wanted, len(ledger.idle)))
        if cores < wanted:
            rejected.append(Alternative(_cores(wanted), f"conflict: {len(ledger.idle)} idle"))
        at_most = len(ledger.idle) // ledger.waiting
        wider = widen(costs, first, cores, at_most, pressure) if at_most > cores else cores
        if wider > cores:
            rejected.append(Alternative(_cores(cores), "would keep the deadline, but others would idle"))
            cores = wider

        tightest_us = self._seen.tightest_us(job.kind, now_us)
        limit_us = threshold_us(tightest_us)
        end = unit_end(costs.fastest(cores, pressure), first, None if limit_us is None else limit_us / correction)
        if tightest_us is not None and end < len(costs.model.blocks):
            rejected.append(Alternative("the whole rest", f"requests with {_ms(tightest_us)} slack come lately"))

        line, spared = choose_line(ledger, job, cores, pressure, now_us, end)
        if spared is not None:
            rejected.append(Alternative("fastest variants", f"would push {spared.job.request.id} past its deadline"))
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
            rejected=tuple(rejected),
        )


def _rest_us(job: Job, ledger: Ledger, now_us: int) -> int:
    """The least it still needs."""
    return round(job.costs.least_rest_us(job.next_block) * ledger.correction(job, now_us))


def _latest_start_us(job: Job, ledger: Ledger, now_us: int) -> int:
    return job.request.deadline_us - _rest_us(job, ledger, now_us)


def _by_deadline(job: Job) -> tuple[int, int]:
    return job.request.deadline_us, job.order


def _later(loser: Job, winner: Job) -> Alternative:
    later_us = loser.request.deadline_us - winner.request.deadline_us
    return Alternative(f"request {loser.request.id}", f"its deadline is {_ms(later_us)} later")


def _cores(cores: int) -> str:
    return "1 core" if cores == 1 else f"{cores} cores"


def _ms(us: int) -> str:
    return f"{us / 1000:.1f} ms"
