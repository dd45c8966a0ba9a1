from collections import Counter
from collections.abc import Iterable

import pytest

from veltair.bench import contenders
from veltair.bench.contenders import WARM_AT_ONCE, WARM_ROUNDS, warm
from veltair.bench.openloop import Answer
from veltair.errors import ServerError


class Answering:
    """Answers the first `most` requests, one at a time."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.sent: list[tuple[int, int]] = []
        self.waiting: list[int] = []

    def send(self, ticket: int, tenant: int, budget_us: int) -> None:
        self.sent.append((ticket, tenant))
        self.waiting.append(ticket)

    def receive(self, timeout_us: int) -> Iterable[Answer]:
        if not self.left or not self.waiting:
            return []
        self.left -= 1
        return [Answer(self.waiting.pop())]


def test_a_server_is_warm_once_every_tenant_had_several_answers_and_none_is_open() -> None:
    transport = Answering(most=1_000)
    warm(transport, tenants=3)
    assert Counter(tenant for _, tenant in transport.sent) == dict.fromkeys(range(3), WARM_ROUNDS * WARM_AT_ONCE)
    assert len({ticket for ticket, _ in transport.sent}) == len(transport.sent)
    assert not transport.waiting


def test_a_server_that_leaves_the_first_requests_unanswered_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "WARM_BUDGET_US", 1_000)
    with pytest.raises(ServerError, match="2 of the first requests had no answer"):
        warm(Answering(most=WARM_AT_ONCE - 2), tenants=1)
