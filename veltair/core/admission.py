"""When would it be done: a list schedule of all that was accepted, in order of deadline, over the cores as they free up.

A newcomer is accepted if it makes its deadline there, nobody accepted loses his, and room is left for whoever has fared
worst lately. The estimate is the schedule that would happen if nobody else came, whole requests at a time; what a unit in
flight still holds counts as busy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from veltair.core.cores import fewest_cores
from veltair.core.interference import pressure_on
from veltair.core.policies.protocol import Accepted, Refused
from veltair.core.predict import LinesByCores, ModelCosts
from veltair.core.state import Job, Kind, Ledger

ATTEMPTS = 8  # to find an earlier feasible deadline than "behind everybody"
FARE_GAIN = 0.02  # about the last fifty requests of a kind
FARE_MEMORY_US = 2_000_000  # who has been away that long needs no room
UNLIKE_BY = 0.02  # accepted shares closer than this are chance
FULL_ROOM_AT = 0.05  # this far apart, a whole service time is left free
ROOM_SHARE = 0.5  # of the newcomer's own slack at most: a tenant that asks too much cannot shut out the others


class _Entry(NamedTuple):
    """A job in the list schedule: it may start at `ready_us`, then holds `cores` for `us`."""

    deadline_us: int
    order: int
    ready_us: int
    us: int
    cores: int


@dataclass(slots=True)
class _Fare:
    accepted: float  # share of the last requests
    service_us: int
    seen_us: int


class Fares:
    """How each kind of request fared lately, and the room that those who fare better leave for who fares worst.

    Without it a short deadline is refused whenever a long request fills the schedule, and the long ones get all they ask.
    """

    def __init__(self) -> None:
        self._fares: dict[Kind, _Fare] = {}

    def add(self, job: Job, accepted: bool, now_us: int) -> None:
        fare = self._fares.setdefault(job.kind, _Fare(1.0, job.costs.best_us, now_us))
        fare.accepted += FARE_GAIN * (accepted - fare.accepted)
        fare.service_us, fare.seen_us = job.costs.best_us, now_us

    def room_us(self, job: Job, now_us: int) -> int:
        """How much earlier than its deadline this newcomer should be done, if its slack allows."""
        self._fares = {kind: fare for kind, fare in self._fares.items() if now_us - fare.seen_us < FARE_MEMORY_US}
        mine, worst = self._fares.get(job.kind), min(self._fares.values(), key=lambda f: f.accepted, default=None)
        if worst is None:
            return 0
        ahead = (1.0 if mine is None else mine.accepted) - worst.accepted - UNLIKE_BY
        share = min(1.0, max(0.0, ahead / (FULL_ROOM_AT - UNLIKE_BY)))
        return int(share * worst.service_us)


class _Estimate:
    """Times of whole requests at this moment's pressure. Looks each model up once: many of its requests may wait."""

    def __init__(self, ledger: Ledger, now_us: int) -> None:
        self.pressure = pressure_on(ledger)
        self._ledger, self._now_us = ledger, now_us
        self._known: dict[ModelCosts, tuple[LinesByCores, float]] = {}

    def entry(self, job: Job, block: int, ready_us: int, deadline_us: int | None = None) -> _Entry:
        known = self._known.get(job.costs)
        if known is None:
            cautious = self._ledger.cautious_correction(job, self._now_us)
            known = self._known[job.costs] = job.costs.by_cores(self.pressure), cautious
        lines, correction = known
        deadline_us = job.request.deadline_us if deadline_us is None else deadline_us
        cores, us = fewest_cores(lines, block, deadline_us - ready_us, correction)
        return _Entry(deadline_us, job.order, ready_us, round(us * correction), cores)


def admit(job: Job, ledger: Ledger, waiting: Sequence[Job], now_us: int, room_us: int = 0) -> Accepted | Refused:
    """Judge a newcomer against the waiting jobs and those that run. A refusal's deadline holds if asked again now."""
    estimate = _Estimate(ledger, now_us)
    free = [now_us] * len(ledger.idle)
    entries = [estimate.entry(other, other.next_block, now_us) for other in waiting]
    for unit in ledger.units.values():
        ends_us = unit.ends_us(now_us)
        free += [ends_us] * len(unit.lease.cores)
        if not unit.job.closed and unit.end_block < len(unit.job.costs.model.blocks):
            entries.append(estimate.entry(unit.job, unit.end_block, ends_us))
    free.sort()
    entries.sort(key=lambda e: (e.deadline_us, e.order))

    deadline_us, reason = job.request.deadline_us, ""
    for _ in range(ATTEMPTS):
        finish_us, victim = _insert(free, entries, estimate.entry(job, 0, now_us, deadline_us))
        slack_us = deadline_us - job.request.arrived_us - job.costs.best_us
        kept_us = max(0, min(room_us, int(ROOM_SHARE * slack_us)))
        late_us = finish_us + kept_us - deadline_us
        if late_us <= 0 and victim is None:
            return Refused(reason, deadline_us) if reason else Accepted(finish_us)
        if not reason:
            reason = _why(finish_us - now_us, late_us, kept_us, victim, len(entries), now_us)
        deadline_us = max(finish_us + room_us, victim.deadline_us + 1 if victim else 0)
    # Behind everybody and on one core: there is no later place, and no slower way to do it.
    behind_all = max([deadline_us, *(e.deadline_us for e in entries)]) + 1
    one_core_us = job.costs.fastest(1, estimate.pressure).rest_us(0) * ledger.cautious_correction(job, now_us)
    last = estimate.entry(job, 0, now_us, max(behind_all, now_us + round(one_core_us) + 1))
    return Refused(reason, max(last.deadline_us, _insert(free, entries, last)[0] + room_us))


def _why(takes_us: int, late_us: int, room_us: int, victim: _Entry | None, others: int, now_us: int) -> str:
    if late_us > room_us:
        return f"would be done in {_ms(takes_us)}, {_ms(late_us - room_us)} too late, beside {others} accepted"
    if victim is not None:
        return f"would push a request that is due in {_ms(victim.deadline_us - now_us)} past its deadline"
    return f"would be done in {_ms(takes_us)} and not leave {_ms(room_us)} for a tenant that fared worse lately"


def _insert(free: Sequence[int], entries: Sequence[_Entry], new: _Entry) -> tuple[int, _Entry | None]:
    """Finish of `new`, and the first entry that only misses because of it."""
    cores, place = list(free), 0
    while place < len(entries) and entries[place].deadline_us <= new.deadline_us:
        _run(cores, entries[place])
        place += 1
    without = list(cores)
    finish_us = _run(cores, new)
    for entry in entries[place:]:
        before_us, after_us = _run(without, entry), _run(cores, entry)
        if before_us <= entry.deadline_us < after_us:
            return finish_us, entry
    return finish_us, None


def _run(cores: list[int], entry: _Entry) -> int:
    """Put the entry on the cores that free up first; `cores` (ascending) are then busy until it ends."""
    _, _, ready_us, us, held = entry
    end_us = max(cores[held - 1], ready_us) + us
    cores[:held] = [end_us] * held
    cores.sort()
    return end_us


def _ms(us: int) -> str:
    return f"{us / 1000:.1f} ms"
