"""What is learnt of measured times: per model, per variant, and that a model's tables are no longer those of this machine."""

from itertools import pairwise

import pytest
from core_build import arrived, model, scheduler
from hypothesis import given
from hypothesis import strategies as st

from veltair.core.actions import Alarm, Dispatch
from veltair.core.events import UnitFinished
from veltair.core.residuals import ABSURD_RATIO, FAR_US, RATIO_BOUNDS, RATIO_HALF_LIFE_US, Residuals
from veltair.core.values import ModelName

M = ModelName("m")
FAST, DIRECT, BOTH = {"fast": 1_000}, {"direct": 1_000}, {"fast": 500, "direct": 500}


@given(st.lists(st.tuples(st.integers(-(10**9), 10**12), st.integers(0, 10**7)), max_size=60))
def test_a_correction_stays_within_its_bounds_whatever_was_measured(seen: list[tuple[int, int]]) -> None:
    residuals, now_us = Residuals(), 0
    for measured_us, pause_us in seen:
        now_us += pause_us
        residuals.learn(M, 1_000, measured_us, now_us)
        assert RATIO_BOUNDS[0] <= residuals.ratio(M, now_us) <= RATIO_BOUNDS[1]
        assert residuals.cautious_ratio(M, now_us) >= residuals.ratio(M, now_us)


@pytest.mark.parametrize("absurd_us", [0, -5, ABSURD_RATIO * 1_000 + 1])
def test_absurd_timings_teach_nothing_and_are_counted(absurd_us: int) -> None:
    residuals = Residuals()
    for _ in range(50):
        residuals.learn(M, 1_000, absurd_us, 0, lambda: FAST)
    assert residuals.ratio(M, 0) == 1.0
    assert residuals.adrift == []
    assert residuals.discarded == 50


def test_a_correction_halves_its_way_back_to_one() -> None:
    residuals = Residuals()
    for _ in range(200):
        residuals.learn(M, 1_000, 2_000, 0)
    assert residuals.ratio(M, 0) == pytest.approx(2.0, abs=0.01)
    assert residuals.ratio(M, RATIO_HALF_LIFE_US) == pytest.approx(1.5, abs=0.01)
    assert residuals.ratio(ModelName("other"), 0) == 1.0


def test_variants_are_told_apart_by_units_that_have_more_of_one() -> None:
    residuals = Residuals()
    for _ in range(600):
        residuals.learn(M, 1_000, 1_600, 0, lambda: FAST)
        residuals.learn(M, 1_000, 1_000, 0, lambda: DIRECT)
    uneven = residuals.uneven(M, 0)
    assert uneven is not None
    assert uneven["fast"] / uneven["direct"] == pytest.approx(1.6, rel=0.1)
    assert residuals.ratio(M, 0) == pytest.approx(1.3, rel=0.1)


@given(st.lists(st.integers(500, 3_000), min_size=1, max_size=200))
def test_variants_that_always_run_together_are_alike_however_slow(measured_us: list[int]) -> None:
    residuals = Residuals()
    for us in measured_us:
        residuals.learn(M, 1_000, us, 0, lambda: BOTH)
        assert residuals.uneven(M, 0) is None


def test_a_whole_model_that_slows_down_makes_no_variant_look_bad() -> None:
    residuals = Residuals()
    for _ in range(100):
        for mix in (FAST, DIRECT, BOTH):
            residuals.learn(M, 1_000, 2_000, 0, lambda mix=mix: mix)
    assert residuals.uneven(M, 0) is None


def test_what_told_variants_apart_fades() -> None:
    residuals = Residuals()
    for _ in range(600):
        residuals.learn(M, 1_000, 1_600, 0, lambda: FAST)
        residuals.learn(M, 1_000, 1_000, 0, lambda: DIRECT)
    assert residuals.uneven(M, RATIO_HALF_LIFE_US) is not None
    assert residuals.uneven(M, 10 * RATIO_HALF_LIFE_US) is None


def test_a_model_is_adrift_once_most_of_its_units_are_far_from_their_tables() -> None:
    residuals = Residuals()
    for _ in range(5):
        residuals.learn(M, 1_000, 2_000, 0)
    assert not residuals.is_adrift(M)
    for _ in range(10):
        residuals.learn(M, 1_000, 2_000, 0)
    assert residuals.adrift == [M]
    for _ in range(20):
        residuals.learn(M, 1_000, 1_100, 0)
    assert residuals.adrift == []


def test_far_faster_than_its_tables_is_adrift_too() -> None:
    residuals = Residuals()
    for _ in range(20):
        residuals.learn(M, 10_000, 5_000, 0)
    assert residuals.is_adrift(M)


def test_a_short_unit_is_mostly_hand_over_and_raises_no_alarm() -> None:
    residuals = Residuals()
    for _ in range(100):
        residuals.learn(M, 100, 100 + FAR_US, 0)
    assert not residuals.is_adrift(M)


@given(st.lists(st.sampled_from([1_000, 3_000]), max_size=300))
def test_an_alarm_does_not_flicker(measured_us: list[int]) -> None:
    residuals, changed, before = Residuals(), [], False
    for number, us in enumerate(measured_us):
        residuals.learn(M, 1_000, us, 0)
        if residuals.is_adrift(M) != before:
            before = not before
            changed.append(number)
    assert all(later - sooner >= 5 for sooner, later in pairwise(changed))


def test_the_scheduler_says_once_that_a_model_drifts_and_once_that_it_is_over() -> None:
    core, now_us = scheduler("veltair", model("m", [10_000]), cores=1), 0
    alarms: list[Alarm] = []
    for number in range(60):
        start = core.handle(arrived(f"r{number}", "m", now_us, 1_000_000), now_us)
        unit = next(action for action in start if isinstance(action, Dispatch))
        measured_us = 25_000 if number < 20 else 10_000
        now_us += measured_us
        alarms += [a for a in core.handle(UnitFinished(unit.lease.id, measured_us), now_us) if isinstance(a, Alarm)]
    assert [(alarm.model, alarm.over) for alarm in alarms] == [("m", False), ("m", True)]
    assert alarms[0].ratio > 1.5
    assert core.adrift == []
