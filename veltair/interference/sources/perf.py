"""Hardware counters by perf_event_open: what the last-level cache missed on all CPUs, less what this process missed.

Every CPU has a group of four counters that run at the same times: misses, references, cycles and instructions. A miss is a
line of 64 bytes on the memory path. Cycles and instructions tell whether the counters count at all: some virtual machines
have them and leave them at zero. Where more counters are asked for than a CPU has, the kernel takes turns and tells for how
long each group ran; counts are scaled by that. On AMD the generic "last-level" events count the misses of L2.

Reading is apart from parsing, so that a recorded stream can be parsed where the kernel refuses to count.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from veltair.errors import SourceUnavailable
from veltair.host import CPUS, ROOT, read_cpu_list
from veltair.interference.sources import Own, Pressed

# include/uapi/linux/perf_event.h
HARDWARE, SOFTWARE = 0, 1
CYCLES, INSTRUCTIONS, REFERENCES, MISSES = range(4)
EVENTS = (MISSES, REFERENCES, CYCLES, INSTRUCTIONS)
READ_TIMES, READ_GROUP = 0b11, 0b1000  # total time enabled and running; all of a group at once
INHERIT = 1 << 1  # threads made from now on are counted, too
FLAG_FD_CLOEXEC = 1 << 3
ATTR_BYTES = 128
SYSCALL = {"x86_64": 298, "aarch64": 241}

LINE_BYTES = 64
ERROR = 0.1  # of the pressure: some CPUs do not count prefetches, or what is written back
HALF = 0.5  # no less error than for this pressure
DEAD_US = 2_000_000  # without a single cycle on any CPU: nobody counts, since we have run ourselves

Reader = Callable[[int], bytes]  # a group's counters, by its descriptor

REMEDIES = {
    errno.EACCES: "set kernel.perf_event_paranoid to 0 or give the server CAP_PERFMON",
    errno.EPERM: "set kernel.perf_event_paranoid to 0 or give the server CAP_PERFMON; a container needs it from its runtime",
    errno.ENOENT: "this machine, a virtual one most likely, has no such counters: nothing to be done here",
    errno.EOPNOTSUPP: "this machine, a virtual one most likely, has no such counters: nothing to be done here",
    errno.ENODEV: "this machine, a virtual one most likely, has no such counters: nothing to be done here",
    errno.ENOSYS: "this kernel or sandbox has no perf events: nothing to be done here",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EBUSY: "another program holds the counters for itself: end it",
}


class Counts(NamedTuple):
    """One read of a group, as the kernel gives it."""

    enabled_ns: int
    running_ns: int
    values: tuple[int, ...]

    def since(self, before: "Counts") -> tuple[float, ...] | None:
        """Counts between two reads, scaled to the whole time; None where the group did not run in between."""
        enabled_ns, running_ns = self.enabled_ns - before.enabled_ns, self.running_ns - before.running_ns
        if not 0 < running_ns <= enabled_ns or any(now < then for now, then in zip(self.values, before.values, strict=True)):
            return None
        scale = enabled_ns / running_ns
        return tuple((now - then) * scale for now, then in zip(self.values, before.values, strict=True))


def parse_group(data: bytes) -> Counts:
    """{ u64 nr, time_enabled, time_running; u64 value[nr] }. Raises SourceUnavailable for anything else, such as an end."""
    if len(data) >= 24:
        number, enabled_ns, running_ns = struct.unpack_from("<3Q", data)
        if len(data) == 24 + 8 * number:
            return Counts(enabled_ns, running_ns, struct.unpack_from(f"<{number}Q", data, 24))
    raise SourceUnavailable(f"a read of counters gave {len(data)} bytes: they are gone; choose another source")


def parse_single(data: bytes) -> Counts:
    """{ u64 value, time_enabled, time_running }: an inherited counter cannot be in a group."""
    if len(data) != 24:
        raise SourceUnavailable(f"a read of a counter gave {len(data)} bytes: it is gone; choose another source")
    value, enabled_ns, running_ns = struct.unpack("<3Q", data)
    return Counts(enabled_ns, running_ns, (value,))


def open_counter(kind: int, event: int, pid: int, cpu: int, group: int = -1, *, inherit: bool = False) -> int:
    """A descriptor. Raises SourceUnavailable with the kernel's reason and the remedy."""
    attributes = bytearray(ATTR_BYTES)
    struct.pack_into("<IIQ", attributes, 0, kind, ATTR_BYTES, event)
    struct.pack_into("<QQ", attributes, 32, READ_TIMES | (0 if inherit else READ_GROUP), INHERIT if inherit else 0)
    number = SYSCALL.get(os.uname().machine)
    if number is None:
        raise SourceUnavailable(f"perf_event_open has no known number on {os.uname().machine}; choose another source")
    buffer = (ctypes.c_char * ATTR_BYTES).from_buffer(attributes)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.syscall(number, buffer, pid, cpu, group, FLAG_FD_CLOEXEC)
    if descriptor < 0:
        code = ctypes.get_errno()
        name, remedy = errno.errorcode.get(code, str(code)), REMEDIES.get(code, "choose another source")
        raise SourceUnavailable(f"perf_event_open was refused ({name}, {os.strerror(code)}); {remedy}")
    return descriptor


