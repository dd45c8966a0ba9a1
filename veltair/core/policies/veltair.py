"""The default policy: earliest deadline first, at the granularity, on the cores and as the variants the moment asks for.

Order: by priority, then earliest deadline first, which among requests of known length keeps every deadline that one core can
keep. A request that is set aside for a tighter one goes on at its next block; it is not set aside for one like itself that
can wait. What can no longer be met is given up at once, and what could not be met is not accepted.

The two halves of VELTAIR (ASPLOS 2022, section 6) can be had alone, to see what each gives: adaptive scheduling (`as`) keeps
each block's one variant, the fastest on a quiet machine; adaptive compilation (`ac`) runs whole models in one go.
"""

import heapq
from collections import Counter
from collections.abc import Iterable
from itertools import islice

from veltair.core.actions import Alternative
from veltair.core.admission import Admission, quickest_us
from veltair.core.backlog import Entry, rank_of
from veltair.core.batching import riders_for
from veltair.core.choice import Choice
from veltair.core.cores import Crowd, Reserve, fewest_cores, widen
from veltair.core.fairness import Fairness
from veltair.core.granularity import LENT_UNIT_US, SeenLately, is_worth_splitting, threshold_us, unit_end
from veltair.core.interference import pressure_on
from veltair.core.layers import begun_extra_us
from veltair.core.plans import Accepted, Refused, UnitPlan
from veltair.core.policies.protocol import Policy
from veltair.core.predict import Line, ModelCosts
from veltair.core.state import Job, Ledger, Unit

PATIENCE = 0.6  # of the time from arrival to deadline, by which one that is made to wait must be done: what is foretold errs
ALIKE = 0.75  # a newcomer this long, measured by what the other still needs, gains too little from going first


