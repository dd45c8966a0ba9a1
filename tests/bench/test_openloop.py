"""The open loop, on a clock of its own: latency counts from when a request was due, whatever delayed the rest."""

from collections.abc import Callable

import numpy as np
import pytest

from veltair.bench.openloop import NO_ANSWER, Answer, Outcomes, drive
from veltair.bench.result import PolicyResult, policy_result
from veltair.bench.scenario import Arrivals, Scenario, TenantLoad

MS = 1000
ADS = TenantLoad("ads", "tiny", 100.0, 10.0)


class FakeServer:
    """Clock and transport in one: time passes only in `receive`, and in `send` where sending is slow."""

    def __init__(self, answer_after_us: Callable[[int], int | None], *, send_us: int = 0, code: str | None = None) -> None:
        self._now_us = 5_000_000  # not zero: the loop must not confuse its start with the clock's
        self._answer_after_us = answer_after_us
        self._send_us = send_us
        self._code = code
        self._due: list[tuple[int, int]] = []
        self.sent: list[tuple[int, int, int]] = []

    def now_us(self) -> int:
        return self._now_us

    def send(self, ticket: int, tenant: int, budget_us: int) -> None:
        self._now_us += self._send_us
        self.sent.append((self._now_us - 5_000_000, ticket, budget_us))
        if (after_us := self._answer_after_us(ticket)) is not None:
            self._due.append((self._now_us + after_us, ticket))

    def receive(self, timeout_us: int) -> list[Answer]:
        self._due.sort()
        until_us = self._now_us + timeout_us
        if self._due and self._due[0][0] <= until_us:
            until_us = max(self._due[0][0], self._now_us)
        self._now_us = until_us
        ready = [Answer(ticket, self._code) for at_us, ticket in self._due if at_us <= until_us]
        self._due = [(at_us, ticket) for at_us, ticket in self._due if at_us > until_us]
        return ready


def driven(server: FakeServer, *due_us: int, warmup_s: float = 0.0) -> tuple[Outcomes, PolicyResult]:
    scenario = Scenario("test", 1.0, (ADS,), 0, warmup_s)
    arrivals = Arrivals(np.array(due_us, dtype=np.int64), np.zeros(len(due_us), dtype=np.int64))
    outcomes = drive(scenario, arrivals, server, server, grace_us=50 * MS)
    return outcomes, policy_result("veltair", scenario, arrivals, outcomes)


def test_requests_leave_when_due_without_waiting_for_answers() -> None:
    server = FakeServer(lambda ticket: 40 * MS)
    driven(server, 1 * MS, 2 * MS, 3 * MS)
    assert [at_us for at_us, *_ in server.sent] == [1 * MS, 2 * MS, 3 * MS]


def test_a_late_send_counts_from_when_the_request_was_due() -> None:
    outcomes, _ = driven(FakeServer(lambda ticket: 2 * MS, send_us=5 * MS), 0, 1 * MS)
    assert outcomes.lateness_us.tolist() == [0, 4 * MS]
    assert outcomes.latency_us[1] == 10 * MS - 1 * MS + 2 * MS


def test_the_deadline_sent_shrinks_by_the_generators_own_lateness() -> None:
    server = FakeServer(lambda ticket: 1 * MS, send_us=5 * MS)
    driven(server, 0, 1 * MS, 1 * MS, 1 * MS)
    assert [budget_us for *_, budget_us in server.sent] == [10 * MS, 6 * MS, 1 * MS, 1]


def test_an_answer_after_the_target_is_a_miss_and_one_at_the_target_is_not() -> None:
    _, result = driven(FakeServer(lambda ticket: 10 * MS + ticket), 0, 100 * MS)
    assert (result.tenants[0].in_qos, result.tenants[0].p50_ms, result.tenants[0].p99_ms) == (0.5, 10.0, 10.001)


def test_what_is_never_answered_ends_the_run_after_the_grace_and_counts_as_a_miss() -> None:
    outcomes, result = driven(FakeServer(lambda ticket: None if ticket else 1 * MS), 0, 5 * MS)
    assert outcomes.code == [None, NO_ANSWER]
    assert (result.tenants[0].in_qos, dict(result.tenants[0].errors)) == (0.5, {NO_ANSWER: 1})


@pytest.mark.parametrize(
    ("code", "refused", "dropped", "errors"),
    [("deadline_unmeetable", 2, 0, {}), ("deadline_missed", 0, 2, {}), ("bad_tensor", 0, 0, {"bad_tensor": 2})],
)
def test_failures_are_told_apart_and_all_are_misses(code: str, refused: int, dropped: int, errors: dict[str, int]) -> None:
    _, result = driven(FakeServer(lambda ticket: 1 * MS, code=code), 0, 1 * MS)
    tenant = result.tenants[0]
    assert (tenant.in_qos, tenant.refused, tenant.dropped, dict(tenant.errors), tenant.p50_ms) == (
        0.0,
        refused,
        dropped,
        errors,
        None,
    )


def test_the_warm_up_is_sent_but_not_counted() -> None:
    server = FakeServer(lambda ticket: 50 * MS if ticket == 0 else 1 * MS)
    _, result = driven(server, 0, 200 * MS, 300 * MS, warmup_s=0.1)
    assert (len(server.sent), result.tenants[0].sent, result.tenants[0].in_qos) == (3, 2, 1.0)


def test_a_generator_that_was_late_says_so() -> None:
    _, punctual = driven(FakeServer(lambda ticket: 1 * MS), 0, 1 * MS)
    _, late = driven(FakeServer(lambda ticket: 1 * MS, send_us=3 * MS), 0, 0)
    assert (punctual.generator_was_late, late.generator_was_late) == (False, True)


def test_a_scenario_without_arrivals_ends_at_once() -> None:
    _, result = driven(FakeServer(lambda ticket: None))
    assert (result.tenants[0].sent, result.tenants[0].in_qos, result.worst_in_qos) == (0, None, 1.0)


def test_a_load_that_a_tenant_cannot_be_carried_at_is_given_up_and_the_rest_is_not_sent() -> None:
    due_us = tuple(ticket * 5 * MS for ticket in range(100))
    arrivals = Arrivals(np.array(due_us, dtype=np.int64), np.zeros(100, dtype=np.int64))
    server = FakeServer(lambda ticket: 11 * MS)
    outcomes = drive(Scenario("test", 1.0, (ADS,), 0, 0.0), arrivals, server, server, grace_us=50 * MS, most_missed=0.2)
    answered = [latency_us for latency_us in outcomes.latency_us.tolist() if latency_us >= 0]
    assert 21 <= len(answered) == len(server.sent) < 30
    assert (len(outcomes.lateness_us), outcomes.unanswered) == (len(server.sent), 0)
    assert outcomes.code.count(NO_ANSWER) == 100 - len(answered)


def test_a_server_that_is_still_busy_with_what_was_sent_says_so() -> None:
    outcomes, _ = driven(FakeServer(lambda ticket: None if ticket else 1 * MS), 0, 5 * MS)
    assert outcomes.unanswered == 1
