"""A client finds the engine, sends again what was lost while that makes sense, and always ends with an answer."""

import math
from typing import Any

import numpy as np
import pytest

from veltair.client.conversation import Answered, Conversation, Forget, Reply, Send, Step
from veltair.errors import BadDeadline, DeadlineUnmeetable, EngineFailed, RequestTimeout, ServerUnreachable, UnknownModel
from veltair.wire.frames import frames_of, tensor_headers
from veltair.wire.messages import (
    Cancel,
    Failure,
    GetHealth,
    Infer,
    InferReply,
    Locate,
    Location,
    decode_client_message,
)

DIRECTORY, ENGINE, OTHER = "tcp://10.0.0.1:7400", "tcp://10.0.0.1:9001", "tcp://10.0.0.1:9002"
THIRD, FOURTH = "tcp://10.0.0.1:9003", "tcp://10.0.0.1:9004"
INPUTS = {"x": np.ones(3, "float32")}


def frames(message: object, tensors: dict[str, Any] | None = None) -> list[Any]:
    return [bytes(frame) for frame in frames_of(message, tensors or {})]


def sent(steps: list[Step]) -> list[tuple[str, object]]:
    return [(step.endpoint, decode_client_message(step.frames[0])) for step in steps if isinstance(step, Send)]


def started(deadline_ms: float | None = None, timeout_ms: float = 1000) -> Conversation:
    """A conversation whose request "1" has been sent to ENGINE, at time 0."""
    conversation = Conversation(DIRECTORY, "shop")
    assert sent(conversation.infer("1", "m", INPUTS, deadline_ms, timeout_ms, 0)) == [(DIRECTORY, Locate("1", "shop", "m"))]
    steps = conversation.received(DIRECTORY, frames(Location("1", ENGINE)), 10)
    budget_us = None if deadline_ms is None else round(deadline_ms * 1000) - 10
    assert sent(steps) == [(ENGINE, Infer("1", "shop", "m", tensor_headers(INPUTS), budget_us))]
    return conversation


def only_answer(steps: list[Step]) -> Any:
    (step,) = [step for step in steps if isinstance(step, Answered)]
    return step.value


def test_an_answer_carries_outputs_and_times_in_milliseconds() -> None:
    outputs = {"y": np.arange(2, dtype="int64")}
    message = InferReply("1", tensor_headers(outputs), 4_000, 5_000, 250, 2, ("small", "wide"), 2)
    reply = only_answer(started().received(ENGINE, frames(message, outputs), 20))
    assert isinstance(reply, Reply)
    np.testing.assert_array_equal(reply.outputs["y"], outputs["y"])
    assert (reply.latency_ms, reply.predicted_ms, reply.queued_ms) == (5.0, 4.0, 0.25)
    assert (reply.variants, reply.cores, reply.units) == (("small", "wide"), 2, 2)
    assert reply.interval_ms is None  # this server told none


def test_an_answer_carries_the_interval_that_was_foretold_for_it() -> None:
    message = InferReply("1", (), 4_000, 5_000, 250, 2, ("small",), 2, low_us=3_500, high_us=5_250)
    assert only_answer(started().received(ENGINE, frames(message), 20)).interval_ms == (3.5, 5.25)


def test_the_directory_is_asked_once_a_model() -> None:
    conversation = started()
    assert [endpoint for endpoint, _ in sent(conversation.infer("2", "m", INPUTS, None, 1000, 20))] == [ENGINE]


def test_a_refusal_is_the_typed_error_with_the_deadline_that_could_be_met() -> None:
    error = only_answer(started().received(ENGINE, frames(Failure("1", "deadline_unmeetable", "no", 12_500)), 20))
    assert isinstance(error, DeadlineUnmeetable)
    assert error.earliest_ms == 12.5


def test_what_the_directory_refuses_is_not_sent() -> None:
    conversation = Conversation(DIRECTORY, "shop")
    conversation.infer("1", "m", INPUTS, None, 1000, 0)
    steps = conversation.received(DIRECTORY, frames(Failure("1", "unknown_model", "no")), 5)
    assert isinstance(only_answer(steps), UnknownModel)
    assert sent(steps) == []


def test_a_lost_engine_is_looked_up_again_and_the_request_sent_with_what_is_left_of_its_budget() -> None:
    conversation = started(deadline_ms=50)
    steps = conversation.lost(ENGINE, 10_000)
    assert steps[0] == Forget(ENGINE)
    assert sent(steps) == [(DIRECTORY, Locate("1", "shop", "m"))]
    steps = conversation.received(DIRECTORY, frames(Location("1", OTHER)), 20_000)
    assert sent(steps) == [(OTHER, Infer("1", "shop", "m", tensor_headers(INPUTS), 30_000))]


def test_a_request_whose_deadline_passed_with_its_engine_is_given_up() -> None:
    assert isinstance(only_answer(started(deadline_ms=50).lost(ENGINE, 50_000)), EngineFailed)


def test_a_request_that_loses_one_engine_after_the_other_is_not_sent_for_ever() -> None:
    conversation = started()
    for engine in (ENGINE, OTHER, THIRD):
        conversation.lost(engine, 10)
        conversation.received(DIRECTORY, frames(Location("1", {ENGINE: OTHER, OTHER: THIRD, THIRD: FOURTH}[engine])), 10)
    error = only_answer(conversation.lost(FOURTH, 10))
    assert isinstance(error, EngineFailed)
    assert "sent 4 times" in str(error)


