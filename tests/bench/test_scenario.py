"""Scenarios: the same file gives the same arrivals, and what is wrong with a file is named."""

from pathlib import Path

import numpy as np
import pytest

from veltair.bench.scenario import BURST_REQUESTS, Scenario, TenantLoad, arrivals_of, read_scenario
from veltair.errors import ConfigError

GOOD = """
name = "mixed"
seed = 7
duration_s = 10
warmup_s = 1
[[tenant]]
name = "search"
model = "minilm"
rate_per_s = 20
qos_ms = 50
"""


def load(rate_per_s: float = 50.0, arrivals: str = "poisson", name: str = "ads") -> TenantLoad:
    return TenantLoad(name, "tiny", rate_per_s, 10.0, arrivals=arrivals)  # type: ignore[arg-type]


def scenario(*tenants: TenantLoad, duration_s: float = 100.0, seed: int = 0) -> Scenario:
    return Scenario("test", duration_s, tenants or (load(),), seed, warmup_s=0.0)


def read(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "mixed.toml"
    path.write_text(text)
    return read_scenario(path)


def test_a_scenario_file_is_read_with_its_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD) == Scenario("mixed", 10.0, (TenantLoad("search", "minilm", 20.0, 50.0),), 7, 1.0)


def test_the_same_scenario_and_seed_give_the_same_arrivals() -> None:
    first, again, other = (arrivals_of(scenario(seed=seed)) for seed in (3, 3, 4))
    assert np.array_equal(first.at_us, again.at_us)
    assert not np.array_equal(first.at_us[:100], other.at_us[:100])


def test_another_tenant_does_not_move_the_arrivals_of_the_first() -> None:
    alone = arrivals_of(scenario(load(name="a")))
    both = arrivals_of(scenario(load(name="a"), load(name="b")))
    assert np.array_equal(alone.at_us, both.at_us[both.tenant == 0])
    assert not np.array_equal(alone.at_us[:50], both.at_us[both.tenant == 1][:50])


def test_arrivals_ascend_and_end_with_the_scenario() -> None:
    arrivals = arrivals_of(scenario(load(name="a"), load(300, "burst", "b"), load(10, "uniform", "c")))
    assert (np.diff(arrivals.at_us) >= 0).all()
    assert 0 <= arrivals.at_us[0] <= arrivals.at_us[-1] < 100_000_000


def test_poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() -> None:
    gaps = np.diff(arrivals_of(scenario(duration_s=400.0)).at_us)
    assert gaps.mean() == pytest.approx(20_000, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


def test_uniform_arrivals_keep_one_gap() -> None:
    assert set(np.diff(arrivals_of(scenario(load(100, "uniform"))).at_us)) <= {9_999, 10_000, 10_001}


def test_bursts_come_together_and_keep_the_rate() -> None:
    at_us = arrivals_of(scenario(load(80, "burst"), duration_s=2000.0)).at_us
    assert set(np.unique(at_us, return_counts=True)[1]) == {BURST_REQUESTS}
    assert len(at_us) / 2000.0 == pytest.approx(80, rel=0.05)


def test_scaling_densifies_the_same_pattern() -> None:
    once, twice = (arrivals_of(scenario().scaled(factor)).at_us for factor in (1.0, 2.0))
    assert twice[:100] * 2 == pytest.approx(once[:100], abs=2)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_no_positive_number_is_refused(factor: float) -> None:
    with pytest.raises(ConfigError, match="scale must be above 0"):
        scenario().scaled(factor)


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        ("rate_per_s = 20", "rate_per_s = -2", r"mixed.toml': tenant 'search': rate_per_s must be above 0, got -2"),
        ("rate_per_s = 20", "rate_per_s = nan", r"rate_per_s must be above 0, got nan"),
        ("rate_per_s = 20", 'rate_per_s = "fast"', r"tenant 'search', rate_per_s = 'fast': Expected `float`"),
        ("rate_per_s = 20", "", r"tenant 'search': .*missing required field `rate_per_s`"),
        ("qos_ms = 50", "qos_ms = 50\nqos_s = 1", r"tenant 'search': .*unknown field `qos_s`"),
        ("qos_ms = 50", "qos_ms = 0", r"qos_ms must be above 0"),
        ("qos_ms = 50", "qos_ms = 50\npercentile = 95", r"percentile must lie between 0 and 1 \(0.95 means 95 %\), got 95"),
        ("qos_ms = 50", 'qos_ms = 50\narrivals = "gamma"', r"arrivals = 'gamma': Invalid enum value 'gamma'"),
        ('name = "search"', 'name = ""', r"name and model must not be empty"),
        ("duration_s = 10", "duration_s = inf", r"duration_s must be above 0, got inf"),
        ("duration_s = 10", "duration = 10", r"unknown field `duration`|missing required field `duration_s`"),
        ("warmup_s = 1", "warmup_s = -1", r"warmup_s must be 0 or more"),
        ("seed = 7", "seed = -7", r"seed must be 0 or more"),
        ("seed = 7", "seed = 7.5", r"seed = 7.5: Expected `int`"),
        (GOOD[GOOD.index("[[") :], "", r"missing required field `tenant`"),
        (GOOD[GOOD.index("[[") :], "tenant = []", r"there is no \[\[tenant\]\]"),
        ("[[tenant]]", GOOD[GOOD.index("[[") :] + "[[tenant]]", r"tenant 'search' is there twice with model 'minilm'"),
        ("seed = 7", "seed ==", r"is not TOML: .*line 3"),
    ],
)
def test_what_is_wrong_with_a_scenario_is_named_with_its_value(tmp_path: Path, was: str, becomes: str, message: str) -> None:
    assert was in GOOD
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, GOOD.replace(was, becomes, 1))


def test_a_scenario_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml' cannot be read: No such file"):
        read_scenario(tmp_path / "nowhere.toml")
