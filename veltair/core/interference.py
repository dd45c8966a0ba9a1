"""Pressure on the memory path, from what runs now and from outside, and which variant stands it best.

One resource is modelled, memory bandwidth: a unit presses with the traffic of its variants over its predicted time, as
a share of what the machine can move. Pressures add up; the sum is clamped to 1, beyond which tables hold no rows.
"""

from veltair.core.predict import Line, ModelCosts
from veltair.core.state import Job, Ledger, Unit


def own_pressure(traffic_bytes: int, us: int, bandwidth_bytes_per_us: float) -> float:
    """The share of the machine's bandwidth that a unit takes while it runs."""
    return min(1.0, traffic_bytes / max(1, us) / bandwidth_bytes_per_us)


def pressure_on(ledger: Ledger, ignoring: Unit | None = None) -> float:
    """What a unit starting now (or the one in flight that is ignored) feels, 0..1."""
    others = ledger.traffic_per_s - (ignoring.traffic_per_s if ignoring is not None else 0)
    return min(1.0, ledger.outside_pressure + others / 1e6 / ledger.machine.bandwidth_bytes_per_us)


def pushed_past_deadline(ledger: Ledger, added: float, now_us: int) -> Unit | None:
    """A unit in flight whose request would make its deadline now, and would not under `added` pressure."""
    for unit in ledger.units.values():
        job = unit.job
        if job.closed:
            continue
        felt, cores = pressure_on(ledger, ignoring=unit), len(unit.lease.cores)
        before = _finish_us(ledger, unit, cores, felt, now_us)
        if before <= job.request.deadline_us < _finish_us(ledger, unit, cores, min(1.0, felt + added), now_us):
            return unit
    return None


def choose_line(
    ledger: Ledger, job: Job, costs: ModelCosts, cores: int, pressure: float, now_us: int, end_block: int
) -> tuple[Line, Unit | None]:
    """The variants to run by `costs`, and the co-tenant for whose sake they are not the fastest ones (None: they are)."""
    fastest = costs.fastest(cores, pressure)
    bandwidth, first = ledger.machine.bandwidth_bytes_per_us, job.next_block

    def presses(line: Line) -> float:
        return own_pressure(line.span_bytes(first, end_block), line.span_us(first, end_block), bandwidth)

    gentlest = costs.gentlest(cores, pressure)
    if not ledger.units or presses(gentlest) >= presses(fastest):
        return fastest, None
    spared = pushed_past_deadline(ledger, presses(fastest), now_us)
    if spared is None or pushed_past_deadline(ledger, presses(gentlest), now_us) is not None:
        return fastest, None
    own_finish = now_us + gentlest.rest_us(first) * ledger.correction(job, now_us)
    return (gentlest, spared) if own_finish <= job.request.deadline_us else (fastest, None)


def _finish_us(ledger: Ledger, unit: Unit, cores: int, pressure: float, now_us: int) -> float:
    """When the request of a unit in flight would be done on the cores it has, if pressure were this from its start."""
    costs = unit.job.costs
    unit_us = costs.as_chosen_us(unit.variants, unit.end_block - len(unit.variants), cores, pressure)
    rest_us = costs.fastest(cores, pressure).rest_us(unit.end_block)
    return max(now_us, unit.started_us + unit_us * ledger.correction(unit.job, now_us)) + rest_us
