"""A `torch.export` program (.pt2) as ONNX, by PyTorch's own exporter. Loads torch, so only sources.py imports it, when asked to.

Reading a .pt2 runs PyTorch's unpickler on what it holds: as with any model file, compile those you trust.
"""

import logging
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from veltair.compiler.onnx_file import refuse_too_large
from veltair.errors import CompileError, NotATorchProgram, ToolMissing, UnsupportedOperator

OPSET = 18  # the one PyTorch translates to; it reaches others by conversion
_EXPORT_IT = "save the model with torch.export.save(torch.export.export(model, inputs), path)"
_CONTROL_FLOW = {"cond", "while_loop", "map_impl", "scan", "associative_scan"}


def to_onnx(path: Path, folder: Path) -> Path:
    """Write the program at `path` into `folder` as ONNX with its weights beside it; dynamic axes stay dynamic.

    Raises ToolMissing, NotATorchProgram, ModelTooLarge, UnsupportedOperator (control flow, or what has no ONNX form).
    """
    for package in ("torch", "onnxscript"):
        if find_spec(package) is None:
            raise ToolMissing(f'{path.name} is read with {package}, which is not installed: pip install "veltair[torch]"')
    _check_archive(path)
    import torch

    with _quiet() as heard:
        try:
            program = torch.export.load(path)
        except Exception as error:  # its parts raise whatever they stumble over
            if found := re.search(r"Failed deserializing node.*target='(torch\.ops\.[\w.]+)'", str(heard.error)):
                raise UnsupportedOperator(
                    f"{path.name}: calls {found[1]}, which PyTorch itself does not know; export it without custom operators"
                ) from error
            raise NotATorchProgram(
                f"{path}: PyTorch {torch.__version__} cannot read it ({_brief(heard.error or error)}); {_EXPORT_IT}"
            ) from error
        _refuse_control_flow(program, path)
        out = folder / path.name  # errors further on name the file as its owner does
        try:
            torch.onnx.export(program, (), out, opset_version=OPSET, dynamo=True, external_data=True, verbose=False)
        except torch.onnx.OnnxExporterError as error:
            raise _named(error, path) from error
    return out


def _check_archive(path: Path) -> None:
    try:
        refuse_too_large(path, path.stat().st_size)
        with zipfile.ZipFile(path) as archive:
            formats = [archive.read(name) for name in archive.namelist() if name.rpartition("/")[2] == "archive_format"]
    except OSError as error:
        raise NotATorchProgram(f"{path}: cannot be read ({error.strerror}); give the path of a .pt2 file") from error
    except zipfile.BadZipFile as error:
        raise NotATorchProgram(f"{path}: is no archive ({error}); {_EXPORT_IT}") from error
    if formats != [b"pt2"]:
        raise NotATorchProgram(f"{path}: an archive, but not of torch.export (a state dict or TorchScript?); {_EXPORT_IT}")


def _refuse_control_flow(program: Any, path: Path) -> None:
    for module in program.graph_module.modules():
        for node in module.graph.nodes if hasattr(module, "graph") else ():
            called = getattr(node.target, "__name__", str(node.target))
            if node.op == "call_function" and called in _CONTROL_FLOW:
                raise UnsupportedOperator(
                    f"{path.name}: node {node.name!r} is control flow (torch {called}); veltair compiles straight graphs: "
                    "export the model with its branches and loops unrolled"
                )


def _named(error: BaseException, path: Path) -> CompileError:
    """The node that PyTorch found no ONNX form for, out of the chain of its errors."""
    cause: BaseException | None = error
    while cause is not None:
        if found := re.search(r"node %(\w+).*?target=([\w.]+)", str(cause)):
            return UnsupportedOperator(
                f"{path.name}: node {found[1]!r} calls {found[2]}, for which PyTorch knows no ONNX operators; "
                "replace it with standard ones before exporting"
            )
        cause = cause.__cause__
    return CompileError(f"{path.name}: PyTorch cannot write the program as ONNX: {_brief(error)}")


def _brief(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _Heard(logging.Filter):
    """Keeps the last error that was logged: `torch.export.load` raises none but its own, without the reason."""

    error: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            self.error = record.exc_info[1]
        return False


@contextmanager
def _quiet() -> Iterator[_Heard]:
    """PyTorch logs which optional packages it would know too, and warns of deprecations within itself."""
    export, onnx, heard = logging.getLogger("torch.export"), logging.getLogger("torch.onnx"), _Heard()
    level = onnx.level
    onnx.setLevel(logging.CRITICAL)
    export.addFilter(heard)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield heard
    finally:
        export.removeFilter(heard)
        onnx.setLevel(level)
