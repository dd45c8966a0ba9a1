"""Model-wise first come, first served: the baseline of VELTAIR (ASPLOS 2022, section 3), and what a plain server does.

Each request gets the fewest cores on which its model, alone, takes nine tenths of its QoS, one core on most machines of a few
cores; without that tenth the first unit that meets a neighbour is late, and so is its whole tenant. The one
that came first takes them as soon as so many are idle and runs its whole model there as one unit, with the variants that
are fastest alone; whoever came later waits behind it even where he would fit. Nothing is refused or given up, however late.
"""

from collections import deque

from veltair.core.cores import fewest_cores
from veltair.core.plans import Accepted, UnitPlan
from veltair.core.policies.protocol import Policy
from veltair.core.state import Job, Ledger, Unit

SHARE = 0.9  # of its QoS, for the time alone; scripts/bench_scheduler also prints the best share for each mix


class Fcfs(Policy):
    name = "fcfs"
    work_conserving = False  # the first in line may need more cores than are idle

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self._queue: deque[Job] = deque()
        self._queued_core_us = 0  # summed here, so that foretelling does not walk a queue that nothing bounds

    def admit(self, job: Job, ledger: Ledger, now_us: int) -> Accepted:
        cores, us = self._whole(job)
        running = sum((unit.ends_us(now_us) - now_us) * len(unit.lease.cores) for unit in ledger.units.values())
        at_once = not ledger.waiting and len(ledger.idle) >= cores
        wait_us = 0 if at_once else (running + self._queued_core_us) // len(ledger.machine.cores)
        return Accepted(finish_us=now_us + wait_us + us)

    def wait(self, job: Job, ledger: Ledger, now_us: int, after: Unit | None) -> None:
        self._queue.append(job)
        cores, us = self._whole(job)
        self._queued_core_us += cores * us

    def next_unit(self, ledger: Ledger, now_us: int) -> UnitPlan | None:
        while self._queue:
            job = self._queue[0]
            cores, us = self._whole(job)
            if job.waits and cores > len(ledger.idle):
                return None
            self._queue.popleft()
            self._queued_core_us -= cores * us
            if not job.waits:  # cancelled meanwhile
                continue
            line = job.costs.fastest(cores, 0.0)
            return UnitPlan(
                job=job,
                cores=cores,
                wanted_cores=cores,
                end_block=len(line.variants),
                variants=line.variants,
                table_us=us,
                predicted_us=us,
                traffic_bytes=line.until_bytes[-1],
                pressure=0.0,
                reason=f"first come, whole model on {cores} core{'s' * (cores > 1)}",
            )
        return None

    def _whole(self, job: Job) -> tuple[int, int]:
        """The fewest cores, and the time on them alone."""
        qos_us = job.request.deadline_us - job.request.arrived_us
        return fewest_cores(job.costs.by_cores(0.0), 0, qos_us * self._share, 1.0)
