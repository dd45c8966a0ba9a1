"""The line of those who wait and the cores in use, each against a model that is too simple to be wrong."""

import pytest
from core_build import arrived, model
from hypothesis import given, settings
from hypothesis import strategies as st

from veltair.core.backlog import BUCKET, Around, Backlog, Entry, InFlight
from veltair.core.predict import ModelCosts
from veltair.core.state import Job

JOB = Job(arrived("r", "m", 0, 1_000).request, ModelCosts(model("m", [1_000]), 1), order=1)


def entry(order: int, deadline_us: int, us: int = 100, cores: int = 1, priority: int = 0, ready_us: int = 0) -> Entry:
    return Entry((-priority, deadline_us, order), us, cores, ready_us, JOB)


def naive_around(line: list[Entry], rank: tuple[int, int, int], near: int, cores: int) -> Around:
    """Each sum is taken anew, entry by entry."""
    line = sorted(line)
    before, behind = [e for e in line if e.rank <= rank], [e for e in line if e.rank > rank]
    cut = max(0, len(before) - near)
    far_room: int | None = None
    work = sum(e.us * e.cores for e in before + behind[:near])
    for far in behind[near:]:
        room = cores * (far.deadline_us - far.us) - work
        work += far.us * far.cores
        if far.rank[0] == rank[0]:
            far_room = room if far_room is None else min(far_room, room)
    return Around(before[cut:], sum(e.us * e.cores for e in before[:cut]), behind[:near], far_room)


entries = st.builds(
    entry,
    order=st.integers(0, 10**6),
    deadline_us=st.integers(0, 5_000),
    us=st.integers(0, 900),
    cores=st.integers(1, 8),
    priority=st.sampled_from([0, 0, 0, 0, 1, 2]),
)


@settings(max_examples=40, deadline=None)
@given(
    many=st.lists(entries, min_size=3, max_size=3 * BUCKET + 40, unique_by=lambda e: e.rank),
    grown=st.integers(1, 4),
    gone=st.sets(st.integers(0, 4 * BUCKET)),
    asked=entries,
    near=st.sampled_from([1, 3, 16]),
)
def test_a_place_in_line_is_seen_as_by_adding_up_everybody(
    many: list[Entry], grown: int, gone: set[int], asked: Entry, near: int
) -> None:
    backlog, line = Backlog(cores=4), []
    for copy in range(grown):  # hundreds, so that buckets divide
        for each in many:
            shifted = each._replace(rank=(each.rank[0], each.rank[1] + copy, each.rank[2] * 4 + copy))
            backlog.add(shifted)
            line.append(shifted)
    for i in sorted(gone, reverse=True):
        if i < len(line):
            backlog.remove(line.pop(i).rank)
    assert list(backlog) == sorted(line)
    assert len(backlog) == len(line)
    for rank in [asked.rank, *(e.rank for e in line[:3])]:
        assert backlog.around(rank, near) == naive_around(line, rank, near, cores=4)


@given(many=st.lists(entries, max_size=60, unique_by=lambda e: e.rank), priority=st.integers(0, 2))
def test_the_last_of_a_priority_is_the_last_that_stands_before_any_lower_one(many: list[Entry], priority: int) -> None:
    backlog = Backlog(cores=2)
    for each in many:
        backlog.add(each)
    assert backlog.last_of(priority) == max((e for e in many if e.rank[0] <= -priority), default=None)


def test_thousands_of_entries_come_and_go_and_leave_nothing() -> None:
    backlog = Backlog(cores=2)
    order = [(i * 7_919) % 3_001 for i in range(3_001)]
    for i in order:
        backlog.add(entry(i, i))
    assert [e.deadline_us for e in backlog] == list(range(3_001))
    for i in reversed(order):
        backlog.remove((0, i, i))
    assert (len(backlog), list(backlog)) == (0, [])
    assert backlog.around((0, 5, 5), 4) == Around([], 0, [], None)


def test_who_is_not_in_line_cannot_leave_it() -> None:
    backlog = Backlog(cores=2)
    for rank in [(0, 1, 1), (0, 9, 9)]:
        with pytest.raises(KeyError):
            backlog.remove(rank)
        backlog.add(entry(5, 5) if rank[1] == 1 else entry(6, 6))


@settings(deadline=None)
@given(
    units=st.lists(
        st.builds(
            entry,
            st.integers(0, 999),
            st.integers(0, 99),
            st.integers(0, 50),
            st.integers(1, 4),
            st.integers(0, 1),
            st.integers(0, 100),
        ),
        max_size=12,
        unique_by=lambda e: e.rank,
    ),
    gone=st.sets(st.integers(0, 11)),
    asked=entries,
    idle=st.integers(0, 3),
    now_us=st.integers(0, 120),
)
def test_cores_in_use_are_free_when_their_unit_or_for_those_behind_it_their_request_is_over(
    units: list[Entry], gone: set[int], asked: Entry, idle: int, now_us: int
) -> None:
    in_flight = InFlight()
    for unit in units:
        in_flight.add(unit)
    for i in sorted(gone, reverse=True):
        if i < len(units):
            assert in_flight.remove(units[i].rank) == units.pop(i)
    rank = (asked.rank[0], asked.rank[1] // 50, asked.rank[2])
    free = [now_us] * idle
    for unit in units:
        done_us = unit.ready_us + (unit.us if unit.rank < rank else 0)  # whoever is ahead of the unit takes its cores
        free += [max(now_us, done_us)] * unit.cores  # one that overruns is over any moment
    assert in_flight.free_us(rank, idle, now_us) == sorted(free)
    behind = sorted(unit for unit in units if unit.rank >= rank)
    nearest, work = in_flight.behind(rank, near=100)
    assert nearest == [unit for unit in behind if unit.us]
    assert work == sum(unit.us * unit.cores for unit in behind)
    assert len(in_flight) == sum(unit.cores for unit in units)
    assert in_flight.latest_deadline_us() == max((unit.deadline_us for unit in units), default=0)
