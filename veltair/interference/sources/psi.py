"""Pressure stall information: the share of time in which somebody had to wait for a CPU, or for memory to be reclaimed.

It sees outsiders only where cores are scarce: while somebody waits there is more work than cores, of ours and others'. An
outsider on a core that we leave idle does not show. The kernel counts microseconds, so a tick tells enough.
"""

import re
from pathlib import Path

from veltair.errors import SourceUnavailable
from veltair.host import ROOT
from veltair.interference.sources import UNSURE, Own, Used
from veltair.interference.sources.files import KernelFile

REMEDY = "boot with psi=1, or choose another source"
SOME = re.compile(rb"^some .*total=(\d+)", re.MULTILINE)


class Psi:
    name = "psi"
    error = UNSURE

    def __init__(self, root: Path = ROOT) -> None:
        self.discarded = 0
        self._files = [KernelFile(root / "proc/pressure" / what, REMEDY) for what in ("cpu", "memory")]
        try:
            self._before: tuple[int, list[int]] | None = None
            self._stalls_us()  # with psi=0 the files are there, and refuse to be read
        except SourceUnavailable:
            self.close()
            raise

    def read(self, now_us: int, own: Own) -> Used | None:
        stalls_us = self._stalls_us()
        before, self._before = self._before, (now_us, stalls_us)
        if before is None or now_us <= before[0]:
            return None
        elapsed_us = now_us - before[0]
        shares = [(now - then) / elapsed_us for now, then in zip(stalls_us, before[1], strict=True)]
        if min(shares) < 0.0:
            self.discarded += 1
            return None
        return Used(now_us, min(1.0, max(shares)))  # a read a little late may see more stall than time

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _stalls_us(self) -> list[int]:
        found = []
        for file in self._files:
            data = file.read()
            total = SOME.search(data)
            if total is None:
                raise file.senseless(data)
            found.append(int(total[1]))
        return found
