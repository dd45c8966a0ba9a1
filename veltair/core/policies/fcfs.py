"""Model-wise first come, first served: the baseline of the paper, and what a plain inference server does.

One worker a core. The request that came first takes the first core that falls idle and runs its whole model there as one
unit, with the variant that is fastest alone. Nothing is refused and nothing is given up, however late it is.
"""

from collections import deque
from collections.abc import Iterable

from veltair.core.policies.protocol import Accepted, UnitPlan
from veltair.core.state import Job, Ledger, Unit


class Fcfs:
    name = "fcfs"

    def __init__(self) -> None:
        self._queue: deque[Job] = deque()
        self._queued_us = 0  # summed here, so that foretelling does not walk a queue that nothing bounds

    def admit(self, job: Job, ledger: Ledger, now_us: int) -> Accepted:
        running_us = sum(unit.ends_us(now_us) - now_us for unit in ledger.units.values())
        wait_us = 0 if len(ledger.idle) > ledger.waiting else (running_us + self._queued_us) // len(ledger.machine.cores)
        return Accepted(finish_us=now_us + wait_us + _whole_us(job))

    def wait(self, job: Job, ledger: Ledger, now_us: int, after: Unit | None) -> None:
        self._queue.append(job)
        self._queued_us += _whole_us(job)

    def hopeless(self, ledger: Ledger, now_us: int) -> Iterable[tuple[Job, str]]:
        return ()

    def next_unit(self, ledger: Ledger, now_us: int) -> UnitPlan | None:
        while self._queue:
            job = self._queue.popleft()
            self._queued_us -= _whole_us(job)
            if not job.waits:  # cancelled meanwhile
                continue
            line = job.costs.fastest(1, 0.0)
            return UnitPlan(
                job=job,
                cores=1,
                wanted_cores=1,
                end_block=len(line.variants),
                variants=line.variants,
                table_us=line.rest_us(0),
                predicted_us=line.rest_us(0),
                traffic_bytes=line.until_bytes[-1],
                pressure=0.0,
                reason="first come, whole model on one core",
            )
        return None


def _whole_us(job: Job) -> int:
    return job.costs.fastest(1, 0.0).rest_us(0)