def test_a_directory_that_names_the_lost_engine_has_not_noticed_yet_and_is_asked_again_after_a_pause() -> None:
    conversation = started(timeout_ms=5_000)
    now_us = 1_000
    for pause_us in (40_000, 160_000):
        conversation.lost(ENGINE, now_us)
        assert conversation.received(DIRECTORY, frames(Location("1", ENGINE)), now_us + 500) == []
        assert conversation.next_tick_us() == now_us + pause_us
        assert conversation.tick(now_us + pause_us - 1) == []
        now_us += pause_us
        assert sent(conversation.tick(now_us)) == [(DIRECTORY, Locate("1", "shop", "m"))]
        steps = conversation.received(DIRECTORY, frames(Location("1", ENGINE)), now_us)
        assert [endpoint for endpoint, _ in sent(steps)] == [ENGINE]  # it is well again, or was never gone


def test_a_pause_ends_with_the_deadline() -> None:
    conversation = started(deadline_ms=20)
    conversation.lost(ENGINE, 10_000)
    conversation.received(DIRECTORY, frames(Location("1", ENGINE)), 10_500)
    assert conversation.next_tick_us() == 20_000
    assert isinstance(only_answer(conversation.tick(20_000)), EngineFailed)


def test_an_engine_that_ended_before_it_was_reached_is_looked_up_again() -> None:
    conversation = started()
    assert sent(conversation.unreached(ENGINE, 20)) == [(DIRECTORY, Locate("1", "shop", "m"))]
    steps = conversation.received(DIRECTORY, frames(Location("1", OTHER)), 30)
    assert steps[0] == Forget(ENGINE)
    assert [endpoint for endpoint, _ in sent(steps)] == [OTHER]


def test_a_directory_that_has_not_noticed_yet_is_asked_again_without_end() -> None:
    conversation = started()
    for _ in range(20):
        assert sent(conversation.unreached(ENGINE, 20)) == [(DIRECTORY, Locate("1", "shop", "m"))]
        assert conversation.received(DIRECTORY, frames(Location("1", ENGINE)), 30) == []


def test_a_directory_that_does_not_listen_yet_is_waited_for() -> None:
    assert started().unreached(DIRECTORY, 20) == []


def test_a_deadline_that_passes_while_the_directory_looks_for_an_engine_ends_the_request() -> None:
    conversation = started(deadline_ms=50)
    conversation.lost(ENGINE, 10_000)
    steps = conversation.received(DIRECTORY, frames(Location("1", OTHER)), 60_000)
    assert isinstance(only_answer(steps), EngineFailed)
    assert sent(steps) == []


def test_a_second_answer_of_the_directory_does_not_send_twice() -> None:
    assert started().received(DIRECTORY, frames(Location("1", ENGINE)), 20) == []


def test_a_directory_that_comes_back_is_asked_again_what_it_owes() -> None:
    conversation = Conversation(DIRECTORY, "shop")
    conversation.infer("1", "m", INPUTS, None, 1000, 0)
    conversation.ask(GetHealth("2"), 1000, 0)
    assert sent(conversation.lost(DIRECTORY, 5)) == [(DIRECTORY, Locate("1", "shop", "m")), (DIRECTORY, GetHealth("2"))]


def test_a_server_that_never_answered_is_unreachable() -> None:
    conversation = Conversation(DIRECTORY, "shop")
    conversation.infer("1", "m", INPUTS, None, 1000, 0)
    assert conversation.next_tick_us() == 1_000_000
    assert conversation.tick(999_999) == []
    error = only_answer(conversation.tick(1_000_000))
    assert isinstance(error, ServerUnreachable)
    assert f"nothing answers at {DIRECTORY} within 1000 ms" in str(error)
    assert conversation.next_tick_us() is None


def test_a_late_request_is_cancelled_on_the_engine() -> None:
    steps = started(timeout_ms=20).tick(20_000)
    assert sent(steps) == [(ENGINE, Cancel("1"))]
    assert isinstance(only_answer(steps), RequestTimeout)


def test_an_answer_that_comes_too_late_is_passed_over() -> None:
    conversation = started(timeout_ms=20)
    conversation.tick(20_000)
    assert conversation.received(ENGINE, frames(InferReply("1", (), 0, 0, 0, 1, (), 1)), 30_000) == []


def test_an_engine_on_all_addresses_is_where_its_directory_is() -> None:
    conversation = Conversation(DIRECTORY, "shop")
    conversation.infer("1", "m", INPUTS, None, 1000, 0)
    steps = conversation.received(DIRECTORY, frames(Location("1", "tcp://0.0.0.0:9001")), 10)
    assert [endpoint for endpoint, _ in sent(steps)] == [ENGINE]


def test_a_frame_that_does_not_decode_is_passed_over() -> None:
    assert started().received(ENGINE, [b"\xc1 no message"], 10) == []


def test_outputs_that_do_not_fit_their_header_are_an_error_not_a_reply() -> None:
    message = InferReply("1", tensor_headers(INPUTS), 0, 0, 0, 1, (), 1)
    assert "holds 4" in str(only_answer(started().received(ENGINE, [*frames(message), bytes(4)], 10)))


@pytest.mark.parametrize("deadline_ms", [math.nan, math.inf, -math.inf, 0, -1, True, "5"])
def test_a_deadline_that_is_none_is_refused_before_anything_is_sent(deadline_ms: Any) -> None:
    conversation = Conversation(DIRECTORY, "shop")
    with pytest.raises(BadDeadline, match="deadline_ms = "):
        conversation.infer("1", "m", INPUTS, deadline_ms, 1000, 0)
    assert conversation.next_tick_us() is None
