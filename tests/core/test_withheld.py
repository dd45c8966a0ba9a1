"""Cores that processes which are not ours hold: no unit is put there while others are left, and all else goes on."""

import pytest
from core_build import arrived, machine, model, scheduler, unit, variant
from hypothesis import given, settings
from hypothesis import strategies as st

from veltair.core.actions import Complete, Dispatch, Drop, Refuse
from veltair.core.events import Event, ModelLoaded, ModelUnloaded, PressureChanged, RequestArrived, UnitFinished
from veltair.core.policies import make_policy
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, LatencyTable, LayerBlock, LeaseId, Model, ModelName, Variant
from veltair.simulate.virtual import Step, play

SHORT, LONG = model("short", [1_000]), model("long", [10_000], two_cores_us=[5_500])


def held(*cores: int) -> PressureChanged:
    return PressureChanged(0.0, tuple(map(CoreId, cores)))


def leases(core: Scheduler, event: Event, now_us: int) -> list[tuple[int, ...]]:
    return [action.lease.cores for action in core.handle(event, now_us) if isinstance(action, Dispatch)]


def test_a_unit_runs_where_nobody_else_does_and_the_next_waits_for_its_core() -> None:
    core = scheduler("veltair", SHORT)
    core.handle(held(0), 0)
    assert leases(core, arrived("a", "short", 0, 10_000), 0) == [(1,)]
    assert leases(core, arrived("b", "short", 0, 10_000), 0) == []
    assert leases(core, UnitFinished(LeaseId(1), 1_000), 1_000) == [(1,)]


def test_when_outsiders_have_gone_who_waits_runs_on_their_core_at_once() -> None:
    core = scheduler("veltair", SHORT)
    core.handle(held(0), 0)
    core.handle(arrived("a", "short", 0, 10_000), 0)
    core.handle(arrived("b", "short", 0, 10_000), 0)
    assert leases(core, held(), 500) == [(0,)]


def test_a_core_that_is_taken_in_mid_unit_comes_back_to_nobody() -> None:
    core = scheduler("veltair", SHORT)
    assert leases(core, arrived("a", "short", 0, 10_000), 0) == [(0,)]
    core.handle(held(0), 200)
    assert leases(core, arrived("b", "short", 200, 10_000), 200) == [(1,)]
    assert leases(core, arrived("c", "short", 200, 10_000), 200) == []
    core.handle(UnitFinished(LeaseId(1), 2_000), 2_000)
    assert core.idle_cores == 0


def test_newcomers_are_judged_by_the_cores_that_are_left() -> None:
    """Two at a time would make it; one after the other the second is late, and is told when it would be in time."""
    core = scheduler("veltair", LONG)
    core.handle(held(1), 0)
    assert leases(core, arrived("a", "long", 0, 12_000), 0) == [(0,)]
    refusal = core.handle(arrived("b", "long", 0, 15_000), 0)[0]
    assert isinstance(refusal, Refuse)
    assert refusal.earliest_deadline_us is not None
    assert 20_000 <= refusal.earliest_deadline_us <= 25_000


def test_who_waited_for_two_cores_goes_on_with_the_one_that_is_left() -> None:
    core = scheduler("veltair", SHORT, LONG)
    core.handle(arrived("a", "short", 0, 10_000), 0)
    core.handle(arrived("b", "short", 0, 10_000), 0)
    core.handle(arrived("wide", "long", 0, 10_500), 0)  # on one core it would be late for having waited
    assert leases(core, held(0), 100) == []
    assert leases(core, UnitFinished(LeaseId(2), 300), 300) == [(1,)]  # sooner than foretold: that is still in time


def test_where_outsiders_hold_every_core_none_is_better_than_another() -> None:
    core = scheduler("veltair", SHORT)
    core.handle(held(0, 1), 0)
    assert core.withheld == frozenset()
    assert leases(core, arrived("a", "short", 0, 10_000), 0) == [(0,)]


def test_the_widest_model_keeps_what_it_needs_and_those_held_most_go_first() -> None:
    core = scheduler("veltair", SHORT, cores=4)
    core.handle(held(3, 1, 0), 0)
    assert core.withheld == {3, 1, 0}
    rows = {2: (900,), 3: (700,)}
    block = LayerBlock("wide.0", (Variant("v", LatencyTable((0.0,), rows), SHORT.blocks[0].variants[0].footprint),))
    core.handle(ModelLoaded(Model(ModelName("wide"), (block,))), 10)
    assert core.withheld == {3, 1}
    assert leases(core, arrived("a", "wide", 20, 10_000), 20) == [(0, 2)]


def test_a_core_that_is_not_ours_to_lease_is_nobodys_loss() -> None:
    core = scheduler("veltair", SHORT)
    core.handle(held(7), 0)
    assert (core.withheld, core.idle_cores) == (frozenset(), 2)


