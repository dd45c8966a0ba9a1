"""Planaria: dynamic spatial fission, every task on the fewest cores that keep its deadline, and the rest shared out.

After Ghodrati et al., "Planaria: Dynamic Architecture Fission for Spatial Multi-Tenant Acceleration of Deep Neural Networks"
(MICRO 2020), the section on task scheduling and its algorithm. At each event it estimates for every task the fewest cores that
end it by its deadline. Where all fit together each gets those, and the spare ones are shared in proportion to priority over
remaining time. Where not, tasks are served in order of priority over (slack x fewest cores), and those that cannot be met
come last: they get what the others leave, the shortest first. Nothing is refused or given up.

Adapted. The accelerator breaks into subarrays anew between two tiles, all tasks at one moment. Here a task changes its cores
when its layer ends, each at its own time; cores that one in mid-layer is owed beyond what it holds are kept idle for it till
then. Only measured core counts are given, and of those within a share the fastest, as tables are not monotone; what cannot be
used goes to the next. A re-fission is all but free there, a hand-over here costs as much as a small layer. Estimating
everybody at each event is avoided: the fewest cores of a waiting task rise at times known beforehand, and among tasks of one
priority and one fewest the earliest deadline scores best, so a heap for each such pair is enough.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush, merge

from veltair.core.actions import Alternative
from veltair.core.plans import Accepted, UnitPlan
from veltair.core.policies.plans import fastest_within, in_cores, in_ms, plan_alone
from veltair.core.policies.protocol import Policy
from veltair.core.policies.waiting import QueuedWork, push
from veltair.core.state import Job, Ledger, Unit


@dataclass(slots=True, eq=False)
class _Task:
    """A job from one layer's end to the next one's."""

    job: Job
    priority: float
    fewest: int  # cores that keep its deadline, 0 where none do
    rest_us: int  # on those, or else the least there is
    rises_us: int | None  # beyond this moment they are too few
    held: int = 0  # cores, in mid-layer
    share: int = 0  # cores that it should have now

    def __lt__(self, other: "_Task") -> bool:
        """Where all else is equal."""
        return self.job.order < other.job.order

    @property
    def waits(self) -> bool:
        return not self.held and self.job.waits

    def give(self, cores: int, left: int) -> int:
        """Its share, of what is left: so many, or all, or none if it cannot run on those."""
        share = min(cores, left)
        self.share = share if share >= self.job.costs.narrowest else 0
        return self.share

    def place(self, now_us: int) -> float:
        """In line where not all fit: by the paper's score, best first, behind them those whose deadline is lost."""
        if not self.fewest:
            return self.rest_us / self.priority
        return -self.priority / max(1, self.job.deadline_us - now_us) / self.fewest


_Key = tuple[float, int]  # priority and fewest cores
_Entry = tuple[int, _Task]
_Heap = list[_Entry]


