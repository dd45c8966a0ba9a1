"""What units take in the simulated world, as opposed to what the scheduler thinks they will.

A unit presses on the memory path with the traffic of its variants over their time on the idle machine, as a share of the
bandwidth; the presses of all units in flight, and of processes that are not ours, add up, and each unit feels those of the
others, 1 at most. How much slower that makes it is in its measured tables. When co-runners come and go, the rest of every unit
in flight goes on at the speed of the new pressure (rounded to a sixteenth of the bandwidth), so a unit that met a neighbour for
half of its time pays half.

Outsiders may hold cores as well. A unit that has one of those in its lease takes twice as long from the moment they come until
they go: Linux's fair scheduler gives two who both want to compute half of a core's time each, and a unit is over when the
slowest of its threads is.
"""

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from veltair.core.actions import Dispatch
from veltair.core.interference import own_pressure
from veltair.core.values import CoreId, LeaseId, Model

STEPS = 16  # levels of pressure between none and the whole bandwidth: tables have three levels and are linear between
HALF = 0.5  # of a core is what a thread gets beside an outsider of the same weight; behind a niceness, as ours, it is far less

RunUnit = Callable[[Dispatch, Model], "int | str"]
"""What a unit does in a world without neighbours: its time in microseconds, or the message with which it fails."""


def as_measured(unit: Dispatch, model: Model) -> int:
    """A world in which tables are true, and pressure is what the scheduler reckoned with."""
    blocks = model.blocks[unit.first_block : unit.end_block]
    cores = len(unit.lease.cores)
    return sum(b.variants[v].table.latency_us(cores, unit.pressure) for b, v in zip(blocks, unit.variants, strict=True))


class World(Protocol):
    """Told of every start and end, and of outsiders; asked after each decision whose ends have moved."""

    def start(self, unit: Dispatch, model: Model, handover_us: int, now_us: int) -> int | str:
        """Time until its cores return if nothing else changes, or the message with which it fails."""
        ...

    def ended(self, lease_id: LeaseId, now_us: int) -> None: ...

    def pressed(self, outside: float, held: Collection[CoreId] = ()) -> None:
        """So hard, 0..1, do processes that are not ours press from now on, and they compute on the cores `held`."""
        ...

    def shifted(self, now_us: int) -> Iterable[tuple[LeaseId, int]]:
        """New ends, absolute, of units in flight."""
        ...


class Fixed:
    """Times that no neighbour changes."""

    def __init__(self, run_unit: RunUnit = as_measured) -> None:
        self._run_unit = run_unit

    def start(self, unit: Dispatch, model: Model, handover_us: int, now_us: int) -> int | str:
        took = self._run_unit(unit, model)
        return took if isinstance(took, str) else took + handover_us

    def ended(self, lease_id: LeaseId, now_us: int) -> None:
        pass

    def pressed(self, outside: float, held: Collection[CoreId] = ()) -> None:
        pass

    def shifted(self, now_us: int) -> Iterable[tuple[LeaseId, int]]:
        return ()


@dataclass(frozen=True, slots=True)
class _Work:
    """A unit's time at each step of pressure, and what it puts on others."""

    us: Sequence[int]
    presses: float


@dataclass(slots=True)
class _InFlight:
    work: _Work
    stretch: float  # the noise's factor
    handover_us: int
    left: float  # share of it that is still to do, at `since_us`
    since_us: int
    step: int
    cores: tuple[CoreId, ...]
    speed: float  # 1, or HALF

    def takes_us(self) -> float:
        return self.work.us[self.step] * self.stretch / self.speed + self.handover_us


class Contended:
    """Units slow each other down as measured, and stray by a log-normal factor of median 1 where `noise` is above 0."""

    def __init__(self, bandwidth_bytes_per_us: float, *, noise: float = 0.0, seed: int = 0, interference: bool = True) -> None:
        self._bandwidth = bandwidth_bytes_per_us
        self._noise, self._rng = noise, random.Random(seed)
        self._interference = interference
        self._in_flight: dict[LeaseId, _InFlight] = {}
        self._known: dict[tuple[int, int, int, tuple[int, ...], int], _Work] = {}
        self._models: dict[int, Model] = {}  # keeps those whose id() is part of a key alive
        self._outside = 0.0
        self._shared: frozenset[CoreId] = frozenset()  # with outsiders
        self._changed = False

    def start(self, unit: Dispatch, model: Model, handover_us: int, now_us: int) -> int:
        work = self._work(unit, model)
        step, cores = self._step(self._total()), unit.lease.cores
        started = _InFlight(work, self.stretch(unit, model), handover_us, 1.0, now_us, step, cores, self._speed(cores))
        self._in_flight[unit.lease.id] = started
        self._changed = self._changed or work.presses > 0
        return max(1, round(started.takes_us()))

    def stretch(self, unit: Dispatch, model: Model) -> float:
        """What a unit takes over what its tables say, whoever runs beside it."""
        return self._rng.lognormvariate(0.0, self._noise) if self._noise else 1.0

    def ended(self, lease_id: LeaseId, now_us: int) -> None:
        gone = self._in_flight.pop(lease_id)
        self._changed = self._changed or gone.work.presses > 0

    def pressed(self, outside: float, held: Collection[CoreId] = ()) -> None:
        shared = frozenset(held)
        self._changed = self._changed or (outside, shared) != (self._outside, self._shared)
        self._outside, self._shared = outside, shared

    def shifted(self, now_us: int) -> list[tuple[LeaseId, int]]:
        if not self._changed or not self._interference:
            return []
        self._changed = False
        total, ends = self._total(), []
        for lease_id, unit in self._in_flight.items():
            step, speed = self._step(total - unit.work.presses), self._speed(unit.cores)
            if (step, speed) != (unit.step, unit.speed):
                unit.left -= (now_us - unit.since_us) / unit.takes_us()
                unit.since_us, unit.step, unit.speed = now_us, step, speed
                ends.append((lease_id, now_us + max(0, round(unit.left * unit.takes_us()))))
        return ends

    def _total(self) -> float:
        return self._outside + sum(unit.work.presses for unit in self._in_flight.values())

    def _step(self, pressure: float) -> int:
        return min(STEPS, max(0, round(pressure * STEPS))) if self._interference else 0

    def _speed(self, cores: Collection[CoreId]) -> float:
        return HALF if self._interference and not self._shared.isdisjoint(cores) else 1.0

    def _work(self, unit: Dispatch, model: Model) -> _Work:
        cores = len(unit.lease.cores)
        key = (id(model), unit.first_block, unit.end_block, unit.variants, cores)
        known = self._known.get(key)
        if known is None:
            self._models[id(model)] = model
            forms = [b.variants[v] for b, v in zip(model.blocks[unit.first_block : unit.end_block], unit.variants, strict=True)]
            us = [sum(f.table.latency_us(cores, step / STEPS) for f in forms) for step in range(STEPS + 1)]
            moved = sum(f.footprint.traffic_bytes for f in forms)
            known = self._known[key] = _Work(us, own_pressure(moved, us[0], self._bandwidth))
        return known
