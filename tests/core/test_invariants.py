"""The scheduler's invariants over random events: arrivals, cancellations, failures, loads, pressure, a drain, bad timings."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from core_build import machine, model, variant
from hypothesis import given, settings
from hypothesis import strategies as st

from veltair.core.actions import Complete, Dispatch, Drop, Refuse
from veltair.core.events import (
    DrainStarted,
    Event,
    ModelLoaded,
    ModelUnloaded,
    PressureChanged,
    RequestArrived,
    RequestCancelled,
    UnitFailed,
    UnitFinished,
)
from veltair.core.policies import POLICIES, make_policy
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, LayerBlock, LeaseId, Machine, Model, ModelName, Precision, Request, RequestId, TenantId
from veltair.simulate.virtual import Step, as_measured, play

TWO_FACED = LayerBlock(
    "b",
    (
        variant({1: (2_000, 5_000), 2: (1_200, 4_000)}, traffic_bytes=12_000_000, levels=(0.0, 1.0)),
        variant({1: (2_500, 3_000), 2: (1_500, 1_900), 4: (1_600, 2_000)}, traffic_bytes=100, levels=(0.0, 1.0)),
        variant({1: (900, 1_000), 3: (500, 600)}, traffic_bytes=50, levels=(0.0, 1.0), precision="bf16"),
    ),
)
PAIRED = {2: model("paired x2", [1_500, 3_000]), 3: model("paired x3", [2_000, 3_500], [1_200, 2_000])}
MODELS = (
    model("tight", [700]),
    model("even", [1_000] * 6, [600] * 6),
    model("rough", [100, 9_000, 300], [100, 9_500, 200]),
    Model(ModelName("faced"), (TWO_FACED,) * 4),
    replace(model("paired", [1_000, 2_000]), batches=PAIRED),
)
WIDE = Model(ModelName("wide"), (LayerBlock("b", (variant({8: (4_000,), 16: (2_500,)}),)),) * 3)
NAMES = [m.name for m in MODELS]
NARROWEST = {m.name: 1 for m in MODELS} | {WIDE.name: 8}


def loaded_on(cores: int) -> tuple[Model, ...]:
    """A machine narrower than every row of a table cannot load the model."""
    return (*MODELS, WIDE) if cores >= 8 else MODELS


class Judge:
    """Watches every step and knows what must hold after it."""

    def __init__(self, core: Scheduler, cores: int) -> None:
        self.core, self.all_cores = core, set(range(cores))
        self.asked: dict[RequestId, Request] = {}
        self.models = {m.name: m for m in (*MODELS, WIDE)}
        self.leases: dict[LeaseId, Dispatch] = {}
        self.blocks_done: dict[RequestId, int] = {}
        self.carrier: dict[RequestId, RequestId] = {}  # in whose batch a request runs
        self.answered: set[RequestId] = set()

    def __call__(self, step: Step) -> None:
        event = step.event
        if isinstance(event, RequestArrived):
            self.asked[event.request.id] = event.request
        if isinstance(event, UnitFinished | UnitFailed):
            del self.leases[event.lease_id]
        for action in step.actions:
            match action:
                case Dispatch():
                    self.starts(action)
                case Refuse(request_id):
                    assert isinstance(event, RequestArrived)
                    assert event.request.id == request_id
                    assert request_id not in self.answered
                    self.answered.add(request_id)
                case Complete(request_id) | Drop(request_id):
                    assert request_id not in self.answered, "answered twice"
                    self.answered.add(request_id)
        leased = [core for dispatch in self.leases.values() for core in dispatch.lease.cores]
        assert len(leased) == len(set(leased)), "a core is leased twice"
        assert set(leased) <= self.all_cores
        others = self.core.withheld
        assert self.core.idle_cores == len(self.all_cores - set(leased) - others), "leased, idle and withheld are not all"
        assert others < self.all_cores, "no core is left"
        assert not others or make_policy(self.core.policy).withholds
        assert self.core.running == len(self.leases)
        waiting = self.waiting()
        assert self.core.waiting == len({self.carrier.get(request, request) for request in waiting})
        if make_policy(self.core.policy).work_conserving:
            fitting = [r for r in waiting if NARROWEST[self.asked[r].model] <= self.core.idle_cores]
            if fitting and self.core.kept_for is not None:
                assert self.core.kept_for in waiting
                assert self.leases, "cores are kept, and nobody runs who could give some back"
                assert self.core.wake_us is not None, "cores are kept without end"
            else:
                assert not fitting, "a request waits that fits the idle cores"

    def starts(self, unit: Dispatch) -> None:
        assert unit.first_block == self.blocks_done.get(unit.request_id, 0), "blocks run in order, once"
        assert unit.first_block < unit.end_block
        assert len(unit.variants) == unit.end_block - unit.first_block
        assert unit.predicted_us > 0
        assert 0.0 <= unit.pressure <= 1.0
        assert unit.reason
        assert self.core.withheld.isdisjoint(unit.lease.cores), "a unit starts where an outsider is"
        members = (unit.request_id, *unit.riders)
        if unit.first_block == 0:
            for member in members:
                assert member in self.waiting(), "a batch begins with someone who does not wait"
                assert member not in self.blocks_done, "a batch begins with someone who has begun"
                assert self.asked[member].model == self.asked[unit.request_id].model
                self.carrier[member] = unit.request_id
        assert {r for r, carrier in self.carrier.items() if carrier == unit.request_id} == set(members), "a batch stays together"
        assert any(member not in self.answered for member in members), "a unit starts for requests that are over"
        assert all(d.request_id != unit.request_id for d in self.leases.values()), "two units of one request"
        for member in members:
            self.is_permitted(unit, member)
        self.leases[unit.lease.id] = unit
        self.blocks_done.update(dict.fromkeys(members, unit.end_block))

    def waiting(self) -> set[RequestId]:
        """Accepted, not answered, and no unit of theirs is in flight."""
        running = {member for unit in self.leases.values() for member in (unit.request_id, *unit.riders)}
        return self.asked.keys() - self.answered - running

    def is_permitted(self, unit: Dispatch, member: RequestId) -> None:
        request = self.asked[member]
        model = self.models[request.model]
        blocks = (model.batches[1 + len(unit.riders)] if unit.riders else model).blocks[unit.first_block : unit.end_block]
        for block, number in zip(blocks, unit.variants, strict=True):
            assert block.variants[number].precision in ("fp32", request.precision), "coarser than its tenant permits"


names = st.sampled_from([*NAMES, WIDE.name, *[m.name for m in MODELS if m.batches] * 3])  # so that batches are formed often
at_us = st.integers(0, 60_000)
qos_us = st.sampled_from([-2_000, 3_000, 8_000, 20_000, 60_000]) | st.integers(0, 60_000)
stray_events = st.one_of(
    st.builds(RequestCancelled, st.integers(0, 30).map(lambda i: RequestId(f"r{i}"))),
    st.builds(PressureChanged, st.floats(0, 1), st.lists(st.integers(0, 16).map(CoreId), max_size=16, unique=True).map(tuple)),
    st.builds(ModelUnloaded, names),
    st.builds(ModelLoaded, st.sampled_from(MODELS)),
)
permissions: dict[str, Precision] = {"x": "fp32", "y": "bf16", "z": "fp32"}  # of the tenants
Crowd = tuple[int, ModelName, int, str, int]  # when, whom they ask, how soon they want it, their tenant, how many they are
crowds = st.lists(
    st.tuples(st.integers(0, 20_000), names, qos_us, st.sampled_from("xyz"), st.integers(1, 4)), min_size=3, max_size=14
)


def timeline(asked: list[Crowd], strays: list[tuple[int, Event]], cores: int) -> list[tuple[int, Event]]:
    """Requests are named in order: r0, r1, .."""
    facts: list[tuple[int, Event]] = [(0, ModelLoaded(m)) for m in loaded_on(cores)]
    everybody = [crowd for crowd in asked for _ in range(crowd[-1])]
    for i, (at, name, qos, tenant, _) in enumerate(everybody):
        request = Request(RequestId(f"r{i}"), TenantId(tenant), name, at, at + qos, permissions[tenant])
        facts.append((at, RequestArrived(request)))
    return facts + strays


def world(factors: list[float], fails: set[int]) -> Callable[[Dispatch, Model], int | str]:
    """Units take their table's time, stretched in turn by `factors`; those numbered in `fails` fail."""

    def run_unit(unit: Dispatch, of: Model) -> int | str:
        if unit.lease.id in fails:
            return "kernel returned -1"
        return max(1, round(as_measured(unit, of) * factors[unit.lease.id % len(factors)]))

    return run_unit