class Veltair(Policy):
    withholds = True

    def __init__(self, *, adaptive_scheduling: bool = True, adaptive_compilation: bool = True) -> None:
        self.name = "veltair" + ("" if adaptive_compilation else "-as") + ("" if adaptive_scheduling else "-ac")
        self._adapts_units, self._adapts_variants = adaptive_scheduling, adaptive_compilation
        self._admission: Admission | None = None
        self._fairness = Fairness(cores=1)
        self._choice = Choice()
        self._crowd = Crowd()
        self._reserve = Reserve()
        self._latest_starts: list[tuple[int, int, Job]] = []  # heap; a job answered meanwhile stays in until it is met
        self._widths: Counter[int] = Counter()  # of those that wait, the fewest cores each can run on
        self._fresh: dict[ModelCosts, dict[int, Job]] = {}  # that wait and have not begun, where batches are compiled
        self._seen = SeenLately()
        self._paused: tuple[Job, int] | None = None  # back from a unit, and when

    def admit(self, job: Job, ledger: Ledger, now_us: int) -> Accepted | Refused:
        if self._admission is None:
            self._admission, self._fairness = Admission(ledger.cores), Fairness(ledger.cores)
        # What nobody could serve tells nothing about who is served, and nobody must keep a place for it.
        counts = max(now_us, job.ready_us) + quickest_us(job, ledger, now_us) < job.deadline_us
        if counts:
            self._fairness.asked(job, now_us)
        self._fairness.look(now_us)
        if self._fairness.exceeds(job, now_us):
            verdict: Accepted | Refused = Refused(
                "its tenant asks for more than its share of a crowded machine and has had that", None
            )
        else:
            verdict = self._admission.judge(job, ledger, now_us, self._fairness.guest(job, now_us))
        if counts:
            self._seen.add(job.kind, job.slack_us, now_us)
            self._fairness.fared(job, isinstance(verdict, Accepted), now_us)
        return verdict

    def wait(self, job: Job, ledger: Ledger, now_us: int, after: Unit | None) -> None:
        admission = self._known()
        admission.wait(job, ledger, now_us)
        self._widths[job.costs.narrowest] += 1
        if job.next_block == 0 and job.costs.batches:
            self._fresh.setdefault(job.costs, {})[job.order] = job
        heapq.heappush(self._latest_starts, (_latest_start_us(job, ledger, now_us), job.order, job))
        if len(self._latest_starts) > 4 * ledger.waiting + 64:  # far deadlines would keep answered jobs in it
            self._queue_starts(ledger, now_us)
        if after is not None:
            self._paused = job, now_us

    def cores_changed(self, ledger: Ledger, now_us: int) -> None:
        self._reserve.end()
        if self._admission is not None:
            self._fairness.cores = ledger.cores
            self._admission.cores_changed(ledger, now_us)
            self._queue_starts(ledger, now_us)

    def end(self, unit: Unit, ledger: Ledger, now_us: int) -> None:
        self._known().end(unit.job)
        self._choice.end(unit.job)

    def leave(self, job: Job, ledger: Ledger, now_us: int) -> None:
        if job.unit is None and self._known().waits(job):
            self._forget(job)
        self._known().leave(job)

    def hopeless(self, ledger: Ledger, now_us: int) -> Iterable[tuple[Job, str]]:
        while self._latest_starts and self._latest_starts[0][0] < now_us:
            _, _, job = heapq.heappop(self._latest_starts)
            if not job.waits:
                continue
            start_us = _latest_start_us(job, ledger, now_us)  # corrections have moved since it was queued
            if start_us < now_us:
                yield job, f"needed to go on {_ms(now_us - start_us)} ago, {job.next_block} blocks done"
            else:
                heapq.heappush(self._latest_starts, (start_us, job.order, job))

    def kept_for(self, ledger: Ledger) -> Job | None:
        return self._reserve.job if self._reserve.job is not None and self._reserve.job.waits else None

    def wake_us(self, ledger: Ledger) -> int | None:
        while self._latest_starts and not self._latest_starts[0][2].waits:
            heapq.heappop(self._latest_starts)
        wakes_us = [self._latest_starts[0][0] + 1] if self._latest_starts else []
        if self.kept_for(ledger) is not None:
            wakes_us.append(self._reserve.until_us)
        return min(wakes_us, default=None)

    def next_unit(self, ledger: Ledger, now_us: int) -> UnitPlan | None:
        if not any(count and width <= len(ledger.idle) for width, count in self._widths.items()):
            return None
        plan = self._plan(*self._next_job(ledger, now_us), ledger, now_us)
        if plan is None:
            return None
        self._reserve.end()
        for job in (plan.job, *plan.riders):
            self._forget(job)
        self._known().start(plan, ledger, now_us)
        return plan

    def _next_job(self, ledger: Ledger, now_us: int) -> tuple[Job, str, list[Alternative]]:
        idle = len(ledger.idle)
        line = (entry.job for entry in self._known().backlog if entry.job.costs.narrowest <= idle)
        head = next(line)
        paused = self._paused[0] if self._paused is not None and self._paused[1] == now_us else None
        if paused is None or not paused.waits or paused is head or paused.costs.narrowest > idle:
            return head, "earliest deadline", [_later(other, head) for other in islice(line, 1)]
        if paused.request.priority < head.request.priority:
            return head, "higher priority", [Alternative(f"request {paused.request.id}", "its tenant's priority is lower")]
        head_us, rest_us = _rest_us(head, ledger, now_us), _rest_us(paused, ledger, now_us)
        patient_until_us = head.request.arrived_us + PATIENCE * (head.deadline_us - head.request.arrived_us)
        if head_us > ALIKE * rest_us and now_us + rest_us + head_us <= patient_until_us:
            why = f"its deadline is earlier, but it can wait for the {_ms(rest_us)} left of this one"
            return paused, "goes on", [Alternative(f"request {head.request.id}", why)]
        return head, "earliest deadline", [_later(paused, head)]

    def _plan(self, job: Job, reason: str, rejected: list[Alternative], ledger: Ledger, now_us: int) -> UnitPlan | None:
        costs, first = job.costs, job.next_block
        pressure, correction = pressure_on(ledger), ledger.correction(job, now_us)
        deadline_us = job.deadline_us
        riders = self._riders(job, pressure, correction, ledger, now_us)
        if riders:
            costs, deadline_us = costs.batches[1 + len(riders)], min(j.deadline_us for j in (job, *riders))
            reason += f", {len(riders)} alike with it"

        wanted = self._wanted(job, costs, deadline_us, pressure, ledger, now_us)
        cores = self._granted(costs, first, wanted, ledger, pressure, len(riders), rejected)
        if cores < wanted and self._keeps(job, costs.fastest(cores, pressure), wanted, correction, ledger, now_us):
            return None
        end = len(costs.model.blocks)
        quiet_us = costs.fastest(cores, 0.0).rest_us(first)  # as slacks are: a bad minute is no reason to cut finer
        limit = self._limit_us(job, quiet_us, wanted, cores, ledger, now_us) if self._adapts_units else None
        if limit is not None:
            limit_us, why = limit
            timed = costs.fastest if self._adapts_variants else costs.unadapted
            end = unit_end(timed(cores, pressure), first, limit_us / correction)
            if end < len(costs.model.blocks):
                rejected.append(Alternative("the whole rest", why))

        if self._adapts_variants:
            line, us, others = self._choice.choose(job, costs, cores, end, ledger, now_us)
            rejected += others
        else:
            line = costs.unadapted(cores, pressure)
            us = line.span_us(first, end) * correction
        plan = UnitPlan(
            job=job,
            cores=cores,
            wanted_cores=wanted,
            end_block=end,
            variants=line.variants[first:end],
            table_us=line.span_us(first, end),
            predicted_us=max(1, round(us)),
            traffic_bytes=line.span_bytes(first, end),
            pressure=pressure,
            reason=reason,
            rejected=tuple(rejected),
            riders=riders,
        )
        self._choice.begin(plan, costs, line, ledger, now_us)
        return plan

    def _wanted(self, job: Job, costs: ModelCosts, deadline_us: int, pressure: float, ledger: Ledger, now_us: int) -> int:
        """The fewest that surely keep the deadline. Of a machine without that many to spare those it was put in line with, as
        long as they are expected to."""
        first, planned = job.next_block, self._known().planned_cores(job)
        left_us = deadline_us - now_us - round(begun_extra_us(job, costs, planned, pressure) * ledger.correction(job, now_us))
        wanted, _ = fewest_cores(costs.by_cores(pressure), first, left_us, ledger.sure_correction(job, now_us), ledger.cores)
        enough = costs.fastest(planned, pressure).rest_us(first) * ledger.correction(job, now_us) <= left_us
        return min(wanted, planned) if enough and wanted > planned + self._crowd.spare(ledger.cores) else wanted

    def _keeps(self, job: Job, narrow: Line, wanted: int, correction: float, ledger: Ledger, now_us: int) -> bool:
        """Whether it rather waits with the idle cores, on which alone it would run as `narrow` and be late."""
        if now_us + narrow.rest_us(job.next_block) * correction <= job.deadline_us:
            return False
        block_us = round(narrow.span_us(job.next_block, job.next_block + 1) * correction)
        return self._reserve.keeps(job, block_us, self._known().free_for_us(wanted, ledger, now_us), now_us)

    def _granted(
        self,
        costs: ModelCosts,
        first: int,
        wanted: int,
        ledger: Ledger,
        pressure: float,
        riders: int,
        rejected: list[Alternative],
    ) -> int:
        """Those it wants, fewer where so many are not idle, more where they would stay so."""
        idle, machine = len(ledger.idle), ledger.cores
        self._crowd.add(machine - idle)
        cores = costs.by_cores(pressure).within(first, min(wanted, idle))
        if cores < wanted:
            rejected.append(Alternative(_cores(wanted), f"conflict: {idle} idle"))
            return cores
        at_most = min(idle // max(1, ledger.waiting - riders), cores + self._crowd.spare(machine))
        wider = widen(costs, first, cores, at_most, pressure) if at_most > cores else cores
        if wider > cores:
            rejected.append(Alternative(_cores(cores), "would keep the deadline, but others would idle"))
        return wider

    def _limit_us(
        self, job: Job, quiet_us: int, wanted: int, cores: int, ledger: Ledger, now_us: int
    ) -> tuple[float, str] | None:
        """How long the unit may be at most, and why."""
        limits: list[tuple[float, str]] = []
        tightest_us = self._seen.tightest_us(job.kind, now_us)
        if tightest_us is not None and is_worth_splitting(quiet_us, tightest_us):
            limits.append((threshold_us(tightest_us), f"requests with {_ms(tightest_us)} slack come lately"))
        if cores < wanted:
            free_us = self._known().free_for_us(wanted, ledger, now_us)
            limits.append((free_us - now_us, f"{_cores(wanted)} should be idle then"))
        if cores > wanted and self._crowd.comes(ledger.cores):
            limits.append((LENT_UNIT_US, "cores beyond what it needs are lent for a short time"))
        return min(limits, default=None)

    def _riders(self, job: Job, pressure: float, correction: float, ledger: Ledger, now_us: int) -> tuple[Job, ...]:
        if job.next_block or not job.costs.batches:
            return ()
        others = (other for other in self._fresh[job.costs].values() if other is not job)
        alike = list(islice(others, max(job.costs.batches) - 1))
        cautious = ledger.cautious_correction(job, now_us)

        def bears(riders: tuple[Job, ...], cores: int, us: int) -> bool:
            return self._known().bears(Entry(rank_of(job), round(us * cautious), cores, now_us, job), riders, ledger, now_us)

        return riders_for(job, alike, pressure, correction, now_us, len(ledger.idle), bears)

    def _forget(self, job: Job) -> None:
        """It waits no more."""
        self._widths[job.costs.narrowest] -= 1
        if job.next_block == 0 and job.costs.batches:
            del self._fresh[job.costs][job.order]

    def _queue_starts(self, ledger: Ledger, now_us: int) -> None:
        """Of all that wait, anew."""
        waiting = (entry.job for entry in self._known().backlog)
        self._latest_starts = [(_latest_start_us(job, ledger, now_us), job.order, job) for job in waiting]
        heapq.heapify(self._latest_starts)

    def _known(self) -> Admission:
        assert self._admission is not None, "nobody was admitted yet"
        return self._admission


def _rest_us(job: Job, ledger: Ledger, now_us: int) -> int:
    """The least it still needs."""
    least_us = job.costs.least_rest_us(job.next_block, ledger.cores)
    return round(least_us * ledger.correction(job, now_us))


def _latest_start_us(job: Job, ledger: Ledger, now_us: int) -> int:
    return job.deadline_us - _rest_us(job, ledger, now_us)


def _later(loser: Job, winner: Job) -> Alternative:
    if loser.request.priority < winner.request.priority:
        return Alternative(f"request {loser.request.id}", "its tenant's priority is lower")
    return Alternative(f"request {loser.request.id}", f"its deadline is {_ms(loser.deadline_us - winner.deadline_us)} later")


def _cores(cores: int) -> str:
    return "1 core" if cores == 1 else f"{cores} cores"


def _ms(us: int) -> str:
    return f"{us / 1000:.1f} ms"
