"""The interval that a finish is promised within holds nine times out of ten, whatever the predictions are like."""

import random
from collections.abc import Callable

import pytest

from veltair.core.promises import COVERAGE, Promises
from veltair.core.values import ModelName, TenantId

KIND = TenantId("t"), ModelName("m")


def covered(measured: Callable[[random.Random, int], float], requests: int = 4_000, skipped: int = 400) -> float:
    """Share of requests that ended within their interval, after `skipped`; foretold were 1 to 50 ms."""
    rng, promises, inside = random.Random(7), Promises(), 0
    for i in range(requests):
        foretold_us = rng.randint(1_000, 50_000)
        low_us, high_us = promises.interval_us(KIND, 1_000_000, 1_000_000 + foretold_us)
        measured_us = round(foretold_us * measured(rng, i))
        inside += i >= skipped and low_us <= 1_000_000 + measured_us <= high_us
        promises.learn(KIND, foretold_us, measured_us)
    return inside / (requests - skipped)


@pytest.mark.parametrize(
    ("how", "measured"),
    [
        ("a little noise", lambda rng, i: rng.lognormvariate(0.0, 0.02)),
        ("much noise", lambda rng, i: rng.lognormvariate(0.0, 0.5)),
        ("twice as long", lambda rng, i: 2.0 * rng.lognormvariate(0.0, 0.1)),
        ("half as long", lambda rng, i: 0.5 * rng.lognormvariate(0.0, 0.1)),
        ("a long tail", lambda rng, i: 1.0 + rng.paretovariate(2.0) / 5),
    ],
)
def test_nine_of_ten_end_within_their_interval(how: str, measured: Callable[[random.Random, int], float]) -> None:
    assert covered(measured) == pytest.approx(COVERAGE, abs=0.03), how


def test_after_a_shift_the_interval_follows_within_a_hundred_requests() -> None:
    shifted = covered(lambda rng, i: (1.0 if i < 1_000 else 2.5) * rng.lognormvariate(0.0, 0.1), 3_000, skipped=1_100)
    assert shifted == pytest.approx(COVERAGE, abs=0.04)


@pytest.mark.parametrize("measured_us", [0, -5, 1_000_000_000])
def test_the_time_of_a_machine_that_was_suspended_teaches_nothing(measured_us: int) -> None:
    promises = Promises()
    before = promises.interval_us(KIND, 0, 10_000)
    promises.learn(KIND, 10_000, measured_us)
    assert promises.interval_us(KIND, 0, 10_000) == before


def test_an_interval_is_never_inside_out() -> None:
    rng, promises = random.Random(1), Promises()
    for _ in range(2_000):
        promises.learn(KIND, 1_000, rng.choice([1, 100_000]))
        low_us, high_us = promises.interval_us(KIND, 0, 1_000)
        assert low_us <= high_us


def test_what_one_kind_teaches_says_nothing_about_another() -> None:
    promises, other = Promises(), (TenantId("u"), ModelName("m"))
    first = promises.interval_us(other, 0, 1_000)
    for _ in range(100):
        promises.learn(KIND, 1_000, 3_000)
    assert promises.interval_us(other, 0, 1_000) == first
    assert promises.interval_us(KIND, 0, 1_000)[1] > first[1]
