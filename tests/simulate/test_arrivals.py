"""Arrival processes: the asked rate, the asked pattern, and the same ones whatever else is in the workload."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any

import pytest

from veltair.core.events import RequestArrived
from veltair.errors import ConfigError
from veltair.simulate.arrivals import Tickets, times_s
from veltair.simulate.setting import Setting, arriving, prepare, serve
from veltair.simulate.workload import Closed, MachineSpec, ModelSource, Replay, Tenant, Workload

SECONDS = 200.0


def tenant(name: str = "a", **changed: Any) -> Tenant:
    return Tenant(**{"name": name, "model": "m", "qos_ms": 20, "share": 1.0, **changed})


def setting(*tenants: Tenant, **changed: Any) -> Setting:
    source = ModelSource(name="m", service_ms=2)
    return prepare(Workload(**{"name": "w", "tenant": tenants, "model": (source,), "machine": MachineSpec(cores=2), **changed}))


def times(arrivals: Any, per_s: float = 50, seed: int = 1, folder: Path = Path()) -> list[float]:
    return list(times_s(tenant(arrivals=arrivals), per_s, SECONDS, seed, folder))


def spread(at_s: list[float]) -> float:
    """Variance over mean of the counts of a second: 1 for a Poisson process."""
    busy = Counter(map(int, at_s))
    counts = [busy[second] for second in range(int(SECONDS))]
    return pvariance(counts) / fmean(counts)


@pytest.mark.parametrize(("process", "strays"), [("poisson", 0.04), ("uniform", 0.001), ("bursts", 0.2), ("diurnal", 0.04)])
def test_every_process_comes_at_the_asked_rate_in_ascending_order(process: str, strays: float) -> None:
    at_s = times(process)
    assert len(at_s) == pytest.approx(50 * SECONDS, rel=strays)
    assert all(one <= other for one, other in pairwise(at_s))
    assert at_s[0] >= 0
    assert at_s[-1] < SECONDS


def test_independent_users_spread_as_poisson_and_bursts_spread_more() -> None:
    assert spread(times("poisson")) == pytest.approx(1, abs=0.3)
    assert spread(times("bursts")) > 5
    assert spread(times("uniform")) < 0.1


def test_a_days_peak_is_busier_than_its_night() -> None:
    at_s = times("diurnal")  # ten seconds a day, the first half above the mean
    by_day = sum(at % 10 < 5 for at in at_s)
    assert by_day / len(at_s) == pytest.approx(0.5 + 0.8 / 3.1416, abs=0.03)


def test_more_load_is_the_same_story_told_faster() -> None:
    slow, fast = times("poisson", per_s=20), times("poisson", per_s=40)
    assert [at / 2 for at in slow[:100]] == pytest.approx(fast[:100])


def test_another_seed_tells_another_story() -> None:
    assert times("poisson", seed=1) != times("poisson", seed=2)


def test_one_more_tenant_does_not_move_the_others_arrivals() -> None:
    alone = arriving(setting(tenant(rate_per_s=30, share=None)), 30, 7)
    both = arriving(setting(tenant(rate_per_s=30, share=None), tenant("b", rate_per_s=30, share=None), requests=8000), 60, 7)
    assert [e for e in both.events if isinstance(e[1], RequestArrived) and e[1].request.tenant == "a"] == alone.events


def test_recorded_timestamps_are_replayed_at_the_asked_rate_again_and_again(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("at_s\n100\n101\n103\n")
    at_s = list(times_s(tenant(arrivals=Replay("t.csv")), 2.0, 4.0, 0, tmp_path))
    assert at_s == pytest.approx([0, 1 / 3, 1, 1.5, 1.5 + 1 / 3, 2.5, 3, 3 + 1 / 3])


def test_requests_of_a_minute_are_spread_over_it(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("minute,requests\n0,10\n1,0\n2,50\n")
    at_s = list(times_s(tenant(arrivals=Replay("t.csv")), 60 / 180, 180.0, 0, tmp_path))
    assert [sum(m <= at / 60 < m + 1 for at in at_s) for m in range(3)] == [10, 0, 50]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("at_s\n1\nsoon\n", "line 3: at_s = 'soon' is not a number"),
        ("at_s\n1\n-2\n", "line 3: at_s = -2 must be 0 or more"),
        ("minute,requests\n0\n", "line 2: requests = '' is not a number"),
        ("minute,requests\n0,0\n", "there is no request in it"),
        ("when\n1\n", "line 1: the header must have a column at_s, or minute and requests; it has when"),
        ("at_s\n1\n", "a column of timestamps needs two different ones at least"),
    ],
)
def test_a_bad_recording_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ConfigError) as raised:
        list(times_s(tenant(arrivals=Replay("t.csv")), 1.0, 1.0, 0, tmp_path))
    assert said in str(raised.value)


def test_clients_of_a_closed_loop_never_ask_twice_at_once() -> None:
    closed = setting(tenant(arrivals=Closed(clients=3, think_ms=5), share=None), requests=500)
    run = serve(closed, "fcfs", closed.base_per_s or 0, 1)
    assert len(run.outcomes) > 300
    moments = sorted([(o.request.arrived_us, 1) for o in run.outcomes] + [(o.finished_us, -1) for o in run.outcomes])
    under_way = most = 0
    for _, change in moments:
        under_way += change
        most = max(most, under_way)
    assert most == 3


def test_popular_copies_are_asked_for_most() -> None:
    tickets = Tickets(tenant(copies=100, popularity=1.0), seed=0)
    asked = [tickets.next(0).request.model for _ in range(2_000)]
    assert 0.13 < asked.count("m#0") / len(asked) < 0.25  # 1 / H(100) is 0.19
    assert asked.count("m#0") > asked.count("m#50")