class Perf:
    """Made before the threads whose misses are our own: a counter is inherited by those that are made after it."""

    name = "perf"
    error = ERROR * HALF

    def __init__(self, bandwidth_bytes_per_us: float, root: Path = ROOT) -> None:
        cpus = read_cpu_list(root / CPUS / "online") or sorted(os.sched_getaffinity(0))
        descriptors: list[int] = []
        try:
            own = open_counter(HARDWARE, MISSES, 0, -1, inherit=True)
            descriptors.append(own)
            leaders = []
            for cpu in cpus:
                leader = -1
                for event in EVENTS:
                    descriptors.append(open_counter(HARDWARE, event, -1, cpu, leader))
                    leader = descriptors[-1] if leader < 0 else leader
                leaders.append(leader)
        except SourceUnavailable:
            _close(descriptors)
            raise
        self._descriptors = descriptors
        self._own, self._leaders = own, leaders
        self._traffic = Traffic(bandwidth_bytes_per_us)

    @property
    def discarded(self) -> int:
        return self._traffic.discarded

    def read(self, now_us: int, own: Own) -> Pressed | None:
        try:
            groups = [os.read(leader, 24 + 8 * len(EVENTS)) for leader in self._leaders]
            mine = os.read(self._own, 24)
        except OSError as error:
            raise SourceUnavailable(f"the counters cannot be read any more: {error.strerror}; choose another source") from error
        return self._traffic.pressed(now_us, [parse_group(group) for group in groups], parse_single(mine))

    def close(self) -> None:
        _close(self._descriptors)


class Traffic:
    """From counts to pressure. Knows nothing of where they come from."""

    def __init__(self, bandwidth_bytes_per_us: float) -> None:
        self.discarded = 0
        self._bandwidth = bandwidth_bytes_per_us
        self._before: tuple[int, Sequence[Counts], Counts] | None = None
        self._counted_us: int | None = None

    def pressed(self, now_us: int, groups: Sequence[Counts], own: Counts) -> Pressed | None:
        """`groups` hold EVENTS of every CPU, `own` the misses of this process. Raises SourceUnavailable where all stand still."""
        before, self._before = self._before, (now_us, groups, own)
        if before is None or now_us <= before[0]:
            self._counted_us = now_us
            return None
        elapsed_us = now_us - before[0]
        counted = [now.since(then) for now, then in zip(groups, before[1], strict=True)]
        known = [counts for counts in counted if counts is not None]
        if any(cycles > 0 for _, _, cycles, _ in known):
            self._counted_us = now_us
        elif now_us - (self._counted_us or 0) >= DEAD_US:
            raise SourceUnavailable(f"the counters stood still for {DEAD_US / 1e6:g} s: they are faked; choose another source")

        mine = own.since(before[2])
        if len(known) < len(counted):  # a CPU on which they had no turn
            return None
        misses = sum(missed for missed, _, _, _ in known)
        if misses > sum(referred for _, referred, _, _ in known):  # not of one event
            self.discarded += 1
            return None
        others_bytes = max(0.0, misses - (mine[0] if mine is not None else 0.0)) * LINE_BYTES
        pressure = min(1.0, others_bytes / elapsed_us / self._bandwidth)
        return Pressed(now_us, pressure, ERROR * max(pressure, HALF), timed=False)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
