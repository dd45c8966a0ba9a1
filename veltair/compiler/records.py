"""Tuning records: how fast each knob setting of a kernel was on a target, so that a second compile searches nothing.

One JSON file per target and model: `<folder>/<mcpu>/<model>.json`. Reading looks through every file of the target in the
shipped folder and the user's own; a kernel is known by its key, whichever model it was measured for.
"""

import json
import os
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple


class Timed(NamedTuple):
    """One setting of a kernel's knobs, in microseconds on one core and on all of the machine's."""

    knobs: dict[str, int]
    us: float
    us_wide: float


Ranked = list[Timed]  # the fastest on one core first

SCHEDULES = 2  # raised when a schedule or its candidates change: older records then speak of other code
KEPT = 6  # settings kept of each kernel: enough to choose another footprint from


def shipped_folder() -> Path:
    return Path(str(files("veltair.tuning")))


def user_folder() -> Path:
    """Where a compile writes its records unless told otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "veltair" / "tuning"


class Records:
    """What is known on one target. Later folders win over earlier ones."""

    def __init__(self, mcpu: str, folders: Iterable[Path]) -> None:
        self.mcpu = mcpu
        self._known: dict[str, Ranked] = {}
        for folder in folders:
            for path in sorted((folder / mcpu).glob("*.json")):
                self._read(path)

    def _read(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text())
            kernels = content["kernels"] if content["schedules"] == SCHEDULES else {}
            for key, entry in kernels.items():
                self._known[key] = [Timed(dict(knobs), float(us), float(wide)) for knobs, us, wide in entry["ranked"]]
        except (OSError, ValueError, KeyError, TypeError):
            return  # a cache: a damaged file costs a search, nothing else

    def get(self, key: str) -> Ranked | None:
        return self._known.get(key)

    def put(self, key: str, timed: Ranked) -> None:
        ranked = sorted(timed, key=lambda t: t.us)
        widest = min(timed, key=lambda t: t.us_wide)
        self._known[key] = ranked[:KEPT] if widest in ranked[:KEPT] else [*ranked[: KEPT - 1], widest]

    def write(self, folder: Path, model: str, described: Mapping[str, str], how: Mapping[str, Any]) -> Path:
        """Write the records of the kernels in `described` (key -> what it computes) as the model's file."""
        path = folder / self.mcpu / f"{model}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for key, what in sorted(described.items()):
            ranked = [[t.knobs, round(t.us, 1), round(t.us_wide, 1)] for t in self._known[key]]
            lines.append(f"{json.dumps(key)}: {json.dumps({'what': what, 'ranked': ranked}, separators=(',', ':'))}")
        body = ",\n".join(lines)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(f'{{"schedules": {SCHEDULES},\n"how": {json.dumps(dict(how))},\n"kernels": {{\n{body}\n}}}}\n')
        temporary.replace(path)
        return path
