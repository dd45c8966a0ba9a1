"""A whole simulation: what is found, that it is the same every time, and that its figures belong together."""

from functools import cache

import msgspec
import pytest

from veltair.errors import ConfigError
from veltair.simulate.result import PolicyResult, Result, decode_result, encode_result
from veltair.simulate.run import simulate
from veltair.simulate.search import combine
from veltair.simulate.setting import prepare
from veltair.simulate.workload import Closed, Workload, read_workload

POLICIES = ("veltair", "fcfs")
SEEDS = (3, 4)


def workload(**changed: object) -> Workload:
    return msgspec.structs.replace(read_workload("queue-mixed"), **{"requests": 250, "load": 0.5, "noise": 0.1, **changed})


@cache
def result() -> Result:
    return simulate(workload(), POLICIES, seeds=SEEDS)


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> PolicyResult:
    return result().policy(request.param)


def test_the_same_arguments_give_the_same_bytes_in_one_process_and_in_several() -> None:
    short = workload(requests=100)
    once, again = (encode_result(simulate(short, ["fcfs"], seeds=SEEDS)) for _ in range(2))
    assert once == again == encode_result(simulate(short, ["fcfs"], seeds=SEEDS, jobs=2))


def test_another_seed_gives_other_figures() -> None:
    other = simulate(workload(), ["fcfs"], seeds=[5])
    assert other.policies[0].at_load != result().policy("fcfs").at_load


def test_a_result_comes_back_from_its_file() -> None:
    assert decode_result(encode_result(result())) == result()


def test_whoever_asked_was_answered_in_time_or_late_or_refused_or_dropped(policy: PolicyResult) -> None:
    for tenant in policy.at_load.tenants:
        assert tenant.asked == tenant.in_qos + tenant.late + tenant.refused + tenant.dropped > 0
        assert tenant.attainment == tenant.in_qos / tenant.asked
        assert tenant.latency is not None
        assert sum(count for _, count in tenant.latency.histogram) == tenant.in_qos + tenant.late
        assert tenant.latency.p50_us <= tenant.latency.p95_us <= tenant.latency.p99_us
        assert tenant.queued_mean_us <= tenant.latency.mean_us


def test_the_close_look_is_at_the_asked_load_and_cores_are_busy_in_proportion(policy: PolicyResult) -> None:
    assert policy.at_load.of_capacity == pytest.approx(0.5)
    assert 0.35 < policy.at_load.core_use < 0.75


def test_the_largest_load_lies_between_the_last_rung_that_every_seed_kept_and_the_first_that_none_did(
    policy: PolicyResult,
) -> None:
    kept = [point.of_capacity for point in policy.curve if all(point.kept)]
    lost = [point.of_capacity for point in policy.curve if not any(point.kept)]
    assert max(kept, default=0.0) - 0.1 <= policy.largest.of_capacity <= min(lost, default=3.0)
    assert policy.largest.low_per_s <= policy.largest.per_s <= policy.largest.high_per_s
    assert len(policy.largest.per_seed_per_s) == len(SEEDS)


def test_no_core_of_the_timeline_runs_two_units_at_once(policy: PolicyResult) -> None:
    timeline = policy.at_load.timeline
    assert timeline is not None
    free_us: dict[int, int] = {}
    for lease in timeline.leases:
        for core in lease.cores:
            assert lease.begin_us >= free_us.get(core, 0)
            free_us[core] = lease.end_us
    assert len(free_us) == 2
    assert {mark.what for mark in timeline.marks} >= {"arrived", "answered"}


def test_every_policy_meets_the_same_requests() -> None:
    asked = [[tenant.asked for tenant in each.at_load.tenants] for each in result().policies]
    assert asked[0] == asked[1]


def test_the_interval_is_students_t_over_the_seeds() -> None:
    setting = prepare(workload())
    found = combine(setting, [90.0, 100.0, 110.0])
    assert found.per_s == 100
    assert found.high_per_s - 100 == pytest.approx(4.303 * 10 / 3**0.5)
    alone = combine(setting, [90.0])
    assert (alone.low_per_s, alone.per_s, alone.high_per_s) == (90, 90, 90)


def test_a_policy_that_is_none_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="policy 'magic' is unknown"):
        simulate(workload(requests=10**12), ["fcfs", "magic"], seeds=[0])


def test_progress_ends_at_everything_done_for_each_policy() -> None:
    shares: dict[str, list[float]] = {}
    simulate(
        workload(requests=100), POLICIES, seeds=[0], on_progress=lambda name, share: shares.setdefault(name, []).append(share)
    )
    assert all(seen == sorted(seen) and seen[-1] == 1.0 for seen in shares.values())
    assert set(shares) == set(POLICIES)


def test_a_closed_loop_slows_down_instead_of_piling_up() -> None:
    base = workload(requests=300)
    tenants = tuple(
        msgspec.structs.replace(tenant, share=None, arrivals=Closed(clients=2, think_ms=20.0), qos_ms=200.0)
        for tenant in base.tenant
    )
    found = simulate(msgspec.structs.replace(base, tenant=tenants, load=1.0), ["fcfs"], seeds=[0]).policies[0]
    assert found.at_load.attainment == 1.0
    assert found.largest.of_capacity > 1.0


def test_many_models_take_turns_in_memory() -> None:
    many = msgspec.structs.replace(read_workload("many-models"), requests=400)
    few_copies = tuple(msgspec.structs.replace(tenant, copies=20, qos_ms=400.0) for tenant in many.tenant)
    machine = msgspec.structs.replace(many.machine, weights_budget_mb=600.0)
    tight = msgspec.structs.replace(many, tenant=few_copies, machine=machine, load=0.1)
    found = simulate(tight, ["veltair"], seeds=[0]).policies[0].at_load
    assert found.loads > found.evictions > 0
