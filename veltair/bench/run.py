"""The two ways to run a scenario: against a server that is there, or against our own, one policy after the other."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from veltair.bench.openloop import drive
from veltair.bench.result import BenchResult, PolicyResult, policy_result
from veltair.bench.rows import machine_name
from veltair.bench.scenario import Scenario, arrivals_of
from veltair.bench.server import running_server
from veltair.bench.transport import MonotonicClock, WireTransport

Progress = Callable[[str, float], None]  # policy, share of the run that is done

MIN_GRACE_US = 2_000_000


def _silent(policy: str, share: float) -> None:
    pass


def run_scenario(
    scenario: Scenario, endpoint: str, *, policy: str = "running server", on_progress: Progress = _silent
) -> PolicyResult:
    """One run against the server at `endpoint`. Raises ServerUnreachable, UnknownModel."""
    arrivals = arrivals_of(scenario)
    grace_us = max(MIN_GRACE_US, *(round(tenant.qos_ms * 3000) for tenant in scenario.tenant))
    with WireTransport(scenario, endpoint) as transport:
        outcomes = drive(
            scenario,
            arrivals,
            transport,
            MonotonicClock(),
            grace_us=grace_us,
            on_progress=lambda share: on_progress(policy, share),
        )
    return policy_result(policy, scenario, arrivals, outcomes)


def run_against(scenario: Scenario, endpoint: str, *, on_progress: Progress = _silent) -> BenchResult:
    return BenchResult(scenario, machine_name(), (run_scenario(scenario, endpoint, on_progress=on_progress),))


def run_policies(
    scenario: Scenario, bundles: Path, policies: Sequence[str], *, out: Path | None = None, on_progress: Progress = _silent
) -> BenchResult:
    """A fresh server per policy, same arrivals. Decision logs stay in `out`; without it they are thrown away."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="veltair-bench-") as folder:
            return _run_policies(scenario, bundles, policies, Path(folder), False, on_progress)
    return _run_policies(scenario, bundles, policies, out, True, on_progress)


def _run_policies(
    scenario: Scenario, bundles: Path, policies: Sequence[str], folder: Path, keep_logs: bool, on_progress: Progress
) -> BenchResult:
    results = []
    for policy in policies:
        with running_server(scenario, bundles, policy, folder) as (endpoint, log):
            result = run_scenario(scenario, endpoint, policy=policy, on_progress=on_progress)
        results.append(PolicyResult(policy, result.tenants, result.lateness_p99_us, log if keep_logs else None))
    return BenchResult(scenario, machine_name(), tuple(results))
