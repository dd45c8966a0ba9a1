"""An outsider beside a server of ours: when it started and stopped, and when the scheduler was told.

The outsider is `stress-ng` where it is installed, else an antagonist of the ladder. It is there all the time, and is let go and
set to rest, so that the moment of a switch is known to within a millisecond.
"""

import os
import random
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from veltair.interference.ladder import Antagonists
from veltair.interference.machine import this_machine
from veltair.interference.sources import Own
from veltair.interference.sources.runqueue import RunQueue
from veltair.observe.read import Run
from veltair.observe.records import PressureTold

Kind = Literal["stream", "compute"]
Switch = Callable[[bool], None]  # on or off

NOTICED, GONE = 0.25, 0.125  # what the scheduler was told, at least and at most
DWELL_S = (0.4, 1.2)
SETTLED_US = 200_000  # after it ended; until then a telling may still be about it
STRESS_NG: dict[Kind, list[str]] = {"stream": ["--stream", "1"], "compute": ["--cpu", "1", "--cpu-method", "matrixprod"]}


@dataclass(frozen=True, slots=True)
class Turn:
    """The outsider began, and ended, at these times of the wall clock, in microseconds."""

    on_us: int
    off_us: int
    end_us: int  # it was quiet until then


@dataclass(frozen=True, slots=True)
class Noticed:
    """Microseconds from a switch to the scheduler; None where it was not told before the next switch."""

    rise_us: list[int | None]  # of pressure
    fall_us: list[int | None]
    taken_us: list[int | None]  # of its core: it is somebody else's
    back_us: list[int | None]
    wrongly: int  # told of somebody while nobody was there
    told_share: float  # of the time that the outsider was on, with a pressure of NOTICED and more


@contextmanager
def outsider(kind: Kind, core: int) -> Iterator[tuple[str, Switch]]:
    """What it is, and its switch; it rests at first."""
    if (stress_ng := shutil.which("stress-ng")) is None:
        with Antagonists([core], this_machine()) as antagonists:
            yield "the ladder's antagonist", lambda on: antagonists.press(kind if on else "rest")
        return
    command = [stress_ng, "--quiet", "--taskset", str(core), *STRESS_NG[kind]]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1.0)  # its workers have their arrays
        os.killpg(process.pid, signal.SIGSTOP)
        yield "stress-ng", lambda on: os.killpg(process.pid, signal.SIGCONT if on else signal.SIGSTOP)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def take_turns(switch: Switch, turns: int, seed: int) -> list[Turn]:
    """On and off, for random times."""
    chance, taken = random.Random(seed), []
    for _ in range(turns):
        on_us = _wall_us()
        switch(True)
        time.sleep(chance.uniform(*DWELL_S))
        off_us = _wall_us()
        switch(False)
        time.sleep(chance.uniform(*DWELL_S))
        taken.append(Turn(on_us, off_us, _wall_us()))
    return taken


def noticed(turns: Sequence[Turn], run: Run, core: int) -> Noticed:
    """`core` is the outsider's."""
    started_us = round(run.started.wall_time_s * 1e6) - run.started.at_us
    records = [record for record in run.records if isinstance(record, PressureTold)]
    told = [(started_us + record.at_us, record.pressure) for record in records]
    held = [(started_us + record.at_us, float(core in record.held)) for record in records]
    on_us = sum(turn.off_us - turn.on_us for turn in turns)
    told_us = sum(_time_at(told, turn.on_us, turn.off_us) for turn in turns)
    wrongly = sum(_rises(told, turn.off_us + SETTLED_US, turn.end_us) for turn in turns)
    return Noticed(*_delays(turns, told, NOTICED, GONE), *_delays(turns, held, 1.0, 0.0), wrongly, told_us / on_us)


def others_cores(seconds: float) -> float:
    """What all other processes use of the CPUs, this process aside, for so long from now: of a quiet machine next to nothing."""
    source = RunQueue()
    looks, used = max(3, round(seconds / 0.05)), []
    for _ in range(looks):
        reading = source.read(time.monotonic_ns() // 1000, Own(time.process_time_ns(), 0.0, 0))
        used += [] if reading is None else [reading.cores]
        time.sleep(seconds / looks)
    source.close()
    return statistics.fmean(used)


def cpu_seconds(pid: int) -> float:
    """That the process has used so far."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wall_us() -> int:
    return time.time_ns() // 1000


Told = Sequence[tuple[int, float]]


def _first(told: Told, since_us: int, until_us: int, wanted: Callable[[float], bool]) -> int | None:
    return next((at_us - since_us for at_us, pressure in told if since_us <= at_us < until_us and wanted(pressure)), None)


def _delays(turns: Sequence[Turn], told: Told, risen: float, fallen: float) -> tuple[list[int | None], list[int | None]]:
    """Of rises to `risen` at least, and of falls to `fallen` at most; 0 where nothing had been told that could fall."""
    rises = [_first(told, turn.on_us, turn.off_us, lambda value: value >= risen) for turn in turns]
    falls = [_first(told, turn.off_us, turn.end_us, lambda value: value <= fallen) for turn in turns]
    return rises, [fall if _at(told, turn.off_us) > fallen else 0 for turn, fall in zip(turns, falls, strict=True)]


def _at(told: Told, us: int) -> float:
    return next((value for at_us, value in reversed(told) if at_us <= us), 0.0)


def _rises(told: Told, since_us: int, until_us: int) -> int:
    """Tellings of pressure in a time."""
    return sum(since_us <= at_us < until_us and pressure >= NOTICED for at_us, pressure in told)


def _time_at(told: Told, since_us: int, until_us: int) -> int:
    """Of a time, how long NOTICED or more held."""
    moments = [since_us, *(at_us for at_us, _ in told if since_us < at_us < until_us), until_us]
    return sum(after - before for before, after in pairwise(moments) if _at(told, before) >= NOTICED)
