"""scripts/bench_main: what it says of itself, what it refuses, and the scenario that comes with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from veltair.bench.goodput import tight
from veltair.bench.scenario import read_scenario
from veltair.models import MODELS

SCRIPTS = Path(__file__).parents[2] / "scripts"


def bench_main(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, SCRIPTS / "bench_main", *arguments], capture_output=True, text=True, timeout=60)


def test_help_names_the_parts_and_every_option_of_a_benchmark() -> None:
    done = bench_main("--help")
    assert done.returncode == 0
    for word in ("models", "overhead", "goodput", "--json", "--quick", "--seed", "--only"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--only", "models,speed"), "speed is not known; choose from models, overhead, goodput"),
        (("--models", ""), "nothing is not known; choose from ocr-det"),
        (("--scenario", "no-such.toml"), "scenario 'no-such.toml' cannot be read"),
    ],
)
def test_what_it_does_not_know_is_refused_before_anything_is_measured(arguments: tuple[str, ...], complaint: str) -> None:
    done = bench_main(*arguments)
    assert done.returncode != 0
    assert complaint in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_the_scenario_has_three_tenants_whose_models_we_have_and_a_tight_one() -> None:
    scenario = read_scenario(SCRIPTS / "scenarios" / "main.toml")
    assert {tenant.name for tenant in scenario.tenant} == {"docs", "search", "files"}
    assert {tenant.model for tenant in scenario.tenant} <= set(MODELS)
    qos_ms = sorted(tenant.qos_ms for tenant in scenario.tenant)
    assert scenario.tenant[tight(scenario)].name == "files"
    assert qos_ms[0] * 4 <= qos_ms[1]
