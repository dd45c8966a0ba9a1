"""Layer-wise scheduling: the fine-grained baseline of VELTAIR (ASPLOS 2022, sections 2 and 3).

Each layer is a task of its own. It joins the end of the line when the layer before it is done, and the line is served first
come, first served. A layer gets the fewest cores that end it within its part of the model's QoS, which is split over layers
by their share of the work; where fewer are idle it starts on those, which is what the paper counts as a conflict. Nothing is
refused or given up.

Adapted. The paper shares the QoS out by multiply-adds, which the core does not know: here it is by measured time on the
fewest cores, which is proportional to them where kernels are equally good. There a layer in conflict grows when cores return
and pays for new threads; here a lease is fixed for the layer, so it stays narrow until its end. The variant is the one that
is fastest alone: the baseline compiles no other.
"""

from collections import deque

from veltair.core.actions import Alternative
from veltair.core.cores import most_measured
from veltair.core.plans import Accepted, UnitPlan
from veltair.core.policies.plans import in_cores, in_ms, plan_alone
from veltair.core.policies.protocol import Policy
from veltair.core.policies.waiting import QueuedWork
from veltair.core.state import Job, Ledger, Unit


class Layerwise(Policy):
    name = "layerwise"
    work_conserving = False  # the first in line may need more cores than are idle

    def __init__(self) -> None:
        self._ready: deque[Job] = deque()  # those answered meanwhile stay in until they are met
        self._work = QueuedWork()

    def admit(self, job: Job, ledger: Ledger, now_us: int) -> Accepted:
        alone_us = block = 0
        while block < len(job.costs.model.blocks):
            end = job.costs.model.layer_end(block)
            alone_us += _fewest(job, block, end)[1]
            block = end
        return Accepted(now_us + alone_us + self._work.wait_us(job.costs.narrowest, ledger, now_us))

    def wait(self, job: Job, ledger: Ledger, now_us: int, after: Unit | None) -> None:
        self._ready.append(job)
        narrowest = job.costs.narrowest
        self._work.add(job, narrowest, job.costs.fastest(narrowest, 0.0).rest_us(job.next_block))

    def leave(self, job: Job, ledger: Ledger, now_us: int) -> None:
        self._work.remove(job)

    def next_unit(self, ledger: Ledger, now_us: int) -> UnitPlan | None:
        job = self._first()
        if job is None or job.costs.narrowest > len(ledger.idle):
            return None
        self._ready.popleft()
        self._work.remove(job)
        first, end = job.next_block, job.costs.model.layer_end(job.next_block)
        wanted, _, budget_us = _fewest(job, first, end)
        cores = most_measured(job.costs, min(wanted, len(ledger.idle)))
        us = job.costs.fastest(cores, 0.0).span_us(first, end)
        rejected = []
        if cores < wanted:
            rejected.append(Alternative(in_cores(wanted), f"conflict: {len(ledger.idle)} idle"))
        elif wanted > job.costs.narrowest:
            fewer = most_measured(job.costs, wanted - 1)
            fewer_us = job.costs.fastest(fewer, 0.0).span_us(first, end)
            rejected.append(Alternative(in_cores(fewer), f"would take {in_ms(fewer_us)}"))
        behind = self._first()
        if behind is not None:
            rejected.append(Alternative(f"request {behind.request.id}", "was ready later"))
        return plan_alone(
            job,
            cores=cores,
            wanted_cores=wanted,
            end_block=end,
            reason=f"first come; the layer takes {in_ms(us)} of its {in_ms(budget_us)}",
            rejected=rejected,
        )

    def _first(self) -> Job | None:
        while self._ready and not self._ready[0].waits:
            self._ready.popleft()
        return self._ready[0] if self._ready else None


def _fewest(job: Job, first: int, end: int) -> tuple[int, int, int]:
    """The fewest cores that end these blocks within their part of the QoS, else the fastest; the time on them, and the part."""
    lines = job.costs.by_cores(0.0)
    work = job.costs.fastest(job.costs.narrowest, 0.0)
    qos_us = job.request.deadline_us - job.request.arrived_us
    budget_us = qos_us * work.span_us(first, end) // work.rest_us(0)
    times = [(cores, line.span_us(first, end)) for cores, line in lines]
    fewest = next((found for found in times if found[1] <= budget_us), None)
    cores, us = fewest or min(times, key=lambda found: found[1])
    return cores, us, budget_us
