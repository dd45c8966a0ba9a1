"""What no scheduler could exceed: a bound from above on the load that two cores carry, for known arrivals.

A linear program in place of a schedule. It knows all arrivals, may divide every request into crumbs, run them on one core at
a time anywhere between arrival and deadline (rounded outwards to a grid), set them aside for nothing, and accept fractions of
requests. Whatever a real schedule does in time is feasible here, so the load at which this fails bounds all policies.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix, vstack

from veltair.core.events import RequestArrived
from veltair.simulate.mixes import Mix, capacity_per_s, timeline

GRID_US = 2_000


def largest_load(mix: Mix, *, cores: int, seconds: float, seed: int, kept: float = 0.95, steps: int = 7) -> float:
    """Share of capacity up to which `kept` of each tenant's requests could be met, by bisection over loads 0.5..1.5."""
    low, high = 0.5, 1.5
    for _ in range(steps):
        middle = (low + high) / 2
        facts = timeline(mix, middle * capacity_per_s(mix, cores), seconds, seed)
        arrivals = [event.request for _, event in facts if isinstance(event, RequestArrived)]
        service = {t.name: t.service_us for t in mix}
        jobs = [(r.arrived_us, r.deadline_us, service[r.tenant], r.tenant) for r in arrivals]
        low, high = (middle, high) if share_met(jobs, cores) >= kept else (low, middle)
    return low


def share_met(jobs: Sequence[tuple[int, int, int, str]], cores: int) -> float:
    """The largest share that could be met of every tenant's jobs (arrival, deadline, core-us, tenant) alike."""
    tenants = sorted({tenant for *_, tenant in jobs})
    counts = {t: sum(tenant == t for *_, tenant in jobs) for t in tenants}
    slots = max(deadline for _, deadline, *_ in jobs) // GRID_US + 1
    job_of, slot_of, most = [], [], []
    for j, (arrival, deadline, *_) in enumerate(jobs):
        for slot in range(arrival // GRID_US, (deadline - 1) // GRID_US + 1):
            job_of.append(j)
            slot_of.append(slot)
            most.append(min(deadline, (slot + 1) * GRID_US) - max(arrival, slot * GRID_US))
    pieces, n = len(job_of), len(jobs)
    # Variables: the core-us of each piece, the accepted share of each job, the share met of every tenant.
    columns = pieces + n + 1
    work = coo_matrix(
        (
            np.r_[np.ones(pieces), [-float(us) for _, _, us, _ in jobs]],
            (np.r_[job_of, np.arange(n)], np.r_[np.arange(pieces), pieces + np.arange(n)]),
        ),
        shape=(n, columns),
    )
    room = coo_matrix((np.ones(pieces), (slot_of, np.arange(pieces))), shape=(slots, columns))
    number = {t: i for i, t in enumerate(tenants)}
    met = coo_matrix(
        (
            np.r_[-np.ones(n), [float(counts[t]) for t in tenants]],
            (
                np.r_[[number[t] for *_, t in jobs], np.arange(len(tenants))],
                np.r_[pieces + np.arange(n), np.full(len(tenants), columns - 1)],
            ),
        ),
        shape=(len(tenants), columns),
    )
    solved = linprog(
        np.r_[np.zeros(columns - 1), -1.0],
        A_ub=vstack([room, met]).tocsr(),
        b_ub=np.r_[np.full(slots, float(cores * GRID_US)), np.zeros(len(tenants))],
        A_eq=work.tocsr(),
        b_eq=np.zeros(n),
        bounds=[*((0, us) for us in most), *((0, 1) for _ in range(n)), (0, 1)],
        method="highs-ipm",
    )
    if not solved.success:
        raise RuntimeError(f"the bound was not found: {solved.message}")
    return float(solved.x[-1])
