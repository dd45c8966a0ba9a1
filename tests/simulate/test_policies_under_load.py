"""What the default policy is worth over the baseline, in simulated time: seeded, hence the same on every machine."""

from functools import cache

import msgspec
import pytest

from veltair.simulate.search import attainment
from veltair.simulate.setting import Setting, prepare, serve
from veltair.simulate.virtual import Run
from veltair.simulate.workload import read_workload


@cache
def queue(mix: str) -> Setting:
    return prepare(msgspec.structs.replace(read_workload(f"queue-{mix}"), requests=1_500))


@cache
def run(mix: str, load: float, policy: str) -> Run:
    return serve(queue(mix), policy, load * queue(mix).capacity_per_s, seed=1)


def kept(mix: str, load: float, policy: str) -> dict[str, float]:
    return attainment(queue(mix), run(mix, load, policy), load * queue(mix).capacity_per_s)


def test_where_first_come_fails_the_tight_tenant_every_tenant_keeps_its_qos() -> None:
    assert kept("mixed", 0.55, "fcfs")["a1"] < 0.80
    assert min(kept("mixed", 0.55, "veltair").values()) >= 0.95


@pytest.mark.parametrize("mix", ["light", "medium", "heavy"])
def test_no_mix_fares_worse_than_under_first_come(mix: str) -> None:
    assert min(kept(mix, 0.7, "veltair").values()) >= min(kept(mix, 0.7, "fcfs").values())


def test_whoever_is_accepted_is_answered_in_time() -> None:
    accepted = [outcome for outcome in run("mixed", 0.72, "veltair").outcomes if not outcome.refused]
    assert sum(outcome.in_time for outcome in accepted) >= 0.99 * len(accepted)


def test_more_cores_carry_more() -> None:
    workload = msgspec.structs.replace(read_workload("mixed"), requests=600)
    wider = msgspec.structs.replace(workload, machine=msgspec.structs.replace(workload.machine, cores=128))
    few, many = prepare(workload), prepare(wider)
    assert many.capacity_per_s == pytest.approx(2 * few.capacity_per_s, rel=0.01)
    per_s = 0.9 * few.capacity_per_s
    shares = [attainment(setting, serve(setting, "fcfs", per_s, 1), per_s) for setting in (few, many)]
    assert sum(shares[1].values()) > sum(shares[0].values())
