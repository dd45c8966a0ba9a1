"""What the scheduler is told: soon after an outsider begins or ends, and never to and fro."""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from veltair.core.values import CoreId
from veltair.engine.watch import LULL_S, PERIOD_S
from veltair.errors import SourceUnavailable
from veltair.interference.sampler import BAND, NOISE, NOTHING, Estimate, Hysteresis, Sampler
from veltair.interference.sources import Own, Pressed, Reading, Spread, Used
from veltair.interference.sources.choose import AUTO, OPEN, Surroundings, open_groups
from veltair.interference.sources.probing import Probing
from veltair.interference.sources.runqueue import RunQueue

from .profiles import profile
from .sources.trees import write_stat

LOOK_US = 20_000
OWN = Own(0, 0.0, 1)
HERE = Surroundings(20_000.0)


class Says:
    """A source that says what the test wants; an error it raises."""

    def __init__(self, name: str, *words: Reading | SourceUnavailable | None) -> None:
        self.name = name
        self.error = 0.5
        self.discarded = 0
        self.closed = False
        self.heard: list[Own] = []
        self._words = list(words)

    def read(self, now_us: int, own: Own) -> Reading | None:
        self.heard.append(own)
        word = self._words.pop(0) if len(self._words) > 1 else self._words[0]
        if isinstance(word, SourceUnavailable):
            raise word
        return None if word is None else replace(word, at_us=now_us)

    def close(self) -> None:
        self.closed = True


def refuses(why: str) -> Callable[[Surroundings], Any]:
    def refuse(here: Surroundings) -> Any:
        raise SourceUnavailable(why)

    return refuse


def sampler(**sources: Any) -> Sampler:
    """Of all sources by their usual order; those not given refuse."""
    openers = {name: refuses("not here") for name in OPEN}
    openers |= {name: made if callable(made) else (lambda here, made=made: made) for name, made in sources.items()}
    return Sampler(open_groups("auto", HERE, openers))


def pressed(pressure: float, error: float = 0.05) -> Pressed:
    return Pressed(0, pressure, error)


def used(cores: float) -> Used:
    """By who sees everybody on our CPUs."""
    return Used(0, cores, everybody=True)


def looks(of: Sampler, count: int, own: Own = OWN) -> list[float]:
    """What is told in so many looks."""
    told = (of.sample(look * LOOK_US, own) for look in range(1, count + 1))
    return [outside.pressure for outside in told if outside is not None]


class Hosted:
    """Two CPUs, our service at work on them for a share of the time, and an outsider that streams while it is on."""

    def __init__(self, root: Path, seed: int, *, idle: float = 1.0, ours: float = 0.0) -> None:
        self.now_us = 10_000_000
        self.streams = False
        self._root, self._chance = root, random.Random(seed)
        self._idle, self._ours = idle, ours
        self._busy_us = self._own_us = 0.0
        self._total_us = 2 * self.now_us
        self._write()
        quiet = profile()
        openers = {name: refuses("not here") for name in OPEN}
        openers["probe"] = lambda here: Probing(quiet, "", self._probe)
        openers["runqueue"] = lambda here: RunQueue(root)
        self.sampler = Sampler(open_groups("auto", HERE, openers))

    def _probe(self) -> tuple[float, float]:
        us = profile().probe.median_us * (1.5 if self.streams else 1.0) * self._chance.gauss(1.0, 0.04)
        return us, us

    def _write(self) -> None:
        write_stat(self._root, busy_us=int(self._busy_us), idle_us=int(self._total_us - self._busy_us))

    def until(self, end_us: int) -> Iterator[float]:
        """Look on until then; yields what is told."""
        while self.now_us < end_us:
            period_us = round((LULL_S if self.sampler.settled else PERIOD_S) * 1e6)
            look_us = self._chance.randint(period_us, period_us + 5_000)  # a thread wakes a little late
            self.now_us += look_us
            self._total_us += 2 * look_us
            self._busy_us += look_us * (self._ours + self.streams)
            self._own_us += look_us * self._ours
            self._write()
            own = Own(int(self._own_us * 1000), 0.2 * self._ours, int(self._chance.random() < self._idle))
            told = self.sampler.sample(self.now_us, own)
            if told is not None:
                yield told.pressure


