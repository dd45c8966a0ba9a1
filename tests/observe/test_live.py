"""The last seconds of a run: what is in the window counts, what is older is forgotten."""

import pytest

from veltair.observe.live import Live, Now, TenantNow
from veltair.observe.records import PressureTold, Record

from .logs import arrived, completed, dispatched, dropped, finished, lifelike, refused, started, tenant

S = 1_000_000


def fed(*records: Record, window_s: float = 10, cores: tuple[int, ...] = (0, 1)) -> Live:
    live = Live(started(tenant("ads"), tenant("docs"), cores=cores), round(window_s * S))
    for record in records:
        live.take(record)
    return live


def served(request: str, at_us: int, lease: int, took_us: int = 1000, who: str = "ads") -> list[Record]:
    return [
        arrived(request, at_us, who=who),
        dispatched(request, at_us, lease, who=who),
        finished(request, at_us + took_us, lease, measured_us=took_us),
        completed(request, at_us + took_us, took_us, who=who),
    ]


def of(now: Now, who: str) -> TenantNow:
    return next(each for each in now.tenants if each.tenant == who)


def test_rates_latencies_and_cores_are_of_the_window() -> None:
    records = [record for i in range(10) for record in served(f"r{i}", i * 100_000, i + 1, took_us=1000 * (i + 1))]
    now = fed(*records).look(1 * S)
    ads = of(now, "ads")
    assert (now.window_us, ads.rate_per_s, ads.ended) == (S, 10.0, 10)
    assert (ads.p50_us, ads.p95_us, ads.in_qos, ads.met) == (5000, 10_000, 1.0, True)
    assert ads.cores == pytest.approx(0.055)
    assert now.busy == pytest.approx(0.055)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    live = fed(*served("old", 0, 1), *served("new", 15 * S, 2, took_us=2000))
    ads = of(live.look(20 * S), "ads")
    assert (ads.ended, ads.rate_per_s, ads.p95_us, ads.costs.requests) == (1, 0.1, 2000, 1)
    later = of(live.look(40 * S), "ads")
    assert (later.ended, later.rate_per_s, later.p95_us, later.in_qos, later.cores) == (0, 0.0, None, None, 0.0)


def test_without_a_time_the_window_ends_with_the_last_record() -> None:
    assert fed(*served("old", 0, 1), *served("new", 15 * S, 2)).look().at_us == 15 * S + 1000


def test_refused_dropped_and_late_requests_are_not_in_qos() -> None:
    lost = [arrived("x", 5000), refused("x", 5000), arrived("y", 6000), dropped("y", 16_000)]
    ads = of(fed(*served("a", 0, 1), *served("b", 2000, 2, took_us=11_000), *lost).look(), "ads")
    assert (ads.ended, ads.in_qos, ads.met, ads.refused, ads.dropped) == (4, 0.25, False, 1, 1)


def test_units_in_flight_and_requests_that_wait_are_counted() -> None:
    now = fed(arrived("a", 0), dispatched("a", 0, 1, cores=(0, 1)), arrived("b", 500_000)).look(1 * S)
    assert (now.running, now.waiting, now.busy) == (1, 1, 2.0)


def test_a_unit_that_began_before_the_window_counts_for_its_part_in_it() -> None:
    live = fed(arrived("a", 0), dispatched("a", 0, 1), finished("a", 15 * S, 1, 15 * S), *served("b", 18 * S, 2))
    assert live.look(20 * S).busy == pytest.approx(0.5 + 0.0001)


def test_the_noisiest_neighbour_is_who_cost_most_and_never_oneself() -> None:
    records = [arrived("a", 0), dispatched("a", 0, 1), arrived("d1", 0, who="docs"), arrived("d2", 100, who="docs")]
    records += [finished("a", 1000, 1, 1000), completed("a", 1000, 1000), dispatched("d1", 1000, 2, who="docs")]
    records += [finished("d1", 4000, 2, 3000), completed("d1", 4000, 4000, who="docs"), dispatched("d2", 4000, 3, who="docs")]
    records += [finished("d2", 5000, 3, 1000), completed("d2", 5000, 4900, who="docs")]
    now = fed(*records, cores=(0,)).look()
    docs = of(now, "docs")
    assert (docs.noisiest, docs.noisiest_us) == ("ads", (1000 + 900) // 2)
    assert docs.noisiest_share == pytest.approx(1900 / (3000 + 3900))
    assert (of(now, "ads").noisiest, of(now, "ads").noisiest_share) == (None, None)


def test_what_outsiders_press_is_as_last_told() -> None:
    now = fed(PressureTold(0, 0.5, 0.1, 1.0, (0, 1)), PressureTold(10, 0.25, 0.1, 0.5, (1,))).look()
    assert (now.outside_pressure, now.outside_cores, now.outside_held) == (0.25, 0.5, (1,))
    later = fed(PressureTold(0, 0.5, 0.1, 1.0, (1,)), PressureTold(10, 0.5, 0.1, 0.4)).look()
    assert later.outside_held == ()


def test_an_endless_log_costs_the_memory_of_a_window() -> None:
    head, *records = lifelike(duration_s=20)
    live = Live(head, S)  # type: ignore[arg-type]
    for record in records:
        live.take(record)
    assert len(records) > 5_000
    assert len(live._units) < 400
    assert all(len(window.splits) < 200 and len(window.arrived) < 400 for window in live._of.values())
