"""PREMA: one task at a time on the whole machine, by tokens and shortest job, preempted between layers.

After Choi and Rhu, "PREMA: A Predictive Multi-task Scheduling Algorithm for Preemptible Neural Processing Units" (HPCA 2020):
algorithm 2 (tokens and candidates) and algorithm 3 (whether to preempt). A request starts with as many tokens as its priority
is worth (1, 3 or 9) and earns its priority's worth again for every isolated execution time it has waited. The highest count,
rounded down to a priority's worth, is the threshold; of those who reach it the one with the least left to run goes next. One
that was running is set aside for it only if that delays it less, relative to its own length, than going on would delay the
other (else it drains). Deadlines play no part, and nothing is refused or given up.

Adapted. The NPU is one array that a task has to itself: here it is the core count on which the model was measured fastest,
and the other cores idle. The paper preempts between tiles, by saving state; here it is between layers, as many as fit the
paper's scheduling period (one at least), with nothing to save. Its Request.priority is one of three levels: 0 and below is
the lowest, 2 and above the highest. The paper predicts times from layer shapes, here they are measured. Counting tokens of
everybody at each wake-up is avoided: they grow in a straight line, so it is known beforehand when a waiting request reaches
the next threshold, and only then it changes its heap.
"""

import heapq
from dataclasses import dataclass

from veltair.core.actions import Alternative
from veltair.core.granularity import unit_end
from veltair.core.plans import Accepted, UnitPlan
from veltair.core.policies.plans import fastest_within, in_cores, in_ms, plan_alone
from veltair.core.policies.protocol import Policy
from veltair.core.policies.waiting import QueuedWork, push
from veltair.core.state import Job, Ledger, Unit

WORTH = (1, 3, 9)  # tokens of a low, medium and high priority, and the thresholds (the paper's table II)
PERIOD_US = 250  # of the paper's scheduler


@dataclass(slots=True, eq=False)
class _Task:
    """A job while it waits this time."""

    job: Job
    cores: int
    isolated_us: int
    rest_us: int
    since_us: int  # it would have waited as long in all, had it waited without a break since then
    worth: int
    level: int = -1  # index of the highest threshold it reached
    taken: bool = False

    def __lt__(self, other: "_Task") -> bool:
        """In a heap, where all else is equal."""
        return self.job.order < other.job.order

    def tokens(self, now_us: int) -> float:
        return self.worth * (1 + (now_us - self.since_us) / self.isolated_us)

    def reaches_us(self, level: int) -> int:
        return self.since_us + -(-self.isolated_us * (WORTH[level] - self.worth) // self.worth)

    @property
    def waits(self) -> bool:
        return self.job.waits and not self.taken


class Prema(Policy):
    name = "prema"
    work_conserving = False  # one task at a time

    def __init__(self) -> None:
        self._levels: tuple[list[tuple[int, _Task]], ...] = ([], [], [])  # heaps, the shortest rest first
        self._rises: list[tuple[int, _Task]] = []  # heap: when a task reaches its next level
        self._waited_us: dict[int, int] = {}  # in earlier waits, by order of arrival
        self._current: _Task | None = None  # set aside just now
        self._back_us = -1  # when
        self._work = QueuedWork()

    def admit(self, job: Job, ledger: Ledger, now_us: int) -> Accepted:
        all_cores = len(ledger.machine.cores)
        return Accepted(now_us + job.costs.best_us + self._work.wait_us(all_cores, ledger, now_us))

    def wait(self, job: Job, ledger: Ledger, now_us: int, after: Unit | None) -> None:
        costs, all_cores = job.costs, len(ledger.machine.cores)
        cores = fastest_within(costs, 0, all_cores)
        task = _Task(
            job=job,
            cores=cores,
            isolated_us=costs.best_us,
            rest_us=costs.fastest(cores, 0.0).rest_us(job.next_block),
            since_us=now_us - self._waited_us.get(job.order, 0),
            worth=WORTH[max(0, min(job.request.priority, len(WORTH) - 1))],
        )
        self._rise(task, ledger.waiting, now_us)
        self._work.add(job, all_cores, task.rest_us)
        if after is not None:
            self._current, self._back_us = task, now_us

    def leave(self, job: Job, ledger: Ledger, now_us: int) -> None:
        self._waited_us.pop(job.order, None)
        self._work.remove(job)

    def next_unit(self, ledger: Ledger, now_us: int) -> UnitPlan | None:
        if ledger.units:
            return None
        while self._rises and self._rises[0][0] <= now_us:
            task = heapq.heappop(self._rises)[1]
            if task.waits:
                self._rise(task, ledger.waiting, now_us)
        shortest = self._shortest()
        if shortest is None:
            return None
        current = self._current if self._back_us == now_us else None
        task, reason, rejected = shortest, "shortest of those with the most tokens", []
        if current is not None and current.waits and current is not shortest:
            if _drains(current, shortest):
                task, reason = current, "drains: going on delays the other less"
                rejected.append(_alternative(shortest, now_us))
            else:
                rejected.append(_alternative(current, now_us))
        task.taken, self._current = True, None
        behind = self._shortest()
        if behind is not None and all(behind is not other for other in (current, shortest)):
            rejected.append(_alternative(behind, now_us))
        return self._plan(task, now_us, f"{reason}, {task.tokens(now_us):.1f} tokens, on {in_cores(task.cores)}", rejected)

    def _plan(self, task: _Task, now_us: int, reason: str, rejected: list[Alternative]) -> UnitPlan:
        job = task.job
        self._work.remove(job)
        self._waited_us[job.order] = now_us - task.since_us
        end = unit_end(job.costs.fastest(task.cores, 0.0), job.next_block, PERIOD_US)
        return plan_alone(job, cores=task.cores, wanted_cores=task.cores, end_block=end, reason=reason, rejected=rejected)

    def _rise(self, task: _Task, waiting: int, now_us: int) -> None:
        """To the level its tokens have reached, and note when they reach the next."""
        while task.level + 1 < len(WORTH) and task.reaches_us(task.level + 1) <= now_us:
            task.level += 1
        level = task.level
        push(self._levels[level], (task.rest_us, task), waiting, lambda e: e[1].waits and e[1].level == level)
        if level + 1 < len(WORTH):
            push(self._rises, (task.reaches_us(level + 1), task), waiting, lambda e: e[1].waits)

    def _shortest(self) -> _Task | None:
        """Of the highest level that anybody reached: nobody else reaches the threshold."""
        for level in reversed(range(len(WORTH))):
            heap = self._levels[level]
            while heap and not (heap[0][1].waits and heap[0][1].level == level):
                heapq.heappop(heap)
            if heap:
                return heap[0][1]
        return None


def _drains(current: _Task, other: _Task) -> bool:
    """Algorithm 3: whether preemption would set the current one back more than draining does the other."""
    return other.rest_us / current.isolated_us > current.rest_us / other.isolated_us


def _alternative(task: _Task, now_us: int) -> Alternative:
    return Alternative(f"request {task.job.request.id}", f"{in_ms(task.rest_us)} left, {task.tokens(now_us):.1f} tokens")