def switches(host: Hosted, chance: random.Random, count: int) -> list[int]:
    """The outsider starts and stops at random; how long until that was told, each time. Looks fall at random in between."""
    took_us = []
    for _ in range(count):
        host.streams = not host.streams
        began_us = host.now_us
        for told in host.until(began_us + chance.randint(200_000, 600_000)):
            if (told >= 0.5) if host.streams else (told <= NOISE):
                took_us.append(host.now_us - began_us)
                break
        list(host.until(began_us + 600_000))
    return took_us


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("idle", "ours"), [(1.0, 0.0), (0.5, 1.0)], ids=["idle", "half-busy"])
def test_an_outsider_that_comes_and_goes_at_random_is_told_within_a_tenth_of_a_second(
    tmp_path: Path, seed: int, idle: float, ours: float
) -> None:
    host = Hosted(tmp_path, seed, idle=idle, ours=ours)
    assert list(host.until(host.now_us + 500_000)) == []
    took_us = switches(host, random.Random(seed), 20)
    assert len(took_us) == 20
    assert max(took_us) <= 100_000


def test_while_all_cores_are_ours_an_outsider_is_taken_for_half_of_what_it_could_press(tmp_path: Path) -> None:
    host = Hosted(tmp_path, 0, idle=0.0, ours=1.0)
    list(host.until(host.now_us + 300_000))
    host.streams = True
    assert list(host.until(host.now_us + 300_000))[-1] == pytest.approx(0.5, abs=0.1)
    host.streams = False
    assert list(host.until(host.now_us + 300_000))[-1] == 0.0


@given(
    truth=st.floats(0, 1),
    noise=st.lists(st.floats(-NOISE / 2, NOISE / 2), min_size=20, max_size=200),
    told=st.sampled_from([0.0, 0.25, 1.0]),
)
@example(truth=NOTHING, noise=[-NOISE / 2] * 20 + [NOISE / 2] * 20, told=0.0)
@example(truth=0.0, noise=[0.0, 0.0, NOISE / 2] + [0.0] * 20, told=1.0)
@example(truth=0.25, noise=[NOISE / 2] * 5 + [-NOISE / 2] * 30, told=0.0)
def test_noise_within_the_band_is_told_once_and_then_at_most_the_rest_of_it_taken_back(
    truth: float, noise: list[float], told: float
) -> None:
    hysteresis = Hysteresis()
    hysteresis.told = told
    changes = [hysteresis.tell(min(1.0, max(0.0, truth + each))) for each in noise]
    first, *others = [change for change in changes if change is not None] or [0.0]
    assert others == [] or (first <= NOISE and others == [0.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=100))
def test_whatever_comes_it_changes_at_most_every_second_look_and_ends_near_what_stays(estimates: list[float]) -> None:
    hysteresis = Hysteresis()
    told = [hysteresis.tell(estimate) is not None for estimate in estimates]
    assert not any(a and b for a, b in pairwise(told))
    for _ in range(10):
        hysteresis.tell(estimates[-1])
    assert abs(hysteresis.told - estimates[-1]) <= BAND


def test_one_wild_estimate_changes_nothing() -> None:
    hysteresis = Hysteresis()
    assert [hysteresis.tell(p) for p in (0.0, 1.0, 0.0, 1.0, 0.0)] == [None] * 5


def test_it_rises_sooner_than_it_falls() -> None:
    hysteresis = Hysteresis()
    assert [hysteresis.tell(0.75) for _ in range(3)] == [None, 0.75, None]
    assert [hysteresis.tell(0.0) for _ in range(4)] == [None, None, 0.0, None]


def test_what_computes_but_does_not_stream_is_no_pressure() -> None:
    """One measured idle slot is enough to know."""
    told = sampler(probe=Says("probe", pressed(0.0)), runqueue=Says("runqueue", used(0.0), used(0.0), used(1.0)))
    assert looks(told, 50) == []
    assert told.outside.cores == 1.0


def test_pressure_without_anybody_on_our_cpus_is_believed_who_counted_it() -> None:
    """Another virtual machine on the same memory."""
    counted = Pressed(0, 0.8, 0.05, timed=False)
    told = sampler(perf=Says("perf", pressed(0.0), counted), runqueue=Says("runqueue", used(0.0)))
    assert looks(told, 10) == [pytest.approx(0.8, abs=0.07)]


