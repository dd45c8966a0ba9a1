"""scripts/bench_interference: what it says of itself, its scenarios, and the parts that need no machine."""

import json
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from tests.bench.bundles import block, manifest, variant
from veltair.bench.scenario import read_scenario
from veltair.bundle.store import write_bundle
from veltair.simulate.workload import Outside, OutsideStep, read_workload

SCRIPTS = Path(__file__).parents[2] / "scripts"
SCENARIOS = SCRIPTS / "scenarios" / "interference"


@cache
def module() -> ModuleType:
    loader = SourceFileLoader("bench_interference", str(SCRIPTS / "bench_interference"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    loaded = module_from_spec(spec)
    loader.exec_module(loaded)
    return loaded


def script(*arguments: object) -> Result:
    return CliRunner().invoke(module().main, list(map(str, arguments)))


def test_help_names_every_part() -> None:
    done = script("--help")
    assert done.exit_code == 0, done.output
    for word in ("variants", "engine", "simulated", "prediction", "--json", "--quick", "--parts", "--seed", "--bundles"):
        assert word in done.output


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--parts", "variants,nothing", "nothing is not known; choose from variants, engine"),
        ("--beside", "crowd", "crowd is not known; choose from quiet, stream"),
    ],
)
def test_what_is_not_known_is_refused_with_what_there_is(option: str, value: str, said: str) -> None:
    done = script(option, value)
    assert done.exit_code != 0
    assert said in " ".join(done.output.replace("│", " ").split())


def test_tables_of_bundles_are_read_without_running_anything(tmp_path: Path) -> None:
    code = tmp_path / "blocks.so"
    code.write_bytes(b"no code")
    crossing = block("00-conv", variant("direct", (120, 130, 140)), variant("fast", (100, 150, 240), algorithm="winograd"))
    write_bundle(tmp_path / "bundles" / "net", manifest(crossing), b"", code, {})
    done = script("--parts", "variants", "--bundles", tmp_path / "bundles", "--json", tmp_path / "rows.json")
    assert done.exit_code == 0, done.output
    found = {(row["case"], row["metric"]): row["value"] for row in json.loads((tmp_path / "rows.json").read_text())}
    assert found["net, winograd fp32, 1 core", "bandwidth 1"] == 2.4
    assert found["all models, fp32 permitted, 1 core, bandwidth", "best changes"] == 2
    assert "winograd fp32" in done.output


@pytest.mark.parametrize("name", ["quiet", "noisy"])
def test_a_scenario_counts_a_tight_and_a_heavier_tenant(name: str) -> None:
    scenario = read_scenario(SCENARIOS / f"{name}.toml")
    assert [(tenant.model, tenant.background) for tenant in scenario.tenant][:2] == [("mobilenet-v2", False), ("resnet50", False)]
    assert all(tenant.background for tenant in scenario.tenant[2:])


@pytest.mark.parametrize("name", ["simulated", "simulated-noisy"])
def test_a_simulated_workload_is_read(name: str) -> None:
    assert {tenant.model for tenant in read_workload(SCENARIOS / f"{name}.toml").tenant} >= {"mobilenet-v2", "resnet50"}


def test_simulated_outsiders_hold_a_quarter_of_the_cores_and_press_only_if_they_stream() -> None:
    found = {name: module().outside_of(pressure, held, 16) for name, _, pressure, held in module().SIMULATED}
    assert found["quiet"] == found["noisy co-tenants"] == Outside()
    assert found["streaming outsider"].told == (OutsideStep(0.0, 0.5, 4),)
    assert found["CPU-hungry outsider"].told == (OutsideStep(0.0, 0.0, 4),)
