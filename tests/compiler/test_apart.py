"""A function in a process of its own: its value or its error comes back, and nothing of it stays."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from veltair.bundle.store import read_manifest
from veltair.compiler.apart import Apart
from veltair.errors import BundleMissing, CompileError


def test_a_value_comes_back_from_another_process() -> None:
    with Apart(os.getpid) as process:
        assert process.result() != os.getpid()


def test_an_error_of_ours_comes_back_as_itself(tmp_path: Path) -> None:
    with Apart(read_manifest, tmp_path) as process, pytest.raises(BundleMissing, match="no bundle in"):
        process.result()


def test_any_other_error_says_that_the_process_ended(capfd: pytest.CaptureFixture[str]) -> None:
    with Apart(int, "seven") as process, pytest.raises(CompileError, match="process of int ended with 1"):
        process.result()
    assert "invalid literal for int() with base 10: 'seven'" in capfd.readouterr().err


def test_a_process_that_is_killed_is_told_of() -> None:
    with Apart(os.abort) as process, pytest.raises(CompileError, match="was ended by SIGABRT"):
        process.result()


def test_who_leaves_early_ends_it() -> None:
    before = set(psutil.Process().children())
    with Apart(time.sleep, 600):
        [started] = set(psutil.Process().children()) - before
    assert not started.is_running()


def test_tvm_is_imported_without_torch_and_torch_may_still_be_found() -> None:
    pytest.importorskip("tvm")
    pytest.importorskip("torch")
    check = (
        "import sys; from importlib.util import find_spec; from veltair.compiler.tvm_alone import import_tvm; import_tvm(); "
        "assert 'tvm' in sys.modules and 'torch' not in sys.modules; assert find_spec('torch')"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
