"""Pressure on the memory path, from what runs now and from outside, and who could bear more of it.

One resource is modelled, memory bandwidth: a unit presses with the traffic of its variants over its predicted time, as
a share of what the machine can move. Pressures add up; the sum is clamped to 1, beyond which tables hold no rows.
"""

from bisect import bisect_left, insort
from math import inf

from veltair.core.plans import UnitPlan
from veltair.core.predict import Line, ModelCosts
from veltair.core.state import Job, Ledger


def own_pressure(traffic_bytes: int, us: int, bandwidth_bytes_per_us: float) -> float:
    """The share of the machine's bandwidth that a unit takes while it runs."""
    return min(1.0, traffic_bytes / max(1, us) / bandwidth_bytes_per_us)


def pressure_on(ledger: Ledger) -> float:
    """What a unit starting now is to expect, 0..1."""
    return min(1.0, ledger.outside_pressure + ledger.expected_per_s() / 1e6 / ledger.machine.bandwidth_bytes_per_us)


def pressure_now(ledger: Ledger) -> float:
    """What all that runs presses with at this moment, 0..1."""
    return min(1.0, ledger.outside_pressure + ledger.traffic_per_s / 1e6 / ledger.machine.bandwidth_bytes_per_us)


class CoTenants:
    """How much pressure each request that runs now could bear before it missed its deadline. Asked in O(log n).

    Told by the policy when a unit of it begins and ends. Taken as linear between the pressure at its start and full pressure.
    """

    def __init__(self) -> None:
        self._bearable: list[tuple[float, int, Job]] = []  # total pressure, its own included; ascending
        self._of: dict[Job, float] = {}

    def begin(self, plan: UnitPlan, costs: ModelCosts, line: Line, ledger: Ledger, now_us: int) -> None:
        job, correction = plan.job, ledger.correction(plan.job, now_us)
        left_us = min(j.deadline_us for j in (job, *plan.riders)) - now_us

        def takes_us(pressure: float) -> float:
            rest_us = costs.fastest(plan.cores, pressure).rest_us(plan.end_block)
            return costs.under(line, plan.cores, pressure).span_us(job.next_block, plan.end_block) * correction + rest_us

        bearable, soonest, latest = inf, takes_us(plan.pressure), takes_us(1.0)
        if soonest > left_us:
            bearable = -inf  # late anyway: nobody needs to spare it
        elif latest > left_us:
            of_rest = (left_us - soonest) / (latest - soonest)
            own = own_pressure(plan.traffic_bytes, plan.predicted_us, ledger.machine.bandwidth_bytes_per_us)
            bearable = plan.pressure + of_rest * (1.0 - plan.pressure) + own
        self._of[job] = bearable
        insort(self._bearable, (bearable, job.order, job))

    def end(self, job: Job) -> None:
        del self._bearable[bisect_left(self._bearable, (self._of.pop(job), job.order))]

    def pushed(self, ledger: Ledger, added: float) -> Job | None:
        """Who makes its deadline now, and would not under `added` pressure."""
        now = pressure_now(ledger)
        i = bisect_left(self._bearable, (now,))
        while i < len(self._bearable) and self._bearable[i][0] < now + added:
            if not self._bearable[i][2].closed:
                return self._bearable[i][2]
            i += 1
        return None
