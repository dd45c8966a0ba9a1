"""One bar for a whole compile: each stage has the share of it that its expected time has. And a bar for who knows his share."""

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

STAGES = {
    "export": "making the model",
    "import": "reading and lowering",
    "search": "timing kernel schedules",
    "build": "generating code",
    "gate": "comparing with the reference",
    "measure": "measuring blocks",
    "write": "writing the bundle",
}

# Seconds expected of a stage, and for each thing counted in it, on one core of a small server.
_FIXED_S = {"export": 8.0, "import": 4.0, "search": 0.0, "build": 15.0, "gate": 5.0, "measure": 20.0, "write": 2.0}
_EACH_S = {"search": 2.0}


class Estimate:
    """How far a compile is, and how long it will still take. Told of every step; reads no clock."""

    def __init__(self) -> None:
        self._stage = ""
        self._done, self._total = 0, 1
        self._started_s = 0.0
        self._seen: list[str] = []
        self._each = dict.fromkeys(_EACH_S, 0)
        self._shown = 0.0

    @property
    def stage(self) -> str:
        return self._stage

    @property
    def counted(self) -> tuple[int, int]:
        """Done and total of the current stage."""
        return self._done, self._total

    def step(self, stage: str, done: int, total: int, now_s: float) -> None:
        if stage != self._stage:
            self._stage, self._started_s = stage, now_s
            self._seen.append(stage)
        self._done, self._total = done, max(total, 1)
        if stage in self._each:
            self._each[stage] = total

    def fraction(self) -> float:
        """Never less than it was, though a stage may turn out longer than it was expected to be."""
        before = sum(self._expected_s(s) for s in self._seen[:-1])
        current = self._expected_s(self._stage)
        everything = before + current + sum(self._expected_s(s) for s in self._to_come())
        done = before + current * self._done / self._total
        self._shown = max(self._shown, min(done / everything if everything else 0.0, 1.0))
        return self._shown

    def left_s(self, now_s: float) -> float:
        """The current stage goes on at its pace; those to come take what is expected of them."""
        to_come = sum(self._expected_s(s) for s in self._to_come())
        if not self._done:
            return to_come + self._expected_s(self._stage)
        return to_come + (now_s - self._started_s) / self._done * (self._total - self._done)

    def _to_come(self) -> list[str]:
        stages = list(STAGES)
        return stages[stages.index(self._stage) + 1 :] if self._stage in stages else stages

    def _expected_s(self, stage: str) -> float:
        return _FIXED_S.get(stage, 0.0) + _EACH_S.get(stage, 0.0) * self._each.get(stage, 0)


class CompileBar:
    """Shows an estimate on a terminal; elsewhere each stage as a line."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self.estimate = Estimate()
        left = TextColumn("{task.fields[left]}")
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), left)
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("starting", total=1.0, left="")

    def __enter__(self) -> "CompileBar":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """As `compile_model` reports it."""
        now_s = self._clock()
        if stage != self.estimate.stage and not self._console.is_terminal:
            self._console.print(STAGES.get(stage, stage))
        self.estimate.step(stage, done, total, now_s)
        counted = f" {done}/{total}" if total > 1 else ""
        left = f"{_short(self.estimate.left_s(now_s))} left"
        what = STAGES.get(stage, stage) + counted
        self._bar.update(self._task, completed=self.estimate.fraction(), description=what, left=left)


class ShareBar:
    """What is being done and the share of all that is done, as told; elsewhere than on a terminal each thing as a line.

    It draws only when told: nothing runs in between that could disturb a measurement.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, auto_refresh=False, disable=not console.is_terminal)
        self._task = self._bar.add_task("starting", total=1.0)
        self._doing = ""

    def __enter__(self) -> "ShareBar":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def __call__(self, doing: str, share: float) -> None:
        if doing != self._doing and not self._console.is_terminal:
            self._console.print(doing)
        self._doing = doing
        self._bar.update(self._task, completed=share, description=doing, refresh=True)


def _short(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
