"""When would it be done: a list schedule of all that was accepted, in order of deadline, over the cores as they free up.

A newcomer is accepted if it makes its deadline there, nobody accepted of its priority or above loses his, and what others
are owed is left (`fairness`). Foretold is the schedule that would happen if nobody else came, whole requests at a time: who
runs now goes on where he is until somebody ahead of him in line needs the cores.

The schedule is exact for the `NEAR` nearest in line before and behind the newcomer. Work farther ahead is poured over the
cores as if it could be divided at will, and those farther behind are asked whether they could bear as much more work before
them, each by its latest start in such a pouring. So the cost hardly grows with the line (`backlog`), and the error is one of
those requests' service times at most.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import NamedTuple

from veltair.core.backlog import Backlog, Entry, InFlight, Rank, rank_of
from veltair.core.cores import fewest_cores
from veltair.core.fairness import Guest
from veltair.core.interference import pressure_on
from veltair.core.plans import Accepted, Refused, UnitPlan
from veltair.core.state import Job, Ledger

NEAR = 16
ATTEMPTS = 2  # to find an earlier feasible deadline than "behind everybody"


class _Verdict(NamedTuple):
    finish_us: int
    victim: "Entry | None"  # who only misses because of the newcomer


class Admission:
    """Follows who waits and who runs. The policy says `wait`, `end` and `leave` as it is told so, and `start` for each unit."""

    def __init__(self, cores: int) -> None:
        self.backlog = Backlog(cores)
        self._in_flight = InFlight()
        self._running: dict[Job, Entry] = {}  # also those that are on withheld cores alone, which are not in flight above
        self._caught: dict[Job, Entry] = {}  # what is left of those after their units, on other cores then
        self._waiting: dict[Job, Entry] = {}
        self._accepted: Entry | None = None  # the last one, as it was judged

    def wait(self, job: Job, ledger: Ledger, now_us: int) -> None:
        entry, self._accepted = self._accepted, None
        if entry is None or entry.job is not job:
            entry = _entry(job, job.next_block, rank_of(job), now_us, ledger)
        self._waiting[job] = entry
        self.backlog.add(entry)

    def start(self, plan: UnitPlan, ledger: Ledger, now_us: int) -> None:
        job, cores = plan.job, plan.cores
        for member in (job, *plan.riders):
            self.backlog.remove(self._waiting.pop(member).rank)
        costs = job.costs if not plan.riders else job.costs.batches[1 + len(plan.riders)]
        rest_us = round(costs.fastest(cores, plan.pressure).rest_us(plan.end_block) * ledger.cautious_correction(job, now_us))
        self._running[job] = entry = Entry(rank_of(job), rest_us, cores, now_us + plan.predicted_us, job)
        self._in_flight.add(entry)

    def waits(self, job: Job) -> bool:
        return job in self._waiting

    def planned_cores(self, job: Job) -> int:
        """With how many it was put in line: what others were promised counts on it."""
        return self._waiting[job].cores

    def end(self, job: Job) -> None:
        """Its unit is over, and its cores are idle again."""
        self._caught.pop(job, None)
        self._in_flight.remove(self._running.pop(job).rank)

    def leave(self, job: Job) -> None:
        entry = self._waiting.pop(job, None)
        if entry is not None:
            self.backlog.remove(entry.rank)
        elif job in self._running:  # its unit keeps the cores, but nothing follows
            self._caught.pop(job, None)
            self._running[job] = over = self._running[job]._replace(us=0)
            seen = self._in_flight.remove(over.rank)
            if seen is not None:
                self._in_flight.add(over._replace(cores=seen.cores))

    def cores_changed(self, ledger: Ledger, now_us: int) -> None:
        """All is put in line anew on the cores that there are now; units in flight on others bring none back."""
        self._accepted = None
        self.backlog, self._in_flight, self._caught = Backlog(ledger.cores), InFlight(), {}
        for job in self._waiting:
            self._waiting[job] = entry = _entry(job, job.next_block, rank_of(job), now_us, ledger)
            self.backlog.add(entry)
        for job, entry in self._running.items():
            unit = job.unit
            assert unit is not None, f"{job.request.id} runs without a unit"
            cores = sum(core not in ledger.withheld for core in unit.lease.cores)
            if cores:
                self._in_flight.add(entry._replace(cores=cores))
            elif entry.us:
                rest = _entry(job, unit.end_block, entry.rank, now_us, ledger)
                self._caught[job] = rest._replace(ready_us=unit.ends_us(now_us))

    def judge(self, job: Job, ledger: Ledger, now_us: int, guest: Guest | None) -> Accepted | Refused:
        """A refusal's deadline holds if asked again now. It has none where whoever is starved must wait for what was accepted."""
        deadline_us, reason = job.request.deadline_us, ""
        place = None if guest is None else _place(guest.like, job, ledger, now_us)
        if place is not None and guest is not None and (guest.alone or not self._has_place(place, ledger, now_us)):
            if guest.starved:
                return Refused("must not come before a tenant that was refused for too long and has no place yet", None)
            place = None  # whether this one comes or not
        for _ in range(ATTEMPTS):
            new = _entry(job, 0, rank_of(job, deadline_us), now_us, ledger)
            new, (finish_us, victim) = self._fitted(new, ledger, now_us)
            in_time = finish_us <= deadline_us and victim is None
            if in_time and (place is None or self._has_place(place, ledger, now_us, (new,))):
                if reason:
                    return Refused(reason, deadline_us)
                self._accepted = new
                return Accepted(finish_us)
            if not reason:
                reason = self._why(finish_us - now_us, finish_us - deadline_us, victim, guest, now_us)
            deadline_us = max(finish_us, victim.deadline_us + 1 if victim else 0)
        return Refused(reason, self._behind_all(job, deadline_us, place, ledger, now_us))

    def _behind_all(self, job: Job, deadline_us: int, place: Entry | None, ledger: Ledger, now_us: int) -> int:
        """A deadline so late that none of its priority stands behind, whatever the cores: no later place and no slower way."""
        last = self.backlog.last_of(job.request.priority)
        deadlines_us = [deadline_us, self._in_flight.latest_deadline_us(), *(e.deadline_us for e in (last, place) if e)]
        narrow_us = job.costs.fastest(job.costs.narrowest, pressure_on(ledger)).rest_us(0)
        slowest_us = round(narrow_us * ledger.cautious_correction(job, now_us)) + 1
        behind_us = max(max(deadlines_us) + 1, job.ready_us) + slowest_us
        new = _entry(job, 0, rank_of(job, behind_us), now_us, ledger)
        return max(behind_us, self._insert(new, ledger, now_us, () if place is None else (place,)).finish_us)

    def _has_place(self, place: Entry, ledger: Ledger, now_us: int, also: tuple[Entry, ...] = ()) -> bool:
        """Whether a request that might come would be accepted, besides `also`, which have not come yet either."""
        finish_us, victim = self._insert(place, ledger, now_us, also)
        return finish_us <= place.deadline_us and victim is None

    def bears(self, batch: Entry, riders: Sequence[Job], ledger: Ledger, now_us: int) -> bool:
        """Whether nobody who waits misses his deadline because `riders` go now with `batch.job`, ahead of their own places."""
        around = self.backlog.around(batch.rank, NEAR)
        rests, rest_work = self._in_flight.behind(batch.rank, NEAR)
        together = self._in_flight.free_us(batch.rank, len(ledger.idle), now_us)
        if around.far_room is not None and 0 <= around.far_room - sum(together) - rest_work < batch.us * batch.cores:
            return False
        apart = list(together)
        _run(apart, _entry(batch.job, 0, batch.rank, now_us, ledger))
        _run(together, batch)
        for entry in sorted(around.before + rests + around.behind):
            if entry.job is batch.job:
                continue
            apart_us = _run(apart, entry)
            together_us = 0 if entry.job in riders else _run(together, entry)
            if apart_us <= entry.deadline_us < together_us:
                return False
        return True

    def _fitted(self, new: Entry, ledger: Ledger, now_us: int) -> tuple[Entry, _Verdict]:
        """Put it in line; where it would be late for having waited, on as many cores more as it will get when its turn comes."""
        verdict = self._insert(new, ledger, now_us)
        waited_until_us = verdict.finish_us - new.us
        if verdict.finish_us > new.deadline_us > waited_until_us:
            hurried = _entry(new.job, 0, new.rank, now_us, ledger, waited_until_us)
            if hurried.cores > new.cores:
                beside = self._insert(hurried, ledger, now_us)
                if beside.finish_us <= hurried.deadline_us and beside.victim is None:
                    return hurried, beside
        return new, verdict

    def _insert(self, new: Entry, ledger: Ledger, now_us: int, also: tuple[Entry, ...] = ()) -> _Verdict:
        """Put it in line (beside `also`, which are not in line yet): when it would be done, and who would miss for it."""
        also = (*also, *self._caught.values()) if self._caught else also
        if not self.backlog and not also and len(ledger.idle) >= new.cores:
            return _Verdict(new.ready_us + new.us, None)
        around = self.backlog.around(new.rank, NEAR)
        before, behind = around.before, around.behind
        first = before[0].rank if before else new.rank  # whoever is in flight gives way to it when his unit ends
        free = self._in_flight.free_us(first, len(ledger.idle), now_us)
        rests, rest_work = self._in_flight.behind(first, NEAR)
        far_slack = None if around.far_room is None else around.far_room - sum(free) - rest_work
        if rests:
            before = sorted(before + [rest for rest in rests if rest.rank < new.rank])
            behind = sorted(behind + [rest for rest in rests if rest.rank > new.rank])
        for entry in also:
            insort(before if entry.rank < new.rank else behind, entry)
        if around.work_ahead:
            _pour(free, around.work_ahead)
        for entry in before:
            _run(free, entry)
        start = list(free)
        finish_us = _run(free, new)
        if behind and behind[-1].rank[0] > new.rank[0]:  # nobody is refused for the sake of a lower priority
            behind = [entry for entry in behind if entry.rank[0] <= new.rank[0]]
        for entry in behind:
            if _run(free, entry) > entry.rank[1]:
                lost = _first_lost(start, new, behind)
                if lost is not None:
                    return _Verdict(finish_us, lost)
                break
        if far_slack is not None and 0 <= far_slack < new.us * new.cores:
            return _Verdict(finish_us, behind[-1])
        return _Verdict(finish_us, None)

    def free_for_us(self, cores: int, ledger: Ledger, now_us: int) -> int:
        """When so many cores are idle, or should have been where units overrun, if nothing starts before."""
        missing = cores - len(ledger.idle)
        return self._in_flight.end_us(missing) if missing > 0 else now_us

    def _why(self, takes_us: int, late_us: int, victim: Entry | None, guest: Guest | None, now_us: int) -> str:
        if late_us > 0:
            others = len(self.backlog) + len(self._running)
            return f"would be done in {_ms(takes_us)}, {_ms(late_us)} too late, beside {others} accepted"
        if victim is not None:
            return f"would push a request that is due in {_ms(victim.deadline_us - now_us)} past its deadline"
        assert guest is not None
        fared = "was refused for too long" if guest.starved else "fared worse lately"
        return f"would not leave a place for tenant {guest.like.request.tenant!r}, who {fared}"


