"""The search for the largest load: what is probed next, when it ends, and what it answers."""

import math
from collections.abc import Callable

import pytest

from veltair.bench.largest import LargestLoad, margin, middle, probe_seconds
from veltair.bench.result import PolicyResult, TenantResult


def searched(measure: Callable[[float], float], start: float, probes: int = 6) -> LargestLoad:
    search = LargestLoad(start, probes)
    while (load := search.next_load()) is not None:
        search.tell(load, measure(load))
    return search


def carries(most: float) -> Callable[[float], float]:
    """A server that misses nothing far below `most`, 5 % there, and ever more above."""
    return lambda load: 0.05 - 0.05 * (load / most) ** 8


@pytest.mark.parametrize("start", [10.0, 60.0, 79.0, 80.0, 95.0, 400.0])
def test_the_answer_is_where_the_margin_crosses_zero_wherever_the_search_starts(start: float) -> None:
    search = searched(carries(80.0), start)
    assert search.answer() == pytest.approx(80.0, rel=0.04)


def test_a_good_start_takes_few_probes() -> None:
    assert len(searched(carries(80.0), 74.0).seen) <= 3
    assert len(searched(carries(80.0), 86.0).seen) <= 3


def test_a_margin_near_zero_ends_the_search_at_once() -> None:
    search = searched(lambda load: 0.005, 50.0)
    assert ([p.load for p in search.seen], search.answer()) == ([50.0], 50.0)
    search = searched(lambda load: -0.005, 50.0)
    assert ([p.load for p in search.seen], search.answer()) == ([50.0], 50.0)


def test_a_cliff_is_bracketed_and_ends_with_the_probes_allowed() -> None:
    search = searched(lambda load: 0.05 if load < 70 else -0.5, 50.0, probes=7)
    assert len(search.seen) <= 7
    assert 66 <= search.answer() <= 74


def test_a_load_that_was_kept_above_one_that_was_not_does_not_count() -> None:
    search = LargestLoad(40.0)
    for load, found in ((40.0, 0.04), (60.0, -0.04), (80.0, 0.03)):
        search.tell(load, found)
    assert 40 < search.answer() < 60


def test_a_server_that_keeps_nothing_carries_nothing_and_one_that_keeps_all_what_was_tried() -> None:
    nothing = searched(lambda load: -1.0, 50.0)
    assert nothing.answer() == 0.0
    assert min(p.load for p in nothing.seen) < 50 / 10
    everything = searched(lambda load: 0.05, 50.0, probes=3)
    assert everything.answer() == max(p.load for p in everything.seen) > 100
    assert len(everything.seen) == 6


def tenant(in_qos: float | None, percentile: float = 0.95) -> TenantResult:
    return TenantResult("t", "m", 10.0, percentile, 100, in_qos, 1.0, 1.0, 1.0, 0, 0, {})


def test_the_margin_is_that_of_the_tenant_that_is_worst_off_against_its_own_promise() -> None:
    assert margin(PolicyResult("p", (tenant(1.0), tenant(0.97, 0.99), tenant(None)), 0)) == pytest.approx(-0.02)


def test_the_length_of_a_probe_depends_on_its_load_alone_and_has_bounds() -> None:
    lengths = [probe_seconds(load, requests=450, least_s=5, most_s=10) for load in (10, 50, 75, 200)]
    assert lengths == [10, 9, 6, 5]


def test_the_spread_is_half_of_what_lies_between_the_extremes() -> None:
    assert middle([90.0, 100.0, 120.0]) == (100.0, 0.15)
    assert middle([90.0, 110.0]) == (100.0, 0.1)
    assert middle([0.0]) == (0.0, 0.0)
    assert not math.isnan(middle([0.0, 0.0])[1])
