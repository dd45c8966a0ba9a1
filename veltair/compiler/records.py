"""Tuning records: how fast each knob setting of a kernel was on a target, so that a second compile searches nothing.

One JSON file per target and model: `<folder>/<mcpu>/<model>.json`, one line a kernel. Reading looks through every file of
the target in the shipped folder and the user's own; a kernel is known by its key, whichever model it was measured for.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple


class Timed(NamedTuple):
    """One setting of a kernel's knobs, in microseconds on one core and on all of the machine's."""

    knobs: dict[str, int]
    us: float
    us_wide: float


Ranked = list[Timed]  # the fastest on one core first


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one kernel. `how` says on which machine, by which tools and with which seed it was timed."""

    ranked: Ranked
    spread: float  # (upper - lower quartile) / median of its timings
    how: Mapping[str, Any]


SCHEDULES = 4  # raised when a schedule or its candidates change: older records then speak of other code
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
        self._known: dict[str, Entry] = {}
        self.selections: dict[str, Any] = {}  # fingerprint of a model's candidates -> what `select` kept of them
        for folder in folders:
            for path in sorted((folder / mcpu).glob("*.json")):
                self._read(path)

    def _read(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text())
            if content["schedules"] != SCHEDULES:
                return
            for key, entry in content["kernels"].items():
                ranked = [Timed(dict(knobs), float(us), float(wide)) for knobs, us, wide in entry["ranked"]]
                how = content["how"][entry["how"]] if "how" in entry else {}
                self._known[key] = Entry(ranked, float(entry.get("spread", 0.0)), how)
            self.selections.update(content.get("selections", {}))
        except (OSError, ValueError, LookupError, TypeError):
            return  # a cache: a damaged file costs a search, nothing else

    def get(self, key: str) -> Ranked | None:
        entry = self._known.get(key)
        return entry.ranked if entry else None

    def entry(self, key: str) -> Entry | None:
        return self._known.get(key)

    def put(self, key: str, timed: Ranked, spread: float = 0.0, how: Mapping[str, Any] | None = None) -> None:
        """Keep the KEPT fastest on one core, and the fastest on all; times as a file holds them, so that both choose alike.

        An empty `timed` says that no setting works.
        """
        timed = [Timed(t.knobs, round(t.us, 1), round(t.us_wide, 1)) for t in timed]
        ranked = sorted(timed, key=lambda t: t.us)
        kept = ranked[:KEPT]
        if kept and (widest := min(timed, key=lambda t: t.us_wide)) not in kept:
            kept = [*ranked[: KEPT - 1], widest]
        self._known[key] = Entry(kept, spread, dict(how or {}))

    def write(self, folder: Path, model: str, described: Mapping[str, str], selected: Iterable[str] = ()) -> Path:
        """Write what is known of the kernels in `described` (key -> what it computes) as the model's file, whole or not at all.

        `selected` are the fingerprints of the selections that belong to the model. Cheap enough to be called after every
        kernel of a search: 10 KB a hundred kernels.
        """
        path = folder / self.mcpu / f"{model}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        hows: list[Mapping[str, Any]] = []
        lines = []
        for key, what in sorted(described.items()):
            if (known := self._known.get(key)) is None:
                continue
            if known.how not in hows:
                hows.append(known.how)
            entry = {
                "what": what,
                "ranked": [[t.knobs, t.us, t.us_wide] for t in known.ranked],
                "spread": round(known.spread, 3),
                "how": hows.index(known.how),
            }
            lines.append(f"{json.dumps(key)}: {json.dumps(entry, separators=(',', ':'))}")
        head = f'{{"schedules": {SCHEDULES},\n"how": {json.dumps(hows)},\n'
        body = ",\n".join(lines)
        choices = ",\n".join(f"{json.dumps(s)}: {json.dumps(self.selections[s], separators=(',', ':'))}" for s in selected)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            temporary.write_text(f'{head}"kernels": {{\n{body}\n}},\n"selections": {{\n{choices}\n}}}}\n')
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path