def test_counters_are_believed_while_our_own_units_run() -> None:
    counted = [Pressed(0, pressure, 0.05, timed=False) for pressure in (0.0, 0.8)]
    told = sampler(perf=Says("perf", *counted), residuals=Says("residuals", pressed(0.0)), runqueue=Says("runqueue", used(0.0)))
    assert looks(told, 10) == [pytest.approx(0.8, abs=0.07)]


@pytest.mark.parametrize("first", [0.15, 0.2, 3.0])
def test_what_was_timed_before_anybody_looked_is_the_machines(first: float) -> None:
    told = sampler(probe=Says("probe", pressed(first)), runqueue=Says("runqueue", None, None, used(0.0)))
    assert looks(told, 100) == []
    assert told.settled


def test_a_machine_that_becomes_slower_or_faster_while_nobody_is_seen_is_not_pressed_upon() -> None:
    told = sampler(probe=Says("probe", *[pressed(1.0)] * 50, pressed(-0.3)), runqueue=Says("runqueue", used(0.0)))
    assert looks(told, 100) == []
    assert told.settled


def test_where_nobody_looks_who_is_on_our_cpus_times_are_believed() -> None:
    told = sampler(probe=Says("probe", pressed(0.0), pressed(0.8)))
    assert looks(told, 10) == [pytest.approx(0.8, abs=0.07)]


def test_an_outsider_presses_by_what_is_measured_above_what_was_usual_before_it_came() -> None:
    probe = Says("probe", *[pressed(0.6)] * 100, pressed(1.2))
    told = sampler(probe=probe, runqueue=Says("runqueue", *[used(0.0)] * 97, used(1.0)))
    looks(told, 97)
    assert looks(told, 50)[-1] == pytest.approx(0.6, abs=0.1)


def test_what_was_measured_holds_until_cpu_use_makes_a_step() -> None:
    probe = Says("probe", pressed(0.9), pressed(0.9), None)  # afterwards, no slot is idle
    usage = Says("runqueue", *[used(1.0)] * 50, used(0.0))
    told = sampler(probe=probe, runqueue=usage)
    assert looks(told, 50) == [pytest.approx(0.9, abs=0.07)]
    assert looks(told, 3) == [0.0]


@pytest.mark.parametrize("blind", ["psi", "steal"])
def test_who_does_not_see_everybody_does_not_know_that_nobody_is_there(blind: str) -> None:
    told = sampler(probe=Says("probe", pressed(0.0), pressed(0.8)), **{blind: Says(blind, Used(0, 0.0))})
    assert looks(told, 10) == [pytest.approx(0.8, abs=0.07)]


def test_a_pause_of_who_sees_everybody_does_not_take_an_outsider_away() -> None:
    told = sampler(runqueue=Says("runqueue", used(1.0), used(1.0), None), steal=Says("steal", Used(0, 0.0)))
    looks(told, 10)
    assert told.outside.cores == 1.0


def test_a_wild_reading_before_anybody_looked_does_not_keep_the_watch_awake() -> None:
    probe = Says("probe", pressed(3.0), pressed(0.0))
    told = sampler(probe=probe, runqueue=Says("runqueue", None, None, used(0.0)))
    looks(told, 20)
    assert told.settled


def test_the_first_readings_of_one_who_begins_are_not_taken_for_what_is_usual() -> None:
    """It streams for a tenth of a second before its CPU time shows; and so again and again."""
    probe = [*[pressed(0.0)] * 95, *[pressed(1.0)] * 10] * 20
    use = [*[used(0.0)] * 100, *[used(1.0)] * 5] * 20
    told = sampler(probe=Says("probe", *probe, pressed(1.0)), runqueue=Says("runqueue", *use, used(1.0)))
    looks(told, len(probe) + 50)
    assert told.outside.pressure == pytest.approx(1.0, abs=0.1)


def test_after_an_outsider_has_left_counters_are_still_followed() -> None:
    counted = [Pressed(0, 0.9, 0.05, timed=False)] * 50, [Pressed(0, 0.25, 0.05, timed=False)] * 200
    told = sampler(perf=Says("perf", *counted[0], *counted[1]), runqueue=Says("runqueue", *[used(1.0)] * 50, used(0.0)))
    assert looks(told, 250)[-1] == pytest.approx(0.25, abs=0.07)


