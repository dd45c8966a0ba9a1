"""Time that the hypervisor took from our CPUs: other virtual machines run there, and may press on memory as well."""

from pathlib import Path

from veltair.host import ROOT
from veltair.interference.sources import UNSURE, Own, Used
from veltair.interference.sources.cpu_times import TICK_US, CpuTimesFile

WINDOW_US = 10 * TICK_US  # a tick of stolen time is no outsider


class Steal:
    name = "steal"
    error = UNSURE

    def __init__(self, root: Path = ROOT) -> None:
        """Never refused where there is /proc/stat: a machine that is no virtual one has nothing stolen."""
        self.discarded = 0
        self._file = CpuTimesFile(root)
        self._then: tuple[int, int] | None = None
        self._cores = 0.0

    def read(self, now_us: int, own: Own) -> Used | None:
        """The same for a tenth of a second, then what was stolen in it."""
        if self._then is not None and now_us - self._then[0] < WINDOW_US:
            return Used(now_us, self._cores)
        stolen_us = self._file.read().stolen_us
        then, self._then = self._then, (now_us, stolen_us)
        if then is None:
            return None
        self._cores = max(0.0, (stolen_us - then[1]) / (now_us - then[0]))
        return Used(now_us, self._cores)

    def close(self) -> None:
        self._file.close()
