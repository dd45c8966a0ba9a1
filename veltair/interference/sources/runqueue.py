"""What other processes use of the CPUs: the time that is neither idle, nor stolen, nor ours.

Idle time is counted to the nanosecond whenever a CPU falls asleep, and told in hundredths of a second for all CPUs together,
so over a window of four of those a reading is off by less than a quarter of a core, however many CPUs there are. Busy time is
what remains; the kernel's own count of it is made at timer ticks and misses who runs between them.

Whom a CPU serves is told by that count alone, which is good enough to see on which CPUs others are: our threads that compute
step back by niceness (`turns`), so they are counted apart. Others that do so as well are not seen there.
"""

from collections import deque
from pathlib import Path
from typing import NamedTuple

from veltair.errors import SourceUnavailable
from veltair.host import ROOT
from veltair.interference.sources import UNSURE, Own, Spread, Used
from veltair.interference.sources.cpu_times import TICK_US, CpuTimes, CpuTimesFile, ahead_us

WINDOW_US = 4 * TICK_US
EACH_US = 8 * TICK_US  # of a single CPU: it is there in steps of a tick
WORTH_TELLING = 0.1  # cores that others use; less is on no CPU
GAP_US = 1_000_000  # this long without a read: the machine was suspended, or we were; what was before tells nothing
CHECK_US = 1_000_000
COUNTS = 0.5  # of the time that has passed, at least, or the file tells of something else than these CPUs


class _Moment(NamedTuple):
    at_us: int
    times: CpuTimes
    own_us: int


class RunQueue:
    name = "runqueue"
    error = UNSURE

    def __init__(self, root: Path = ROOT) -> None:
        self.discarded = 0
        self._file = CpuTimesFile(root)
        self._window: deque[_Moment] = deque()
        self._checked: _Moment | None = None

    def read(self, now_us: int, own: Own) -> Used | None:
        now = _Moment(now_us, self._file.read(), own.cpu_ns // 1000)
        window = self._window
        if window and not window[-1].at_us < now_us < window[-1].at_us + GAP_US:
            window.clear()
            self._checked = None
            self.discarded += 1
        if window and window[-1].times.cpus != now.times.cpus:  # one went offline, or came back
            window.clear()
            self._checked = None
        self._check(now)
        window.append(now)
        while len(window) > 1 and window[1].at_us <= now_us - EACH_US:
            window.popleft()
        then = next(moment for moment in reversed(window) if moment.at_us <= now_us - WINDOW_US or moment is window[0])
        if now_us - then.at_us < WINDOW_US // 2:
            return None
        spread = _spread(window[0], now) if now_us - window[0].at_us >= EACH_US else None
        return Used(now_us, _used(then, now), spread, everybody=True)

    def close(self) -> None:
        self._file.close()

    def _check(self, now: _Moment) -> None:
        """Raises SourceUnavailable where the file counts far less than time passes, as where CPUs were taken away."""
        then = self._checked
        if then is not None and now.at_us - then.at_us < CHECK_US:
            return
        self._checked = now
        if then is not None:
            counted = (now.times.total_us - then.times.total_us) / (now.times.cpus * (now.at_us - then.at_us))
            if counted < COUNTS:
                raise SourceUnavailable(
                    f"/proc/stat counts {counted:.0%} of the time that passes on {now.times.cpus} CPUs; choose another source"
                )


def _used(then: _Moment, now: _Moment) -> float:
    """By others, in cores."""
    elapsed_us = now.at_us - then.at_us
    idle_us = now.times.idle_us - then.times.idle_us + now.times.stolen_us - then.times.stolen_us
    return max(0.0, (now.times.cpus * elapsed_us - idle_us - (now.own_us - then.own_us)) / elapsed_us)


def _spread(then: _Moment, now: _Moment) -> Spread:
    cores = _used(then, now)
    if cores < WORTH_TELLING:
        return Spread(cores, {})
    before_us, elapsed_us = ahead_us(then.times), now.at_us - then.at_us
    return Spread(cores, {cpu: (us - before_us[cpu]) / elapsed_us for cpu, us in ahead_us(now.times).items() if cpu in before_us})
