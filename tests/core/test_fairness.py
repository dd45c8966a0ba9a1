"""Who is owed what: shares of a crowded machine, floods that drown nobody but their sender, and an end to being refused."""

import random
from dataclasses import dataclass, replace

import pytest
from core_build import arrived, machine, model
from hypothesis import given, settings
from hypothesis import strategies as st

from veltair.core.actions import Refuse
from veltair.core.events import Event, ModelLoaded, RequestArrived
from veltair.core.fairness import OFTEN_US, STARVED_US, Fairness, over_share
from veltair.core.policies import make_policy
from veltair.core.predict import ModelCosts
from veltair.core.scheduler import Scheduler
from veltair.core.state import Job
from veltair.core.values import Model, TenantId
from veltair.simulate.virtual import Run, Step, play

A, B, C = TenantId("a"), TenantId("b"), TenantId("c")
EQUAL = {A: 1.0, B: 1.0, C: 1.0}


@pytest.mark.parametrize(
    ("asked", "over"),
    [
        ({A: 0.5, B: 0.6, C: 0.9}, set()),  # enough for all
        ({A: 0.5, B: 0.5, C: 3.0}, {C}),  # a third is more than a and b ask: c has 1.0 and asks 3
        ({A: 0.1, B: 0.9, C: 1.2}, {C}),  # a leaves 0.95 for each of the others
        ({A: 0.1, B: 1.0, C: 1.2}, {B, C}),
        ({A: 2.0, B: 2.0, C: 2.0}, {A, B, C}),
    ],
)
def test_whoever_asks_no_more_than_water_filling_gives_is_within_its_share(
    asked: dict[TenantId, float], over: set[TenantId]
) -> None:
    assert over_share(asked, EQUAL, capacity=2.0) == over


def test_weights_are_parts_of_the_whole() -> None:
    asked = {A: 1.4, B: 1.4}
    assert over_share(asked, {A: 3.0, B: 1.0}, capacity=2.0) == {B}  # a is owed 1.5, b 0.5
    assert over_share(asked, {A: 1.0, B: 1.0}, capacity=2.0) == {A, B}


@given(
    asked=st.dictionaries(st.sampled_from([A, B, C]), st.floats(0.0, 5.0), min_size=1),
    weights=st.fixed_dictionaries({t: st.floats(0.1, 10.0) for t in (A, B, C)}),
)
def test_shares_are_what_filling_water_drop_by_drop_gives(asked: dict[TenantId, float], weights: dict[TenantId, float]) -> None:
    level, filled = 0.0, dict.fromkeys(asked, 0.0)
    while sum(filled.values()) < 2.0 and level < 60.0:  # the level rises for all alike, in parts of their weights
        level += 0.01
        filled = {t: min(asked[t], level * weights[t]) for t in asked}
    over = over_share(asked, weights, capacity=2.0)
    for tenant in asked:
        if abs(asked[tenant] - filled[tenant]) > 0.2:
            assert tenant in over
    if sum(asked.values()) <= 2.0:
        assert not over


def job(tenant: str, at_us: int, *, us: int = 10_000, qos_us: int = 60_000, priority: int = 0) -> Job:
    event = arrived(f"{tenant}{at_us}", "m", at_us, qos_us, tenant, priority=priority)
    return Job(event.request, COSTS[us], order=at_us)


COSTS = {us: ModelCosts(model("m", [us]), 1) for us in (1_000, 10_000)}


def refused(fairness: Fairness, tenant: str, times_us: range, priority: int = 0) -> None:
    for at_us in times_us:
        each = job(tenant, at_us, us=1_000, priority=priority)
        fairness.asked(each, at_us)
        fairness.look(at_us)
        fairness.fared(each, accepted=False, now_us=at_us)