class Planaria(Policy):
    name = "planaria"
    work_conserving = False  # cores are kept for tasks in mid-layer

    def __init__(self) -> None:
        self._heaps: dict[_Key, _Heap] = {}
        self._rises: _Heap = []
        self._running: dict[int, _Task] = {}  # by order of arrival; they have layers left after this one
        self._work = QueuedWork()

    def admit(self, job: Job, ledger: Ledger, now_us: int) -> Accepted:
        return Accepted(now_us + job.costs.best_us + self._work.wait_us(job.costs.narrowest, ledger, now_us))

    def wait(self, job: Job, ledger: Ledger, now_us: int, after: Unit | None) -> None:
        self._running.pop(job.order, None)
        task = _estimated(job, job.next_block, now_us)
        self._enqueue(task, ledger.waiting)
        self._work.add(job, task.fewest or job.costs.narrowest, task.rest_us)

    def leave(self, job: Job, ledger: Ledger, now_us: int) -> None:
        self._running.pop(job.order, None)
        self._work.remove(job)

    def next_unit(self, ledger: Ledger, now_us: int) -> UnitPlan | None:
        while self._rises and self._rises[0][0] < now_us:
            task = heappop(self._rises)[1]
            if task.waits:
                again = _estimated(task.job, task.job.next_block, now_us)
                task.fewest, task.rest_us, task.rises_us = again.fewest, again.rest_us, again.rises_us
                self._enqueue(task, ledger.waiting)
        tasks = self._share_out(len(ledger.machine.cores), now_us)
        idle = len(ledger.idle)
        for i, task in enumerate(tasks):
            if not task.held and task.share and min(task.share, idle) >= task.job.costs.narrowest:
                behind = next((other for other in tasks[i + 1 :] if not other.held), None)
                return self._plan(task, min(task.share, idle), behind, now_us)
            idle -= max(0, task.share - task.held)  # kept, until more are idle or its layer ends
        return None

    def _plan(self, task: _Task, at_most: int, behind: _Task | None, now_us: int) -> UnitPlan:
        job, first = task.job, task.job.next_block
        cores = fastest_within(job.costs, first, at_most)
        end = job.costs.model.layer_end(first)
        self._work.remove(job)
        task.held = cores
        if end < len(job.costs.model.blocks):
            after = _estimated(job, end, now_us + job.costs.fastest(cores, 0.0).span_us(first, end))
            after.held = cores
            self._running[job.order] = after
        rejected, least = [], task.fewest or job.costs.narrowest
        if cores != least:
            why = "others leave more" if cores > least else f"conflict: {at_most} to be had"
            rejected.append(Alternative(in_cores(least), why))
        if behind is not None:
            rejected.append(Alternative(f"request {behind.job.request.id}", _why_behind(task, behind)))
        needs = f"{in_cores(task.fewest)} would keep its deadline" if task.fewest else "its deadline is lost"
        return plan_alone(
            job,
            cores=cores,
            wanted_cores=max(cores, task.fewest),
            end_block=end,
            reason=f"a share of {in_cores(at_most)}; {needs}",
            rejected=rejected,
        )

    def _share_out(self, all_cores: int, now_us: int) -> list[_Task]:
        """Who gets cores now, in order of score, each with its `share`. The first who waits and gets none is the last."""
        left = all_cores
        served, hopeless = list[_Task](), list[_Task]()
        taken = list[tuple[_Heap, _Entry]]()
        running = sorted((task.place(now_us), task) for task in self._running.values())
        waiting = [self._in_order(key, taken, now_us) for key in self._heaps]
        for _, task in merge(running, *waiting):
            left -= task.give(task.fewest, left)
            (served if task.fewest else hopeless).append(task)
            if not (left or task.held or task.share) or len(hopeless) > all_cores:
                break
        for heap, entry in taken:
            heappush(heap, entry)
        left = _share_spare(served, left)
        for task in hopeless:
            left -= task.give(task.job.costs.narrowest, left)
        _share_spare([task for task in hopeless if task.share], left)
        return [*served, *hopeless]

    def _in_order(self, key: _Key, taken: list[tuple[_Heap, _Entry]], now_us: int) -> Iterator[tuple[float, _Task]]:
        """Those of one priority and one fewest, with their places; they are in `taken` then."""
        heap = self._heaps[key]
        while heap:
            entry = heappop(heap)
            if _is_in(entry, key):
                taken.append((heap, entry))
                yield entry[1].place(now_us), entry[1]

    def _enqueue(self, task: _Task, waiting: int) -> None:
        key = task.priority, task.fewest
        by = task.job.deadline_us if task.fewest else task.rest_us
        push(self._heaps.setdefault(key, []), (by, task), waiting, lambda entry: _is_in(entry, key))
        if task.rises_us is not None:
            push(self._rises, (task.rises_us, task), waiting, lambda entry: entry[1].waits)


def _is_in(entry: _Entry, key: _Key) -> bool:
    task = entry[1]
    return task.waits and (task.priority, task.fewest) == key


def _estimated(job: Job, block: int, at_us: int) -> _Task:
    """What it needs from this block on, if it goes on at this moment."""
    priority = job.request.priority
    weight = 1.0 + priority if priority >= 0 else 1 / (1.0 - priority)
    for cores, line in job.costs.by_cores(0.0):
        rest_us = line.rest_us(block)
        if at_us + rest_us <= job.deadline_us:
            return _Task(job, weight, cores, rest_us, rises_us=job.deadline_us - rest_us)
    return _Task(job, weight, 0, job.costs.least_rest_us(block), rises_us=None)


def _share_spare(tasks: list[_Task], spare: int) -> int:
    """Add to the shares in proportion, what rounding leaves to the first; returns what is beyond everybody's tables."""
    left, total = spare, sum(task.priority / task.rest_us for task in tasks)
    for proportional in (True, False):
        for task in tasks if left else ():
            part = round(spare * task.priority / task.rest_us / total) if proportional else left
            more = min(part, left, task.job.costs.core_counts[-1] - task.share)
            task.share += more
            left -= more
    return left


def _why_behind(winner: _Task, loser: _Task) -> str:
    if not loser.fewest:
        return "its deadline is lost" if winner.fewest else "its deadline is lost too, and it takes longer"
    return f"scores less: due {in_ms(loser.job.deadline_us - winner.job.deadline_us)} later, needs {in_cores(loser.fewest)}"
