"""The probe: what is learnt of its times, and what is not."""

import math
import sys
import threading

import pytest

from veltair.interference.probe import ABSURD, Gauge, Probe, Quiet, plausible, quiet_of

from .profiles import machine


def test_a_quiet_distribution_is_its_median_and_how_it_strays() -> None:
    quiet = quiet_of([98.0, 99.0, 100.0, 101.0, 150.0])
    assert (quiet.median_us, quiet.mad_us, quiet.samples, quiet.discarded) == (100.0, 1.0, 5, 0)
    assert quiet.p95_us == pytest.approx(140.2)
    assert not quiet.disturbed


def test_times_that_spread_wide_were_disturbed() -> None:
    assert quiet_of([60.0, 100.0, 100.0, 150.0, 40.0]).disturbed


@pytest.mark.parametrize("absurd", [math.nan, math.inf, -math.inf, -1.0, 0.0, 100.0 * ABSURD + 1])
def test_a_time_that_cannot_be_true_is_discarded_and_counted(absurd: float) -> None:
    assert quiet_of([100.0, absurd, 100.0, 100.0]) == Quiet(100.0, 100.0, 0.0, samples=3, discarded=1)
    gauge = Gauge(quiet_of([100.0]))
    assert gauge.slowdown(absurd) is None
    assert gauge.slowdown(150.0) == 1.5
    assert gauge.discarded == 1


def test_of_times_that_cannot_be_true_nothing_is_learnt() -> None:
    assert plausible([math.nan, -1.0]) == []
    with pytest.raises(ValueError, match="none of 2 times of the probe can be true"):
        quiet_of([math.nan, -1.0])


def test_a_time_much_above_others_is_kept_up_to_a_hundredfold() -> None:
    assert plausible([1.0, 1.0, 1.0, ABSURD, 1.01 * ABSURD]) == [1.0, 1.0, 1.0, ABSURD]


def test_the_probe_goes_round_a_ring_that_no_cache_holds() -> None:
    probe = Probe(machine(caches=()))
    assert probe._ring.nbytes >= 2 * machine(caches=()).last_level_cache_bytes
    seen = []
    for _ in range(len(probe._ring) + 1):
        seen.append(probe._next)
        assert probe.run() > 0.0
    assert seen == [*range(len(probe._ring)), 0]


def test_the_probe_lets_go_of_the_gil_while_it_waits_for_memory() -> None:
    probe, go, ran = Probe(machine(caches=())), threading.Lock(), []
    go.acquire()

    def once() -> None:
        with go:
            ran.append(True)

    before = sys.getswitchinterval()
    other = threading.Thread(target=once)
    other.start()
    try:
        sys.setswitchinterval(100.0)  # nobody is made to hand over the GIL: the other thread gets it only where it is let go
        go.release()
        for _ in range(1000):
            if ran:
                break
            probe.run()
        assert ran
    finally:
        sys.setswitchinterval(before)
        other.join()
