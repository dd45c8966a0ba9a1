"""Counters: the kernel's format, what is made of a stream of it, and the refusals of kernels that do not count."""

import errno
import os
import struct
from collections.abc import Iterator, Sequence

import pytest

from veltair.errors import SourceUnavailable
from veltair.interference.sources import Own
from veltair.interference.sources import perf as perf_source
from veltair.interference.sources.perf import Counts, Perf, Traffic, open_counter, parse_group, parse_single

BANDWIDTH = 20_000.0  # bytes/us
LOOK_US = 20_000
FULL = round(BANDWIDTH * LOOK_US / 64)  # lines in a look
CPU_CLOCK, TASK_CLOCK = 0, 1  # software counters, which every kernel has


Look = tuple[list[bytes], bytes]  # the group of every CPU, and our own counter


class Machine:
    """CPUs that write the stream of their counters as the kernel does, look by look."""

    def __init__(self, cpus: int = 2) -> None:
        self.counts = [[0, 0, 0, 0] for _ in range(cpus)]
        self.times_ns = [[0, 0] for _ in range(cpus)]
        self.own = 0

    def look(self, misses: Sequence[int], own: int = 0, running: float = 1.0, cycles: int = 10**6) -> Look:
        """`misses` of every CPU in truth; the group runs a share of the time, and counts that share."""
        for cpu, missed in enumerate(misses):
            self.times_ns[cpu][0] += LOOK_US * 1000
            self.times_ns[cpu][1] += round(LOOK_US * 1000 * running)
            for place, count in enumerate((missed, 3 * missed, cycles, 2 * cycles)):
                self.counts[cpu][place] += round(count * running)
        self.own += own
        groups = [struct.pack("<7Q", 4, *times, *counts) for times, counts in zip(self.times_ns, self.counts, strict=True)]
        return groups, struct.pack("<3Q", self.own, self.times_ns[0][0], self.times_ns[0][0])


def pressures(stream: Sequence[Look], traffic: Traffic) -> list[float | None]:
    found = []
    for look, (groups, own) in enumerate(stream):
        reading = traffic.pressed(look * LOOK_US, [parse_group(group) for group in groups], parse_single(own))
        found.append(None if reading is None else round(reading.pressure, 2))
    return found


def test_a_stream_of_counters_shows_an_outsider_come_and_go() -> None:
    machine = Machine()
    stream = [machine.look(misses) for misses in ([0, 0], [100, 0], [100, FULL // 2], [0, FULL], [0, 2 * FULL], [0, 0])]
    assert pressures(stream, Traffic(BANDWIDTH)) == [None, 0.0, 0.5, 1.0, 1.0, 0.0]


def test_own_misses_are_nobody_elses() -> None:
    machine = Machine()
    stream = [machine.look([0, 0]), machine.look([FULL, FULL // 2], own=FULL), machine.look([FULL // 2, 0], own=FULL)]
    assert pressures(stream, Traffic(BANDWIDTH)) == [None, 0.5, 0.0]


def test_counts_of_groups_that_take_turns_are_scaled() -> None:
    machine = Machine()
    stream = [machine.look([0, 0]), machine.look([FULL // 2, 0], running=0.25)]
    assert pressures(stream, Traffic(BANDWIDTH)) == [None, 0.5]


def test_without_a_turn_nothing_is_said() -> None:
    machine = Machine()
    stream = [machine.look([0, 0]), machine.look([FULL, 0], running=0.0), machine.look([FULL, 0])]
    assert pressures(stream, Traffic(BANDWIDTH)) == [None, None, 1.0]


def test_more_misses_than_references_are_discarded() -> None:
    machine, traffic = Machine(), Traffic(BANDWIDTH)
    stream = [machine.look([0, 0])]
    machine.counts[0][0] += FULL
    stream.append(machine.look([0, 0]))
    assert pressures(stream, traffic) == [None, None]
    assert traffic.discarded == 1


def test_counters_that_stand_still_are_faked_and_given_up() -> None:
    machine, traffic = Machine(), Traffic(BANDWIDTH)
    with pytest.raises(SourceUnavailable, match="stood still for 2 s"):
        pressures([machine.look([0, 0], cycles=0) for _ in range(200)], traffic)


def test_a_count_that_went_back_is_no_count() -> None:
    assert Counts(200, 200, (5,)).since(Counts(100, 100, (7,))) is None


@pytest.mark.parametrize("data", [b"", b"\0" * 16, struct.pack("<5Q", 4, 1, 1, 1, 1)])
def test_a_read_that_is_cut_off_ends_the_source(data: bytes) -> None:
    """A counter whose CPU was taken away reads as its end."""
    with pytest.raises(SourceUnavailable, match=f"gave {len(data)} bytes"):
        parse_group(data)
    with pytest.raises(SourceUnavailable, match="gone"):
        parse_single(data)


@pytest.fixture
def group() -> Iterator[int]:
    """Two software counters of this process in a group, as the live kernel counts them."""
    try:
        leader = open_counter(perf_source.SOFTWARE, TASK_CLOCK, 0, -1)
    except SourceUnavailable as refusal:
        pytest.skip(str(refusal))
    follower = open_counter(perf_source.SOFTWARE, CPU_CLOCK, 0, -1, leader)
    yield leader
    os.close(follower)
    os.close(leader)


def test_the_kernel_writes_groups_as_they_are_parsed(group: int) -> None:
    before, after = (parse_group(os.read(group, 4096)) for _ in range(2))
    counted = after.since(before)
    assert counted is not None
    leader, _ = counted  # some kernels bring the followers of a software group up to date at timer ticks only
    assert leader == pytest.approx(after.enabled_ns - before.enabled_ns, rel=0.5)  # it is a clock


def test_the_kernel_writes_inherited_counters_as_they_are_parsed() -> None:
    try:
        counter = open_counter(perf_source.SOFTWARE, TASK_CLOCK, 0, -1, inherit=True)
    except SourceUnavailable as refusal:
        pytest.skip(str(refusal))
    try:
        first, second = (parse_single(os.read(counter, 24)) for _ in range(2))
    finally:
        os.close(counter)
    assert second.values[0] > first.values[0]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EACCES, "set kernel.perf_event_paranoid to 0 or give the server CAP_PERFMON"),
        (errno.ENOENT, "a virtual one most likely, has no such counters"),
        (errno.E2BIG, "choose another source"),
    ],
)
def test_a_refusal_names_the_error_and_the_remedy(monkeypatch: pytest.MonkeyPatch, code: int, remedy: str) -> None:
    class Kernel:
        def __init__(self, name: None, use_errno: bool) -> None:
            pass

        def syscall(self, *arguments: object) -> int:
            perf_source.ctypes.set_errno(code)
            return -1

    monkeypatch.setattr(perf_source.ctypes, "CDLL", Kernel)
    with pytest.raises(SourceUnavailable, match=f"refused \\({errno.errorcode[code]}, .*\\); .*{remedy}"):
        Perf(BANDWIDTH)


def test_whoever_may_count_reads_two_looks() -> None:
    """On a machine with counters: all of it, through the kernel."""
    try:
        source = Perf(BANDWIDTH)
    except SourceUnavailable as refusal:
        pytest.skip(str(refusal))
    own = Own(0, 0.0, 0)
    assert source.read(0, own) is None
    reading = source.read(LOOK_US, own)
    source.close()
    assert reading is None or 0.0 <= reading.pressure <= 1.0
