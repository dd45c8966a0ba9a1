"""Measure each kernel's candidates, alone, on one core and on all, with the weights as cold as a model meets them.

Nothing here builds or runs a kernel: a long-lived worker process does (see `search_worker`). Where a candidate ends that
process or hangs in it, the candidate has failed, another worker takes over and the search goes on. A candidate that fails
is a result, not an error: it is left out and named in the report.
"""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from veltair.bundle.format import TargetSpec
from veltair.compiler.records import Records, Timed
from veltair.compiler.report_schema import Failed, Search
from veltair.compiler.schedules.base import Kernel, Knobs
from veltair.compiler.search_worker import BUILT, LONG_ROUNDS, LONG_S, MOST_ROUNDS, RUN, Answer, At, Job, Ranking, Ready, Refused
from veltair.compiler.target import cpu_name
from veltair.compiler.timing import LEAST_RUNS, MOST_RUNS, WARMUP_RUNS
from veltair.errors import CompileError

START_LIMIT_S = 120.0  # importing TVM takes 3 s, from a cold disk many more
BUILD_LIMIT_S = 60.0  # of one candidate, which takes 0.1-0.5 s
RUN_LIMIT_S = 60.0  # of all timings of one candidate in a round

# tvm imports torch wherever it is installed, which takes longer than all else of a start; here nothing needs it
_PROGRAM = "import sys; sys.modules['torch'] = None; from veltair.compiler.search_worker import main; main()"


@dataclass(slots=True)
class Searched:
    """What a search did, for the report."""

    kernels: int = 0  # that no record knew
    candidates: int = 0  # that were timed
    restarts: int = 0  # of the worker, each because of a candidate
    seconds: float = 0.0
    failed: list[Failed] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)  # of each kernel's timings

    def as_data(self, kernels: int) -> Search:
        """For the report of a model with this many distinct kernels."""
        return Search(
            kernels=kernels,
            searched=self.kernels,
            candidates=self.candidates,
            seconds=round(self.seconds, 1),
            restarts=self.restarts,
            spread=round(statistics.median(self.spreads), 3) if self.spreads else 0.0,
            failed=self.failed,
        )


def search(
    kernels: Sequence[Kernel],
    target: TargetSpec,
    records: Records,
    seed: int,
    done: Callable[[int, int], None],
    save: Callable[[], object] = lambda: None,
    spare: Collection[str] = (),
) -> Searched:
    """Fill `records` for every kernel that has none.

    `done` is told how many of the unknown kernels are timed, and `save` is called after each one, so that an interrupted
    search goes on where it stopped. `spare` are the keys of kernels that a model can do without: other forms of its calls.
    Raises CompileError where any other kernel has no candidate that works.
    """
    started = time.monotonic()
    unknown = [kernel for kernel in {k.key: k for k in kernels}.values() if records.get(kernel.key) is None]
    result = Searched(kernels=len(unknown))
    if not unknown:
        return result
    how = how_timed(seed)
    with _Worker(seed) as worker:
        for number, kernel in enumerate(unknown):
            done(number, len(unknown))
            candidates = kernel.candidates()
            try:
                ranking = _rank(kernel, candidates, target, worker, result)
            except CompileError:
                if kernel.key not in spare:
                    raise
                ranking = Ranking({}, 0.0, 0)  # recorded, so that it is not tried again at every compile
            timed = [Timed(dict(candidates[i]), us, wide) for i, (us, wide) in ranking.us.items()]
            records.put(kernel.key, timed, ranking.spread, how)
            result.candidates += len(timed)
            result.spreads.append(ranking.spread)
            save()
        done(len(unknown), len(unknown))
    result.seconds = time.monotonic() - started
    return result


def how_timed(seed: int) -> dict[str, Any]:
    """How timings made now come to be, for the records."""
    return {
        "machine": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "weights": "cold",
        "warmup": f"{WARMUP_RUNS} runs",
        "repeats": f"{LONG_ROUNDS} to {MOST_ROUNDS} rounds of {LONG_S * 1e3:.0f} ms, {LEAST_RUNS} to {MOST_RUNS} runs each",
        "seed": seed,
        "apache-tvm": version("apache-tvm"),
    }


