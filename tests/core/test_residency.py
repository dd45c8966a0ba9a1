"""Weights that do not all fit: what is loaded first, what goes for it, and what becomes of requests meanwhile."""

from dataclasses import replace

import pytest
from core_build import arrived, machine, model
from hypothesis import given, settings
from hypothesis import strategies as st

from veltair.core.actions import Action, Complete, Dispatch, Drop, EvictWeights, LoadWeights, Refuse
from veltair.core.events import (
    Event,
    ModelLoaded,
    ModelUnloaded,
    RequestArrived,
    RequestCancelled,
    TimerFired,
    UnitFinished,
    WeightsLoaded,
)
from veltair.core.policies import make_policy
from veltair.core.residency import Residency
from veltair.core.scheduler import Scheduler
from veltair.core.values import LeaseId, Model, ModelName, RequestId
from veltair.simulate.virtual import Step, play

A, B, C = ModelName("a"), ModelName("b"), ModelName("c")


def heavy(name: str, weights_bytes: int, load_us: int, blocks_us: tuple[int, ...] = (1_000,)) -> Model:
    return replace(model(name, blocks_us), weights_bytes=weights_bytes, load_us=load_us)


def core_with(budget_bytes: int, *models: Model, cores: int = 1) -> Scheduler:
    core = Scheduler(replace(machine(cores), weights_budget_bytes=budget_bytes), make_policy("veltair"))
    for each in models:
        assert core.handle(ModelLoaded(each), 0) == []
    return core


def loads(core: Scheduler, id_: str, name: str, at_us: int, qos_us: int = 90_000) -> list[Action]:
    return core.handle(arrived(id_, name, at_us, qos_us), at_us)


def test_without_a_budget_every_model_is_there() -> None:
    core = Scheduler(machine(1), make_policy("veltair"))
    core.handle(ModelLoaded(heavy("a", 10**12, 10**9)), 0)
    [start] = core.handle(arrived("r", "a", 0, 5_000), 0)
    assert isinstance(start, Dispatch)


def test_a_request_waits_for_its_weights_and_runs_when_they_are_in() -> None:
    core = core_with(100, heavy("a", 80, 5_000))
    assert loads(core, "r", "a", 0) == [LoadWeights(A)]
    assert (core.waiting, core.running) == (0, 0)
    [start] = core.handle(WeightsLoaded(A), 5_000)
    assert isinstance(start, Dispatch)
    [answer] = core.handle(UnitFinished(start.lease.id, 1_000), 6_000)
    assert isinstance(answer, Complete)
    assert answer.predicted_us == pytest.approx(6_000, rel=0.01)  # the load was foretold


def test_one_load_at_a_time_and_the_most_pressing_first() -> None:
    core = core_with(300, heavy("a", 80, 5_000), heavy("b", 80, 5_000), heavy("c", 80, 5_000))
    assert loads(core, "ra", "a", 0) == [LoadWeights(A)]
    assert loads(core, "rb", "b", 0, 80_000) == []
    assert loads(core, "rc", "c", 0, 40_000) == []
    assert [a for a in core.handle(WeightsLoaded(A), 5_000) if isinstance(a, LoadWeights)] == [LoadWeights(C)]
    assert [a for a in core.handle(WeightsLoaded(C), 10_000) if isinstance(a, LoadWeights)] == [LoadWeights(B)]


def used(residency: Residency, name: ModelName, at_us: int = 0) -> list[EvictWeights | LoadWeights]:
    """One request of it comes, is served and goes."""
    residency.use(name, at_us, at_us)
    actions = residency.next_load(at_us)
    if LoadWeights(name) in actions:
        residency.loaded(name)
    residency.release(name)
    return actions


