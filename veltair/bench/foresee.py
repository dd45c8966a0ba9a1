"""Where to look first: the largest load that a contender would carry if tables were true and nothing else ran.

Only starts a search that is then measured. Ours is played by the simulator, on the bundles' tables and the very arrivals of
the probes; a peer by a queue of two lines, on the times its models took alone.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from veltair.bench.contenders import Contender, total_per_s
from veltair.bench.scenario import Scenario, arrivals_of
from veltair.bundle.store import read_manifest, to_model
from veltair.core.events import Event, ModelLoaded, RequestArrived
from veltair.core.policies import make_policy
from veltair.core.predict import costs_by_precision
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, Machine, Model, ModelName, Precision, Request, RequestId, TenantId
from veltair.simulate.virtual import play

STEPS = 5  # of a bisection over the log of the load: the bracket below shrinks to 6 %
LEAST, MOST = 0.15, 0.95  # of what keeps all cores busy
SECONDS = 6.0
OVERHEAD_US = 300  # of a request, between generator, sockets and lanes, as measured


def foreseen(
    contender: Contender,
    scenario: Scenario,
    bundles: Path,
    cores: int,
    solo_us: Sequence[float] | None = None,
    seconds: float = SECONDS,
) -> float:
    """Requests a second in all, each load tried for so many seconds. `solo_us`, per tenant, are a peer's measured times."""
    if contender.policy is None:
        assert solo_us is not None, f"{contender.name} is no policy of ours: its times must be measured"
        return _largest(scenario, solo_us, cores, seconds, lambda load: _queued(load, solo_us, cores))
    manifests = {name: read_manifest(bundles / name) for name in dict.fromkeys(tenant.model for tenant in scenario.tenant)}
    models = {name: to_model(manifest) for name, manifest in manifests.items()}
    bandwidth = max(manifest.measured.bandwidth_bytes_per_us for manifest in manifests.values())
    machine = Machine(tuple(CoreId(core) for core in range(cores)), bandwidth)
    line = {name: costs_by_precision(model, cores)[contender.precision].fastest(1, 0.0) for name, model in models.items()}
    solo = [float(line[tenant.model].rest_us(0)) for tenant in scenario.tenant]
    policy = contender.policy

    def played(load: Scenario) -> float:
        scheduler = Scheduler(machine, make_policy(policy))
        shares = play(scheduler, timeline_of(load, models, contender.precision)).attainment()
        return min(shares.get(_owner(n), 1.0) - tenant.percentile for n, tenant in enumerate(load.tenant))

    return _largest(scenario, solo, cores, seconds, played)


def _largest(
    scenario: Scenario, solo_us: Sequence[float], cores: int, seconds: float, margin: Callable[[Scenario], float]
) -> float:
    rates = [tenant.rate_per_s for tenant in scenario.tenant]
    work_us = sum(rate * us for rate, us in zip(rates, solo_us, strict=True)) / sum(rates)
    low, high = (math.log(share * cores * 1e6 / work_us) for share in (LEAST, MOST))
    for _ in range(STEPS):
        load = at_load(scenario, math.exp((low + high) / 2), seconds)
        low, high = ((low + high) / 2, high) if margin(load) >= 0 else (low, (low + high) / 2)
    return math.exp((low + high) / 2)


def at_load(scenario: Scenario, load: float, seconds: float) -> Scenario:
    """The scenario at `load` requests a second in all. Equal loads, seconds and seeds give equal arrivals, whoever serves."""
    scaled = scenario.scaled(load / total_per_s(scenario))
    return msgspec.structs.replace(scaled, duration_s=seconds)


def _queued(scenario: Scenario, solo_us: Sequence[float], cores: int) -> float:
    """First come, first served: whoever is next goes to the worker that is free first."""
    arrivals = arrivals_of(scenario)
    free = [0.0] * cores
    met = [0] * len(scenario.tenant)
    for at_us, owner in zip(arrivals.at_us.tolist(), arrivals.tenant.tolist(), strict=True):
        finished = max(heapq.heappop(free), at_us) + solo_us[owner]
        heapq.heappush(free, finished)
        met[owner] += finished - at_us <= scenario.tenant[owner].qos_ms * 1000
    sent = np.bincount(arrivals.tenant, minlength=len(met)).tolist()
    return min((m / n - t.percentile for m, n, t in zip(met, sent, scenario.tenant, strict=True) if n), default=0.0)


def timeline_of(
    scenario: Scenario, models: dict[str, Model], precision: Precision, overhead_us: int = OVERHEAD_US
) -> list[tuple[int, Event]]:
    """The scenario's very arrivals, for the scheduler core. Tenants are named by their number, requests by theirs."""
    arrivals = arrivals_of(scenario)
    events: list[tuple[int, Event]] = [(0, ModelLoaded(model)) for model in models.values()]
    for number, (at_us, owner) in enumerate(zip(arrivals.at_us.tolist(), arrivals.tenant.tolist(), strict=True)):
        tenant = scenario.tenant[owner]
        due_us = at_us + round(tenant.qos_ms * 1000) - overhead_us
        request = Request(RequestId(str(number)), _owner(owner), ModelName(tenant.model), at_us, due_us, precision=precision)
        events.append((at_us, RequestArrived(request)))
    return events


def _owner(number: int) -> TenantId:
    return TenantId(str(number))
