"""`veltair simulate` as its users meet it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from veltair.cli import main
from veltair.simulate.setting import prepare
from veltair.simulate.workload import read_workload

GOLDEN = Path(__file__).parent.parent / "simulate" / "golden" / "engine_fcfs.jsonl"
QUICK = ("--workload", "queue-heavy", "--policy", "fcfs", "--seeds", "1", "--requests", "100")


def simulate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["simulate", *map(str, arguments)])


def test_a_table_a_file_a_page_and_a_trace_come_of_one_simulation(tmp_path: Path) -> None:
    json_file, page, trace = tmp_path / "new" / "r.json", tmp_path / "r.html", tmp_path / "t.json"
    result = simulate(*QUICK, "--load", "0.5", "--json", json_file, "--html", page, "--trace", trace)
    assert result.exit_code == 0, result.output
    assert "Largest load at which every tenant keeps its percentile in QoS" in result.output
    assert "a20: stated, 20 equal blocks of 1000 us; measured for 1 cores" in result.output
    assert json.loads(json_file.read_text())["policies"][0]["name"] == "fcfs"
    assert page.read_text().startswith("<!doctype html>")
    assert json.loads(trace.read_text())["traceEvents"]


def test_modelled_core_counts_are_said_to_be_modelled(tmp_path: Path) -> None:
    result = simulate("--workload", "medium", "--cores", "16", "--policy", "fcfs", "--seeds", "1", "--requests", "100")
    assert result.exit_code == 0, result.output
    assert "16 cores" in result.output
    assert "measured for 1 and 2 cores, modelled for 3 to 16" in result.output


def test_layer_times_of_ones_own_take_the_place_of_measured_ones(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("layer,cores_1,cores_2\n0,4000,2100\n")
    options = ("--workload", "published", "--cores", "2", "--policy", "fcfs", "--seeds", "1", "--requests", "100")
    result = simulate(*options, "--csv", f"resnet50={tmp_path / 'l.csv'}")
    assert result.exit_code == 0, result.output
    assert "measured, l.csv: 1 layers" in result.output


@pytest.mark.parametrize(
    ("arguments", "said", "status"),
    [
        ((), "name either a workload (--workload) or a decision log (--replay)", 2),
        (("--workload", "mixed", "--replay", "x"), "name either a workload", 2),
        (("--workload", "mixed", "--policy", "magic"), "'magic' is none; choose of: veltair", 2),
        (("--workload", "mixed", "--policy", "fcfs,fcfs"), "name each policy once", 2),
        (("--workload", "mixed", "--cores", "0"), "0 is not in the range", 2),
        (("--workload", "mixed", "--csv", "resnet50"), "'resnet50' must be like resnet50=layers.csv", 2),
        (("--workload", "mixed", "--csv", "vgg=l.csv"), "--csv names model 'vgg', which no tenant of 'mixed' asks for", 1),
        (("--workload", "none.toml"), "cannot be read: No such file", 1),
        (("--workload", "published", "--cores", "4"), "measured on 8 cores and more", 1),
        (("--workload", "light", "--cores", "1"), "cannot be met", 1),
        (("--workload", "light", "--bundles", "nowhere"), "no folder", 1),
        (("--replay", "none.jsonl"), "cannot be read", 1),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(arguments: tuple[str, ...], said: str, status: int) -> None:
    result = simulate(*arguments)
    assert result.exit_code == status
    assert said in " ".join(result.output.split())


def test_an_error_names_its_code() -> None:
    assert "(bad_config)" in simulate("--workload", "none.toml").output
    assert "(bad_log)" in simulate("--replay", "none.jsonl").output


def test_an_engines_log_replays(tmp_path: Path) -> None:
    result = simulate("--replay", GOLDEN)
    assert result.exit_code == 0, result.output
    assert "run 1, fcfs: " in result.output
    assert "events agree" in result.output


def test_a_replay_that_differs_shows_the_first_difference_and_fails(tmp_path: Path) -> None:
    lines = GOLDEN.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if '"type":"dispatched"' in line)
    lines[at] = lines[at].replace('"first_block":0', '"first_block":1')
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    result = simulate("--replay", tmp_path / "log.jsonl")
    assert result.exit_code == 3
    assert "then one differs" in result.output
    assert "first_block=1" in result.output
    assert "first_block=0" in result.output


def recorded(tmp_path: Path, csv: str, rate: str = "") -> Path:
    (tmp_path / "day.csv").write_text(csv)
    workload = tmp_path / "workload.toml"
    workload.write_text(f"""
requests = 200
[machine]
cores = 2
[[model]]
name = "m"
service_ms = 5
[[tenant]]
name = "files"
model = "m"
qos_ms = 20
{rate}
arrivals = {{ kind = "replay", file = "day.csv" }}
""")
    return workload


@pytest.mark.parametrize("csv", ["at_s\n0\n0.05\n0.1\n0.12\n0.3\n", "minute,requests\n0,900\n1,600\n"], ids=["times", "minutes"])
def test_recorded_arrivals_are_played_as_fast_as_they_came(tmp_path: Path, csv: str) -> None:
    workload = recorded(tmp_path, csv)
    assert prepare(read_workload(str(workload))).base_per_s == pytest.approx(12.5 if "minute" in csv else 5 / 0.375)
    result = simulate("--workload", workload, "--policy", "fcfs", "--seeds", 1)
    assert result.exit_code == 0, result.output


def test_a_bad_recording_is_named_before_anything_runs(tmp_path: Path) -> None:
    result = simulate("--workload", recorded(tmp_path, "at_s\n1\nsoon\n"), "--policy", "fcfs")
    assert result.exit_code == 1
    assert "day.csv', line 3: at_s = 'soon' is not a number (bad_config)" in " ".join(result.output.split())
    assert "seed" not in result.output
