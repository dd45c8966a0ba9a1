"""Earliest deadline first, whole models (Liu and Layland, JACM 1973, without its preemption).

Among the requests that wait, the one whose deadline comes first runs its whole model as one unit, on the fewest cores that
keep the deadline, or on those that are idle where these are fewer. One that can no longer be met is dropped, as it would
only make others late: plain EDF is known to do worst under overload. Nothing is refused: the queue is not looked through for
whom a newcomer would push out.

Adapted. The theorem is about one processor and jobs that can be interrupted. On several cores the order is only a good habit,
and whole models are not set aside here for a tighter request: that is what this policy is compared for.
"""

from collections.abc import Iterable

from veltair.core.actions import Alternative
from veltair.core.cores import fewest_cores
from veltair.core.plans import Accepted, UnitPlan
from veltair.core.policies.plans import fastest_within, in_cores, in_ms, plan_alone
from veltair.core.policies.protocol import Policy
from veltair.core.policies.waiting import InOrder, LatestStarts, QueuedWork
from veltair.core.state import Job, Ledger, Unit


class Edf(Policy):
    name = "edf"

    def __init__(self) -> None:
        self._queue = InOrder()
        self._latest_starts = LatestStarts(_rest_us)
        self._work = QueuedWork()

    def admit(self, job: Job, ledger: Ledger, now_us: int) -> Accepted:
        """Foretold as if all who wait went first, but never late: a late one would be dropped."""
        cores, us = _fewest(job, ledger, now_us)
        finish_us = now_us + us + self._work.wait_us(cores, ledger, now_us)
        return Accepted(min(finish_us, max(job.request.deadline_us, now_us + us)))

    def wait(self, job: Job, ledger: Ledger, now_us: int, after: Unit | None) -> None:
        self._queue.add((job.deadline_us, job.order), job)
        self._latest_starts.add(job, ledger, now_us)
        self._work.add(job, *_fewest(job, ledger, now_us))

    def leave(self, job: Job, ledger: Ledger, now_us: int) -> None:
        self._work.remove(job)

    def hopeless(self, ledger: Ledger, now_us: int) -> Iterable[tuple[Job, str]]:
        return self._latest_starts.overdue(ledger, now_us)

    def wake_us(self, ledger: Ledger) -> int | None:
        return self._latest_starts.next_us

    def next_unit(self, ledger: Ledger, now_us: int) -> UnitPlan | None:
        idle = len(ledger.idle)
        job = self._queue.take(idle)
        if job is None:
            return None
        self._work.remove(job)
        wanted, _ = _fewest(job, ledger, now_us)
        cores = fastest_within(job.costs, 0, min(wanted, idle))
        rejected = []
        if cores < wanted:
            rejected.append(Alternative(in_cores(wanted), f"conflict: {idle} idle"))
        behind = self._queue.first(idle)
        if behind is not None:
            later_us = behind.deadline_us - job.deadline_us
            rejected.append(Alternative(f"request {behind.request.id}", f"its deadline is {in_ms(later_us)} later"))
        return plan_alone(
            job,
            cores=cores,
            wanted_cores=wanted,
            end_block=len(job.costs.model.blocks),
            reason=f"earliest deadline, whole model on {in_cores(cores)}",
            rejected=rejected,
            correction=ledger.correction(job, now_us),
        )


def _fewest(job: Job, ledger: Ledger, now_us: int) -> tuple[int, int]:
    """The fewest cores that keep the deadline from now on, and the expected time on them."""
    correction = ledger.correction(job, now_us)
    cores, us = fewest_cores(job.costs.by_cores(0.0), 0, job.deadline_us - now_us, correction)
    return cores, round(us * correction)


def _rest_us(job: Job, ledger: Ledger, now_us: int) -> int:
    return round(job.costs.best_us * ledger.correction(job, now_us))
