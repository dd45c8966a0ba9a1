"""What a load run found, per tenant, and the same as benchmark rows."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from veltair.bench.openloop import Outcomes
from veltair.bench.rows import Row
from veltair.bench.scenario import Arrivals, Scenario
from veltair.errors import DeadlineMissed, DeadlineUnmeetable
from veltair.observe.summary import percentile_us

LATENESS_LIMIT_US = 2000  # beyond this the generator, not the server, shapes the arrivals


@dataclass(frozen=True, slots=True)
class TenantResult:
    """`in_qos` is the share of all requests sent; refused, dropped and failed ones are misses. Percentiles: answered ones."""

    name: str
    model: str
    qos_ms: float
    percentile: float
    sent: int
    in_qos: float | None  # None where nothing was sent
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    refused: int
    dropped: int
    errors: Mapping[str, int]  # code -> requests, of all other failures

    @property
    def met(self) -> bool | None:
        return None if self.in_qos is None else self.in_qos >= self.percentile


@dataclass(frozen=True, slots=True)
class PolicyResult:
    policy: str
    tenants: tuple[TenantResult, ...]
    lateness_p99_us: int  # of the generator
    log: Path | None = None  # the decision log, of servers that were started for the run

    @property
    def generator_was_late(self) -> bool:
        return self.lateness_p99_us > LATENESS_LIMIT_US

    @property
    def worst_in_qos(self) -> float:
        return min((tenant.in_qos for tenant in self.tenants if tenant.in_qos is not None), default=1.0)


@dataclass(frozen=True, slots=True)
class BenchResult:
    scenario: Scenario
    machine: str
    policies: tuple[PolicyResult, ...]

    def rows(self) -> list[Row]:
        """In-QoS rows of every policy but the first are held against the first one's."""
        first = self.policies[0]
        rows = []
        for policy in self.policies:
            for number, tenant in enumerate(policy.tenants):
                case = f"{self.scenario.name}/{policy.policy}/{tenant.name}"
                base = None if policy is first else first.tenants[number].in_qos
                rows.append(
                    Row(
                        case=case,
                        metric="in_qos",
                        value=tenant.in_qos,
                        unit="share",
                        against=None if policy is first else first.policy,
                        ratio=tenant.in_qos / base if base and tenant.in_qos is not None else None,
                        target=f">= {tenant.percentile:g} within {tenant.qos_ms:g} ms",
                        met=tenant.met,
                        machine=self.machine,
                        seed=self.scenario.seed,
                    )
                )
                figures = (("p50", tenant.p50_ms, "ms"), ("p95", tenant.p95_ms, "ms"), ("p99", tenant.p99_ms, "ms"))
                counts = (("sent", tenant.sent), ("refused", tenant.refused), ("dropped", tenant.dropped))
                errors = ("errors", float(sum(tenant.errors.values())), "requests")
                for metric, value, unit in (*figures, *((name, float(n), "requests") for name, n in counts), errors):
                    rows.append(
                        Row(case=case, metric=metric, value=value, unit=unit, machine=self.machine, seed=self.scenario.seed)
                    )
            lateness = Row(
                case=f"{self.scenario.name}/{policy.policy}",
                metric="generator_lateness_p99",
                value=policy.lateness_p99_us / 1000,
                unit="ms",
                target=f"<= {LATENESS_LIMIT_US / 1000:g} ms",
                met=not policy.generator_was_late,
                machine=self.machine,
                seed=self.scenario.seed,
            )
            rows.append(lateness)
        return rows


def policy_result(
    policy: str, scenario: Scenario, arrivals: Arrivals, outcomes: Outcomes, log: Path | None = None
) -> PolicyResult:
    counted = arrivals.at_us >= scenario.warmup_s * 1e6
    tenants = []
    for number, tenant in enumerate(scenario.tenant):
        places = np.flatnonzero(counted & (arrivals.tenant == number)).tolist()
        codes = Counter(code for i in places if (code := outcomes.code[i]) is not None)
        latencies = sorted(int(outcomes.latency_us[i]) for i in places if outcomes.latency_us[i] >= 0)
        in_time = sum(latency <= tenant.qos_ms * 1000 for latency in latencies)
        p50, p95, p99 = (None if (us := percentile_us(latencies, share)) is None else us / 1000 for share in (0.50, 0.95, 0.99))
        refused, dropped = codes.pop(DeadlineUnmeetable.code, 0), codes.pop(DeadlineMissed.code, 0)
        in_qos = in_time / len(places) if places else None
        tenants.append(
            TenantResult(
                tenant.name, tenant.model, tenant.qos_ms, tenant.percentile, len(places), in_qos, p50, p95, p99, refused, dropped,
                dict(codes),
            )
        )  # fmt: skip
    lateness = percentile_us(sorted(outcomes.lateness_us.tolist()), 0.99) or 0
    return PolicyResult(policy, tuple(tenants), lateness, log)
