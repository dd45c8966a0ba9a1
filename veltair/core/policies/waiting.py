"""Who waits, for policies that order their queue by a key which does not change: heaps, from which the answered drop out late."""

import heapq
from collections.abc import Callable, Iterator
from typing import TypeVar

from veltair.core.policies.plans import in_ms
from veltair.core.state import Job, Ledger

Key = tuple[int, int]  # the second is the order of arrival: no two are alike
T = TypeVar("T")


def push(heap: list[T], entry: T, waiting: int, lives: Callable[[T], bool]) -> None:
    """As heapq's, and where most entries must be dead (only so many jobs wait) they go: at the top some would never be met."""
    heapq.heappush(heap, entry)  # type: ignore[type-var]  # entries are tuples that begin with numbers
    if len(heap) > 4 * waiting + 64:
        heap[:] = [entry for entry in heap if lives(entry)]
        heapq.heapify(heap)  # type: ignore[type-var]


class InOrder:
    """Waiting jobs, the least key first. A job is in it once, from when it waits until it is taken or answered.

    There is a heap for each least core count, of which a machine has few: the first that fits is found without walking those
    that do not.
    """

    def __init__(self) -> None:
        self._by_narrowest: dict[int, list[tuple[Key, Job]]] = {}

    def add(self, key: Key, job: Job) -> None:
        heapq.heappush(self._by_narrowest.setdefault(job.costs.narrowest, []), (key, job))

    def first(self, idle_cores: int) -> Job | None:
        """The first of those that can run on so many cores."""
        heap = self._first_heap(idle_cores)
        return heap[0][1] if heap else None

    def take(self, idle_cores: int) -> Job | None:
        """The same, and it is no longer in here."""
        heap = self._first_heap(idle_cores)
        return heapq.heappop(heap)[1] if heap else None

    def _first_heap(self, idle_cores: int) -> list[tuple[Key, Job]] | None:
        best = None
        for narrowest, heap in self._by_narrowest.items():
            while heap and not heap[0][1].waits:
                heapq.heappop(heap)
            if heap and narrowest <= idle_cores and (best is None or heap[0][0] < best[0][0]):
                best = heap
        return best


class LatestStarts:
    """When each waiting job must go on at the latest, so that the hopeless are found without asking all of them."""

    def __init__(self, rest_us: Callable[[Job, Ledger, int], int]) -> None:
        """`rest_us(job, ledger, now_us)` is the least it still needs."""
        self._rest_us = rest_us
        self._heap: list[tuple[int, int, Job]] = []

    def add(self, job: Job, ledger: Ledger, now_us: int) -> None:
        push(self._heap, (self._latest_us(job, ledger, now_us), job.order, job), ledger.waiting, lambda entry: entry[2].waits)

    def overdue(self, ledger: Ledger, now_us: int) -> Iterator[tuple[Job, str]]:
        """Those that cannot be met any more, each once, and why."""
        while self._heap and self._heap[0][0] < now_us:
            _, _, job = heapq.heappop(self._heap)
            if not job.waits:
                continue
            latest_us = self._latest_us(job, ledger, now_us)  # corrections have moved since it was queued
            if latest_us < now_us:
                yield job, f"needed to start {in_ms(now_us - latest_us)} ago"
            else:
                heapq.heappush(self._heap, (latest_us, job.order, job))

    @property
    def next_us(self) -> int | None:
        """When the next one is overdue, if it still waits then."""
        while self._heap and not self._heap[0][2].waits:
            heapq.heappop(self._heap)
        return self._heap[0][0] + 1 if self._heap else None

    def _latest_us(self, job: Job, ledger: Ledger, now_us: int) -> int:
        return job.request.deadline_us - self._rest_us(job, ledger, now_us)


class QueuedWork:
    """Core time that waiting jobs ask for, summed as they come and go: foretelling does not walk a queue nothing bounds."""

    def __init__(self) -> None:
        self._core_us: dict[int, int] = {}  # by order of arrival
        self._sum_us = 0

    def add(self, job: Job, cores: int, us: int) -> None:
        self._core_us[job.order] = cores * us
        self._sum_us += cores * us

    def remove(self, job: Job) -> None:
        """No matter if it is not in here."""
        self._sum_us -= self._core_us.pop(job.order, 0)

    def wait_us(self, cores: int, ledger: Ledger, now_us: int) -> int:
        """How long a newcomer that wants so many cores waits, were all work ahead of it spread over all cores."""
        if not ledger.waiting and len(ledger.idle) >= cores:
            return 0
        running = 0
        for unit in ledger.units.values():
            held = len(unit.lease.cores)
            rest_us = 0 if unit.job.closed else unit.job.costs.fastest(held, 0.0).rest_us(unit.end_block)
            running += (unit.ends_us(now_us) - now_us + rest_us) * held
        return (running + self._sum_us) // len(ledger.machine.cores)
