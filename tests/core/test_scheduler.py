"""What every policy gets from the scheduler: the life of a request, as whole action lists."""

import pytest
from core_build import arrived, machine, model, scheduler

from veltair.core.actions import Complete, Dispatch, Drop, Refuse
from veltair.core.events import (
    DrainStarted,
    ModelLoaded,
    ModelUnloaded,
    PressureChanged,
    RequestCancelled,
    UnitFailed,
    UnitFinished,
)
from veltair.core.policies import POLICIES, make_policy
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, Lease, LeaseId, ModelName, RequestId
from veltair.errors import ConfigError

ONE_MS = model("ads", [1_000])


@pytest.fixture(params=sorted(POLICIES))
def core(request: pytest.FixtureRequest) -> Scheduler:
    return scheduler(request.param, ONE_MS, model("long", [1_000] * 10), cores=1)


def test_a_request_runs_and_is_answered(core: Scheduler) -> None:
    [start] = core.handle(arrived("r", "ads", 100, 5_000), 100)
    assert isinstance(start, Dispatch)
    assert (start.request_id, start.lease, start.first_block, start.end_block) == ("r", Lease(LeaseId(1), (CoreId(0),)), 0, 1)
    assert (start.variants, start.predicted_us, start.pressure) == ((0,), 1_000, 0.0)
    [answer] = core.handle(UnitFinished(start.lease.id, 1_000), 1_100)
    assert isinstance(answer, Complete)
    assert (answer.request_id, answer.predicted_us) == ("r", pytest.approx(1_000, 0.02))
    assert answer.low_us < answer.predicted_us < answer.high_us


def test_a_model_that_is_not_loaded_is_refused_and_the_loaded_ones_are_named(core: Scheduler) -> None:
    [refusal] = core.handle(arrived("r", "sda", 0, 5_000), 0)
    assert refusal == Refuse(RequestId("r"), "unknown_model", "model 'sda' is not loaded; loaded: ads, long")


def test_a_draining_server_refuses_newcomers_and_answers_the_accepted(core: Scheduler) -> None:
    [start] = core.handle(arrived("first", "ads", 0, 5_000), 0)
    assert core.handle(DrainStarted(), 10) == []
    [refusal] = core.handle(arrived("second", "ads", 20, 5_000), 20)
    assert isinstance(refusal, Refuse)
    assert refusal.code == "draining"
    assert not core.drained
    [answer] = core.handle(UnitFinished(start.lease.id, 1_000), 1_000)
    assert isinstance(answer, Complete)
    assert core.drained


def test_cancelling_a_waiting_request_drops_it_and_it_never_starts(core: Scheduler) -> None:
    [start] = core.handle(arrived("first", "ads", 0, 50_000), 0)
    assert core.handle(arrived("second", "ads", 0, 50_000), 0) == []
    assert core.handle(RequestCancelled(RequestId("second")), 10) == [
        Drop(RequestId("second"), "cancelled", "cancelled by the client")
    ]
    assert core.waiting == 0
    [answer] = core.handle(UnitFinished(start.lease.id, 1_000), 1_000)
    assert isinstance(answer, Complete)


def test_cancelling_a_running_request_answers_at_once_and_its_core_returns_when_the_unit_ends(core: Scheduler) -> None:
    [start] = core.handle(arrived("first", "long", 0, 50_000), 0)
    assert [type(a) for a in core.handle(RequestCancelled(RequestId("first")), 10)] == [Drop]
    assert core.handle(arrived("second", "ads", 20, 50_000), 20) == []  # the core is still busy
    [next_] = core.handle(UnitFinished(start.lease.id, 1_000), 10_000)
    assert isinstance(next_, Dispatch)
    assert next_.request_id == "second"


def test_cancelling_what_is_unknown_or_answered_does_nothing(core: Scheduler) -> None:
    assert core.handle(RequestCancelled(RequestId("nobody")), 0) == []


def test_a_failed_unit_drops_its_request_and_the_next_one_starts(core: Scheduler) -> None:
    [start] = core.handle(arrived("first", "long", 0, 50_000), 0)
    core.handle(arrived("second", "ads", 0, 50_000), 0)
    failure, next_ = core.handle(UnitFailed(start.lease.id, "kernel returned -1"), 500)
    assert failure == Drop(RequestId("first"), "engine_failed", "kernel returned -1")
    assert isinstance(next_, Dispatch)
    assert next_.request_id == "second"