@pytest.mark.parametrize("policy", sorted(POLICIES))
@settings(max_examples=100, deadline=None)
@given(
    cores=st.integers(1, 5) | st.just(16),
    asked=crowds,
    strays=st.lists(st.tuples(at_us, stray_events), max_size=10),
    drain_at=st.none() | st.integers(10_000, 60_000),
    factors=st.lists(st.floats(0.2, 6.0), min_size=1, max_size=4),
    fails=st.sets(st.integers(1, 40), max_size=3),
)
def test_every_request_is_answered_once_and_every_core_accounted_for(
    policy: str,
    cores: int,
    asked: list[Crowd],
    strays: list[tuple[int, Event]],
    drain_at: int | None,
    factors: list[float],
    fails: set[int],
) -> None:
    core = Scheduler(machine(cores), make_policy(policy))
    judge = Judge(core, cores)
    drain: list[tuple[int, Event]] = [] if drain_at is None else [(drain_at, DrainStarted())]
    run = play(core, timeline(asked, strays + drain, cores), run_unit=world(factors, fails), watch=judge)
    assert sorted(o.request.id for o in run.outcomes) == sorted(f"r{i}" for i in range(sum(crowd[-1] for crowd in asked)))
    assert (core.waiting, core.running, core.idle_cores) == (0, 0, cores - len(core.withheld))
    assert core.drained == (drain_at is not None)


