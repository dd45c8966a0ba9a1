"""The process that builds and times candidates, so that a crash of the compiler or of a kernel costs one candidate.

It answers the jobs on a connection until that closes: `At` before each step (what to blame if nothing more comes),
`Refused` for what TVM turns down, one `Ranking` at the end. It is started as a program and not by `multiprocessing`, which
would run the caller's main script again.

All candidates of a kernel are built as one module, timed briefly in turn, and the promising ones again at length, on one
core and on all: successive halving (Jamieson and Talwalkar 2016) with one halving, since building costs more than timing.
"""

import ctypes
import os
import signal
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import tvm

from veltair.bundle.format import TargetSpec
from veltair.compiler.schedules.base import Kernel, Knobs
from veltair.compiler.target import tvm_target
from veltair.compiler.timing import Pool, spread, time_us
from veltair.engine.lanes import hold_cores, set_cores

BRIEF_S, LONG_S = 0.004, 0.012  # of runs for each candidate, core count and round
LONG_ROUNDS = 2
MOST_ROUNDS = 5  # a machine that others disturb gets more of them; the quietest counts
QUIET_SPREAD = 0.15
FASTEST = 4  # candidates timed at length; beside them those of the smallest footprints
NEAR = 1.3  # a variant may cost this much time for a smaller footprint: slower ones are not looked at again
PR_SET_PDEATHSIG = 1  # linux/prctl.h
BUILT, RUN = "built", "run"


@dataclass(frozen=True, slots=True)
class Job:
    """Time `candidates` of `kernel`, by place; built in one module where `together`, which is faster."""

    kernel: Kernel
    candidates: Mapping[int, Knobs]
    target: TargetSpec
    together: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """The process is up."""


@dataclass(frozen=True, slots=True)
class At:
    step: str  # BUILT or RUN
    candidate: int | None  # None: all together


@dataclass(frozen=True, slots=True)
class Refused:
    candidate: int | None  # None: the module of all of them
    reason: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """Microseconds on one core and on all of each candidate that was built, timed at length or briefly."""

    us: Mapping[int, tuple[float, float]]
    spread: float
    rounds: int  # those at length


Answer = Ready | At | Refused | Ranking
Say = Callable[[Answer], None]


def main() -> None:
    """The program. Its arguments: the connection's file descriptor, and the seed of the inputs."""
    connection = Connection(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what becomes of this one
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a candidate may hang: nobody else would end this process
    pool = Pool(int(sys.argv[2]))
    connection.send(Ready())
    while True:
        try:
            job: Job = connection.recv()
        except EOFError:
            return
        ranking = rank(job, pool, connection.send)
        if ranking is not None:
            connection.send(ranking)


def rank(job: Job, pool: Pool, say: Say) -> Ranking | None:
    """None where the module of all candidates could not be built: the caller asks for them one by one."""
    functions = _functions(job, say)
    if functions is None:
        return None
    if not functions:
        return Ranking({}, 0.0, 0)
    arguments = pool.arguments(job.kernel)
    cores = tuple(sorted(os.sched_getaffinity(0)))
    try:
        brief = _brief(functions, arguments, cores, say)
        final = _finalists(job, brief)
        at_length, noise, rounds = _long({i: functions[i] for i in final}, arguments, cores, say)
    finally:
        set_cores(cores)
    return Ranking({**brief, **at_length}, noise, rounds)


def _functions(job: Job, say: Say) -> dict[int, Any] | None:
    scheduled: dict[int, Any] = {}
    for i, knobs in job.candidates.items():
        say(At(BUILT, i))
        try:
            scheduled[i] = job.kernel.function(knobs, f"f{i}")
        except Exception as error:  # every layer of TVM raises its own kind
            say(Refused(i, reason_of(error)))
    target = tvm_target(job.target)
    if job.together and len(scheduled) > 1:
        say(At(BUILT, None))
        try:
            library = tvm.compile(tvm.IRModule({f"f{i}": f for i, f in scheduled.items()}), target=target)
        except Exception as error:
            say(Refused(None, reason_of(error)))
            return None
        return {i: library[f"f{i}"] for i in scheduled}
    functions: dict[int, Any] = {}
    for i, function in scheduled.items():
        say(At(BUILT, i))
        try:
            functions[i] = tvm.compile(tvm.IRModule({f"f{i}": function}), target=target)[f"f{i}"]
        except Exception as error:
            say(Refused(i, reason_of(error)))
    return functions


def _brief(
    functions: Mapping[int, Any], arguments: Iterator[list[Any]], cores: tuple[int, ...], say: Say
) -> dict[int, tuple[float, float]]:
    found: dict[int, list[float]] = {i: [] for i in functions}
    for width in _widths(cores):
        hold_cores(width)
        for i, function in functions.items():
            say(At(RUN, i))
            found[i].append(statistics.median(time_us(function, arguments, BRIEF_S)))
    return {i: (us[0], us[-1]) for i, us in found.items()}


def _widths(cores: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [cores[:1], cores] if len(cores) > 1 else [cores]


def _finalists(job: Job, brief: Mapping[int, tuple[float, float]]) -> list[int]:
    """The fastest on one core and on all, and whose footprints are smallest among those that are not much slower."""
    best = min(us for us, _ in brief.values())
    near = sorted((i for i, (us, _) in brief.items() if us <= best * NEAR), key=lambda i: brief[i])
    kernel = job.kernel
    chosen = [
        *near[:FASTEST],
        min(near, key=lambda i: brief[i][1]),
        min(near, key=lambda i: kernel.traffic_bytes(job.candidates[i])),
        min(near, key=lambda i: kernel.working_set_bytes(job.candidates[i])),
    ]
    return list(dict.fromkeys(chosen))


def _long(
    functions: Mapping[int, Any], arguments: Iterator[list[Any]], cores: tuple[int, ...], say: Say
) -> tuple[dict[int, tuple[float, float]], float, int]:
    medians: dict[tuple[int, int], list[float]] = {}
    rounds: list[float] = []
    while len(rounds) < LONG_ROUNDS or (min(rounds) > QUIET_SPREAD and len(rounds) < MOST_ROUNDS):
        noise = []
        for width in _widths(cores):
            hold_cores(width)
            for i, function in functions.items():
                say(At(RUN, i))
                times = time_us(function, arguments, LONG_S)
                noise.append(spread(times))
                medians.setdefault((i, len(width)), []).append(statistics.median(times))
        rounds.append(statistics.median(noise))
    least = {i: (min(medians[i, 1]), min(medians[i, len(cores)])) for i in functions}
    return least, min(rounds), len(rounds)


def reason_of(error: Exception) -> str:
    lines: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1][:160]
