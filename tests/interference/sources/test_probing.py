"""The probe as a source: within its budget, in idle slots, and deaf to what is not the memory path."""

import math
import random
from statistics import mean

import pytest

from veltair.errors import SourceUnavailable
from veltair.interference.probe import Probe, Quiet
from veltair.interference.profile import Rung
from veltair.interference.sources import Own
from veltair.interference.sources.probing import BESIDES_US, MOST_SHARE, Probing, timed

from ..profiles import profile, stream

QUIET_US = profile().probe.median_us


class Probes:
    """A probe that takes what it is told to, and counts."""

    def __init__(self) -> None:
        self.runs = 0
        self.spent_us = 0.0
        self.slowdown = 1.0

    def __call__(self) -> tuple[float, float]:
        us = QUIET_US * self.slowdown
        self.runs += 1
        self.spent_us += us
        return us, us


def idle(pressure: float = 0.0) -> Own:
    return Own(0, pressure, 1)


def probing(probes: Probes) -> Probing:
    return Probing(profile(), "", probes)


def test_a_slowdown_reads_as_the_rung_that_slows_the_probe_so() -> None:
    probes = Probes()
    source = probing(probes)
    probes.slowdown = 1.4
    reading = source.read(0, idle())
    assert reading is not None
    assert reading.pressure == pytest.approx(0.75)
    assert 0.05 <= reading.error <= 0.2


def test_own_units_are_taken_off_and_make_it_less_sure() -> None:
    probes = Probes()
    probes.slowdown = 1.4
    reading = probing(probes).read(0, idle(pressure=0.5))
    assert reading is not None
    assert reading.pressure == pytest.approx(0.25)
    assert reading.error == 0.25


def test_it_waits_for_an_idle_core() -> None:
    probes = Probes()
    source = probing(probes)
    assert source.read(0, Own(0, 0.0, 0)) is None
    assert probes.runs == 0


@pytest.mark.parametrize("slowdown", [1.0, 1.6, 5.0])
def test_it_takes_at_most_half_a_percent_of_a_core(slowdown: float) -> None:
    probes = Probes()
    source = probing(probes)
    probes.slowdown = slowdown
    for now_us in range(0, 10_000_000, 1_000):
        source.read(now_us, idle())
    assert probes.spent_us + probes.runs * BESIDES_US <= 1.01 * MOST_SHARE * 10_000_000
    assert probes.runs >= 80


def test_noise_around_a_quiet_machine_has_the_mean_of_none() -> None:
    """Cut to 0..1 it would pass for pressure."""
    probes, chance = Probes(), random.Random(5)
    source, seen = probing(probes), []
    for look in range(1, 400):
        probes.slowdown = chance.gauss(1.0, 0.15)
        reading = source.read(look * 1_000_000, idle())
        assert reading is not None
        seen.append(reading.pressure)
    assert mean(seen) == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("us", [math.nan, 0.0, -5.0, 1e9, math.inf])
def test_what_cannot_be_true_is_discarded_and_counted(us: float) -> None:
    source = Probing(profile(), "", lambda: (us, us))
    assert source.read(0, idle()) is None
    assert source.discarded == 1
    assert source.read(1_000_000, idle()) is None
    assert source.discarded == 2  # it is tried again all the same


def test_without_a_profile_it_says_what_to_do() -> None:
    with pytest.raises(SourceUnavailable, match="stale: it was made under Linux 5; run: veltair calibrate"):
        Probing(None, "the profile is stale: it was made under Linux 5; run: veltair calibrate")


@pytest.mark.parametrize(
    ("ladder", "mad_us", "said"),
    [
        ((), 4.0, "slows the probe by 0.0% here"),
        (stream(1.0, 1.01), 4.0, "slows the probe by 1.0% here, and it scatters by 5.9%"),
        (stream(1.02, 1.05), 10.0, "slows the probe by 5.0% here, and it scatters by 14.8%: it would not tell"),
    ],
)
def test_where_it_feels_less_than_it_scatters_it_is_no_source(ladder: tuple[Rung, ...], mad_us: float, said: str) -> None:
    with pytest.raises(SourceUnavailable, match=said):
        Probing(profile(ladder=ladder, probe=Quiet(100.0, 120.0, mad_us, 9000)), "")


def test_where_it_feels_little_it_says_how_unsure_it_is() -> None:
    source = Probing(profile(ladder=stream(1.02, 1.05)), "", Probes())
    assert source.error == pytest.approx(1.2, abs=0.05)


def test_the_real_one_tells_its_time_and_its_cpu_time() -> None:
    small = profile().machine
    took_us, on_cpu_us = timed(Probe(small))()
    assert took_us > 0
    assert on_cpu_us > 0
