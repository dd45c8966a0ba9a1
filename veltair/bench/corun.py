"""Co-runs made: two lanes on cores of their own, or a lane beside an antagonist, timed block by block.

Each lane is a thread that runs its unit over and over, as the engine's do. What counts are the runs between the moment when all
of them are warm and the moment when the first of them has its last one behind it.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np

from veltair import host
from veltair.bench.inputs import random_inputs
from veltair.bundle.store import Bundle, open_bundle
from veltair.engine.lanes import hold_cores
from veltair.engine.program import Program
from veltair.interference import corun
from veltair.interference.corun import CoRun, Outsider, Subject, Unit, draw
from veltair.interference.deep import host_times
from veltair.interference.ladder import Antagonists
from veltair.interference.machine import Machine
from veltair.interference.model import Host
from veltair.interference.profile import HostProfile
from veltair.interference.times import CORUNS_FILE, FILE, HostTimes, write

LEAST_RUNS, LEAST_S = 5, 0.15  # of every co-run: some runs of a long model, many of a short one
BATCH = 20  # co-runs between two starts of the antagonists, which then stay for all that want one
PRESSED_S = 0.02  # from the word to an antagonist until it presses evenly
GIVE_UP_S = 60.0  # a lane that is not warm by then never will be
GIL_SWITCH_INTERVAL_S = 100e-6  # as in an engine
STAT = Path("/proc/stat")
TASKS = Path("/proc/self/task")

Plan = tuple[Unit, Unit | Outsider | None]


@dataclass(slots=True)
class _Lane:
    """One side of a co-run while it runs."""

    unit: Unit
    cores: tuple[int, ...]
    runs: list[tuple[int, ...]] = field(default_factory=list)
    waited: float = 0.0
    intruded: float = 0.0
    done: bool = False  # it has runs enough; it goes on until all have
    error: Exception | None = None

    def as_victim_of(self, beside: Unit | Outsider | None) -> CoRun:
        return CoRun(self.unit, beside, tuple(zip(*self.runs, strict=True)), round(self.waited, 4), round(self.intruded, 4))


class Timer:
    """Bundles in memory, timed together as asked. `seed` decides who meets whom."""

    def __init__(self, bundles: Sequence[Bundle], machine: Machine, seed: str) -> None:
        self._machine, self._cores = machine, machine.paid_cores
        self._rng = Random(seed)
        self.subjects = {bundle.name: Subject.of(bundle.manifest) for bundle in bundles}
        self._programs = {bundle.name: Program(bundle) for bundle in bundles}
        rng = np.random.default_rng(0)
        self._inputs = {bundle.name: next(random_inputs(bundle.manifest.inputs, rng)) for bundle in bundles}

    def each_alone(self) -> Iterator[CoRun]:
        """Every variant on every number of cores, with nobody beside: what slowdowns count from."""
        for subject in self.subjects.values():
            for variant in range(subject.variants):
                for width in range(1, len(self._cores) + 1):
                    yield from self.time((subject.whole(variant, width), None))

    def at_random(self, seconds: float, step: Callable[[float], None] = lambda _: None) -> Iterator[CoRun]:
        """Co-runs for about so long. `step` is told how much of the time has passed, 0..1. Raises EngineFailed."""
        start, subjects = time.monotonic(), list(self.subjects.values())
        while (passed := time.monotonic() - start) < seconds:
            step(passed / seconds)
            plans = [draw(subjects, len(self._cores), self._machine.l2_bytes, self._rng) for _ in range(BATCH)]
            for plan in plans:
                if not isinstance(plan[1], Outsider):
                    yield from self.time(plan)
            pressed = [(victim, beside) for victim, beside in plans if isinstance(beside, Outsider)]
            if pressed:
                with Antagonists(self._cores[1:], self._machine) as antagonists:
                    for victim, outsider in pressed:
                        antagonists.press(outsider.kind, outsider.level)
                        time.sleep(PRESSED_S)
                        yield from self.time((victim, outsider))

    def time(self, plan: Plan) -> Iterator[CoRun]:
        """One co-run; two, where the model beside runs whole and so is a victim, too. An outsider is there already."""
        victim, beside = plan
        lanes = [_Lane(victim, self._cores[: victim.cores])]
        if isinstance(beside, Unit):
            lanes.append(_Lane(beside, self._cores[-beside.cores :]))
        taken = {core for lane in lanes for core in lane.cores} | ({*self._cores[1:]} if isinstance(beside, Outsider) else set())
        idle = [core for core in self._cores if core not in taken]
        with _quick_switches():
            before, start = _busy_s(idle), time.monotonic()
            self._run(lanes)
            others_s, took_s = _busy_s(idle) - before, time.monotonic() - start
        for lane in lanes:
            lane.intruded = others_s / took_s / max(1, len(idle))
            lane.waited = max(each.waited for each in lanes)
        yield lanes[0].as_victim_of(beside)
        if isinstance(beside, Unit) and beside == self.subjects[beside.bundle].whole(beside.variant, beside.cores):
            yield lanes[1].as_victim_of(victim)

    def _run(self, lanes: Sequence[_Lane]) -> None:
        warm, stop = threading.Barrier(len(lanes)), threading.Event()
        threads = [threading.Thread(target=self._loop, args=(lane, lanes, warm, stop), daemon=True) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        errors = [lane.error for lane in lanes if lane.error is not None]
        if errors:  # a lane whose neighbour failed only waited in vain
            raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])

    def _loop(self, lane: _Lane, lanes: Sequence[_Lane], warm: threading.Barrier, stop: threading.Event) -> None:
        program = self._programs[lane.unit.bundle]
        arena = program.new_arena()
        try:
            hold_cores(lane.cores)
            unit, inputs = lane.unit, self._inputs[lane.unit.bundle]
            chosen = self.subjects[unit.bundle].chosen(unit)

            def run() -> tuple[int, ...]:
                program.write_inputs(arena, inputs)  # their memory is reused by the end of a run
                return program.run(arena, unit.first_block, unit.end_block, chosen)

            run()
            warm.wait(GIVE_UP_S)
            before, end = _on_core_ns(), time.monotonic() + LEAST_S
            while not stop.is_set():
                lane.runs.append(run())
                lane.done = lane.done or (len(lane.runs) > LEAST_RUNS and time.monotonic() >= end)
                if all(each.done for each in lanes):
                    stop.set()
            del lane.runs[-1:]  # the others may have ended before it did
            lane.waited = _waited(before, _on_core_ns())
        except Exception as error:
            lane.error = error
            stop.set()
            warm.abort()
        finally:
            program.release(arena)


@contextmanager
def _quick_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(GIL_SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def _busy_s(cores: Sequence[int]) -> float:
    """How long these cores have not been idle, all together, to a hundredth of a second or so; 0.0 where Linux does not tell."""
    names = {f"cpu{core}" for core in cores}
    ticks = 0
    for line in (host.read_text(STAT) or "").splitlines():
        name, *spent = line.split()
        if name in names:
            ticks += sum(map(int, spent[:8])) - int(spent[3]) - int(spent[4])  # user nice system idle iowait irq softirq steal
    return ticks / os.sysconf("SC_CLK_TCK")


def _on_core_ns() -> dict[str, tuple[int, int]]:
    """How long each thread of this process has run, and waited for a core to run on; where Linux does not tell, nothing."""
    found = {}
    for task in TASKS.iterdir() if TASKS.is_dir() else ():
        text = host.read_text(task / "schedstat")  # ns it ran, ns it waited, time slices
        if text:
            ran, waited, _ = text.split()
            found[task.name] = (int(ran), int(waited))
    return found


def _waited(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> float:
    """The share of the time between that its threads waited, of those that lived all along."""
    lived = before.keys() & after.keys()
    ran, waited = (sum(after[task][i] - before[task][i] for task in lived) for i in (0, 1))
    return waited / max(1, ran + waited)


def deepen(
    folders: Sequence[Path],
    profile: HostProfile,
    kept_in: Path,
    seconds: float,
    seed: int,
    on_progress: Callable[[str, float], None] = lambda what, share: None,
) -> HostTimes:
    """Time the bundles in `folders` beside each other for about so long, and learn from that and from all earlier co-runs of
    theirs on this machine. Co-runs and times are kept in the folder `kept_in`.

    Raises BundleError, EngineFailed, and ProfileError where there is too little to learn from.
    """
    on_progress("loading bundles", 0.0)
    place, fingerprint = kept_in / CORUNS_FILE, profile.machine.fingerprint
    runs = corun.read(place, fingerprint)
    timer = Timer([open_bundle(folder) for folder in folders], profile.machine, f"{seed} after {len(runs)}")
    if not any(run.beside is None for run in corun.sound(runs, timer.subjects)[0]):
        runs += timer.each_alone()
    runs += timer.at_random(seconds, lambda share: on_progress("running together", share))
    corun.write(place, fingerprint, runs)
    on_progress("learning", 1.0)
    times = host_times(runs, Host(profile, timer.subjects), seed)
    write(times, kept_in / FILE)
    return times
