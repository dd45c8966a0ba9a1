"""Which sources to read: in each group the first that opens, and the next of it where that one goes in mid-run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from veltair.errors import SourceUnavailable
from veltair.host import ROOT
from veltair.interference.profile import HostProfile
from veltair.interference.sources import Source
from veltair.interference.sources.perf import Perf
from veltair.interference.sources.probing import Probing
from veltair.interference.sources.psi import Psi
from veltair.interference.sources.residuals import Residuals
from veltair.interference.sources.runqueue import RunQueue
from veltair.interference.sources.steal import Steal


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What sources need to know of the machine."""

    bandwidth_bytes_per_us: float  # that pressure is a share of
    profile: HostProfile | None = None
    why_no_profile: str = "no profile of this host was given; run: veltair calibrate"
    root: Path = ROOT


# By what they tell best. Counters measure all the time, the probe in idle slots; both would say the same. PSI sees of others'
# use of CPUs only where somebody has to wait.
AUTO: Sequence[Sequence[str]] = (("perf", "probe"), ("residuals",), ("runqueue", "psi"), ("steal",))

OPEN: Mapping[str, Callable[[Surroundings], Source]] = {
    "perf": lambda here: Perf(here.bandwidth_bytes_per_us, here.root),
    "psi": lambda here: Psi(here.root),
    "steal": lambda here: Steal(here.root),
    "runqueue": lambda here: RunQueue(here.root),
    "probe": lambda here: Probing(here.profile, here.why_no_profile),
    "residuals": lambda here: Residuals(),
}


class Group:
    """Sources that tell the same, best first; one of them is read at a time."""

    def __init__(self, names: Sequence[str], here: Surroundings, openers: Mapping[str, Callable[[Surroundings], Source]]) -> None:
        self._left = list(names)
        self._here = here
        self._openers = openers
        self.refused: dict[str, str] = {}
        self.source: Source | None = None
        self.open_next()

    def open_next(self) -> None:
        """The first of those left that opens; None if there is none."""
        self.source = None
        while self._left and self.source is None:
            name = self._left.pop(0)
            try:
                self.source = self._openers[name](self._here)
            except SourceUnavailable as refusal:
                self.refused[name] = str(refusal)

    def lost(self, why: SourceUnavailable) -> None:
        """The one that was read has gone."""
        assert self.source is not None
        self.refused[self.source.name] = str(why)
        self.source.close()
        self.open_next()


def open_groups(
    choice: str, here: Surroundings, openers: Mapping[str, Callable[[Surroundings], Source]] = OPEN
) -> tuple[Group, ...]:
    """`choice` is "auto", "off" or one source's name; raises SourceUnavailable where the one that was named cannot be had."""
    if choice == "off":
        return ()
    if choice == "auto":
        return tuple(Group(names, here, openers) for names in AUTO)
    group = Group((choice,), here, openers)
    if group.source is None:
        raise SourceUnavailable(f"source {choice!r} cannot be used here: {group.refused[choice]}")
    return (group,)
