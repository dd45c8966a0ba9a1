"""Reading an ONNX file: the graph into memory, its external weights not. What is no model, or too large a one, is named."""

import hashlib
from pathlib import Path

import onnx
import psutil
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, external_data_helper, inliner

from veltair.errors import ModelTooLarge, NotAnOnnxModel

_CHUNK_BYTES = 1 << 20


def read(path: Path) -> tuple[onnx.ModelProto, str]:
    """The model, external data left where it is, and the SHA-256 of the file and of each data file in order of their names.

    Raises NotAnOnnxModel, ModelTooLarge.
    """
    try:
        size = path.stat().st_size
        refuse_too_large(path, size)
        hashed = hashlib.sha256()
        _feed(hashed, path)
        model = onnx.load_model(str(path), load_external_data=False)
    except OSError as error:
        raise NotAnOnnxModel(f"{path}: cannot be read ({error.strerror}); give the path of an .onnx file") from error
    except (DecodeError, ValueError) as error:
        raise NotAnOnnxModel(f"{path}: {size} bytes that are no ONNX model ({error}); export the model to ONNX") from error
    if not model.graph.node or not model.opset_import:
        raise NotAnOnnxModel(f"{path}: holds no ONNX graph ({size} bytes, no nodes); export the model to ONNX")
    if model.functions:
        model = inliner.inline_local_functions(model)
    files = _external_files(model, path)
    refuse_too_large(path, size + sum(file.stat().st_size for file in files.values()))
    for name, file in sorted(files.items()):
        hashed.update(name.encode())
        _feed(hashed, file)
    return model, hashed.hexdigest()


def digest(path: Path) -> str:
    hashed = hashlib.sha256()
    _feed(hashed, path)
    return hashed.hexdigest()


def refuse_too_large(path: Path, constants_bytes: int) -> None:
    """Raises ModelTooLarge where the constants alone exceed the memory that is available."""
    available = available_bytes()
    if constants_bytes > available:
        raise ModelTooLarge(
            f"{path}: its constants take {constants_bytes / 2**30:.1f} GiB and {available / 2**30:.1f} GiB of memory are "
            "available; free some, compile on a larger machine, or split the model"
        )


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    return int(psutil.virtual_memory().available)


def _feed(hashed: "hashlib._Hash", path: Path) -> None:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hashed.update(chunk)


def _external_files(model: onnx.ModelProto, path: Path) -> dict[str, Path]:
    """Location -> file, of every data file that constants lie in. Each is there and long enough. Raises NotAnOnnxModel."""
    found: dict[str, Path] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        where = external_data_helper.ExternalDataInfo(tensor)
        location = Path(where.location)
        file = path.parent / location
        if location.is_absolute() or ".." in location.parts or not file.is_file():
            problem = "leads out of its folder" if location.is_absolute() or ".." in location.parts else "is not there"
            raise NotAnOnnxModel(
                f"{path}: its external data cannot be read ({where.location!r} {problem}); keep the data file beside the model"
            )
        end = (where.offset or 0) + (where.length or 0)
        if file.stat().st_size < end:
            raise NotAnOnnxModel(
                f"{path}: its external data cannot be read ({where.location!r} has {file.stat().st_size} bytes, "
                f"{tensor.name!r} ends at {end}); copy or export the model anew"
            )
        found[where.location] = file
    return found
