"""A scenario in the simulator as it is on the real engine: the same arrivals, the same core, the bundles' tables, this minute."""

from dataclasses import dataclass
from pathlib import Path

from veltair.bench.contenders import total_per_s
from veltair.bench.foresee import timeline_of
from veltair.bench.gauge import AsGauged, Gauged
from veltair.bench.scenario import Scenario
from veltair.bundle.store import read_manifest, to_model
from veltair.core.policies import make_policy
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, Machine
from veltair.observe.summary import percentile_us
from veltair.simulate.virtual import play


@dataclass(frozen=True, slots=True)
class Foretold:
    """Of one tenant; `p95_ms` of those answered, None where none was."""

    in_qos: float
    p95_ms: float | None


def simulated(scenario: Scenario, bundles: Path, policy: str, cores: int, known: Gauged) -> tuple[Foretold, ...]:
    """Per tenant, in their order. Latencies include the way there and back."""
    manifests = {name: read_manifest(bundles / name) for name in dict.fromkeys(tenant.model for tenant in scenario.tenant)}
    bandwidth = max(manifest.measured.bandwidth_bytes_per_us for manifest in manifests.values())
    models = {name: to_model(manifest) for name, manifest in manifests.items()}
    run = play(
        Scheduler(Machine(tuple(CoreId(core) for core in range(cores)), bandwidth), make_policy(policy)),
        timeline_of(scenario, models, "fp32", round(known.away_us)),
        world=AsGauged(bandwidth, known, cores, total_per_s(scenario), scenario.seed),
        handover_us=round(known.handover_us),
    )
    counted = [o for o in run.outcomes if o.request.arrived_us >= scenario.warmup_s * 1e6]
    told = []
    for number in range(len(scenario.tenant)):
        mine = [o for o in counted if o.request.tenant == str(number)]
        took = sorted(o.latency_us + round(known.away_us) for o in mine if o.error is None)
        p95_us = percentile_us(took, 0.95)
        told.append(Foretold(sum(o.in_time for o in mine) / max(1, len(mine)), None if p95_us is None else p95_us / 1000))
    return tuple(told)