def test_times_on_a_core_that_is_shared_teach_nothing() -> None:
    """A unit that took ten times as long there would make every promise after it ten times too late."""
    core = scheduler("veltair", SHORT)
    core.handle(arrived("a", "short", 0, 10_000), 0)
    core.handle(held(0), 200)
    core.handle(UnitFinished(LeaseId(1), 10_000), 10_000)
    dispatch = core.handle(arrived("b", "short", 10_000, 10_000), 10_000)[0]
    assert dispatch == unit("b", 2, [1], range(1), 1_000, "earliest deadline")


def test_nothing_is_learnt_from_a_unit_that_was_caught_though_the_outsider_has_gone_when_it_ends() -> None:
    core = scheduler("veltair", SHORT)
    core.handle(arrived("a", "short", 0, 10_000), 0)
    core.handle(held(0), 200)
    core.handle(held(), 9_000)
    core.handle(UnitFinished(LeaseId(1), 10_000), 10_000)
    dispatch = core.handle(arrived("b", "short", 10_000, 10_000), 10_000)[0]
    assert isinstance(dispatch, Dispatch)
    assert dispatch.predicted_us == 1_000


def test_what_is_left_of_a_request_that_was_caught_counts_against_newcomers() -> None:
    """It goes on elsewhere when its unit is over, and was promised 25 ms before anybody else came."""
    tender, long = model("tender", [1_000]), model("many", [8_000, 8_000])
    core = scheduler("veltair", tender, long)
    core.handle(arrived("t", "tender", 0, 4_000), 0)  # from now on units are short
    core.handle(UnitFinished(LeaseId(1), 1_000), 1_000)
    assert leases(core, arrived("a", "many", 1_000, 25_000), 1_000) == [(0,)]
    core.handle(held(0), 2_000)
    refused = [action for action in core.handle(arrived("b", "many", 2_000, 22_000), 2_000) if isinstance(action, Refuse)]
    assert [refusal.request_id for refusal in refused] == ["b"]


def test_what_the_cores_that_are_left_cannot_do_in_time_is_given_up_at_once() -> None:
    core = scheduler("veltair", LONG)
    core.handle(arrived("a", "long", 0, 30_000), 0)
    core.handle(arrived("b", "long", 0, 16_000), 0)
    dropped = [action for action in core.handle(held(0), 6_500) if isinstance(action, Drop)]
    assert [drop.request_id for drop in dropped] == ["b"]


def test_a_tenant_whose_model_was_unloaded_keeps_no_place_that_nobody_could_fill() -> None:
    wide = Model(ModelName("wide"), (LayerBlock("wide.0", (variant({3: (8_000,)}),)),))
    core = Scheduler(machine(4), make_policy("veltair"))
    core.handle(ModelLoaded(wide), 0)
    core.handle(ModelLoaded(SHORT), 0)
    for number in range(3):
        core.handle(arrived(f"w{number}", "wide", 0, 9_000), 0)
    core.handle(UnitFinished(LeaseId(1), 8_000), 8_000)
    core.handle(ModelUnloaded(ModelName("wide")), 8_000)
    core.handle(held(0, 1), 8_100)
    assert core.withheld == {0, 1}
    assert leases(core, arrived("s", "short", 8_200, 10_000), 8_200) == [(2,)]


@pytest.mark.parametrize("policy", ["fcfs", "edf", "planaria"])
def test_whose_authors_knew_of_no_outsiders_is_given_every_core(policy: str) -> None:
    core = scheduler(policy, SHORT)
    core.handle(held(0), 0)
    assert leases(core, arrived("a", "short", 0, 10_000), 0) == [(0,)]


@settings(max_examples=60, deadline=None)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 30_000), st.sampled_from(["short", "long"])), min_size=1, max_size=40),
    taken=st.lists(st.tuples(st.integers(0, 40_000), st.sets(st.integers(0, 3)).map(tuple)), min_size=1, max_size=8),
)
def test_who_was_accepted_while_cores_are_held_is_in_time_if_no_more_are_taken(
    arrivals: list[tuple[int, str]], taken: list[tuple[int, tuple[int, ...]]]
) -> None:
    core = Scheduler(machine(4), make_policy("veltair"))
    last_us = max(at_us for at_us, _ in taken)
    facts: list[tuple[int, Event]] = [(0, ModelLoaded(each)) for each in (SHORT, LONG)]
    facts += [(at_us, held(*cores)) for at_us, cores in taken]
    facts += [(at_us + last_us, arrived(f"r{i}", name, at_us + last_us, 25_000)) for i, (at_us, name) in enumerate(arrivals)]
    late = []

    def watch(step: Step) -> None:
        if isinstance(step.event, RequestArrived):
            due_us[step.event.request.id] = step.event.request.deadline_us
        late.extend(a.request_id for a in step.actions if isinstance(a, Complete) and step.now_us > due_us[a.request_id])

    due_us: dict[str, int] = {}
    run = play(core, facts, handover_us=0, watch=watch)
    assert late == []
    assert all(outcome.in_time or outcome.refused for outcome in run.outcomes)
