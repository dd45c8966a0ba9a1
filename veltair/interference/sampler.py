"""From what sources say to what the scheduler is told: how hard others press, followed quickly and changed seldom, and where.

`Estimate` follows the pressure of outsiders as a Kalman filter does. Who measures the memory path pulls it towards what was
measured, the more the surer. Who sees only CPU use moves it when that use makes a step: others who begin on another core press
with anything between nothing and all that a core can stream, so half of it is expected and nothing is sure until it is
measured; of those who end, their part is gone at once. Between measurements it holds, and becomes less sure.

`Zero` is what those who time something read while nobody is seen on our CPUs. A machine's speed swings from minute to minute, by
as much as an outsider slows it, and from times alone one cannot be told from the other. What has changed for our own units then
is learnt from them (`core.residuals`), so it is no pressure. Counters are believed whoever is seen.

`Hysteresis` stands between estimate and scheduler. It rises sooner than it falls, and never swings: while the truth is constant
and estimates scatter by no more than NOISE, it speaks at most once. (What is told is within half a step of an estimate, hence
within NOISE and half a step of all others, which is less than BAND. And from NOTHING on no estimate is above BAND.)

`Holding` tells which CPUs others are on.
"""

import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from veltair.core.values import CoreId
from veltair.errors import SourceUnavailable
from veltair.interference.sources import UNSURE, Own, Pressed, Spread, Used
from veltair.interference.sources.choose import Group

DRIFT_PER_S = 0.05  # of the pressure that the same outsiders make: standard deviation after a second
ALONE_DRIFT_PER_S = 0.01  # where nobody is seen: another virtual machine may still begin to press
SURPRISE = 3.0  # standard deviations, twice in a row: something has begun or ended, what was believed before is worth nothing
AT_FIRST = 0.05  # standard deviation of nobody's pressing, until somebody is seen
LEAST_CORES = 0.25  # of others' CPU use: less is an error of reading, or the system's housekeeping

ZERO_GAIN = 0.02  # some fifty readings
WILD = 2.0  # a pressure that is not learnt in full
ZERO_AFTER_US = 150_000  # an outsider who begins is seen sooner: until then its part in a reading may not be known

STEP = 1 / 16  # of the scheduler's tables: told in those
NOTHING, NOISE, BAND = STEP, 2 * STEP, 3 * STEP
RISE, FALL = 2, 3  # estimates in a row beyond the band before it is told
STAYS = 2 * FALL  # in a row below NOTHING, until what little was told is taken back

HOLDS, LEAVES = 0.45, 0.2  # of a CPU's time, from which on others hold it, and until when; beside us they may get but half of it
COMING, STAYING = 0.5, 0.75  # what others use in all counts as so many CPUs, rounded; a little less keeps them
LOOKS = 2  # in a row

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outside:
    """What is known of processes that are not ours. `pressure` is what the scheduler was told last."""

    pressure: float = 0.0  # 0..1
    error: float = UNSURE  # one standard deviation
    cores: float = 0.0  # that they use
    held: tuple[CoreId, ...] = ()  # CPUs that they have most of


