"""What the default policy is worth over the baseline, in simulated time: seeded, hence the same on every machine."""

from functools import cache

import pytest

from veltair.core.policies import make_policy
from veltair.simulate.mixes import MIXES, Tenant, capacity_per_s, serve, timeline
from veltair.simulate.virtual import Run


@cache
def run(mix: str, load: float, policy: str) -> Run:
    return serve(MIXES[mix], load, make_policy(policy), seconds=15, seed=1)


def test_where_first_come_fails_the_tight_tenant_every_tenant_keeps_its_qos() -> None:
    assert run("mixed", 0.55, "fcfs").attainment()["a1"] < 0.80
    assert min(run("mixed", 0.55, "veltair").attainment().values()) >= 0.95


@pytest.mark.parametrize("mix", ["light", "medium", "heavy"])
def test_no_mix_fares_worse_than_under_first_come(mix: str) -> None:
    assert min(run(mix, 0.7, "veltair").attainment().values()) >= min(run(mix, 0.7, "fcfs").attainment().values())


def test_whoever_is_accepted_is_answered_in_time() -> None:
    ends = [o for o in run("mixed", 0.72, "veltair").outcomes if o.error != "deadline_unmeetable"]
    assert sum(o.in_time for o in ends) >= 0.99 * len(ends)


def test_a_run_is_a_function_of_its_seed() -> None:
    again = serve(MIXES["mixed"], 0.55, make_policy("veltair"), seconds=15, seed=1)
    assert again.outcomes == run("mixed", 0.55, "veltair").outcomes


def test_capacity_counts_every_core() -> None:
    assert capacity_per_s((Tenant("a", 10_000, 50_000, 1.0),), cores=2) == 200


def test_arrivals_come_at_the_asked_rate_with_the_tenants_deadlines() -> None:
    asked = [event.request for _, event in timeline(MIXES["mixed"], 200, 20, seed=3) if hasattr(event, "request")]
    assert len(asked) == pytest.approx(4_000, rel=0.05)
    assert {r.deadline_us - r.arrived_us for r in asked if r.tenant == "a1"} == {5_000}
