"""Tenants that are there to be in the way: they load the server, and nobody looks at how they fare."""

import math

import numpy as np
import pytest

from veltair.bench.contenders import total_per_s
from veltair.bench.foresee import at_load
from veltair.bench.openloop import Answer, drive
from veltair.bench.scenario import Arrivals, Scenario, TenantLoad
from veltair.errors import DeadlineUnmeetable

ADS, VIDEO = TenantLoad("ads", "tiny", 100.0, 10.0), TenantLoad("video", "large", 8.0, 300.0, background=True)
MIX = Scenario("mix", 10.0, (ADS, VIDEO), warmup_s=0.0)


def test_a_load_is_that_of_the_tenants_that_count() -> None:
    assert total_per_s(MIX) == 100.0
    assert [tenant.rate_per_s for tenant in at_load(MIX, 40.0, 5.0).tenant] == [40.0, 8.0]


def test_a_scenario_of_nothing_but_background_is_refused() -> None:
    with pytest.raises(ValueError, match="every tenant is background"):
        Scenario("none", 10.0, (VIDEO,))


class Refusing:
    """Clock and transport in one. Refuses all requests of one tenant at once."""

    def __init__(self, tenant: int) -> None:
        self.tenant, self.time_us, self.sent = tenant, 0, 0
        self.ready: list[Answer] = []

    def now_us(self) -> int:
        return self.time_us

    def send(self, ticket: int, tenant: int, budget_us: int) -> None:
        self.sent += 1
        self.ready.append(Answer(ticket, DeadlineUnmeetable.code if tenant == self.tenant else None))

    def receive(self, timeout_us: int) -> list[Answer]:
        if not self.ready:
            self.time_us += timeout_us
        ready, self.ready = self.ready, []
        return ready


@pytest.mark.parametrize(("refused", "sent"), [(1, 200), (0, 42)])
def test_a_probe_is_given_up_for_what_tenants_that_count_miss_alone(refused: int, sent: int) -> None:
    arrivals = Arrivals(np.arange(200) * 1_000, np.arange(200) % 2)
    server = Refusing(refused)
    drive(MIX, arrivals, server, server, grace_us=1_000, most_missed=0.2)
    assert math.isclose(server.sent, sent, abs_tol=1)