class Estimate:
    def __init__(self) -> None:
        self.cores = 0.0
        self._level = 0.0  # as `pressure`, but two cores that stream count for two, until one of them ends
        self._variance = AT_FIRST**2
        self._surprise = 0.0  # of the reading before, which was left aside
        self._at_us: int | None = None
        self.looks = False  # somebody looks who is on our CPUs, whoever that is
        self._counted = False  # by counters, at least once

    @property
    def pressure(self) -> float:
        return min(1.0, self._level)

    @property
    def unseen(self) -> bool:
        """Nobody else is on our CPUs, nor was counted to press; not known where nobody looks."""
        return self.looks and self.cores == 0.0 and self._level < NOTHING

    @property
    def error(self) -> float:
        return math.sqrt(self._variance)

    @property
    def surprised(self) -> bool:
        """The last measurement was left aside, until a second one bears it out."""
        return self._surprise != 0.0

    def passes(self, now_us: int) -> None:
        """Time makes it less sure."""
        if self._at_us is not None:
            drift = DRIFT_PER_S if self.cores else ALONE_DRIFT_PER_S
            self._spread(drift**2 * max(0, now_us - self._at_us) / 1e6)
        self._at_us = now_us

    def used(self, cores: float, everybody: bool = True) -> None:
        """Others use so many cores now, `everybody` of them. Only steps count: what they do with the same cores is for others to
        measure."""
        if everybody and not self.looks and not self._counted and cores < LEAST_CORES:
            self._level, self._surprise = 0.0, 0.0  # what was timed before anybody looked was the machine
        self.looks = everybody
        if cores < LEAST_CORES:
            cores = 0.0
        elif abs(cores - self.cores) < LEAST_CORES:
            return
        step, self.cores = cores - self.cores, cores
        if step > 0.0:
            self._level += step / 2
            self._spread((step / 2) ** 2)
        elif step < 0.0:
            left = cores / (cores - step)
            gone = min(self._level, max(-step / 2, self._level * (1.0 - left)))
            self._level -= gone
            self._variance *= left**2
            self._spread(left * gone**2)  # it is not known who of them has ended; of all, it is

    def nobody(self) -> None:
        """Somebody timed, while nobody is seen: as at first. What was counted is worth more."""
        if not self._counted:
            self._surprise = 0.0
            self._variance = AT_FIRST**2

    def measured(self, pressure: float, error: float, counted: bool = False) -> None:
        self._counted = self._counted or counted
        off = pressure - (self._level if pressure < 1.0 else self.pressure)  # above full pressure nothing is felt of more
        before, self._surprise = self._surprise, 0.0
        if off**2 > SURPRISE**2 * (self._variance + error**2):
            if off * before <= 0.0:  # one alone may be wrong: an interrupt, a page that was not there
                self._surprise = off
                return
            self._spread(off**2)
        gain = self._variance / (self._variance + error**2)
        self._level = max(0.0, self._level + gain * off)
        self._variance *= 1.0 - gain

    def _spread(self, variance: float) -> None:
        self._variance = min(UNSURE**2, self._variance + variance)


class Zero:
    """Of a source that times something: its readings while nobody is seen, which are taken off all others."""

    def __init__(self) -> None:
        self._pressure = 0.0
        self._readings = 0
        self._fresh: deque[Pressed] = deque()

    def learn(self, reading: Pressed, now_us: int) -> None:
        self._fresh.append(reading)
        while self._fresh and self._fresh[0].at_us <= now_us - ZERO_AFTER_US:
            self._readings += 1
            usual = min(max(self._fresh.popleft().pressure, -WILD), WILD)  # an interrupt, a page that was not there
            self._pressure += max(ZERO_GAIN, 1.0 / self._readings) * (usual - self._pressure)

    def somebody(self) -> None:
        """Is there now, and maybe was in the last readings."""
        self._fresh.clear()

    def above(self, reading: Pressed) -> tuple[float, float]:
        """By how much it is above what was usual, and its error."""
        unsure = 1.0 + max(ZERO_GAIN, 1.0 / self._readings) if self._readings else 1.0
        return reading.pressure - self._pressure, reading.error * math.sqrt(unsure)


class Hysteresis:
    def __init__(self) -> None:
        self.told = 0.0
        self._above = self._below = self._near_nothing = 0

    @property
    def content(self) -> bool:
        """No estimate in a row speaks against what was told."""
        return not (self._above or self._below or self._near_nothing)

    def tell(self, estimate: float) -> float | None:
        """What to tell now, in steps of the scheduler's tables; None: what was told still holds."""
        self._above = self._above + 1 if estimate > self.told + BAND else 0
        self._below = self._below + 1 if estimate < self.told - BAND else 0
        self._near_nothing = self._near_nothing + 1 if self.told and estimate < NOTHING else 0
        if self._above < RISE and self._below < FALL and self._near_nothing < STAYS:
            return None
        self._above = self._below = self._near_nothing = 0
        self.told = 0.0 if estimate < NOTHING else round(estimate / STEP) * STEP
        return self.told