def test_nobody_comes_before_whoever_was_refused_for_half_a_second_and_asks_often() -> None:
    fairness = Fairness(cores=1)
    refused(fairness, "poor", range(0, STARVED_US + 1, 50_000))
    guest = fairness.guest(job("other", STARVED_US), STARVED_US)
    assert guest is not None
    assert (guest.like.request.tenant, guest.starved, guest.alone) == ("poor", True, True)
    assert fairness.guest(job("poor", STARVED_US), STARVED_US) is None  # nobody stands in its own way
    later = fairness.guest(job("other", STARVED_US + OFTEN_US + 1), STARVED_US + OFTEN_US + 1)
    assert later is not None
    assert not later.alone  # cores do not idle for one that has gone


def test_once_it_was_accepted_the_next_is_looked_after_at_once() -> None:
    fairness = Fairness(cores=1)
    refused(fairness, "first", range(0, STARVED_US, 50_000))
    refused(fairness, "second", range(1_000, STARVED_US + 50_000, 50_000))
    now_us = STARVED_US + 2_000
    guest = fairness.guest(job("other", now_us), now_us)
    assert guest is not None
    assert guest.like.request.tenant == "first"
    fairness.fared(job("first", now_us), accepted=True, now_us=now_us)
    guest = fairness.guest(job("other", now_us), now_us)
    assert guest is not None
    assert guest.like.request.tenant == "second"


def test_a_starved_tenant_keeps_nobody_of_higher_priority_out() -> None:
    fairness = Fairness(cores=1)
    refused(fairness, "poor", range(0, STARVED_US + 1, 50_000), priority=1)
    assert fairness.guest(job("below", STARVED_US, priority=0), STARVED_US) is not None
    assert fairness.guest(job("alike", STARVED_US, priority=1), STARVED_US) is not None
    assert fairness.guest(job("above", STARVED_US, priority=2), STARVED_US) is None


def test_no_place_is_kept_for_who_asks_more_than_its_share() -> None:
    fairness = Fairness(cores=1)
    for at_us in range(0, 2_000_000, 1_000):  # ten times what the machine has
        each = job("greedy", at_us)
        fairness.asked(each, at_us)
        fairness.look(at_us)
        fairness.fared(each, accepted=at_us % 10_000 == 0, now_us=at_us)
        if at_us % 100_000 == 0:
            modest = job("modest", at_us, us=1_000)
            fairness.asked(modest, at_us)
            fairness.fared(modest, accepted=True, now_us=at_us)
    assert fairness.is_over(TenantId("greedy"))
    assert not fairness.is_over(TenantId("modest"))
    assert fairness.guest(job("modest", 2_000_000), 2_000_000) is None


def test_a_request_that_no_machine_could_meet_keeps_nobody_out() -> None:
    core = Scheduler(machine(1), make_policy("veltair"))
    facts: list[tuple[int, Event]] = [(0, ModelLoaded(model("m", [10_000]))), (0, ModelLoaded(model("s", [10_000])))]
    facts += [(at, arrived(f"ok{at}", "m", at, 60_000)) for at in range(0, 3_000_000, 40_000)]
    facts += [(at, arrived(f"no{at}", "s", at, 10_020)) for at in range(0, 3_000_000, 50_000)]  # 20 us to spare, no margin
    run = play(core, facts)
    assert run.attainment()["m"] == 1.0


