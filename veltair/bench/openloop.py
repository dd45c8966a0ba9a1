"""Open-loop load: requests leave when they are due, whatever has become of the earlier ones.

Latency counts from the moment a request was DUE. A generator that waits for answers, or that counts from when it got
round to sending, forgets exactly the requests that a stall has hurt ("coordinated omission").
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from veltair.bench.scenario import Arrivals, Scenario

NO_ANSWER = "no_answer"
FEWEST_MISSED = 5  # of a tenant with few requests, one or two say nothing yet
PROGRESS_EVERY_US = 250_000  # a redrawn progress bar costs the shared cores about a millisecond


class Clock(Protocol):
    def now_us(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """`ticket` is the number of the request; `code` is that of a RequestError, None for an answer with outputs."""

    ticket: int
    code: str | None = None


class Transport(Protocol):
    """Carries requests to a server. `receive` returns as soon as something is there, or after `timeout_us`."""

    def send(self, ticket: int, tenant: int, budget_us: int) -> None: ...
    def receive(self, timeout_us: int) -> Iterable[Answer]: ...


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of each request, in order of arrival. `latency_us` counts from when it was due; -1 without outputs."""

    latency_us: npt.NDArray[np.int64]
    code: list[str | None]
    lateness_us: npt.NDArray[np.int64]  # of the generator itself: sent minus due
    unanswered: int = 0  # of those that were sent; the server may still be busy with them


def drive(
    scenario: Scenario,
    arrivals: Arrivals,
    transport: Transport,
    clock: Clock,
    *,
    grace_us: int,
    most_missed: float = 1.0,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Outcomes:
    """Send all arrivals when they are due and wait up to `grace_us` after the last one for what is still out.

    As soon as a tenant that is no background has missed more than `most_missed` of all that it is to send, nothing more is sent:
    a load that a server cannot carry is not worth the time to its end, nor the backlog. What was not sent has no answer.
    """
    count = len(arrivals)
    due_us, owners = arrivals.at_us.tolist(), arrivals.tenant.tolist()
    qos_us = [round(tenant.qos_ms * 1000) for tenant in scenario.tenant]
    latency_us = np.full(count, -1, dtype=np.int64)
    lateness_us = np.zeros(count, dtype=np.int64)
    code: list[str | None] = [NO_ANSWER] * count
    sent_by = np.bincount(arrivals.tenant, minlength=len(qos_us)).tolist()
    missable = [
        math.inf if tenant.background else max(most_missed * n, FEWEST_MISSED)
        for tenant, n in zip(scenario.tenant, sent_by, strict=True)
    ]
    open_requests = sent = 0
    start_us = clock.now_us()
    give_up_us = (due_us[-1] if count else 0) + grace_us
    next_progress_us = 0
    while sent < count or open_requests:
        now_us = clock.now_us() - start_us
        while sent < count and due_us[sent] <= now_us:
            late_us = now_us - due_us[sent]
            lateness_us[sent] = late_us
            # The deadline, too, counts from when the request was due.
            transport.send(sent, owners[sent], max(qos_us[owners[sent]] - late_us, 1))
            sent += 1
            open_requests += 1
            now_us = clock.now_us() - start_us
        if sent == count and now_us >= give_up_us:
            break
        if now_us >= next_progress_us:
            on_progress(sent / count)
            next_progress_us = now_us + PROGRESS_EVERY_US
        until_us = due_us[sent] if sent < count else min(give_up_us, next_progress_us)
        answers = transport.receive(max(until_us - now_us, 0))
        received_us = clock.now_us() - start_us
        for answer in answers:
            if code[answer.ticket] != NO_ANSWER:
                continue  # answered before; the second one changes nothing
            code[answer.ticket] = answer.code
            open_requests -= 1
            owner, took_us = owners[answer.ticket], received_us - due_us[answer.ticket]
            if answer.code is None:
                latency_us[answer.ticket] = took_us
            missable[owner] -= answer.code is not None or took_us > qos_us[owner]
        if sent < count and most_missed < 1 and min(missable) < 0:
            count = sent
            give_up_us = received_us + grace_us
    on_progress(1.0)
    return Outcomes(latency_us, code, lateness_us[:sent], open_requests)
