"""What rounds say: slowdowns by the quiet looks of their own round, disturbed rounds and absurd times left out."""

import math
import os
from random import Random

import pytest

from veltair.errors import ProfileError
from veltair.interference import calibrate as module
from veltair.interference.calibrate import LEAST_ROUNDS, Peaks, Round, Window, calibrate, evaluate, fewest, undisturbed
from veltair.interference.machine import this_machine
from veltair.interference.profile import Kind

FULL: tuple[Kind, float] = ("stream", 1.0)


def look(us: float, count: int = 5) -> Window:
    return Window([us * 0.99, us * 1.01, *[us] * (count - 2)])


def a_round(quiet: float = 100.0, felt: float = 150.0, after: float | None = None, gb_per_s: float = 16.0) -> Round:
    return Round(look(quiet), {FULL: Window([felt] * 5, gb_per_s)}, look(quiet if after is None else after))


def test_a_slowdown_is_told_by_the_quiet_looks_of_its_own_round() -> None:
    rounds = [a_round(quiet=us, felt=1.5 * us) for us in (100, 102, 104, 106, 108)]  # the clock drifts; what is felt with it
    quiet, [rung], notes = evaluate(rounds)
    assert (rung.kind, rung.level, rung.gb_per_s) == ("stream", 1.0, 16.0)
    assert rung.slowdown_median == pytest.approx(1.5)
    assert rung.slowdown_p95 == pytest.approx(1.5)
    assert not rung.disturbed
    assert quiet.median_us == pytest.approx(104, rel=0.01)
    assert notes == []


@pytest.mark.parametrize("disturbed", [a_round(quiet=130.0, felt=900.0), a_round(after=130.0, felt=900.0)])
def test_a_round_that_was_not_quiet_before_or_after_does_not_count(disturbed: Round) -> None:
    rounds = [*[a_round()] * LEAST_ROUNDS, disturbed]
    assert undisturbed(rounds) == rounds[:-1]
    quiet, [rung], notes = evaluate(rounds)
    assert (quiet.median_us, rung.slowdown_p95, notes) == (100.0, 1.5, [])


def test_without_enough_quiet_rounds_all_count_and_it_is_said() -> None:
    rounds = [a_round(quiet=us, felt=1.5 * us) for us in (100, 100, 160, 170, 180, 190)]
    quiet, _, [note] = evaluate(rounds)
    assert quiet.samples == 60
    assert note.startswith("the machine was not quiet: 2 of 6 rounds were undisturbed, so all were taken")
    assert "--force" in note


def test_a_window_in_which_somebody_waited_for_its_core_does_not_count() -> None:
    starved = Round(look(100), {FULL: Window([101.0] * 5, 2.0, waited=0.4)}, look(100))
    _, [rung], notes = evaluate([*[a_round()] * LEAST_ROUNDS, *[starved] * 9])
    assert (rung.slowdown_median, rung.gb_per_s, rung.disturbed, notes) == (1.5, 16.0, False, [])
    assert fewest([a_round(), starved, a_round()]) == 2
    waiting = Round(Window([100.0] * 5, waited=0.4), {FULL: Window([900.0] * 5, 16.0)}, look(100))
    assert undisturbed([a_round(), waiting]) == [a_round()]


def test_a_rung_whose_antagonists_always_waited_is_not_to_be_relied_on() -> None:
    _, [rung], [note] = evaluate([Round(look(100), {FULL: Window([150.0] * 5, 2.0, waited=0.4)}, look(100))] * 9)
    assert rung.disturbed
    assert "somebody else ran on the antagonists' cores" in note


def test_a_probe_that_feels_nothing_of_streaming_is_told() -> None:
    _, _, [note] = evaluate([a_round(felt=102.0)] * LEAST_ROUNDS)
    assert note.startswith("antagonists that stream on all other cores slow the probe by 2%, so it will not tell of outsiders")


def test_how_far_rounds_are_apart_is_told() -> None:
    """A hypervisor puts our cores behind one cache now, behind two then."""
    _, [rung], _ = evaluate([a_round(felt=us) for us in [100.0] * 11 + [140.0] * 9])
    assert (rung.slowdown_low, rung.slowdown_median, rung.slowdown_high) == (1.0, 1.0, 1.4)


def test_rounds_that_do_not_agree_about_a_rung_are_told() -> None:
    _, [rung], [note] = evaluate([a_round(felt=us) for us in (110, 300, 120, 500, 900)])
    assert rung.disturbed
    assert note.startswith("do not rely on stream 100%")


@pytest.mark.parametrize("absurd", [math.nan, math.inf, -5.0, 2e9])
def test_times_that_cannot_be_true_are_counted_and_change_nothing(absurd: float) -> None:
    """A virtual machine that was suspended meanwhile reads as hours, or as a clock that went backwards."""
    sound = [a_round() for _ in range(LEAST_ROUNDS)]
    hit = Round(Window([*look(100).times, absurd]), {FULL: Window([150.0] * 5 + [absurd] * 2, 16.0)}, look(100))
    quiet, [rung], notes = evaluate([*sound[1:], hit])
    _, [unhit], _ = evaluate(sound)
    assert (quiet.median_us, quiet.discarded, rung.discarded) == (100.0, 1, 2)
    assert (rung.slowdown_median, rung.slowdown_p95) == (unhit.slowdown_median, unhit.slowdown_p95)
    assert notes == []


def test_a_look_of_which_nothing_can_be_true_was_not_quiet() -> None:
    rounds = [*[a_round()] * LEAST_ROUNDS, a_round(after=math.nan)]
    assert undisturbed(rounds) == rounds[:-1]


def test_a_rung_of_which_nothing_can_be_true_is_left_out() -> None:
    _, ladder, _ = evaluate([a_round(felt=math.nan)] * LEAST_ROUNDS)
    assert ladder == ()


def test_a_clock_that_says_nothing_true_ends_it() -> None:
    with pytest.raises(ProfileError, match="none of 60 times of the probe can be true: this machine's clock cannot be trusted"):
        evaluate([a_round(quiet=math.nan)] * 6)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ROUNDS": 1,
        "LEAST_ROUNDS": 1,
        "LADDER_S": 1.0,
        "WINDOW_S": 0.002,
        "SETTLE_S": 0.001,
        "RATE_S": 0.01,
    }.items():
        monkeypatch.setattr(module, name, value)


@pytest.mark.usefixtures("hasty")
def test_a_host_is_measured_and_the_thread_goes_back_where_it_was() -> None:
    machine, before, told = this_machine(), os.sched_getaffinity(0), list[tuple[str, float]]()
    made = calibrate(machine, lambda: Peaks({}, {"tool": "1"}, "peak unknown"), lambda what, share: told.append((what, share)))
    assert os.sched_getaffinity(0) == before
    assert made.machine == machine
    assert made.probe.median_us > 0.0
    assert made.bandwidth_gb_per_s.one_core > 0.0
    assert made.versions["tool"] == "1"
    assert "peak unknown" in made.notes
    assert {rung.kind for rung in made.ladder} == ({"cache", "stream", "compute"} if len(machine.physical_cores) > 1 else set())
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert told[-1][1] == 1.0


@pytest.mark.usefixtures("hasty")
def test_one_core_has_no_ladder() -> None:
    rounds = module._rounds(this_machine().cores[:1], this_machine(), Random(0), lambda share: None)
    quiet, ladder, _ = evaluate(rounds)
    assert quiet.samples > 0
    assert ladder == ()
