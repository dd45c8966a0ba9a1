"""What our own units' times tell of others: those that feel pressure tell it, the rest nothing."""

import random

import pytest

from veltair.interference.sources import Own, Pressed, Ran
from veltair.interference.sources.residuals import LEAST_UNITS, Residuals


def ran(excess: float, *, rise: float = 0.5, model: str = "m", quiet_us: int = 1_000) -> Ran:
    return Ran(model, quiet_us, round(quiet_us * (1.0 + rise)), round(quiet_us * (1.0 + excess)))


def read(source: Residuals, *units: Ran, alone: bool = False) -> Pressed | None:
    return source.read(0, Own(0, 0.0, 0, units, alone))


def used_to(excess: float, **unit: float) -> Residuals:
    source = Residuals()
    read(source, *[ran(excess, **unit)] * LEAST_UNITS, alone=True)  # type: ignore[arg-type]
    return source


def pressure(reading: Pressed | None) -> float:
    assert reading is not None
    return reading.pressure


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_the_pressure_is_the_one_that_explains_the_times(level: float) -> None:
    source = used_to(0.0)
    assert pressure(read(source, ran(level * 0.5), ran(level * 0.2, rise=0.2))) == pytest.approx(level, abs=0.01)


def test_what_a_model_always_takes_longer_is_no_pressure() -> None:
    source = used_to(0.1)
    assert pressure(read(source, ran(0.1))) == pytest.approx(0.0, abs=0.01)


def test_it_is_silent_until_it_knows_what_a_model_takes() -> None:
    source = Residuals()
    assert read(source, *[ran(0.5)] * 100) is None  # never alone: pressure from the start would be taken for the usual


def test_units_that_feel_nothing_tell_nothing() -> None:
    source = used_to(0.0, rise=0.01)
    assert read(source, ran(0.0, rise=0.01)) is None


def test_many_units_are_surer_than_one() -> None:
    chance = random.Random(3)
    source = used_to(0.0)
    one, many = read(source, ran(0.25)), read(source, *(ran(chance.gauss(0.25, 0.05)) for _ in range(25)))
    assert one is not None
    assert many is not None
    assert many.error == pytest.approx(one.error / 5)
    assert many.pressure == pytest.approx(0.5, abs=3 * many.error)


def test_a_unit_slower_than_full_pressure_explains_is_discarded() -> None:
    """It shared its core with somebody: that is no pressure on memory."""
    source = used_to(0.0)
    assert read(source, ran(1.0)) is None
    assert source.discarded == 1


@pytest.mark.parametrize("unit", [Ran("m", 0, 0, 5), Ran("m", 10, 15, 0), Ran("m", 10, 15, -3), Ran("m", 10, 15, 1_000_000)])
def test_absurd_times_are_discarded_and_never_learnt(unit: Ran) -> None:
    source = used_to(0.0)
    assert read(source, unit, alone=True) is None
    assert source.discarded == 1
    assert pressure(read(source, ran(0.25))) == pytest.approx(0.5, abs=0.01)
