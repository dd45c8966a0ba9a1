"""The command line as its users meet it: help with examples, clear errors, exit codes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from veltair.cli import _COMMANDS, main

README = Path(__file__).parent.parent.parent / "README.md"


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_has_help_with_an_example_and_stands_in_the_readme(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Example" in result.output
    assert f"veltair {name}" in result.output
    assert f"veltair {name}" in README.read_text()


def test_help_lists_every_command_and_how_to_complete() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert all(name in result.output for name in _COMMANDS)
    assert "_VELTAIR_COMPLETE" in result.output


def test_an_unknown_command_is_wrong_usage() -> None:
    result = CliRunner().invoke(main, ["complie"])
    assert result.exit_code == 2
    assert "complie" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothere.onnx"], "nothere.onnx: cannot be read"),
        (["{text}"], "no ONNX model"),
        (["{text}", "--input", "x=1x3xbig"], "'x=1x3xbig' is no shape; write it like x=1x3x320x320"),
        (["{text}", "--qos", "fast"], "'fast' is no time; write it like 60ms"),
        (["{text}", "--qos", "0ms"], "'0ms' is no time"),
        (["{text}", "--batch", "1,0"], "'1,0' are no batch sizes; write them like 1,4"),
        (["{text}", "--precision", "int3"], "'int3' is not one of 'fp32', 'bf16', 'all'"),
        (["{text}", "--image", "x=nhcw"], "layout 'nhcw' is neither nhwc nor nchw; write it like"),
        (["{text}", "--name", "../up"], "model name '../up'"),
        (["{text}", "--gate-inputs", "{text}"], "is no .npz file of arrays"),
        (["models.gpt-9"], "models.gpt-9: cannot be read"),
    ],
)
def test_compile_names_what_is_wrong_and_writes_nothing(arguments: list[str], said: str, tmp_path: Path) -> None:
    text = tmp_path / "notes.onnx"
    text.write_text("no model at all")
    out = tmp_path / "bundles"
    result = CliRunner().invoke(main, ["compile", *(a.format(text=text) for a in arguments), "-o", str(out)])
    assert result.exit_code in (1, 2)
    assert said in result.output.replace("\n", "")
    assert not out.exists()


def test_models_lists_the_zoo_as_json() -> None:
    result = CliRunner().invoke(main, ["models", "--json"])
    names = [row["name"] for row in json.loads(result.output)]
    assert names[:5] == ["ocr-det", "ocr-rec", "minilm", "efficientnet-lite0", "magika"]
    assert "resnet50" in names


def test_health_of_a_server_that_is_not_there_fails_with_its_code() -> None:
    result = CliRunner().invoke(main, ["health", "--endpoint", "tcp://127.0.0.1:9", "--timeout-ms", "200"])
    assert result.exit_code == 1
    assert "tcp://127.0.0.1:9" in result.output


def test_health_at_what_is_no_endpoint_fails_at_once() -> None:
    result = CliRunner().invoke(main, ["health", "--endpoint", "tcp://x"])
    assert result.exit_code == 1
    assert "'tcp://x' is no endpoint: Invalid argument" in result.output