def test_what_is_cheapest_to_bring_back_for_its_size_goes_first() -> None:
    residency = Residency(100)
    for each in (heavy("a", 40, 4_000), heavy("b", 40, 400), heavy("c", 40, 1_000)):
        residency.register(each)
    assert used(residency, A) == [LoadWeights(A)]  # credit 100
    assert used(residency, B) == [LoadWeights(B)]  # credit 10
    assert used(residency, C) == [EvictWeights(B), LoadWeights(C)]  # the level is 10 from now on, c's credit 10 + 25
    assert used(residency, B) == [EvictWeights(C), LoadWeights(B)]  # the level is 35, b's credit 35 + 10
    assert used(residency, C) == [EvictWeights(B), LoadWeights(C)]  # the level is 45, c's credit 45 + 25
    assert used(residency, B) == [EvictWeights(C), LoadWeights(B)]  # 70, 80
    assert used(residency, C) == [EvictWeights(B), LoadWeights(C)]  # 80, 105: by now a has not been used for long
    assert used(residency, B) == [EvictWeights(A), LoadWeights(B)]


def test_what_was_used_again_is_kept_longer() -> None:
    residency = Residency(100)
    for each in (heavy("a", 40, 400), heavy("b", 40, 400), heavy("c", 40, 400)):
        residency.register(each)
    used(residency, A)
    used(residency, B)
    assert used(residency, C) == [EvictWeights(A), LoadWeights(C)]  # a tie goes by name
    assert used(residency, B) == []
    assert used(residency, A) == [EvictWeights(B), LoadWeights(A)]  # b and c were used since the level rose: a tie again
    assert residency.held_bytes == 80


def test_a_load_that_found_no_room_leaves_credits_as_they_were() -> None:
    residency = Residency(100)
    for each in (heavy("a", 30, 3_000), heavy("b", 60, 600), heavy("c", 80, 400), heavy("d", 60, 600)):
        residency.register(each)
    used(residency, A)
    residency.use(B, 0, 0)
    assert residency.next_load(0) == [LoadWeights(B)]
    residency.loaded(B)
    residency.use(C, 0, 0)
    assert residency.next_load(0) == []  # a could go, but that is not enough, and b is in use
    residency.release(C)
    residency.release(B)
    used(residency, B)
    assert used(residency, ModelName("d")) == [EvictWeights(B), LoadWeights(ModelName("d"))]  # a is still worth ten of b


def test_weights_in_use_stay_until_their_last_request_is_over() -> None:
    core = core_with(100, heavy("a", 80, 5_000, (9_000,)), heavy("b", 80, 5_000), cores=2)
    loads(core, "ra", "a", 0)
    [start] = core.handle(WeightsLoaded(A), 5_000)
    assert isinstance(start, Dispatch)
    assert loads(core, "rb", "b", 6_000, 200_000) == []
    [_answer, *moved] = core.handle(UnitFinished(start.lease.id, 9_000), 14_000)
    assert moved == [EvictWeights(A), LoadWeights(B)]


def test_weights_under_a_unit_that_runs_for_nobody_stay_until_it_ends() -> None:
    core = core_with(100, heavy("a", 80, 5_000, (9_000,)), heavy("b", 80, 5_000), cores=2)
    loads(core, "ra", "a", 0)
    [start] = core.handle(WeightsLoaded(A), 5_000)
    assert isinstance(start, Dispatch)
    core.handle(RequestCancelled(RequestId("ra")), 6_000)
    assert loads(core, "rb", "b", 7_000, 200_000) == []
    assert core.handle(UnitFinished(start.lease.id, 9_000), 14_000) == [EvictWeights(A), LoadWeights(B)]


def test_what_could_get_its_memory_only_when_others_are_due_is_not_promised_it_sooner() -> None:
    core = core_with(100, heavy("a", 80, 5_000, (40_000,)), heavy("b", 80, 5_000), cores=2)
    loads(core, "ra", "a", 0, 60_000)
    core.handle(WeightsLoaded(A), 5_000)
    [refusal] = loads(core, "rb", "b", 6_000, 20_000)
    assert isinstance(refusal, Refuse)
    assert refusal.earliest_deadline_us is not None
    assert refusal.earliest_deadline_us >= 60_000 + 5_000 + 1_000
    assert loads(core, "again", "b", 6_000, refusal.earliest_deadline_us - 6_000) == []


