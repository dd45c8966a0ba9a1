"""Benchmark rows: the keys DESIGN names, on disk and in print."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from veltair.bench.result import BenchResult, PolicyResult, TenantResult
from veltair.bench.rows import Row, machine_name, print_rows, write_rows
from veltair.bench.scenario import Scenario, TenantLoad
from veltair.errors import ConfigError

KEYS = {"case", "metric", "value", "unit", "against", "ratio", "target", "met", "spread", "machine", "seed"}


def result_of(policy: str, in_qos: float) -> PolicyResult:
    return PolicyResult(policy, (TenantResult("ads", "tiny", 10.0, 0.95, 100, in_qos, 1.0, 2.0, 3.0, 1, 2, {"timeout": 3}),), 150)


def test_rows_on_disk_hold_every_key(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.json"
    write_rows(path, [Row(case="c", metric="m", value=1.5, unit="ms", machine="here")])
    (row,) = json.loads(path.read_text())
    assert set(row) == KEYS


def test_a_load_result_becomes_rows_held_against_the_first_policy() -> None:
    scenario = Scenario("mixed", 10.0, (TenantLoad("ads", "tiny", 5.0, 10.0),), 3)
    rows = BenchResult(scenario, "here", (result_of("fcfs", 0.8), result_of("veltair", 0.96))).rows()
    in_qos = {row.case: (row.value, row.against, row.ratio, row.met) for row in rows if row.metric == "in_qos"}
    assert in_qos == {
        "mixed/fcfs/ads": (0.8, None, None, False),
        "mixed/veltair/ads": (0.96, "fcfs", pytest.approx(1.2), True),
    }
    assert {(row.metric, row.value) for row in rows if row.case == "mixed/fcfs/ads"} >= {("p99", 3.0), ("errors", 3.0)}
    assert [row.value for row in rows if row.metric == "generator_lateness_p99"] == [0.15, 0.15]


def test_a_figure_that_was_not_measured_prints_as_a_dash() -> None:
    console = Console(record=True, width=120, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        print_rows([Row(case="c", metric="p99", value=None, unit="ms", machine="here")], console=console)
        assert "-" in console.export_text()


def test_the_machine_is_named_with_its_cores() -> None:
    assert machine_name().endswith(("core", "cores"))


def test_results_that_cannot_be_written_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be written: Is a directory; name a writable file"):
        write_rows(tmp_path, [])