def _place(guest: Job, new: Job, ledger: Ledger, now_us: int) -> Entry | None:
    """That of a request like `guest`, if it came now. None, where even an idle machine could not meet it at this moment."""
    if guest.costs.narrowest > ledger.cores:  # its model was unloaded meanwhile
        return None
    budget_us = guest.request.deadline_us - guest.request.arrived_us
    if quickest_us(guest, ledger, now_us) > budget_us:
        return None
    return _entry(guest, 0, (-guest.request.priority, now_us + budget_us, new.order + 1), now_us, ledger)


def quickest_us(job: Job, ledger: Ledger, now_us: int) -> int:
    """What it would take on all the cores it likes, with none of ours beside it."""
    _, us = fewest_cores(job.costs.by_cores(ledger.outside_pressure), 0, 0, 1.0, ledger.cores)
    return round(us * ledger.cautious_correction(job, now_us))


def _entry(job: Job, block: int, rank: Rank, now_us: int, ledger: Ledger, start_us: int = 0) -> Entry:
    """The rest of a job as one piece, at this moment's pressure and no faster than promises may count on.

    On the fewest cores that are enough if it starts at `start_us`, or else when it is ready.
    """
    correction = ledger.cautious_correction(job, now_us)
    ready_us = max(now_us, job.ready_us)
    budget_us = rank[1] - max(ready_us, start_us)
    cores, us = fewest_cores(job.costs.by_cores(pressure_on(ledger)), block, budget_us, correction, ledger.cores)
    return Entry(rank, round(us * correction), cores, ready_us, job)


