"""Who waits, in the order in which they should go, with what is needed to judge a newcomer without looking at each of them.

A sorted list in buckets (as sortedcontainers keeps one): finding a place costs a bisection over the buckets and one in a
bucket. Each bucket also knows the work in it, and how much of other people's work its most pressed entry could bear. So the
work before any place and the least such room behind it are sums over buckets, not over entries: from ten to ten thousand
entries the cost triples (`scripts/bench_scheduler` prints the curve).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate
from operator import sub
from typing import NamedTuple

from veltair.core.state import Job

BUCKET = 96  # entries; split in two at twice as many: the sums over buckets and over a bucket cost about the same at 10,000

Rank = tuple[int, int, int]
"""Priority (negated), deadline, order of arrival: the least goes first."""


def rank_of(job: Job, deadline_us: int | None = None) -> Rank:
    """Where it stands in line, with its own deadline or another one."""
    return -job.request.priority, job.deadline_us if deadline_us is None else deadline_us, job.order


class Entry(NamedTuple):
    """A job that waits, as it was seen when it began to: it then needs `cores` for `us`, not before `ready_us`."""

    rank: Rank
    us: int
    cores: int
    ready_us: int
    job: Job

    @property
    def deadline_us(self) -> int:
        return self.rank[1]


class _Bucket:
    __slots__ = ("entries", "least", "work")

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.work = sum(e.us * e.cores for e in entries)
        self.least: int | None = None  # unknown until asked

    def room(self, cores: int) -> int:
        """The least of what its entries could bear before them, in core-us counted from time zero."""
        if self.least is None:
            self.least = _least_room(self.entries, cores)
        return self.least


class Backlog:
    """Entries by rank, for a machine of `cores`."""

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._buckets: list[_Bucket] = []
        self._lasts: list[Rank] = []  # of each bucket
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        for bucket in self._buckets:
            yield from bucket.entries

    @property
    def first(self) -> Entry | None:
        return self._buckets[0].entries[0] if self._buckets else None

    @property
    def last(self) -> Entry | None:
        return self._buckets[-1].entries[-1] if self._buckets else None

    def add(self, entry: Entry) -> None:
        self._count += 1
        if not self._buckets:
            self._buckets, self._lasts = [_Bucket([entry])], [entry.rank]
            return
        b = min(bisect_left(self._lasts, entry.rank), len(self._buckets) - 1)
        bucket = self._buckets[b]
        bucket.entries.insert(bisect_left(bucket.entries, entry.rank, key=_rank), entry)
        bucket.work += entry.us * entry.cores
        bucket.least = None
        self._lasts[b] = bucket.entries[-1].rank
        if len(bucket.entries) > 2 * BUCKET:
            halves = _Bucket(bucket.entries[:BUCKET]), _Bucket(bucket.entries[BUCKET:])
            self._buckets[b : b + 1] = halves
            self._lasts[b : b + 1] = [half.entries[-1].rank for half in halves]

    def remove(self, rank: Rank) -> Entry:
        """Raises KeyError where no entry has this rank."""
        b = bisect_left(self._lasts, rank)
        bucket = self._buckets[b] if b < len(self._buckets) else None
        i = 0 if bucket is None else bisect_left(bucket.entries, rank, key=_rank)
        if bucket is None or bucket.entries[i].rank != rank:
            raise KeyError(rank)
        self._count -= 1
        entry = bucket.entries.pop(i)
        bucket.work -= entry.us * entry.cores
        bucket.least = None
        if bucket.entries:
            self._lasts[b] = bucket.entries[-1].rank
        else:
            del self._buckets[b], self._lasts[b]
        return entry

    def around(self, rank: Rank, near: int) -> "Around":
        """What stands before and behind this place, the `near` nearest on each side one by one."""
        b = bisect_right(self._lasts, rank)
        i = bisect_right(self._buckets[b].entries, rank, key=_rank) if b < len(self._buckets) else 0
        before, ahead_work = self._near_before(b, i, near)
        behind = self._near_behind(b, i, near)
        return Around(before, ahead_work, behind, self._far_room(behind) if behind else None)

    def _near_before(self, b: int, i: int, near: int) -> tuple[list[Entry], int]:
        """The nearest, and the work of all that stand before those."""
        before = self._buckets[b].entries[max(0, i - near) : i] if i else []
        work = sum(e.us * e.cores for e in self._buckets[b].entries[: max(0, i - near)]) if i > near else 0
        while b and len(before) < near:
            b -= 1
            bucket, missing = self._buckets[b], near - len(before)
            before[:0] = bucket.entries[-missing:]
            work += sum(e.us * e.cores for e in bucket.entries[:-missing]) if len(bucket.entries) > missing else 0
        return before, work + sum(bucket.work for bucket in self._buckets[:b])

    def _near_behind(self, b: int, i: int, near: int) -> list[Entry]:
        behind: list[Entry] = []
        while b < len(self._buckets) and len(behind) < near:
            behind += self._buckets[b].entries[i : i + near - len(behind)]
            b, i = b + 1, 0
        return behind

    def _far_room(self, near: list[Entry]) -> int | None:
        """Of those behind the nearest: the least (cores x latest start - work before it). None: there are none."""
        rank = near[-1].rank
        b = bisect_right(self._lasts, rank)
        if b == len(self._buckets):
            return None
        before = list(accumulate((bucket.work for bucket in self._buckets), initial=0))
        bucket = self._buckets[b]
        i = bisect_right(bucket.entries, rank, key=_rank)
        skipped = sum(e.us * e.cores for e in bucket.entries[:i])
        least = _least_room(bucket.entries[i:], self._cores) - before[b] - skipped
        rooms = [bucket.room(self._cores) for bucket in self._buckets[b + 1 :]]
        return min(least, min(map(sub, rooms, before[b + 1 :]), default=least))


class Around(NamedTuple):
    """A place in the backlog. Work is in core-us."""

    before: list[Entry]
    work_ahead: int  # of those farther ahead than `before`
    behind: list[Entry]
    far_room: int | None


def _rank(entry: Entry) -> Rank:
    return entry.rank


def _least_room(entries: list[Entry], cores: int) -> int:
    before = accumulate((e.us * e.cores for e in entries), initial=0)
    return min(cores * (e.rank[1] - e.us) - work for e, work in zip(entries, before, strict=False))
