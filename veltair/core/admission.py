"""When would it be done: a list schedule of all that was accepted, in order of deadline, over the cores as they free up.

The newcomer is accepted if it makes its deadline there and nobody accepted loses his. The estimate is the schedule that
would happen if nobody else came, whole requests at a time; what a unit in flight still holds counts as busy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from veltair.core.cores import fewest_cores
from veltair.core.interference import pressure_on
from veltair.core.policies.protocol import Accepted, Refused
from veltair.core.state import Job, Ledger

MARGIN = 1.03  # hand-overs between units and what tables round off
ATTEMPTS = 8  # to find an earlier feasible deadline than "behind everybody"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A job in the list schedule: it may start at `ready_us`, then holds `cores` for `us`."""

    deadline_us: int
    order: int
    ready_us: int
    us: int
    cores: int


def admit(job: Job, ledger: Ledger, waiting: Sequence[Job], now_us: int) -> Accepted | Refused:
    """Judge a newcomer against the waiting jobs (in order of deadline) and those that run."""
    pressure = pressure_on(ledger)
    free = [now_us] * len(ledger.idle)
    entries: list[_Entry] = []
    for unit in ledger.units.values():
        ends_us = unit.ends_us(now_us)
        free += [ends_us] * len(unit.lease.cores)
        if not unit.job.closed and unit.end_block < len(unit.job.costs.model.blocks):
            entries.append(_entry(unit.job, unit.end_block, ends_us, ledger, pressure, now_us))
    free.sort()
    entries += [_entry(other, other.next_block, now_us, ledger, pressure, now_us) for other in waiting]
    entries.sort(key=lambda e: (e.deadline_us, e.order))

    deadline_us, finish_us, reason = job.request.deadline_us, 0, ""
    for attempt in range(ATTEMPTS):
        new = _entry(job, 0, now_us, ledger, pressure, now_us, deadline_us)
        finish_us, victim = _insert(free, entries, new)
        late_us = finish_us - deadline_us
        if late_us <= 0 and victim is None:
            if attempt == 0:
                return Accepted(finish_us)
            return Refused(reason, deadline_us)
        if attempt == 0 and late_us > 0:
            reason = f"would be done {_ms(finish_us - now_us)} from now, {_ms(late_us)} too late, with {len(entries)} before or beside it"
        elif attempt == 0:
            reason = "would push an accepted request past its deadline"
        deadline_us = finish_us if victim is None else max(finish_us, victim + 1)
    behind_all = max([deadline_us, *(e.deadline_us for e in entries)]) + 1
    finish_us, _ = _insert(free, entries, _entry(job, 0, now_us, ledger, pressure, now_us, behind_all))
    return Refused(reason, max(behind_all, finish_us))


def _entry(
    job: Job, block: int, ready_us: int, ledger: Ledger, pressure: float, now_us: int, deadline_us: int | None = None
) -> _Entry:
    deadline_us = job.request.deadline_us if deadline_us is None else deadline_us
    correction = ledger.correction(job, now_us) * MARGIN
    cores = fewest_cores(job.costs, block, deadline_us - ready_us, pressure, correction)
    return _Entry(deadline_us, job.order, ready_us, round(job.costs.fastest(cores, pressure).rest_us(block) * correction), cores)


def _insert(free: Sequence[int], entries: Sequence[_Entry], new: _Entry) -> tuple[int, int | None]:
    """Finish of `new`, and the deadline of the first entry that only misses because of it."""
    cores, place = list(free), 0
    while place < len(entries) and entries[place].deadline_us <= new.deadline_us:
        _run(cores, entries[place])
        place += 1
    without = list(cores)
    finish_us = _run(cores, new)
    for entry in entries[place:]:
        if _run(without, entry) <= entry.deadline_us < _run(cores, entry):
            return finish_us, entry.deadline_us
    return finish_us, None


def _run(cores: list[int], entry: _Entry) -> int:
    """Put the entry on the cores that free up first; `cores` (ascending) are then busy until it ends."""
    end_us = max(cores[entry.cores - 1], entry.ready_us) + entry.us
    cores[: entry.cores] = [end_us] * entry.cores
    cores.sort()
    return end_us


def _ms(us: int) -> str:
    return f"{us / 1000:.1f} ms"