@pytest.mark.parametrize("policy", sorted(POLICIES))
@settings(max_examples=30, deadline=None)
@given(
    cores=st.integers(1, 4),
    asked=crowds,
    at=at_us,
    name=st.sampled_from(NAMES),
    qos=st.integers(-2_000, 20_000),
)
def test_a_refusals_earliest_deadline_is_accepted_when_asked_again(
    policy: str, cores: int, asked: list[Crowd], at: int, name: ModelName, qos: int
) -> None:
    core = Scheduler(machine(cores), make_policy(policy))

    def ask_again(step: Step) -> None:
        for action in step.actions:
            if isinstance(action, Refuse) and action.request_id == "probe":
                assert action.earliest_deadline_us is not None
                again = Request(RequestId("again"), TenantId("x"), name, step.now_us, action.earliest_deadline_us)
                answers = core.handle(RequestArrived(again), step.now_us)
                assert not any(isinstance(a, Refuse) for a in answers), answers
                raise StopIteration

    probe = RequestArrived(Request(RequestId("probe"), TenantId("x"), name, at, at + qos))
    with suppress(StopIteration):  # asked and accepted: what follows is no matter of this test
        play(core, [*timeline(asked, [], cores), (at, probe)], watch=ask_again)


@pytest.mark.parametrize("policy", sorted(POLICIES))
@settings(max_examples=15, deadline=None)
@given(asked=crowds)
def test_the_same_events_give_the_same_decisions(policy: str, asked: list[Crowd]) -> None:
    def decisions() -> list[Step]:
        steps: list[Step] = []
        play(Scheduler(machine(2), make_policy(policy)), timeline(asked, [], 2), watch=steps.append)
        return steps

    assert decisions() == decisions()


def test_cores_keep_the_numbers_of_the_operating_system() -> None:
    core = Scheduler(Machine((CoreId(6), CoreId(2))), make_policy("fcfs"))
    core.handle(ModelLoaded(MODELS[0]), 0)
    granted = []
    for i in range(2):
        [dispatch] = core.handle(RequestArrived(Request(RequestId(f"r{i}"), TenantId("t"), NAMES[0], 0, 9_000)), 0)
        assert isinstance(dispatch, Dispatch)
        granted.append(dispatch.lease.cores)
    assert granted == [(6,), (2,)]