def test_a_model_that_takes_longer_to_load_than_its_requests_can_wait_is_brought_in_for_those_that_follow() -> None:
    core = core_with(100, heavy("a", 80, 50_000))
    [refusal, load] = loads(core, "r1", "a", 0, 30_000)
    assert isinstance(refusal, Refuse)
    assert load == LoadWeights(A)
    assert core.handle(WeightsLoaded(A), 50_000) == []
    [start] = loads(core, "r2", "a", 60_000, 30_000)
    assert isinstance(start, Dispatch)


def test_hopes_wait_behind_loads_for_the_accepted() -> None:
    core = core_with(300, heavy("a", 80, 50_000), heavy("b", 80, 5_000), heavy("c", 80, 5_000))
    assert loads(core, "rb", "b", 0) == [LoadWeights(B)]
    assert loads(core, "rc", "c", 0) == []
    [refusal] = loads(core, "ra", "a", 0, 30_000)
    assert isinstance(refusal, Refuse)
    assert LoadWeights(C) in core.handle(WeightsLoaded(B), 5_000)
    assert LoadWeights(A) in core.handle(WeightsLoaded(C), 10_000)


def test_a_cancelled_request_wants_no_weights() -> None:
    core = core_with(300, heavy("a", 80, 5_000), heavy("b", 80, 5_000))
    loads(core, "ra", "a", 0)
    loads(core, "rb", "b", 0)
    core.handle(RequestCancelled(RequestId("rb")), 10)
    assert not [a for a in core.handle(WeightsLoaded(A), 5_000) if isinstance(a, LoadWeights)]


def test_a_load_that_comes_too_late_drops_its_requests_as_soon_as_that_is_certain() -> None:
    core = core_with(100, heavy("a", 80, 5_000))
    loads(core, "r", "a", 0, 7_000)
    assert core.wake_us == 6_001
    assert core.handle(TimerFired(), 6_001) == [Drop(RequestId("r"), "deadline_missed", "its model's weights came too late")]
    assert core.wake_us is None
    assert core.handle(WeightsLoaded(A), 8_000) == []
    [start] = loads(core, "next", "a", 9_000)
    assert isinstance(start, Dispatch)


def test_unloading_a_model_that_nobody_uses_frees_its_memory() -> None:
    core = core_with(100, heavy("a", 80, 5_000))
    loads(core, "r", "a", 0)
    core.handle(WeightsLoaded(A), 5_000)
    core.handle(UnitFinished(LeaseId(1), 1_000), 6_000)
    assert core.handle(ModelUnloaded(A), 7_000) == [EvictWeights(A)]
    [refusal] = loads(core, "s", "a", 8_000)
    assert isinstance(refusal, Refuse)
    assert refusal.code == "unknown_model"


def test_unloading_waits_for_the_requests_that_were_promised_an_answer() -> None:
    core = core_with(100, heavy("a", 80, 5_000))
    loads(core, "r", "a", 0)
    core.handle(WeightsLoaded(A), 5_000)
    assert core.handle(ModelUnloaded(A), 5_500) == []
    [answer, gone] = core.handle(UnitFinished(LeaseId(1), 1_000), 6_000)
    assert isinstance(answer, Complete)
    assert gone == EvictWeights(A)


def test_a_model_unloaded_during_its_load_goes_when_the_load_is_over() -> None:
    core = core_with(100, heavy("a", 80, 5_000), heavy("b", 80, 5_000))
    loads(core, "r", "a", 0)
    core.handle(ModelUnloaded(A), 10)
    core.handle(RequestCancelled(RequestId("r")), 20)
    assert core.handle(WeightsLoaded(A), 5_000) == [EvictWeights(A)]


def test_a_model_larger_than_the_budget_is_refused_by_name_and_nothing_changes() -> None:
    core = core_with(100)
    with pytest.raises(ValueError, match="model 'a' holds 101 bytes of weights, the budget is 100; raise it"):
        core.handle(ModelLoaded(heavy("a", 101, 1)), 0)
    [refusal] = loads(core, "r", "a", 0)
    assert isinstance(refusal, Refuse)
    assert refusal.code == "unknown_model"