def test_a_failed_unit_of_a_cancelled_request_is_not_answered_twice(core: Scheduler) -> None:
    [start] = core.handle(arrived("first", "long", 0, 50_000), 0)
    core.handle(RequestCancelled(RequestId("first")), 10)
    assert core.handle(UnitFailed(start.lease.id, "kernel returned -1"), 500) == []
    assert core.idle_cores == 1


def test_unloading_a_model_refuses_newcomers_and_finishes_what_was_accepted(core: Scheduler) -> None:
    [start] = core.handle(arrived("first", "ads", 0, 50_000), 0)
    core.handle(arrived("second", "ads", 0, 50_000), 0)
    assert core.handle(ModelUnloaded(ModelName("ads")), 10) == []
    assert [type(a) for a in core.handle(arrived("third", "ads", 20, 50_000), 20)] == [Refuse]
    answer, next_ = core.handle(UnitFinished(start.lease.id, 1_000), 1_000)
    assert isinstance(answer, Complete)
    assert isinstance(next_, Dispatch)


def test_replacing_a_model_leaves_requests_under_way_on_their_own_blocks(core: Scheduler) -> None:
    [start] = core.handle(arrived("first", "ads", 0, 50_000), 0)
    core.handle(arrived("second", "ads", 0, 50_000), 0)
    core.handle(ModelLoaded(model("ads", [300, 300])), 10)
    _, second = core.handle(UnitFinished(start.lease.id, 1_000), 1_000)
    assert isinstance(second, Dispatch)
    assert (second.end_block, second.predicted_us) == (1, 1_000)
    core.handle(arrived("third", "ads", 1_000, 50_000), 1_000)
    _, third = core.handle(UnitFinished(second.lease.id, 1_000), 2_000)
    assert isinstance(third, Dispatch)
    assert third.predicted_us == 300 * third.end_block  # as many of the new blocks as the policy likes


def test_an_id_that_is_under_way_is_rejected_and_the_first_request_lives_on(core: Scheduler) -> None:
    [start] = core.handle(arrived("r", "ads", 0, 5_000), 0)
    with pytest.raises(ValueError, match="request 'r' is already under way; give every request its own id"):
        core.handle(arrived("r", "ads", 0, 5_000), 0)
    assert [type(a) for a in core.handle(UnitFinished(start.lease.id, 1_000), 1_000)] == [Complete]


def test_a_unit_that_ends_twice_is_rejected(core: Scheduler) -> None:
    [start] = core.handle(arrived("r", "ads", 0, 5_000), 0)
    core.handle(UnitFinished(start.lease.id, 1_000), 1_000)
    with pytest.raises(ValueError, match="lease 1 is not in flight"):
        core.handle(UnitFinished(start.lease.id, 1_000), 1_000)
    assert core.idle_cores == 1


@pytest.mark.parametrize("pressure", [-0.1, 1.1, float("nan")])
def test_a_pressure_that_is_no_share_is_rejected(core: Scheduler, pressure: float) -> None:
    with pytest.raises(ValueError, match="pressure must be within"):
        core.handle(PressureChanged(pressure), 0)


def test_a_fact_told_a_little_late_does_not_turn_time_back(core: Scheduler) -> None:
    [start] = core.handle(arrived("first", "ads", 1_000, 5_000), 1_000)
    assert core.handle(arrived("second", "ads", 990, 5_000), 990) == []
    done, next_ = core.handle(UnitFinished(start.lease.id, 1_000), 2_000)
    assert [type(done), type(next_)] == [Complete, Dispatch]


def test_an_unknown_policy_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"policy 'lifo' is unknown; choose one of: veltair, .*fcfs"):
        make_policy("lifo")


def test_every_policy_carries_the_name_it_is_chosen_by() -> None:
    assert {name: make_policy(name).name for name in POLICIES} == {name: name for name in POLICIES}
    assert Scheduler(machine(), make_policy("fcfs")).policy == "fcfs"
