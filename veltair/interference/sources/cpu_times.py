"""The first lines of /proc/stat: what all CPUs together and each of them did since boot, in hundredths of a second."""

import os
from pathlib import Path
from typing import NamedTuple

from veltair.core.values import CoreId
from veltair.errors import SourceUnavailable
from veltair.interference.sources.files import KernelFile

TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
WHOLE_BYTES = 1 << 20  # a line for each of some thousands of CPUs
LINE_BYTES = 128
FIELDS = 8  # user nice system idle iowait irq softirq steal


class CpuTimes(NamedTuple):
    idle_us: int  # waiting for a disk included
    stolen_us: int  # by the hypervisor, for others
    total_us: int
    cpus: int  # that are online
    each: bytes = b""  # a line for each CPU, to be read by `ahead_us`


def ahead_us(times: CpuTimes) -> dict[CoreId, int]:
    """Of each CPU, the time that went to somebody before threads at a niceness: to others, or the kernel."""
    found = {}
    for line in times.each.splitlines():
        name, *words = line.split()
        if not name.startswith(b"cpu") or len(words) < FIELDS:
            break
        user, _, system, _, _, irq, softirq, _ = map(int, words[:FIELDS])
        found[CoreId(int(name[3:]))] = (user + system + irq + softirq) * TICK_US
    return found


class CpuTimesFile:
    """Raises SourceUnavailable where there is no /proc/stat, or one that counts nothing (some sandboxes)."""

    def __init__(self, root: Path) -> None:
        self._file = KernelFile(root / "proc/stat", "choose another source")
        self._bytes = WHOLE_BYTES
        try:
            times = self.read()
            self._bytes = LINE_BYTES * (times.cpus + 1)  # the rest of the file is long
            if times.cpus < 1 or times.total_us == 0:
                raise SourceUnavailable(f"{self._file.path} counts nothing in this sandbox; choose another source")
        except SourceUnavailable:
            self.close()
            raise

    def read(self) -> CpuTimes:
        data = self._file.read(self._bytes)
        end = data.find(b"\n")
        words = data[:end].split()
        try:
            ticks = [int(word) for word in words[1 : 1 + FIELDS]]
            _, _, _, idle, iowait, _, _, stolen = ticks
        except ValueError as error:
            raise self._file.senseless(data) from error
        each = data[end + 1 :]
        cpus = each.count(b"\ncpu") + each.startswith(b"cpu")
        return CpuTimes((idle + iowait) * TICK_US, stolen * TICK_US, sum(ticks) * TICK_US, cpus, each)

    def close(self) -> None:
        self._file.close()
