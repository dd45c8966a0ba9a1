"""TVM without PyTorch, for processes that never need the latter: tvm_ffi imports it wherever it is installed, for 1.5 s."""

import sys
from importlib import import_module


def import_tvm() -> None:
    """Import TVM. Where nobody has loaded PyTorch by now, nobody may do it later: their libraries want to be loaded torch first.

    Raises ModuleNotFoundError.
    """
    if "torch" not in sys.modules:
        sys.modules["torch"] = None  # type: ignore[assignment]  # what the import system takes for "is not installed"
        try:
            import_module("tvm")
        finally:
            del sys.modules["torch"]
