"""Bisection for the load at which a given share of requests is in QoS."""

import math

import pytest

from veltair.bench.find_load import find_load
from veltair.errors import ConfigError


class Measured:
    """A machine whose share in QoS falls smoothly with the load and is one half at `half_at`."""

    def __init__(self, half_at: float) -> None:
        self.half_at = half_at
        self.scales: list[float] = []

    def __call__(self, scale: float) -> float:
        self.scales.append(scale)
        return 1 / (1 + (scale / self.half_at) ** 3)


@pytest.mark.parametrize("half_at", [0.1, 0.9, 1.0, 7.0, 40.0])
def test_the_first_probe_is_within_tolerance_of_the_share_wherever_the_machine_stands(half_at: float) -> None:
    machine = Measured(half_at)
    best, *others = find_load(0.80, machine, tolerance=0.02, probes=20)
    assert best.share == pytest.approx(0.80, abs=0.02)
    assert best.scale == pytest.approx(half_at * (1 / 0.80 - 1) ** (1 / 3), rel=0.06)
    assert len(others) + 1 == len(machine.scales) < 16


def test_a_start_that_fits_is_probed_once() -> None:
    assert [probe.scale for probe in find_load(0.80, lambda scale: 0.81, start=3.0)] == [3.0]


def test_a_cliff_ends_after_the_probes_allowed_with_the_nearer_side_first() -> None:
    probes = find_load(0.80, lambda scale: 0.95 if scale < 2.5 else 0.30, probes=7)
    assert len(probes) == 7
    assert probes[0].share == 0.95
    assert max(p.scale for p in probes if p.share == 0.95) == pytest.approx(2.5, rel=0.1)


def test_both_sides_are_seen_before_the_number_of_probes_counts() -> None:
    probes = find_load(0.80, lambda scale: 0.95 if scale < 30 else 0.30, probes=2)
    assert {probe.share for probe in probes} == {0.95, 0.30}


@pytest.mark.parametrize(("share", "side"), [(1.0, "more"), (0.0, "less"), (math.nan, "less")])
def test_a_share_that_no_load_reaches_is_an_error_that_says_what_to_change(share: float, side: str) -> None:
    with pytest.raises(ConfigError, match=rf"{side} than 80% in QoS at every scale .* write rates and targets"):
        find_load(0.80, lambda scale: share)