def test_stolen_time_adds_to_what_runs_here() -> None:
    told = sampler(runqueue=Says("runqueue", used(0.5)), steal=Says("steal", used(0.5)))
    looks(told, 3)
    assert told.outside.cores == 1.0


def test_a_source_that_vanishes_gives_way_to_the_next(caplog: pytest.LogCaptureFixture) -> None:
    counters = Says("perf", pressed(0.0), SourceUnavailable("a read of counters gave 0 bytes: they are gone"))
    told = sampler(perf=counters, probe=Says("probe", pressed(0.8)))
    assert told.sources == ("perf",)
    with caplog.at_level(logging.WARNING):
        assert looks(told, 10) == [pytest.approx(0.8, abs=0.07)]
    assert told.sources == ("probe",)
    assert counters.closed
    assert "source perf of pressure is gone: a read of counters gave 0 bytes: they are gone; reading probe" in caplog.text
    assert "perf: a read of counters gave 0 bytes: they are gone" in told.refused


def test_when_the_last_source_has_gone_nothing_is_claimed_any_more() -> None:
    gone = SourceUnavailable("gone")
    told = sampler(runqueue=Says("runqueue", *[used(1.0)] * 5, gone))
    assert looks(told, 5) == [0.5]
    assert looks(told, 20) == [0.0]
    assert told.sources == ()


def held(*readings: Used | SourceUnavailable) -> list[tuple[int, ...]]:
    """Whom the scheduler thinks others hold after each reading of the run queue."""
    told = sampler(runqueue=Says("runqueue", *readings))
    last: tuple[int, ...] = ()
    found = []
    for look in range(1, len(readings) + 1):
        outside = told.sample(look * LOOK_US, OWN)
        last = last if outside is None else outside.held
        found.append(last)
    return found


def on(cores: float, *shares: float) -> Used:
    return Used(0, cores, Spread(cores, {CoreId(cpu): share for cpu, share in enumerate(shares)}), everybody=True)


def steady(cores: float, *shares: float) -> tuple[int, ...]:
    return held(*[on(cores, *shares)] * 5)[-1]


def test_others_hold_as_many_cpus_as_they_use_those_that_they_have_most_of() -> None:
    assert steady(0.4, 0.1, 0.3) == ()
    assert steady(1.0, 0.2, 0.8) == (1,)
    assert steady(1.0, 0.5, 0.5) == (0,)
    assert steady(2.1, 0.6, 0.1, 0.9, 0.5) == (2, 0)


def test_beside_us_they_may_get_but_half_of_a_cpu() -> None:
    assert steady(0.55, 0.0, 0.5) == (1,)


def test_two_looks_in_a_row_count_and_one_does_not() -> None:
    there, gone = on(1.0, 0.0, 1.0), on(0.0)
    assert held(there, there, gone, gone) == [(), (1,), (1,), ()]
    assert held(there, gone, there, gone) == [()] * 4
    assert held(there, there, gone, there, gone) == [(), (1,), (1,), (1,), (1,)]


def test_who_moves_to_another_cpu_is_followed() -> None:
    assert held(*[on(1.0, 0.0, 1.0)] * 4, *[on(1.0, 0.9, 0.1)] * 4)[3:] == [(1,), (1,), (0,), (0,), (0,)]


def test_a_load_that_swings_about_a_threshold_does_not_make_it_swing() -> None:
    """A process that uses three eighths of a core, as ticks tell of it."""
    swinging = [on(0.375 + 0.2 * swing, 0.0, 0.375 + 0.15 * swing) for swing in (1, -1, 0) * 20]
    assert len(set(held(*swinging))) == 1
    assert set(held(*[on(1.0, 0.0, 1.0)] * 4, *swinging)[3:]) == {(1,)}


def test_who_pauses_as_often_as_he_works_holds_his_cpu_all_the_time() -> None:
    """Forty milliseconds each, by ticks that are counted over eighty."""
    turns = [on(0.5, 0.0, 0.5), on(0.4, 0.0, 0.4), on(0.6, 0.0, 0.6)] * 10
    told = held(*[on(1.0, 0.0, 1.0)] * 4, *turns)
    assert set(told[3:]) == {(1,)}


def test_when_nobody_tells_any_more_who_is_where_no_cpu_is_held() -> None:
    assert held(*[on(1.0, 0.0, 1.0)] * 2, SourceUnavailable("gone")) == [(), (1,), ()]


