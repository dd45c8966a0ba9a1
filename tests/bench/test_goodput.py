"""Policies in turns: whose share counts, and what the rows are held against."""

import pytest

from veltair.bench.goodput import rows, share_of, tight
from veltair.bench.result import PolicyResult, TenantResult
from veltair.bench.scenario import Scenario, TenantLoad

SCENARIO = Scenario("mixed", 10.0, (TenantLoad("docs", "large", 5.0, 150.0), TenantLoad("files", "tiny", 20.0, 20.0)))


def run_of(policy: str, large: float, tiny: float, *, sent: int = 100, lateness_us: int = 300) -> PolicyResult:
    tenants = (
        TenantResult("docs", "large", 150.0, 0.95, sent, large, 40.0, 90.0, 120.0, 0, 0, {}),
        TenantResult("files", "tiny", 20.0, 0.95, sent, tiny, 8.0, 19.0, 30.0, 0, 0, {}),
    )
    return PolicyResult(policy, tenants, lateness_us)


def test_the_tight_tenant_is_the_one_with_the_shortest_target() -> None:
    assert SCENARIO.tenant[tight(SCENARIO)].name == "files"


def test_a_run_with_more_requests_weighs_more() -> None:
    assert share_of(1, [run_of("fcfs", 1, 0.5, sent=100), run_of("fcfs", 1, 1.0, sent=300)]) == pytest.approx(0.875)
    assert share_of(1, [run_of("fcfs", 1, 0.5, sent=0)]) == 0.0


def test_every_tenant_of_every_policy_but_the_base_is_held_against_it() -> None:
    results = {
        "veltair": [run_of("veltair", 0.94, 0.97), run_of("veltair", 0.94, 0.99)],
        "fcfs": [run_of("fcfs", 1.0, 0.78), run_of("fcfs", 1.0, 0.82)],
    }
    made = rows(SCENARIO, results, base="fcfs", base_share=0.80, target=0.95, seed=4)
    in_qos = {r.case: (r.value, r.against, r.ratio, r.target, r.met) for r in made if r.metric.startswith("in QoS")}
    assert in_qos == {
        "mixed, veltair, docs large": (pytest.approx(0.94), "fcfs", pytest.approx(0.94), ">= 0.95", False),
        "mixed, veltair, files tiny": (pytest.approx(0.98), "fcfs", pytest.approx(1.225), ">= 0.95", True),
        "mixed, fcfs, docs large": (pytest.approx(1.0), None, None, None, None),
        "mixed, fcfs, files tiny": (pytest.approx(0.80), None, None, "0.8 +- 0.05", True),
    }
    assert {r.seed for r in made} == {4}


def test_a_load_that_the_base_carries_better_or_worse_than_meant_shows() -> None:
    results = {"veltair": [run_of("veltair", 1.0, 1.0)], "fcfs": [run_of("fcfs", 1.0, 0.93)]}
    made = rows(SCENARIO, results, base="fcfs", base_share=0.80, target=0.95, seed=0)
    assert [r.case for r in made if r.met is False] == ["mixed, fcfs, files tiny"]


def test_a_generator_that_was_late_in_any_run_shows() -> None:
    results = {"fcfs": [run_of("fcfs", 1, 1), run_of("fcfs", 1, 1, lateness_us=5000)]}
    [lateness] = [r for r in rows(SCENARIO, results, base="fcfs", base_share=0.80, target=0.95, seed=0) if "lateness" in r.metric]
    assert (lateness.value, lateness.met) == (5.0, False)
