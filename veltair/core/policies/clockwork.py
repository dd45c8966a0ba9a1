"""Clockwork: one model at a time on each worker, by predicted times, and an early no to what would be late.

After Gujarati et al., "Serving DNNs like Clockwork: Performance Predictability from the Bottom Up" (OSDI 2020), its section
on the controller's scheduler, and the scheduler INFER5 of the published system. Requests wait by model. For each batch size
that is compiled and that so many wait for there is a strategy; it must start before the deadline of the first of them less the
predicted time. The strategy that must start soonest goes to the next free worker, with the largest batch that keeps all
deadlines in it. A request that even alone would be late is answered with an error at once, not run: on arrival, where no worker
is free soon enough, or when its last moment to start has passed. Predictions are cautious, as the paper's 99th percentile is.

Adapted. A worker is one GPU there, all workers alike, and it runs one thing at a time, so that times can be foretold. Here it
is an equal part of the cores, as few as let every kind of request seen so far make its deadline alone: one core on a machine
of a few, and where a tighter deadline comes the parts become wider as units end. Cores that are left over idle. Weights are
not loaded and evicted by this policy, so its LOAD actions are left out, and cores have no queue of actions ahead to fill.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from veltair.core.actions import Alternative
from veltair.core.cores import fewest_cores
from veltair.core.plans import Accepted, Refused, UnitPlan
from veltair.core.policies.plans import fastest_within, in_cores, in_ms, plan_alone
from veltair.core.policies.protocol import Policy
from veltair.core.policies.waiting import LatestStarts, QueuedWork, push
from veltair.core.predict import ModelCosts
from veltair.core.state import Job, Ledger, Unit


@dataclass(slots=True, eq=False)
class _Line:
    """Requests of one model and permission that wait, the earliest deadline first."""

    costs: ModelCosts
    heap: list[tuple[int, int, Job]] = field(default_factory=list)
    count: int = 0  # of those in the heap that still wait

    def first(self) -> Job | None:
        while self.heap and not self.heap[0][2].waits:
            heappop(self.heap)
        return self.heap[0][2] if self.heap else None

    def take(self, count: int) -> list[Job]:
        """The first ones, which must be so many, out of the heap."""
        taken: list[Job] = []
        while len(taken) < count:
            job = heappop(self.heap)[2]
            if job.waits:
                taken.append(job)
        self.count -= count
        return taken


@dataclass(frozen=True, slots=True)
class _Strategy:
    line: _Line
    first: Job
    batch: int


class Clockwork(Policy):
    name = "clockwork"
    work_conserving = False  # cores that make no whole worker idle

    def __init__(self) -> None:
        self._lines: dict[ModelCosts, _Line] = {}
        self._in_line: dict[int, _Line] = {}  # who waits, by order of arrival
        self._strategies: list[tuple[int, int, _Strategy]] = []  # heap, by the required start
        self._pushed = 0  # breaks ties
        self._latest_starts = LatestStarts(self._alone_us)
        self._worker_cores = 1
        self._work = QueuedWork()

    def admit(self, job: Job, ledger: Ledger, now_us: int) -> Accepted | Refused:
        self._widen_workers(job)
        us = self._alone_us(job, ledger, now_us)
        free_us = self._next_free_us(ledger, now_us)
        if free_us + us > job.deadline_us:
            late = f"a worker is free in {in_ms(free_us - now_us)} and takes {in_ms(us)}"
            return Refused(f"{late}: {in_ms(free_us + us - job.deadline_us)} too late", free_us + us)
        waits_us = self._work.wait_us(self._cores(job.costs), ledger, now_us)
        return Accepted(min(max(free_us, now_us + waits_us) + us, job.deadline_us))

    def wait(self, job: Job, ledger: Ledger, now_us: int, after: Unit | None) -> None:
        line = self._lines.setdefault(job.costs, _Line(job.costs))
        self._in_line[job.order] = line
        before = line.first()
        heappush(line.heap, (job.deadline_us, job.order, job))
        line.count += 1
        if line.first() is not before:
            self._offer(line, ledger, now_us)
        elif line.count in job.costs.batches:
            self._offer_batch(line, line.count, ledger, now_us)
        self._latest_starts.add(job, ledger, now_us)
        self._work.add(job, self._cores(job.costs), self._alone_us(job, ledger, now_us))

    def leave(self, job: Job, ledger: Ledger, now_us: int) -> None:
        line = self._in_line.pop(job.order, None)
        if line is not None:  # it waited
            self._work.remove(job)
            line.count -= 1
            self._offer(line, ledger, now_us)

    def hopeless(self, ledger: Ledger, now_us: int) -> Iterable[tuple[Job, str]]:
        return self._latest_starts.overdue(ledger, now_us)

    def wake_us(self, ledger: Ledger) -> int | None:
        return self._latest_starts.next_us

    def next_unit(self, ledger: Ledger, now_us: int) -> UnitPlan | None:
        workers = len(ledger.machine.cores) // self._worker_cores
        if len(ledger.units) >= workers or len(ledger.idle) < self._worker_cores:
            return None
        if (best := self._pop(ledger, now_us)) is None:
            return None
        jobs = best.line.take(best.batch)
        for job in jobs:
            del self._in_line[job.order]
            self._work.remove(job)
        self._offer(best.line, ledger, now_us)
        costs = best.line.costs.batches[best.batch] if best.batch > 1 else best.line.costs
        cores = self._cores(costs)
        alike = "" if best.batch == 1 else f" with {best.batch - 1} more like it"
        slack_us = jobs[0].deadline_us - now_us - self._us(costs, jobs[0], ledger, now_us)
        return plan_alone(
            jobs[0],
            cores=cores,
            wanted_cores=cores,
            end_block=len(costs.model.blocks),
            reason=f"must start soonest, within {in_ms(slack_us)}{alike}, on a worker of {in_cores(self._worker_cores)}",
            rejected=self._rejected(best, jobs[0], ledger, now_us),
            correction=ledger.correction(jobs[0], now_us),
            riders=jobs[1:],
        )

    def _rejected(self, best: _Strategy, job: Job, ledger: Ledger, now_us: int) -> list[Alternative]:
        rejected, waited = [], best.line.count + best.batch
        larger = [size for size in best.line.costs.batches if best.batch < size <= waited]
        if larger:
            late_us = now_us + self._us(best.line.costs.batches[larger[0]], job, ledger, now_us) - job.deadline_us
            rejected.append(Alternative(f"a batch of {larger[0]}", f"{in_ms(late_us)} too late for {job.request.id}"))
        if (behind := self._peek()) is not None:
            rejected.append(Alternative(f"request {behind.first.request.id}", "can start later"))
        return rejected

    def _pop(self, ledger: Ledger, now_us: int) -> _Strategy | None:
        """The strategy that must start soonest, of those that can still be met; whoever is left in a line has one."""
        while self._peek() is not None:
            strategy = heappop(self._strategies)[2]
            costs = strategy.line.costs.batches.get(strategy.batch)
            # Alone it is in time, or it had been given up before anybody was asked what to start.
            if costs is None or now_us + self._us(costs, strategy.first, ledger, now_us) <= strategy.first.deadline_us:
                return strategy
        return None

    def _peek(self) -> _Strategy | None:
        while self._strategies and not _is_there(self._strategies[0][2]):
            heappop(self._strategies)
        return self._strategies[0][2] if self._strategies else None

    def _offer(self, line: _Line, ledger: Ledger, now_us: int) -> None:
        """Strategies for whoever is first in line now."""
        if not line.count:
            self._lines.pop(line.costs, None)
            return
        for size in (1, *line.costs.batches):
            if size <= line.count:
                self._offer_batch(line, size, ledger, now_us)

    def _offer_batch(self, line: _Line, size: int, ledger: Ledger, now_us: int) -> None:
        first = line.first()
        assert first is not None, f"{line.count} wait for {line.costs.model.name}, but none is first"
        us = self._us(line.costs.batches[size] if size > 1 else line.costs, first, ledger, now_us)
        self._pushed += 1
        entry = first.deadline_us - us, self._pushed, _Strategy(line, first, size)
        push(self._strategies, entry, (1 + len(line.costs.batches)) * ledger.waiting, lambda entry: _is_there(entry[2]))

    def _widen_workers(self, job: Job) -> None:
        qos_us = job.deadline_us - job.request.arrived_us
        cores, us = fewest_cores(job.costs.by_cores(0.0), 0, qos_us, 1.0)
        self._worker_cores = max(self._worker_cores, job.costs.narrowest, cores if us <= qos_us else 0)

    def _next_free_us(self, ledger: Ledger, now_us: int) -> int:
        workers = len(ledger.machine.cores) // self._worker_cores
        ends = sorted(unit.ends_us(now_us) for unit in ledger.units.values())
        return now_us if len(ends) < workers else ends[len(ends) - workers]

    def _cores(self, costs: ModelCosts) -> int:
        return fastest_within(costs, 0, self._worker_cores)

    def _alone_us(self, job: Job, ledger: Ledger, now_us: int) -> int:
        return self._us(job.costs, job, ledger, now_us)

    def _us(self, costs: ModelCosts, job: Job, ledger: Ledger, now_us: int) -> int:
        line = costs.fastest(self._cores(costs), 0.0)
        return round(line.until_us[-1] * ledger.cautious_correction(job, now_us))


def _is_there(strategy: _Strategy) -> bool:
    return strategy.line.first() is strategy.first and strategy.batch <= strategy.line.count