def test_weights_nobody_asked_for_are_an_error_that_names_them() -> None:
    core = core_with(100, heavy("a", 80, 5_000))
    with pytest.raises(ValueError, match="weights of 'a' were not being loaded; loading: nothing"):
        core.handle(WeightsLoaded(A), 0)


FLEET = [heavy(f"m{i}", 10 + 15 * i, 1_000 * (i % 3 + 1), (1_000,) * (i % 4 + 1)) for i in range(6)]
stray = st.one_of(
    st.builds(RequestCancelled, st.integers(0, 40).map(lambda i: RequestId(f"r{i}"))),
    st.builds(ModelUnloaded, st.sampled_from([m.name for m in FLEET])),
    st.builds(ModelLoaded, st.sampled_from(FLEET)),
)


class Memory:
    """Does what it is told and knows what must hold."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.bytes = {m.name: m.weights_bytes for m in FLEET}
        self.held: set[ModelName] = set()
        self.loading: ModelName | None = None
        self.model_of: dict[RequestId, ModelName] = {}
        self.in_flight: dict[LeaseId, ModelName] = {}

    def __call__(self, step: Step) -> None:
        match step.event:
            case RequestArrived(request):
                self.model_of[request.id] = request.model
            case UnitFinished(lease_id, _):
                del self.in_flight[lease_id]
            case WeightsLoaded(name):
                assert name == self.loading
                self.loading = None
                self.held.add(name)
        for action in step.actions:
            match action:
                case Dispatch():
                    assert self.model_of[action.request_id] in self.held, "a unit starts without its weights"
                    self.in_flight[action.lease.id] = self.model_of[action.request_id]
                case LoadWeights(name):
                    assert self.loading is None, "two loads at a time"
                    assert name not in self.held, "loaded twice"
                    self.loading = name
                case EvictWeights(name):
                    assert name in self.held
                    assert name not in self.in_flight.values(), "evicted from under a unit"
                    self.held.remove(name)
        assert sum(self.bytes[name] for name in (*self.held, *filter(None, [self.loading]))) <= self.budget_bytes


@settings(max_examples=150, deadline=None)
@given(
    budget=st.integers(85, 200),
    cores=st.integers(1, 3),
    asked=st.lists(
        st.tuples(st.integers(0, 60_000), st.integers(0, 5), st.sampled_from([3_000, 8_000, 20_000, 60_000])),
        min_size=3,
        max_size=40,
    ),
    strays=st.lists(st.tuples(st.integers(0, 60_000), stray), max_size=8),
)
def test_memory_is_never_overdrawn_nor_taken_from_under_a_unit(
    budget: int, cores: int, asked: list[tuple[int, int, int]], strays: list[tuple[int, Event]]
) -> None:
    core = core_with(budget, cores=cores)
    facts: list[tuple[int, Event]] = [(0, ModelLoaded(each)) for each in FLEET]
    facts += [(at, arrived(f"r{i}", f"m{number}", at, qos)) for i, (at, number, qos) in enumerate(asked)]
    run = play(core, facts + strays, watch=Memory(budget))
    assert len(run.outcomes) == len(asked), "everybody is answered"


@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(85, 200),
    asked=st.lists(
        st.tuples(st.integers(0, 60_000), st.integers(0, 5), st.sampled_from([8_000, 20_000, 60_000])), min_size=3, max_size=40
    ),
)
def test_whoever_waits_for_weights_was_promised_no_more_than_memory_allows(
    budget: int, asked: list[tuple[int, int, int]]
) -> None:
    core = core_with(budget, cores=4)
    facts: list[tuple[int, Event]] = [(0, ModelLoaded(each)) for each in FLEET]
    facts += [(at, arrived(f"r{i}", f"m{number}", at, qos)) for i, (at, number, qos) in enumerate(asked)]
    accepted = [o for o in play(core, facts, handover_us=0).outcomes if not o.refused]
    late = [o for o in accepted if not o.in_time]
    assert len(late) <= 0.2 * len(accepted) + 1