def test_it_knows_when_nobody_else_is_seen() -> None:
    told = sampler(runqueue=Says("runqueue", *[used(0.0)] * 3, used(1.0)))
    seen = []
    for _ in range(5):
        looks(told, 1)
        seen.append(told.alone)
    assert seen == [True] * 3 + [False] * 2


def test_the_choice_is_told_with_its_error_and_what_was_refused() -> None:
    told = sampler(probe=Says("probe", None), psi=Says("psi", None))
    assert told.describe() == (
        "probe ±0.50, psi ±0.50; not perf: not here; not residuals: not here; not runqueue: not here; not steal: not here"
    )


def test_a_source_that_is_named_is_the_only_one_or_an_error() -> None:
    assert Sampler(open_groups("residuals", HERE)).sources == ("residuals",)
    with pytest.raises(SourceUnavailable, match="source 'probe' cannot be used here: no profile of this host"):
        open_groups("probe", HERE)
    assert open_groups("off", HERE) == ()


def test_every_source_has_a_place() -> None:
    from veltair.config import SOURCES

    assert sorted(name for group in AUTO for name in group) == sorted(SOURCES) == sorted(OPEN)


def followed(error: float, truth: float, seconds: int = 30) -> tuple[list[float], float]:
    """What is told, and what is believed in the end, of an outsider on one core, by a probe that scatters so much."""
    chance, estimate, hysteresis, told = random.Random(7), Estimate(), Hysteresis(), []
    for look in range(seconds * 50):
        estimate.passes(look * LOOK_US)
        estimate.used(1.0 if truth else 0.0)
        if look % 3 == 0:
            estimate.measured(chance.gauss(truth, error), error)
        if (change := hysteresis.tell(estimate.pressure)) is not None:
            told.append(change)
    return told, estimate.pressure


@pytest.mark.parametrize("error", [0.1, 0.5, 1.0, 2.0])
def test_however_a_probe_scatters_a_quiet_machine_stays_quiet(error: float) -> None:
    assert followed(error, 0.0)[0] == []


@pytest.mark.parametrize("error", [0.1, 0.5, 1.0])
def test_many_uncertain_readings_make_a_certain_one(error: float) -> None:
    told, believed = followed(error, 1.0)
    assert believed == pytest.approx(1.0, abs=0.2)
    assert len(told) <= 6  # half of it at once, the rest as it becomes certain


def test_one_surprise_is_left_aside_and_two_are_believed() -> None:
    estimate = Estimate()
    estimate.measured(1.0, 0.05)
    assert estimate.pressure == 0.0
    estimate.measured(0.0, 0.05)
    estimate.measured(1.0, 0.05)
    assert estimate.pressure == 0.0
    estimate.measured(1.0, 0.05)
    assert estimate.pressure > 0.9


def test_who_begins_or_ends_beside_others_makes_a_step_too() -> None:
    """A machine on which somebody always computes, and a second one comes and goes."""
    estimate = Estimate()
    estimate.used(1.0)
    estimate.measured(0.0, 0.01)
    estimate.used(2.0)
    assert estimate.pressure == pytest.approx(0.5, abs=0.01)
    estimate.used(1.0)
    assert estimate.pressure == pytest.approx(0.0, abs=0.01)


def test_use_that_swings_leaves_nothing_behind() -> None:
    estimate = Estimate()
    for _ in range(100):
        estimate.used(4.0)
        estimate.used(3.0)
    estimate.used(1.0)
    assert estimate.pressure == pytest.approx(0.5)


def test_an_outsiders_part_goes_with_it() -> None:
    estimate = Estimate()
    estimate.used(1.0)
    estimate.measured(0.9, 0.05)
    estimate.used(0.5)
    assert estimate.pressure == pytest.approx(0.45, abs=0.02)
    estimate.used(0.1)
    assert estimate.pressure == 0.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 64), st.floats(0.01, 0.5)), max_size=50))
def test_an_estimate_is_a_pressure_whatever_it_is_told(words: Sequence[tuple[bool, float, float]]) -> None:
    estimate = Estimate()
    for now_us, (measures, value, error) in enumerate(words):
        estimate.passes(now_us * LOOK_US)
        if measures:
            estimate.measured(min(1.0, value), error)
        else:
            estimate.used(value)
        assert 0.0 <= estimate.pressure <= 1.0
        assert 0.0 <= estimate.error <= 0.5
