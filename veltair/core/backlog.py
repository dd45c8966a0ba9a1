"""Who waits, in the order in which they should go, with what is needed to judge a newcomer without looking at each of them.

A sorted list in buckets (as sortedcontainers keeps one): finding a place costs a bisection over the buckets and one in a
bucket. Each bucket also knows the work in it, and how much of other people's work its most pressed entry could bear. So the
work before any place and the least such room behind it are sums over buckets, not over entries: from ten to ten thousand
entries the cost triples (`scripts/bench_scheduler` prints the curve).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate, groupby, islice
from operator import sub
from typing import NamedTuple

from veltair.core.state import Job

BUCKET = 64  # entries; split in two at twice as many. Sums over buckets and over a bucket then cost alike at 10,000

Rank = tuple[int, int, int]
"""Priority (negated), deadline, order of arrival: the least goes first."""


def rank_of(job: Job, deadline_us: int | None = None) -> Rank:
    """Where it stands in line, with its own deadline or another one."""
    return -job.request.priority, job.deadline_us if deadline_us is None else deadline_us, job.order


class Entry(NamedTuple):
    """A job as it was seen when it began to wait, or what is left of one after its unit in flight, which ends at `ready_us`."""

    rank: Rank
    us: int
    cores: int
    ready_us: int
    job: Job

    @property
    def deadline_us(self) -> int:
        return self.rank[1]


class Around(NamedTuple):
    """A place in the backlog. Work is in core-us."""

    before: list[Entry]
    work_ahead: int  # of those farther ahead than `before`
    behind: list[Entry]
    far_room: int | None  # of those of its priority that are farther behind: the least (cores x latest start - work before it)


class _Bucket:
    """Columns of entries, ascending by rank."""

    __slots__ = ("bounds", "entries", "ranks", "room", "work", "works")

    def __init__(self, entries: list[Entry], cores: int) -> None:
        self.entries = entries
        self.ranks = [e.rank for e in entries]
        self.works = [e.us * e.cores for e in entries]
        self.bounds = [_bound(e, cores) for e in entries]
        self.work = sum(self.works)
        self.room: int | None = None  # unknown until asked

    def insert(self, i: int, entry: Entry, cores: int) -> None:
        self.entries.insert(i, entry)
        self.ranks.insert(i, entry.rank)
        self.works.insert(i, entry.us * entry.cores)
        self.bounds.insert(i, _bound(entry, cores))
        self.work += self.works[i]
        self.room = None

    def pop(self, i: int) -> Entry:
        self.work -= self.works[i]
        self.room = None
        del self.ranks[i], self.works[i], self.bounds[i]
        return self.entries.pop(i)

    def room_from(self, i: int, end: int | None = None) -> int:
        """The least of what the entries from `i` to `end` could bear before them all, those between counted in."""
        rooms: Iterator[int] = map(sub, self.bounds[i:end], accumulate(self.works[i:], initial=0))
        return min(rooms)

    def whole_room(self) -> int:
        if self.room is None:
            self.room = self.room_from(0)
        return self.room


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

    def last_of(self, priority: int) -> Entry | None:
        """The last of this priority; where it has none, of one above."""
        b, i = self._end_of(-priority)
        if i == 0:
            return self._buckets[b - 1].entries[-1] if b else None
        return self._buckets[b].entries[i - 1]

    def add(self, entry: Entry) -> None:
        self._count += 1
        if not self._buckets:
            self._buckets, self._lasts = [_Bucket([entry], self._cores)], [entry.rank]
            return
        b = min(bisect_left(self._lasts, entry.rank), len(self._buckets) - 1)
        bucket = self._buckets[b]
        bucket.insert(bisect_left(bucket.ranks, entry.rank), entry, self._cores)
        self._lasts[b] = bucket.ranks[-1]
        if len(bucket.entries) > 2 * BUCKET:
            halves = [_Bucket(half, self._cores) for half in (bucket.entries[:BUCKET], bucket.entries[BUCKET:])]
            self._buckets[b : b + 1] = halves
            self._lasts[b : b + 1] = [half.ranks[-1] for half in halves]

    def remove(self, rank: Rank) -> None:
        """Raises KeyError where no entry has this rank."""
        b = bisect_left(self._lasts, rank)
        bucket = self._buckets[b] if b < len(self._buckets) else None
        i = 0 if bucket is None else bisect_left(bucket.ranks, rank)
        if bucket is None or bucket.ranks[i] != rank:
            raise KeyError(rank)
        self._count -= 1
        bucket.pop(i)
        if bucket.entries:
            self._lasts[b] = bucket.ranks[-1]
        else:
            del self._buckets[b], self._lasts[b]

    def around(self, rank: Rank, near: int) -> Around:
        """What stands before and behind this place, the `near` nearest on each side one by one."""
        b = bisect_right(self._lasts, rank)
        i = bisect_right(self._buckets[b].ranks, rank) if b < len(self._buckets) else 0
        ahead_us = list(accumulate((bucket.work for bucket in self._buckets), initial=0))
        before, work_ahead = self._before(b, i, near, ahead_us)
        behind, b, i = self._behind(b, i, near)
        return Around(before, work_ahead, behind, self._room(b, i, self._end_of(rank[0]), ahead_us))

    def _before(self, b: int, i: int, near: int, ahead: list[int]) -> tuple[list[Entry], int]:
        """The nearest, and the work of all that stand before those."""
        before: list[Entry] = self._buckets[b].entries[max(0, i - near) : i] if i else []
        i = max(0, i - near)
        while b and len(before) < near:
            b -= 1
            i = max(0, len(self._buckets[b].entries) - (near - len(before)))
            before = self._buckets[b].entries[i:] + before
        return before, ahead[b] + (sum(self._buckets[b].works[:i]) if i else 0)

    def _behind(self, b: int, i: int, near: int) -> tuple[list[Entry], int, int]:
        """The nearest, and the place behind those."""
        behind: list[Entry] = []
        while b < len(self._buckets):
            missing = near - len(behind)
            behind += self._buckets[b].entries[i : i + missing]
            i += missing
            if i < len(self._buckets[b].entries):
                break
            b, i = b + 1, 0
        return behind, b, i

    def _end_of(self, negated_priority: int) -> tuple[int, int]:
        """The place behind the last of this priority."""
        if not self._lasts or self._lasts[-1][0] <= negated_priority:
            return len(self._buckets), 0
        behind = (negated_priority + 1,)
        b = bisect_left(self._lasts, behind)
        return b, bisect_left(self._buckets[b].ranks, behind)

    def _room(self, b: int, i: int, end: tuple[int, int], ahead: list[int]) -> int | None:
        """Of those between two places."""
        if (b, i) >= end:
            return None
        bucket = self._buckets[b]
        if b == end[0]:
            return bucket.room_from(i, end[1]) - ahead[b] - sum(bucket.works[:i])
        least = bucket.room_from(i) - ahead[b] - sum(bucket.works[:i])
        if end[1]:
            least = min(least, self._buckets[end[0]].room_from(0, end[1]) - ahead[end[0]])
        rooms = [bucket.whole_room() for bucket in self._buckets[b + 1 : end[0]]]
        return min(least, min(map(sub, rooms, ahead[b + 1 :]), default=least))


class InFlight:
    """Cores in use: until a unit ends and then, if nobody ahead of it in line takes them, until its request is done.

    Columns by rank with a row for every core, so that the free times seen from a place in line are two slices.
    """

    def __init__(self) -> None:
        self._ranks: list[Rank] = []
        self._ends_us: list[int] = []
        self._done_us: list[int] = []
        self._rests_us: list[int] = []
        self._entries: list[Entry] = []

    def __len__(self) -> int:
        """How many cores."""
        return len(self._ranks)

    def add(self, entry: Entry) -> None:
        """What is left of a request after its unit, which ends at `ready_us`; nothing, where `us` is 0."""
        i, cores = bisect_left(self._ranks, entry.rank), entry.cores
        self._ranks[i:i] = [entry.rank] * cores
        self._ends_us[i:i] = [entry.ready_us] * cores
        self._done_us[i:i] = [entry.ready_us + entry.us] * cores
        self._rests_us[i:i] = [entry.us] * cores
        self._entries[i:i] = [entry] * cores

    def remove(self, rank: Rank) -> Entry | None:
        """None, where it holds none of the cores that count."""
        i = bisect_left(self._ranks, rank)
        if i == len(self._ranks) or self._ranks[i] != rank:
            return None
        entry = self._entries[i]
        for column in (self._ranks, self._ends_us, self._done_us, self._rests_us, self._entries):
            del column[i : i + entry.cores]
        return entry

    def free_us(self, rank: Rank, idle: int, now_us: int) -> list[int]:
        """When each core is free for whoever stands at `rank`, ascending."""
        i = bisect_left(self._ranks, rank)
        free = self._done_us[:i] + self._ends_us[i:]
        free.sort()
        overdue = bisect_left(free, now_us)
        return [now_us] * (idle + overdue) + free[overdue:]

    def end_us(self, cores: int) -> int:
        """When so many cores are free again by what was foretold of their units."""
        return sorted(self._ends_us)[cores - 1]

    def behind(self, rank: Rank, near: int) -> tuple[list[Entry], int]:
        """What is left of the nearest requests behind that place, and the work left of all behind it, in core-us."""
        i = bisect_left(self._ranks, rank)
        nearest = [entry for entry, _ in groupby(islice(self._entries, i, i + near)) if entry.us]
        return nearest, sum(self._rests_us[i:])

    def latest_deadline_us(self) -> int:
        return max((rank[1] for rank in self._ranks), default=0)


def _bound(entry: Entry, cores: int) -> int:
    """What the machine can do until it must have started."""
    return cores * (entry.rank[1] - entry.us)
