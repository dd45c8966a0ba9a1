"""scripts/bench_goodput: what it says of itself, and what it refuses before anything is measured."""

import runpy
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_goodput"


@pytest.fixture(scope="module")
def command() -> click.Command:
    made = runpy.run_path(str(SCRIPT), run_name="bench_goodput")["main"]
    assert isinstance(made, click.Command)
    return made


def run(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, prog_name="bench_goodput")


def test_help_names_the_contenders_the_mixes_and_the_targets(command: click.Command) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0, done.stderr
    for word in ("veltair", "fcfs", "openvino-bf16", "alone", "light,medium,heavy,mixed", "2.5x", "--json", "--plot", "--quick"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--only", "light,dark"), "dark is not known; choose from light, medium, heavy, mixed"),
        (("--contenders", "veltair,triton"), "triton is not known; choose from veltair, "),
        (("--contenders", ""), "nothing is not known; choose from veltair, "),
        (("--contenders", "alone", "--rounds", "0"), "0 is not in the range x>=1"),
        (("--resume",), "--resume goes on with the rows of --json FILE"),
        (("--bundles", "no-such-folder"), "no bundle in no-such-folder"),
    ],
)
def test_what_it_does_not_know_is_refused_before_anything_is_measured(
    command: click.Command, arguments: tuple[str, ...], complaint: str
) -> None:
    done = run(command, *arguments)
    assert done.exit_code != 0
    assert complaint in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_it_goes_on_only_with_a_file_of_rows(command: click.Command, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{"rows": 3}')
    done = run(command, "--resume", "--json", str(tmp_path / "rows.json"))
    assert done.exit_code != 0
    assert "holds no rows of a benchmark" in done.stderr
