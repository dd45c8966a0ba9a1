"""Fixtures that all tests share: the hand-made bundles are built once a session."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundles `tiny` and `slow` (see tests/tiny.py). Read-only: copy one to change it."""
    from tiny import write_tiny_bundles  # imports tvm, which only the tests that need a bundle should pay for

    return write_tiny_bundles(tmp_path_factory.mktemp("tiny") / "artifacts")
