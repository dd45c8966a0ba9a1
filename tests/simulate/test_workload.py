"""A workload file is checked at the edge: what is wrong is named, with its place and a remedy."""

from pathlib import Path

import pytest

from veltair.errors import ConfigError
from veltair.simulate.setting import prepare
from veltair.simulate.workload import Bursts, read_workload, ready_workloads

TENANT = '[[tenant]]\nname = "a"\nmodel = "m"\nqos_ms = 20\n'
MODEL = '[[model]]\nname = "m"\nservice_ms = 4\n'
ONE_CORE = "machine.cores = 1\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "w.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ready_workloads())
def test_every_workload_that_comes_along_can_be_simulated(name: str) -> None:
    assert prepare(read_workload(name)).capacity_per_s > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TENANT, "tenant 'a': give either share (of all requests) or rate_per_s"),
        (TENANT + "share = 1\nrate_per_s = 3", "tenant 'a': give either share"),
        (TENANT + "rate_per_s = -3", "tenant 'a': rate_per_s must be above 0, got -3"),
        (TENANT + "share = 1\ncolour = 2", "Object contains unknown field `colour`"),
        (TENANT + "share = 1\npercentile = 95", "percentile must lie between 0 and 1 (0.95 means 95 %), got 95"),
        (TENANT + 'share = 1\narrivals = "sometimes"', "tenant 'a' arrivals = 'sometimes'"),
        (TENANT + 'share = 1\narrivals = { kind = "bursts", factor = 0.5 }', "factor must be above 1, got 0.5"),
        (TENANT + 'share = 1\narrivals = { kind = "closed", clients = 3 }', "a closed loop has clients in place of share"),
        ("machine.cores = 0\n" + TENANT + "share = 1", "machine: cores must be above 0, got 0"),
        ('model = [{ name = "m" }]\n' + TENANT + "share = 1", "model 'm': give either csv (a file of layer times) or service_ms"),
        (TENANT + "share = 1\n" + TENANT + "share = 1", "tenant 'a' is there twice"),
        ("requests = 100", "Object missing required field `tenant`"),
        ("tenant = ]", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_workload(written(tmp_path, text))
    assert said in str(raised.value)
    assert "w.toml" in str(raised.value)


def test_a_file_that_is_not_there_is_answered_with_the_names_of_ready_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file .*one of: .*mixed"):
        read_workload(tmp_path / "none.toml")


def test_a_model_without_times_is_named_with_those_that_have_some(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model 'm' has no measured times; there are: .*resnet50"):
        prepare(read_workload(written(tmp_path, TENANT + "share = 1")))


def test_a_target_that_no_core_count_meets_is_refused_with_the_best_time(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tenant 'a': qos_ms = 20 cannot be met, model 'm' takes 40.0 ms at best, on 1 core;"):
        prepare(read_workload(written(tmp_path, TENANT + "share = 1\n" + MODEL.replace("4", "40"))))


def test_weights_larger_than_the_budget_are_refused(tmp_path: Path) -> None:
    text = TENANT + "share = 1\n" + MODEL + "weights_mb = 20\n[machine]\nweights_budget_mb = 10\n"
    with pytest.raises(ConfigError, match="model 'm' has 20 MB of weights, weights_budget_mb is 10; raise it"):
        prepare(read_workload(written(tmp_path, text)))


def test_capacity_counts_every_core_and_each_models_thriftiest_core_count(tmp_path: Path) -> None:
    setting = prepare(read_workload(written(tmp_path, "machine.cores = 2\n" + TENANT + "share = 1\n" + MODEL)))
    assert setting.capacity_per_s == pytest.approx(500)
    hurried = TENANT.replace("20", "3") + "share = 1\n" + MODEL + "two_core_speedup = 1.6\n"  # 2.5 ms on both cores
    assert prepare(read_workload(written(tmp_path, "machine.cores = 2\n" + hurried))).capacity_per_s == pytest.approx(400)


def test_rates_state_a_load_and_shares_do_not(tmp_path: Path) -> None:
    rated = prepare(read_workload(written(tmp_path, ONE_CORE + TENANT + "rate_per_s = 30\n" + MODEL)))
    shared = prepare(read_workload(written(tmp_path, ONE_CORE + TENANT + "share = 1\n" + MODEL)))
    assert (rated.base_per_s, shared.base_per_s) == (30, None)


def test_arrivals_are_a_word_or_a_table(tmp_path: Path) -> None:
    word = read_workload(written(tmp_path, TENANT + 'share = 1\narrivals = "bursts"'))
    table = read_workload(written(tmp_path, TENANT + 'share = 1\narrivals = { kind = "bursts", factor = 8.0 }'))
    assert word.tenant[0].process == table.tenant[0].process == Bursts()


def test_cores_are_placed_in_order(tmp_path: Path) -> None:
    machine = "[machine]\ncores = 8\nthreads_per_core = 2\ncores_per_cache = 2\ncores_per_node = 4\n"
    places = prepare(read_workload(written(tmp_path, TENANT + "share = 1\n" + MODEL + machine))).machine.places
    assert [tuple(places[core]) for core in sorted(places)] == [
        *[(0, 0, 0), (0, 0, 0), (1, 0, 0), (1, 0, 0)],
        *[(2, 1, 0), (2, 1, 0), (3, 1, 0), (3, 1, 0)],
    ]
