"""`veltair calibrate` as an operator meets it: measured once, left alone while it holds, made again with the reason."""

import json
import os
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from veltair.cli import calibrate as command
from veltair.cli import main
from veltair.interference import calibrate as measuring
from veltair.interference.calibrate import Peaks
from veltair.interference.machine import Cache, Machine, this_machine
from veltair.interference.probe import Quiet
from veltair.interference.profile import SCHEMA_VERSION, Bandwidth, HostProfile, Rung, read, write


def a_profile(machine: Machine) -> HostProfile:
    return HostProfile(
        schema_version=SCHEMA_VERSION,
        machine=machine,
        probe=Quiet(100.0, 120.0, 4.0, 9000, discarded=3),
        bandwidth_gb_per_s=Bandwidth(20.0, 34.0),
        ladder=(
            Rung("stream", 0.5, 8.0, 1.2, 1.4, 1.1, 1.3),
            Rung("stream", 1.0, 16.0, 1.6, 1.9, 1.5, 1.7),
            Rung("compute", 1.0, 0.0, 1.0, 1.1),
        ),
        fma_peak_gflops={"fp32": 118.2},
        made_at="2026-01-01T00:00:00+00:00",
        took_s=20.0,
        seed=0,
        versions={},
        notes=("the machine was not quiet",),
    )


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["calibrate", *map(str, arguments)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a profile lies that holds."""
    write(a_profile(this_machine()), tmp_path / "host.json")
    return tmp_path / "host.json"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"ROUNDS": 1, "LEAST_ROUNDS": 1, "LADDER_S": 1.0, "WINDOW_S": 0.002, "SETTLE_S": 0.001, "RATE_S": 0.01}
    for name, value in quick.items():
        monkeypatch.setattr(measuring, name, value)
    monkeypatch.setattr(command, "_peaks_apart", lambda: Peaks({}, {}, "peak unknown: no compiler"))


def test_a_profile_that_holds_is_shown_and_left_as_it_is(path: Path) -> None:
    before = path.read_bytes()
    result = run("--profile", path)
    assert result.exit_code == 0, result.output
    assert f"{path}: unchanged since 2026-01-01T00:00:00+00:00" in result.output
    assert path.read_bytes() == before


def test_the_table_says_what_was_measured(path: Path) -> None:
    shown = " ".join(run("--profile", path).output.split())
    assert "118 GFLOP/s in fp32" in shown
    assert "20.0 GB/s by one core, 34.0 by all" in shown
    assert "100 us, p95 120, spread 4% (9000 readings; 3 absurd ones discarded)" in shown
    assert "stream 50% 8.0 1.20 1.10 1.30 1.40 100% 16.0 1.60 1.50 1.70 1.90" in shown
    assert "compute 100% - 1.00 1.00 1.00 1.10" in shown
    assert "note: the machine was not quiet" in shown


def test_a_servers_threads_nodes_and_caches_are_shown_as_taskset_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    server = Machine(
        cpu="Some Xeon",
        kernel="6.1.0",
        cpus=16,
        cores=(0, 1, 2, 3, 8, 9),
        quota=4.5,
        siblings=((0, 8), (1, 9), (2,), (3,)),
        nodes=((0, 1, 8, 9), (2, 3)),
        caches=(Cache(2, 1 << 20, (2,)), Cache(2, 1 << 20, (3,)), Cache(3, 16 << 20, (0, 1, 8, 9)), Cache(3, 16 << 20, (2, 3))),
    )
    facts = dict(command._facts(a_profile(server), server))
    assert facts["cores"] == "0-3,8-9 of 16, a CPU quota of 4.5"
    assert facts["threads"] == "2 a core (SMT): 0,8 | 1,9 | 2 | 3"
    assert facts["memory nodes"] == "2: 0-1,8-9 | 2-3"
    assert facts["L2"] == "1 MiB a core"
    assert facts["L3"] == "16 MiB for 0-1,8-9 | 2-3"


def test_json_tells_where_whether_and_why(path: Path) -> None:
    told = json.loads(run("--profile", path, "--json").output)
    assert (told["path"], told["made"], told["reason"]) == (str(path), False, "unchanged since 2026-01-01T00:00:00+00:00")
    assert told["profile"]["ladder"][0]["kind"] == "stream"


@pytest.mark.usefixtures("hasty")
def test_a_profile_of_an_older_kernel_is_made_again_and_the_reason_said(path: Path) -> None:
    here = this_machine()
    write(a_profile(msgspec.structs.replace(here, kernel="4.4.0")), path)
    result = run("--profile", path)
    assert result.exit_code == 0, result.output
    assert f"it was made under Linux 4.4.0, this is {here.kernel}" in result.output
    assert "peak of a core unknown" in " ".join(result.output.split())
    assert "note: peak unknown: no compiler" in result.output
    assert read(path).machine == here
    assert "unchanged" in run("--profile", path).output


@pytest.mark.usefixtures("hasty")
def test_a_profile_of_another_schema_is_made_again(path: Path) -> None:
    path.write_text(json.dumps({"schema_version": 0}))
    told = json.loads(CliRunner().invoke(main, ["calibrate", "--profile", str(path), "--json"]).stdout)
    assert told["made"]
    assert "has schema version 0" in told["reason"]


@pytest.mark.usefixtures("hasty")
def test_a_file_that_is_something_else_is_not_written_over_unless_forced(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("remember the milk")
    result = run("--profile", notes)
    assert result.exit_code == 1
    assert "notes.txt is no host profile" in result.output
    assert "[bad_profile]" in result.output
    assert notes.read_text() == "remember the milk"
    assert run("--profile", notes, "--force").exit_code == 0
    assert read(notes).machine == this_machine()


def test_where_nothing_can_be_written_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> Peaks:
        raise AssertionError("measured for nothing")

    monkeypatch.setattr(command, "_peaks_apart", never)
    (tmp_path / "file").write_text("")
    result = run("--profile", tmp_path / "file" / "host.json", "--force")
    assert result.exit_code == 1
    assert "cannot be written" in result.output


def test_the_variable_names_the_file(path: Path) -> None:
    result = CliRunner().invoke(main, ["calibrate"], env={"VELTAIR_HOST_PROFILE": str(path)})
    assert f"{path}: unchanged" in result.output


def test_a_missing_compiler_leaves_the_peak_unknown_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'tvm'", name="tvm")

    monkeypatch.setattr(command, "import_module", missing)
    assert command._peaks() == Peaks({}, {}, 'peak unknown: tvm is not installed; run: pip install "veltair[engine]"')


def test_a_compiler_that_crashes_leaves_the_peak_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_peaks", os.abort)
    made = command._peaks_apart()
    assert made.gflops == {}
    assert "peak unknown: the process of abort was ended by SIGABRT" in made.note
