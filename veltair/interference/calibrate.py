"""Makes the host's profile: a while of each setting in turn, quiet ones among them, so that a drifting clock hits all alike.

A round is a quiet look, every rung of the ladder in an order drawn anew, and a quiet look again. What a rung does to the probe
is told by the quiet looks of its own round. What was disturbed is made again while there is time: a round whose quiet looks were
slower than the others', a window in which probe or antagonist had to wait for its core. Where there was no time, the profile says
so. Bandwidth is read by the probe's own kernel, one process a core.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import numpy as np

from veltair import __version__
from veltair.errors import ProfileError
from veltair.interference.ladder import LADDER, Antagonists, waited_ns
from veltair.interference.machine import Machine
from veltair.interference.probe import Gauge, Probe, Quiet, plausible, quiet_of
from veltair.interference.profile import LEAST_FELT, SCHEMA_VERSION, Bandwidth, HostProfile, Kind, Rung

ROUNDS = 20
LEAST_ROUNDS = 5  # quiet ones; with fewer, all that were made count, and the profile says so
LADDER_S = 35.0  # at most for all rounds, disturbed ones included
WINDOW_S, SETTLE_S = 0.06, 0.01
RATES, RATE_S = 25, 0.02  # windows of a bandwidth; the best counts, since whatever disturbs only makes it slower
MOST_WAITED = 0.05  # of a window: if probe or antagonists waited longer for their cores, others ran there
STILL = 1.15  # a quiet look whose median is more than this times the usual one was not quiet
AGREE = 0.2  # rounds agree about a rung's slowdown while their median absolute deviation is no more than this share of it

OURS = Path("/proc/thread-self/schedstat")

Setting = tuple[Kind, float]
Progress = Callable[[str, float], None]
"""What is being done, and the share of all that is done."""


@dataclass(frozen=True, slots=True)
class Window:
    """What the probe took, in microseconds, and what the antagonists moved meanwhile."""

    times: Sequence[float]
    gb_per_s: float = 0.0
    waited: float = 0.0  # share of the time in which the probe, or else an antagonist, waited for its core

    @property
    def disturbed(self) -> bool:
        return self.waited > MOST_WAITED


@dataclass(frozen=True, slots=True)
class Round:
    before: Window
    felt: Mapping[Setting, Window]
    after: Window

    @property
    def quiet(self) -> list[float]:
        return [*self.before.times, *self.after.times]

    @property
    def looks(self) -> list[float]:
        """Medians of its quiet looks; one of which nothing can be true is infinite."""
        return [statistics.median(plausible(look.times) or [float("inf")]) for look in (self.before, self.after)]


@dataclass(frozen=True, slots=True)
class Peaks:
    """What a core computes at most, GFLOP/s by precision, the tools that found out, and why there is nothing, if so."""

    gflops: Mapping[str, float]
    versions: Mapping[str, str]
    note: str = ""


def calibrate(
    machine: Machine, peaks: Callable[[], Peaks], on_progress: Progress = lambda what, share: None, seed: int = 0
) -> HostProfile:
    """Measure this host, in under a minute, on all cores that may be used and that the quota pays for.

    `peaks` measures multiply-adds, which takes a compiler. Raises ProfileError where nothing can be measured.
    """
    began = time.perf_counter()
    cores = machine.paid_cores
    on_progress("reading memory", 0.0)
    bandwidth = Bandwidth(_reads_gb_per_s(cores[:1], machine), _reads_gb_per_s(cores, machine))
    on_progress("multiplying", 0.1)
    peak = peaks()
    rounds = _rounds(cores, machine, Random(seed), lambda share: on_progress("probing under pressure", 0.2 + 0.8 * share))
    quiet, ladder, notes = evaluate(rounds)
    if len(cores) == 1:
        notes.append("no ladder: with one core to use, nobody can press from another")
    return HostProfile(
        schema_version=SCHEMA_VERSION,
        machine=machine,
        probe=quiet,
        bandwidth_gb_per_s=bandwidth,
        ladder=ladder,
        fma_peak_gflops=dict(peak.gflops),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        took_s=round(time.perf_counter() - began, 1),
        seed=seed,
        versions={"veltair": __version__, "python": platform.python_version(), "numpy": np.__version__, **peak.versions},
        notes=(*notes, *([peak.note] if peak.note else [])),
    )


def evaluate(rounds: Sequence[Round]) -> tuple[Quiet, tuple[Rung, ...], list[str]]:
    """The probe's quiet distribution, the ladder, and what was not as it should be.

    Raises ProfileError where no time can be true.
    """
    kept, notes = undisturbed(rounds), []
    if len(kept) < LEAST_ROUNDS:
        notes.append(
            f"the machine was not quiet: {len(kept)} of {len(rounds)} rounds were undisturbed, so all were taken; "
            "stop what else runs and calibrate again with --force"
        )
        kept = list(rounds)
    try:
        quiet = quiet_of([us for each in kept for us in each.quiet])
    except ValueError as error:
        raise ProfileError(f"{error}: this machine's clock cannot be trusted; calibrate again") from error
    ladder = tuple(rung for setting in rounds[0].felt if (rung := _rung(setting, kept)) is not None)
    if wild := [f"{rung.kind} {rung.level:.0%}" for rung in ladder if rung.disturbed]:
        which = "any rung" if len(wild) == len(ladder) > 1 else ", ".join(wild)
        notes.append(f"do not rely on {which}: somebody else ran on the antagonists' cores, or rounds do not agree")
    streams = [rung.slowdown_median for rung in ladder if rung.kind == "stream"]
    if streams and max(streams) < 1.0 + LEAST_FELT:
        notes.append(
            f"antagonists that stream on all other cores slow the probe by {max(streams) - 1.0:.0%}, so it will not tell of "
            "outsiders; on a virtual machine, whose cores move about, calibrate again another time (--force)"
        )
    return quiet, ladder, notes


def undisturbed(rounds: Sequence[Round]) -> list[Round]:
    """Those that were quiet before and after. What is usual is the lower quartile of all quiet looks: disturbance only adds."""
    looks = sorted(look for each in rounds for look in each.looks)
    usual = looks[len(looks) // 4]
    still = [each for each in rounds if max(each.looks) <= STILL * usual < float("inf")]
    return [each for each in still if not (each.before.disturbed or each.after.disturbed)]


def fewest(rounds: Sequence[Round]) -> int:
    """How many undisturbed windows the rung has that has fewest of them."""
    kept = undisturbed(rounds)
    return min((sum(not each.felt[setting].disturbed for each in kept) for setting in rounds[0].felt), default=len(kept))


def _rung(setting: Setting, rounds: Sequence[Round]) -> Rung | None:
    """What it does to the probe, relative to the quiet looks of each round; None where no time can be true."""
    sound = [each for each in rounds if not each.felt[setting].disturbed]
    enough = len(sound) >= LEAST_ROUNDS
    medians, felt, moved, discarded = [], [], [], 0
    for each in sound if enough else rounds:
        window, base = each.felt[setting], plausible(each.quiet)
        gauge = Gauge(quiet_of(base)) if base else None
        slowdowns = [s for us in window.times if gauge is not None and (s := gauge.slowdown(us)) is not None]
        discarded += len(window.times) - len(slowdowns)
        if slowdowns:
            medians.append(statistics.median(slowdowns))
            felt += slowdowns
            moved.append(window.gb_per_s)
    if not medians:
        return None
    median = statistics.median(medians)
    agree = statistics.median(abs(m - median) for m in medians) <= AGREE * median
    return Rung(
        *setting,
        gb_per_s=round(statistics.median(moved), 2),
        slowdown_median=round(median, 4),
        slowdown_p95=round(float(np.percentile(felt, 95)), 4),
        slowdown_low=round(float(np.percentile(medians, 10)), 4),
        slowdown_high=round(float(np.percentile(medians, 90)), 4),
        disturbed=not (enough and agree),
        discarded=discarded,
    )


def _reads_gb_per_s(cores: Sequence[int], machine: Machine) -> float:
    with Antagonists(cores, machine) as readers:
        readers.press("read")
        time.sleep(SETTLE_S)
        return round(max(readers.bytes_per_us(RATE_S) for _ in range(RATES)) / 1e3, 2)


def _rounds(cores: Sequence[int], machine: Machine, random: Random, on_progress: Callable[[float], None]) -> list[Round]:
    """On the first of `cores`, with antagonists on the others."""
    settings = LADDER if len(cores) > 1 else ()
    probe = Probe(machine)
    rounds: list[Round] = []
    end = time.perf_counter() + LADDER_S
    with Antagonists(cores[1:], machine) as antagonists, _on(cores[0]):
        while not rounds or (fewest(rounds) < ROUNDS and time.perf_counter() < end):
            on_progress(fewest(rounds) / ROUNDS if rounds else 0.0)
            before = _look(probe, antagonists)
            felt = {setting: _look(probe, antagonists, *setting) for setting in random.sample(settings, len(settings))}
            rounds.append(Round(before, {setting: felt[setting] for setting in settings}, _look(probe, antagonists)))
    on_progress(1.0)
    return rounds


def _look(probe: Probe, antagonists: Antagonists, kind: Kind | None = None, level: float = 0.0) -> Window:
    antagonists.press(kind or "rest", level)
    time.sleep(SETTLE_S)
    moved, start = antagonists.moved_bytes(), time.perf_counter_ns()
    waits = waited_ns(OURS), antagonists.waited_ns()
    times = probe.for_seconds(WINDOW_S)
    took_ns, moved = time.perf_counter_ns() - start, antagonists.moved_bytes() - moved
    waited = max(waited_ns(OURS) - waits[0], antagonists.waited_ns() - waits[1])
    return Window(times, moved / took_ns, waited / took_ns)


@contextmanager
def _on(core: int) -> Iterator[None]:
    """The calling thread on this core meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
