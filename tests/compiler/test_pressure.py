"""Antagonists and the probe: real processes for what they do to the machine, plain arrays for what is made of it."""

import os

import numpy as np
import psutil
import pytest

from veltair.compiler.measure import Measured
from veltair.compiler.pressure import Pressure, Samples, antagonist, probe

CORE = max(os.sched_getaffinity(0))


def samples(*pairs: tuple[int, int]) -> Samples:
    end, took = np.array(pairs, np.int64).T
    return Samples(end, took)


def test_a_sample_counts_for_the_interval_that_holds_all_of_it() -> None:
    found = samples((10, 5), (20, 5), (31, 2), (50, 5)).between([(4, 12), (16, 30), (45, 60)])
    assert found.tolist() == [5, 5]  # the second began before its interval did, the third ended after it


def test_without_intervals_no_sample_counts() -> None:
    assert samples((10, 5)).between([]).tolist() == []


@pytest.mark.parametrize("resource", ["bandwidth", "cache"])
def test_an_antagonist_tells_its_rate_and_ends_with_its_context(resource: str) -> None:
    with antagonist(Pressure(resource, 0.5), CORE) as rate:  # type: ignore[arg-type]
        assert rate > 0.0
        children = [c for c in psutil.Process().children() if "veltair.interference.ladder" in " ".join(c.cmdline())]
        assert [c.cpu_affinity() for c in children] == [[CORE]]
    assert not any(c.is_running() for c in children)


def test_a_quiet_machine_needs_no_antagonist() -> None:
    with antagonist(Pressure("bandwidth", 0.0), CORE) as rate:
        assert rate == 0.0


def test_the_probe_samples_while_its_context_is_open() -> None:
    with probe(CORE) as feeler:
        assert feeler.quiet_ns(0.05) > 0
        first = len(feeler.read().end_ns)
        assert feeler.quiet_ns(0.05) > 0
        assert len(feeler.read().end_ns) > first
    assert len(feeler.read().end_ns) == 0


def test_times_stand_in_the_order_of_their_points() -> None:
    bandwidth = [[{1: (100, 110, 120), 2: (60, 66, 72)}]]
    cache = [[{1: (100, 101, 102), 2: (60, 61, 62)}]]
    measured = Measured((0.0, 0.5, 1.0), bandwidth, cache, [[0.0]], 0.01, 20_000.0, 3)
    expected = {
        (1, None): 100.0,
        (2, None): 60.0,
        (1, Pressure("bandwidth", 0.5)): 110.0,
        (1, Pressure("bandwidth", 1.0)): 120.0,
        (1, Pressure("cache", 0.5)): 101.0,
        (1, Pressure("cache", 1.0)): 102.0,
    }
    assert dict(zip(measured.points(), measured.at_points(0, 0), strict=True)) == expected