def _run(free: list[int], entry: Entry) -> int:
    """Put it on the cores that free up first; `free` (ascending) are then busy until it ends.

    Where more are free before it is ready, it gets those that are free last: others can use the rest meanwhile.
    """
    _, us, cores, ready_us, _ = entry
    first_us = free[cores - 1]
    if first_us < ready_us:
        end_us, behind = ready_us + us, bisect_right(free, ready_us)
        del free[behind - cores : behind]
        at = bisect_left(free, end_us)
        free[at:at] = [end_us] * cores
        return end_us
    end_us = first_us + us
    if cores == 1:
        del free[0]
        insort(free, end_us)
    else:
        del free[:cores]
        at = bisect_left(free, end_us)
        free[at:at] = [end_us] * cores
    return end_us


def _first_lost(start: list[int], new: Entry, behind: Sequence[Entry]) -> Entry | None:
    """The first that makes its deadline without the newcomer, and not with it."""
    without, beside = list(start), start
    _run(beside, new)
    for entry in behind:
        before_us, after_us = _run(without, entry), _run(beside, entry)
        if before_us <= entry.deadline_us < after_us:
            return entry
    return None


def _pour(free: list[int], work: int) -> None:
    """Raise the cores that free up first to one level, until `work` (core-us) is used up."""
    cores, total = len(free), sum(free)
    while free[cores - 1] * cores - total > work:  # not all of them: the last is free later than the level
        cores -= 1
        total -= free[cores]
    free[:cores] = [(total + work) // cores] * cores


def _ms(us: int) -> str:
    return f"{us / 1000:.1f} ms"
