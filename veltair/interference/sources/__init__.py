"""Sources of pressure: what the system, the probe and our own units tell of processes that are not ours.

A source is opened by making it, which raises SourceUnavailable with the reason and the remedy where this machine has no such
thing, and is then read some fifty times a second, which must cost microseconds. A read that raises SourceUnavailable ends it:
counters may vanish in mid-run. Files are found below a root, so that tests can bring the files of other machines.

Two kinds of statement are told apart. `perf`, `probing` and `residuals` measure the memory path itself (`Pressed`). `runqueue`,
`psi` and `steal` see only how much CPU others use (`Used`): within a tick and at next to no cost, but blind to what they do
with it, since one core may stream at full bandwidth or compute in its registers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from veltair.core.values import CoreId

UNSURE = 0.5
"""Standard deviation of a pressure that nobody measured: of others' CPU use it is known, not what they do with it."""


@dataclass(frozen=True, slots=True)
class Pressed:
    """Others press with `pressure` on the memory path, in the unit of the scheduler: shares of what one core can stream."""

    at_us: int
    pressure: float  # 0..1 in truth; a reading that scatters may lie outside, and must, or its mean would be too high
    error: float  # one standard deviation
    timed: bool = True  # by what something took, which swings with the machine's speed as well; not so with counters


@dataclass(frozen=True, slots=True)
class Spread:
    """Which CPUs others are on, over a longer while than what they use at the moment: it is known in coarse steps."""

    cores: float  # that they use in all
    of_each: Mapping[CoreId, float]  # share of its time; a CPU that is left out has none


@dataclass(frozen=True, slots=True)
class Used:
    """Others use so much CPU time."""

    at_us: int
    cores: float
    spread: Spread | None = None  # None: not known, or not yet
    everybody: bool = False  # whoever is on our CPUs is in it; not so with stalls and stolen time


Reading = Pressed | Used


@dataclass(frozen=True, slots=True)
class Ran:
    """A unit of ours that has ended. Table times are those beside its co-runners: without outsiders, and at full pressure."""

    model: str
    quiet_us: int
    full_us: int
    measured_us: int


@dataclass(frozen=True, slots=True)
class Own:
    """What the engine does itself, so that it is not taken for somebody else's."""

    cpu_ns: int  # CPU time of this process so far
    pressure: float  # of the units in flight, as their tables say
    idle_cores: int
    ran: Sequence[Ran] = ()  # since the last read
    alone: bool = True  # nobody else is seen, says `Sampler.alone`


class Source(Protocol):
    name: str
    error: float  # of the pressure it leads to, at best: one standard deviation

    @property
    def discarded(self) -> int:
        """Readings that could not be true."""
        ...

    def read(self, now_us: int, own: Own) -> Reading | None:
        """None: nothing to tell this time. Raises SourceUnavailable where it has gone for good."""
        ...

    def close(self) -> None: ...
