"""The search for the largest load: what is probed next, what all probes together say, and how sure that is."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from veltair.bench.largest import (
    STEP_DOWN,
    STEP_UP,
    Estimate,
    LargestLoad,
    Probe,
    drawn_anew,
    estimate,
    margin,
    middle,
    probe_of,
    probe_seconds,
)
from veltair.bench.result import PolicyResult, TenantResult

SENT = 130


def probe(load: float, *misses: float) -> Probe:
    """Every tenant sends as much, and may miss 5 %."""
    return Probe(load, (SENT,) * len(misses), tuple(SENT * miss for miss in misses), (0.05,) * len(misses))


def searched(misses: Callable[[float], float], start: float, probes: int = 8) -> LargestLoad:
    search = LargestLoad(start, probes)
    while (load := search.next_load()) is not None:
        search.tell(probe(load, misses(load)))
    return search


def misses(load: float, most: float = 80.0, slope: float = 8.0) -> float:
    """A server whose tenants miss 5 % at `most`, less below and more above."""
    return 1 / (1 + math.exp(-(math.log(0.05 / 0.95) + slope * math.log(load / most))))


@pytest.mark.parametrize("start", [20.0, 60.0, 79.0, 80.0, 95.0, 200.0])
@pytest.mark.parametrize("slope", [3.0, 8.0, 20.0])
def test_the_answer_is_where_the_misses_cross_what_is_allowed_wherever_the_search_starts(start: float, slope: float) -> None:
    search = searched(lambda load: misses(load, slope=slope), start)
    assert search.answer() == pytest.approx(80.0, rel=0.06)
    assert 8 <= len(search.seen) <= 10


def test_the_later_probes_are_near_the_crossing_on_both_sides_of_it() -> None:
    loads = [p.load for p in searched(misses, 40.0).seen[3:]]
    assert all(80 / 1.2 < load < 80 * 1.2 for load in loads)
    assert min(loads) < 80 < max(loads)


@pytest.mark.parametrize("stalled", [0, 2, 5])
def test_a_probe_in_which_the_machine_stood_still_hardly_counts(stalled: int) -> None:
    search = LargestLoad(70.0)
    for number, load in enumerate((70.0, 82.0, 76.0, 80.0, 86.0, 75.0, 80.0, 83.0)):
        search.tell(probe(load, 0.7 if number == stalled else misses(load)))
    assert search.answer() == pytest.approx(80.0, rel=0.05)


def test_a_server_that_stands_still_time_and_again_is_not_forgiven() -> None:
    search = LargestLoad(70.0)
    for number, load in enumerate((70.0, 82.0, 76.0, 80.0, 86.0, 75.0, 80.0, 83.0)):
        search.tell(probe(load, 0.7 if number % 2 else misses(load)))
    assert search.answer() < 74


@pytest.mark.parametrize("start", [50.0, 80.0, 100.0])
@pytest.mark.parametrize("beyond", [0.2, 0.5, 1.0])
def test_a_cliff_is_found_however_deep_it_is(start: float, beyond: float) -> None:
    assert searched(lambda load: 0.01 if load < 70 else beyond, start).answer() == pytest.approx(70.0, rel=0.08)


def test_the_tenant_that_is_worst_off_decides_and_not_whoever_was_unlucky_in_a_probe() -> None:
    search, unlucky = LargestLoad(60.0), LargestLoad(60.0)
    for number in range(8):
        load = 60.0 + 5 * number
        search.tell(probe(load, misses(load, 100.0), misses(load, 70.0)))
        unlucky.tell(probe(load, *(misses(load, 70.0) * (1.3 if who == number % 2 else 0.7) for who in (0, 1))))
    assert search.answer() == pytest.approx(70.0, rel=0.05)
    assert unlucky.answer() == pytest.approx(70.0, rel=0.05)


def test_every_tenant_is_held_to_its_own_promise() -> None:
    search = LargestLoad(60.0)
    for load in (50.0, 60.0, 70.0, 80.0, 90.0):
        search.tell(Probe(load, (SENT,), (SENT * misses(load),), (misses(60.0),)))
    assert search.answer() == pytest.approx(60.0, rel=0.05)


def test_a_step_has_its_bounds() -> None:
    for missed, factor in ((0.0, STEP_UP), (1.0, STEP_DOWN)):
        search = LargestLoad(50.0)
        search.tell(probe(50.0, missed))
        load = search.next_load()
        assert load is not None
        assert min(factor, 1) <= load / 50.0 <= max(factor, 1)


def test_a_server_that_keeps_nothing_carries_nothing_and_is_soon_let_go() -> None:
    nothing = searched(lambda load: 1.0, 50.0, probes=20)
    assert nothing.answer() == 0.0
    assert len(nothing.seen) < 12


def test_who_sent_nothing_says_nothing() -> None:
    search = LargestLoad(60.0)
    for load in (60.0, 70.0, 80.0, 90.0, 100.0):
        search.tell(Probe(load, (SENT, 0), (SENT * misses(load), 0.0), (0.05, 0.05)))
    assert search.answer() == pytest.approx(80.0, rel=0.05)


def test_what_was_alike_in_all_rounds_spreads_little_and_what_was_not_spreads_more() -> None:
    steady, unsteady = LargestLoad(80.0), LargestLoad(80.0)
    for number in range(8):
        load = 74.0 + 2 * number
        steady.tell(probe(load, misses(load)))
        unsteady.tell(probe(load, misses(load) * (0.3 if number % 2 else 2.0)))
    calm, wild = (estimate(drawn_anew(search, 0)) for search in (steady, unsteady))
    assert calm.low <= calm.value <= calm.high
    assert calm.spread < 0.04 < wild.spread
    assert np.array_equal(drawn_anew(unsteady, 0), drawn_anew(unsteady, 0))


def test_a_bad_minute_of_all_does_not_count_for_a_difference() -> None:
    one, other = LargestLoad(80.0), LargestLoad(60.0)
    for number in range(8):
        disturbed = 2.5 if number % 3 == 0 else 0.7
        for search, most in ((one, 80.0), (other, 60.0)):
            load = most * (0.95 + 0.02 * number)
            search.tell(probe(load, misses(load, most) * disturbed))
    loads = drawn_anew(one, 0), drawn_anew(other, 0)
    ratio = estimate(loads[0] / loads[1])
    assert ratio.value == pytest.approx(80 / 60, rel=0.03)
    assert ratio.spread < 0.3 * estimate(loads[0]).spread


def test_a_spread_is_half_of_what_lies_between_its_ends() -> None:
    assert Estimate(100.0, 90.0, 120.0).spread == pytest.approx(0.15)
    assert Estimate(0.0, 0.0, 0.0).spread == 0.0


def tenant(in_qos: float | None, percentile: float = 0.95) -> TenantResult:
    return TenantResult("t", "m", 10.0, percentile, 0 if in_qos is None else 100, in_qos, 1.0, 1.0, 1.0, 0, 0, {})


def test_a_probe_holds_what_each_tenant_sent_and_missed() -> None:
    told = probe_of(40.0, [tenant(0.97), tenant(None), tenant(1.0, 1.0)])
    assert (told.sent, told.missed) == ((100, 0, 100), (pytest.approx(3.0), 0.0, 0.0))
    assert told.may_miss == (pytest.approx(0.05), pytest.approx(0.05), 0.001)


def test_the_margin_is_that_of_the_tenant_that_is_worst_off_against_its_own_promise() -> None:
    assert margin(PolicyResult("p", (tenant(1.0), tenant(0.97, 0.99), tenant(None)), 0)) == pytest.approx(-0.02)


def test_the_length_of_a_probe_depends_on_its_load_alone_and_has_bounds() -> None:
    lengths = [probe_seconds(load, requests=450, least_s=5, most_s=10) for load in (10, 50, 75, 200)]
    assert lengths == [10, 9, 6, 5]


def test_the_middle_of_several_loads_has_half_of_what_lies_between_the_extremes() -> None:
    assert middle([90.0, 100.0, 120.0]) == (100.0, 0.15)
    assert middle([90.0, 110.0]) == (100.0, 0.1)
    assert middle([0.0]) == (0.0, 0.0)
    assert not math.isnan(middle([0.0, 0.0])[1])