class Holding:
    """Which CPUs others hold: as many as they use in all, those that they have most of.

    One is taken where that is so twice in a row, and left when twice in a row it is not any more by a margin.
    """

    def __init__(self) -> None:
        self.held: tuple[CoreId, ...] = ()
        self._missed: dict[CoreId, int] = {}  # of those held, looks in a row
        self._seen: tuple[CoreId, ...] = ()  # in the last look, of those not held

    def tell(self, spread: Spread) -> None:
        cores, of_each = spread.cores, spread.of_each
        by_share = sorted((core for core, share in of_each.items() if share >= LEAVES), key=lambda core: -of_each[core])
        many = by_share[: floor(cores + STAYING)]
        self._missed = {core: 0 if core in many else self._missed[core] + 1 for core in self.held}
        still = [core for core in self.held if self._missed[core] < LOOKS]
        seen = [core for core in by_share if core not in still and of_each[core] >= HOLDS]
        fresh = [core for core in seen if core in self._seen][: max(0, floor(cores + COMING) - len(still))]
        self.held, self._seen = (*still, *fresh), tuple(seen)
        self._missed = {core: self._missed.get(core, 0) for core in self.held}


class Sampler:
    """Reads its sources when told to; opens no clock of its own. Not for several threads at once."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._estimate = Estimate()
        self._hysteresis = Hysteresis()
        self._holding = Holding()
        self._zeros: dict[str, Zero] = {}  # by source
        self.outside = Outside()

    @property
    def sources(self) -> tuple[str, ...]:
        """Those that are read, first those that measure the memory path."""
        return tuple(group.source.name for group in self._groups if group.source is not None)

    @property
    def refused(self) -> tuple[str, ...]:
        """Those that were tried before one that is read, and why they are not."""
        return tuple(f"{name}: {why}" for group in self._groups for name, why in group.refused.items())

    def describe(self) -> str:
        """The choice for people: what is read with the best error it can state, and what is not."""
        read = [f"{g.source.name} ±{g.source.error:.2f}" for g in self._groups if g.source is not None]
        return f"{', '.join(read) or 'off'}{''.join(f'; not {refusal}' for refusal in self.refused)}"

    @property
    def discarded(self) -> int:
        """Readings that could not be true."""
        return sum(group.source.discarded for group in self._groups if group.source is not None)

    @property
    def alone(self) -> bool:
        """Nobody else is seen: what our own units take now is what they take."""
        return self.outside.pressure == 0.0 and self.outside.cores == 0.0

    @property
    def settled(self) -> bool:
        """Nobody else is seen, nor was there a sign of anybody in the last look."""
        return self.alone and not self._estimate.surprised and self._hysteresis.content

    def sample(self, now_us: int, own: Own) -> Outside | None:
        """Read all; what the scheduler is to be told, or None where that has not changed."""
        cores: float | None = None
        everybody = False
        pressed: list[tuple[str, Pressed]] = []
        for group in self._groups:
            match self._read(group, now_us, own):
                case Used() as use:
                    cores, everybody = (cores or 0.0) + use.cores, everybody or use.everybody
                    if use.spread is not None:
                        self._holding.tell(use.spread)
                case Pressed() as reading:
                    assert group.source is not None
                    pressed.append((group.source.name, reading))
                case None:
                    continue
        self._estimate.passes(now_us)
        if cores is not None and (everybody or not self._estimate.looks):  # else who tells of everybody had nothing to tell
            self._estimate.used(cores, everybody)
        if not self._estimate.unseen:
            for zero in self._zeros.values():
                zero.somebody()
        for name, reading in pressed:
            self._weigh(name, reading, now_us)
        changed = self._hysteresis.tell(self._estimate.pressure) is not None or self._holding.held != self.outside.held
        self.outside = Outside(self._hysteresis.told, self._estimate.error, self._estimate.cores, self._holding.held)
        return self.outside if changed else None

    def _weigh(self, name: str, reading: Pressed, now_us: int) -> None:
        if not reading.timed:
            self._estimate.measured(reading.pressure, reading.error, counted=True)
            return
        zero = self._zeros.setdefault(name, Zero())
        if self._estimate.unseen:
            zero.learn(reading, now_us)
            self._estimate.nobody()
        else:
            self._estimate.measured(*zero.above(reading))

    def close(self) -> None:
        for group in self._groups:
            if group.source is not None:
                group.source.close()

    def _read(self, group: Group, now_us: int, own: Own) -> Pressed | Used | None:
        if group.source is None:
            return None
        try:
            return group.source.read(now_us, own)
        except SourceUnavailable as gone:
            name = group.source.name
            group.lost(gone)
            self._estimate, self._holding = Estimate(), Holding()
            _logger.warning(
                "source %s of pressure is gone: %s; reading %s from now on",
                name, gone, group.source.name if group.source is not None else "what is left",
            )  # fmt: skip
            return None