def describe(kernel: Kernel) -> str:
    """What a kernel computes, for people: its kind, form and shapes."""
    usual = ("direct", "fp32", kernel.kind)
    form = [part for part in (kernel.algorithm, kernel.precision) if part not in usual]
    ins = " ".join("x".join(map(str, shape)) for shape, _ in kernel.inputs)
    return " ".join([kernel.kind, *form, ins, "->", "x".join(map(str, kernel.output))])


def _rank(kernel: Kernel, candidates: Sequence[Knobs], target: TargetSpec, worker: "_Worker", result: Searched) -> Ranking:
    """All candidates in one module; one by one where that fails, and then without those that end the process."""
    left = dict(enumerate(candidates))
    together = True
    reasons = ["it has no candidates"]
    while left:
        outcome = _attempt(Job(kernel, left, target, together), worker)
        result.restarts += outcome.restarted
        for i, reason in outcome.refused.items():
            del left[i]
            reasons.append(reason)
            result.failed.append({"kernel": describe(kernel), "knobs": dict(candidates[i]), "reason": reason})
        if outcome.ranking is not None and outcome.ranking.us:
            return outcome.ranking
        if outcome.blamed_on_all:
            if not together:
                raise CompileError(f"the kernel {describe(kernel)} cannot be timed: its process {outcome.blamed_on_all}")
            together = False
    raise CompileError(f"no schedule fits the kernel {describe(kernel)} ({reasons[-1]}); report it with the model's shapes")


@dataclass(slots=True)
class _Outcome:
    """Of one job. Without a ranking, either a candidate was refused or all of them together are to blame."""

    ranking: Ranking | None = None
    refused: dict[int, str] = field(default_factory=dict)
    blamed_on_all: str = ""
    restarted: bool = False


def _attempt(job: Job, worker: "_Worker") -> _Outcome:
    outcome = _Outcome()
    at = At(BUILT, None)
    try:
        worker.send(job)
        while True:
            match worker.receive(_limit_s(at, len(job.candidates))):
                case At() as at:
                    pass
                case Refused(None, reason):
                    outcome.blamed_on_all = reason
                    return outcome
                case Refused(int(candidate), reason):
                    outcome.refused[candidate] = reason
                case Ranking() as ranking:
                    outcome.ranking = ranking
                    return outcome
    except _WorkerEnded as ended:
        worker.restart()
        outcome.restarted = True
        if at.candidate is None:
            outcome.blamed_on_all = str(ended)
        else:
            outcome.refused[at.candidate] = f"while it was {at.step}, its process {ended}"
    return outcome


def _limit_s(at: At, candidates: int) -> float:
    if at.step == RUN:
        return RUN_LIMIT_S
    return BUILD_LIMIT_S * (candidates if at.candidate is None else 1)


class _WorkerEnded(Exception):
    """The worker died or had to be ended; the message says how."""


class _Worker:
    """The process that builds and times, and the connection to it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> "_Worker":
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def restart(self) -> None:
        self._end()
        self._start()

    def send(self, job: Job) -> None:
        try:
            self._connection.send(job)
        except OSError as error:
            raise _WorkerEnded(self._how_it_ended()) from error

    def receive(self, limit_s: float) -> Answer:
        """Raises _WorkerEnded where nothing comes within `limit_s` or the process ends."""
        try:
            if not self._connection.poll(limit_s):
                raise _WorkerEnded(f"hung for {limit_s:.0f} s")
            answer: Answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise _WorkerEnded(self._how_it_ended()) from error
        return answer

    def _start(self) -> None:
        ours, theirs = Pipe()
        self._connection: Connection = ours
        self._said = tempfile.TemporaryFile()  # a pipe would fill up  # noqa: SIM115
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), str(self._seed)],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=[theirs.fileno()],
            )
        try:
            answer = self.receive(START_LIMIT_S)
            assert isinstance(answer, Ready), answer
        except _WorkerEnded as ended:
            self._end()
            raise CompileError(f"the process that times kernels did not start: it {ended}") from ended

    def _end(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._said.close()

    def _how_it_ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):  # its end of the connection is closed: it has ended or is about to
            self._process.wait(10)
        code = self._process.poll()
        how = "fell silent" if code is None else f"ended with {code}"
        if code is not None and code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").splitlines()
        errors = [line.strip()[:160] for line in said if "ERROR" in line or "Error" in line]
        return f"{how}: {errors[-1]}" if errors else how
