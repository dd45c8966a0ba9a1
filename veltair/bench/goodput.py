"""Policies side by side at one load, in turns (A B A B): what each tenant gets, as rows."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import msgspec

from veltair.bench.result import PolicyResult
from veltair.bench.rows import Row, machine_name
from veltair.bench.run import run_policies
from veltair.bench.scenario import Scenario

BASE_STRAY = 0.05  # other seeds' arrivals than those the load was found with

Told = Callable[[str], None]


def tight(scenario: Scenario) -> int:
    """The number of the tenant with the shortest latency target."""
    return min(range(len(scenario.tenant)), key=lambda number: scenario.tenant[number].qos_ms)


def share_of(number: int, results: Sequence[PolicyResult]) -> float:
    """In QoS of all requests that one tenant sent in these runs."""
    tenants = [result.tenants[number] for result in results]
    sent = sum(tenant.sent for tenant in tenants)
    return sum((tenant.in_qos or 0.0) * tenant.sent for tenant in tenants) / sent if sent else 0.0


def in_turns(
    scenario: Scenario, bundles: Path, policies: Sequence[str], seeds: Sequence[int], *, logs: Path | None, told: Told
) -> dict[str, list[PolicyResult]]:
    """Every policy once a seed, with that seed's arrivals, each on a fresh server."""
    results: dict[str, list[PolicyResult]] = {policy: [] for policy in policies}
    for seed in seeds:
        seeded = msgspec.structs.replace(scenario, seed=seed)
        for policy in policies:
            [result] = run_policies(seeded, bundles, [policy], out=logs / f"seed{seed}" if logs else None).policies
            results[policy].append(result)
            shares = ", ".join(f"{t.name}/{t.model} {t.in_qos or 0:.1%}" for t in result.tenants)
            told(f"seed {seed}, {policy}: {shares}")
    return results


def rows(
    scenario: Scenario, results: dict[str, list[PolicyResult]], *, base: str, base_share: float, target: float, seed: int
) -> list[Row]:
    """Shares of every tenant under every policy; all but `base` are held against it and against `target`.

    `base` itself should keep `base_share` of the tight tenant's requests, or the load was not the one to compare at.
    """
    machine = machine_name()
    made = []
    for policy, runs in results.items():
        for number, tenant in enumerate(scenario.tenant):
            value, reference = share_of(number, runs), share_of(number, results[base])
            goal: tuple[str | None, bool | None] = (None, None)
            held = policy != base
            if held:
                goal = (f">= {target:g}", value >= target)
            elif number == tight(scenario):
                goal = (f"{base_share:g} +- {BASE_STRAY:g}", abs(value - base_share) <= BASE_STRAY)
            each = [run.tenants[number].in_qos or 0.0 for run in runs]
            p95 = [ms for run in runs if (ms := run.tenants[number].p95_ms) is not None]
            case = f"{scenario.name}, {policy}, {tenant.name} {tenant.model}"
            made.append(
                Row(
                    case=case,
                    metric=f"in QoS ({tenant.qos_ms:g} ms)",
                    value=value,
                    unit="share",
                    against=base if held else None,
                    ratio=value / reference if held and reference else None,
                    target=goal[0],
                    met=goal[1],
                    spread=(max(each) - min(each)) / 2 / value if value else None,
                    machine=machine,
                    seed=seed,
                )
            )
            made.append(
                Row(case=case, metric="p95", value=fmean(p95) if p95 else None, unit="ms", machine=machine, seed=seed)
            )  # fmt: skip
        lateness = max(run.lateness_p99_us for run in runs) / 1000
        late = any(run.generator_was_late for run in runs)
        made.append(
            Row(
                case=f"{scenario.name}, {policy}",
                metric="generator lateness p99",
                value=lateness,
                unit="ms",
                target="<= 2 ms",
                met=not late,
                machine=machine,
                seed=seed,
            )
        )
    return made
