"""The public names, and that looking at them costs nothing."""

import subprocess
import sys

import pytest

import veltair


def test_the_public_api_is_exactly_this() -> None:
    assert set(veltair.__all__) == {
        "AsyncClient",
        "Bundle",
        "Client",
        "Compiled",
        "Reply",
        "VeltairError",
        "__version__",
        "compile_model",
        "errors",
        "load_bundle",
        "serve",
    }


@pytest.mark.parametrize("name", veltair.__all__)
def test_every_public_name_is_there_and_documented_by_the_readme(name: str) -> None:
    assert getattr(veltair, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'compile_modle'"):
        _ = veltair.compile_modle


def test_a_client_needs_neither_tvm_nor_onnx() -> None:
    code = "import sys, veltair; veltair.Client; print([m for m in ('tvm', 'onnx', 'onnxruntime', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_error_has_its_own_code() -> None:
    def tree(cls: type[veltair.VeltairError]) -> list[type[veltair.VeltairError]]:
        return [cls, *(below for sub in cls.__subclasses__() for below in tree(sub))]

    codes = [cls.code for cls in tree(veltair.VeltairError) if cls.__module__ == "veltair.errors"]
    assert len(codes) == len(set(codes)) > 25
    assert veltair.errors.__doc__ is not None
    assert all(code in veltair.errors.__doc__ for code in codes if code != "veltair_error")