@dataclass(frozen=True)
class Asks:
    tenant: str
    us: int
    qos_us: int
    every_us: int
    weight: float = 1.0
    blocks: int = 1

    @property
    def model(self) -> Model:
        return model(self.tenant, [self.us // self.blocks] * self.blocks)

    def times(self, rng: random.Random, until_us: int) -> list[tuple[int, Event]]:
        at_us, events = rng.randint(0, self.every_us), []
        while at_us < until_us:
            name = f"{self.tenant}{len(events)}"
            events.append((at_us, arrived(name, self.tenant, at_us, self.qos_us, weight=self.weight)))
            at_us += max(1, round(rng.expovariate(1 / self.every_us)))
        return list(events)


def served(*tenants: Asks, cores: int = 2, until_us: int = 4_000_000) -> Run:
    """Each tenant's arrivals are its own, whoever else comes."""
    facts: list[tuple[int, Event]] = [(0, ModelLoaded(each.model)) for each in tenants]
    for each in tenants:
        facts += each.times(random.Random(each.tenant), until_us)
    return play(Scheduler(machine(cores), make_policy("veltair")), facts)


NEIGHBOURS = (
    Asks("small", 1_000, 8_000, 8_000),
    Asks("middle", 6_000, 40_000, 20_000, blocks=6),
    Asks("large", 18_000, 90_000, 70_000, blocks=18),
)


@pytest.mark.parametrize(
    "flood", [Asks("flood", 4_000, 30_000, 1_000, blocks=4), Asks("flood", 20_000, 60_000, 2_000, blocks=20)]
)
def test_a_flood_costs_its_neighbours_nothing_that_they_are_owed(flood: Asks) -> None:
    """It asks ten times the share that it would be owed; they ask about a third of the machine."""
    calm = served(*NEIGHBOURS).attainment()
    flooded = served(*NEIGHBOURS, flood).attainment()
    for tenant in NEIGHBOURS:
        assert flooded[TenantId(tenant.tenant)] >= calm[TenantId(tenant.tenant)] - 0.05, tenant


def test_of_two_that_both_ask_too_much_the_heavier_is_served_more_where_it_stays_within_its_share() -> None:
    light = Asks("light", 5_000, 40_000, 3_500, blocks=5)
    heavy = replace(light, tenant="heavy")
    even = served(light, heavy).attainment()
    weighted = served(light, replace(heavy, weight=9.0)).attainment()
    assert abs(even[TenantId("light")] - even[TenantId("heavy")]) < 0.1
    assert weighted[TenantId("heavy")] > weighted[TenantId("light")] + 0.1
    assert weighted[TenantId("heavy")] > even[TenantId("heavy")]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    cores=st.sampled_from([1, 2, 4]),
    us=st.sampled_from([500, 1_000, 5_000]),
    tightness=st.sampled_from([1.1, 1.5, 3.0, 10.0]),
    every_us=st.sampled_from([23_000, 60_000, OFTEN_US]),
    floods=st.integers(1, 3),
)
def test_nobody_within_its_share_is_refused_for_longer_than_the_bound(
    seed: int, cores: int, us: int, tightness: float, every_us: int, floods: int
) -> None:
    rng, until_us = random.Random(seed), 1_700_000
    victim = model("victim", [us])
    facts: list[tuple[int, Event]] = [(0, ModelLoaded(victim))]
    longest_us = unit_us = 0
    for i in range(floods):
        block_us, blocks = rng.choice([1_000, 5_000, 20_000, 50_000]), rng.choice([1, 3])
        service_us = block_us * blocks
        qos_us = round(service_us * rng.choice([1.3, 2, 5, 10]))
        flood = Asks(f"flood{i}", service_us, qos_us, max(400, service_us // cores // rng.choice([1, 2, 6])), blocks=blocks)
        facts += [(0, ModelLoaded(flood.model)), *flood.times(rng, until_us)]
        longest_us, unit_us = max(longest_us, qos_us), max(unit_us, block_us)
    asked = [arrived(f"v{at}", "victim", at, round(us * tightness)) for at in range(rng.randint(0, 9_999), until_us, every_us)]
    facts += [(event.request.arrived_us, event) for event in asked]
    since_us: int | None = None
    worst_us = 0

    def watch(step: Step) -> None:
        nonlocal since_us, worst_us
        if not isinstance(step.event, RequestArrived) or step.event.request.tenant != "victim":
            return
        was_refused = any(isinstance(a, Refuse) and a.request_id == step.event.request.id for a in step.actions)
        if was_refused and since_us is None:
            since_us = step.now_us
        if since_us is not None:
            worst_us = max(worst_us, step.now_us - since_us)
        if not was_refused:
            since_us = None

    play(Scheduler(machine(cores), make_policy("veltair")), facts, watch=watch, handover_us=0)
    assert worst_us <= STARVED_US + longest_us + unit_us + every_us
