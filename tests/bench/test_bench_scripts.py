"""scripts/bench_models and bench_kernels: what they say of themselves, and what they refuse before anything is measured."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, SCRIPTS / name, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", ["bench_models", "bench_kernels"])
def test_help_names_what_is_compared_and_every_option_of_a_benchmark(name: str) -> None:
    done = script(name, "--help")
    assert done.returncode == 0, done.stderr
    for word in ("fp32", "bf16", "OpenVINO", "--json", "--quick", "--seed", "--models"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("bench_models", "--models", "nothing-like-it"), "nothing-like-it is not known; choose from ocr-det"),
        (("bench_kernels", "--models", "minilm,nothing-like-it"), "nothing-like-it is not known; choose from ocr-det"),
        (("bench_models", "--input", "x=axb"), "'x=axb' is no shape; write it like x=1x3x320x320"),
    ],
)
def test_what_it_does_not_know_is_refused_before_anything_is_measured(arguments: tuple[str, ...], complaint: str) -> None:
    done = script(*arguments)
    assert done.returncode != 0
    assert complaint in " ".join(done.stderr.replace("│", " ").split())
    assert done.stdout == ""
