"""Reads safetensors files: eight bytes of header length, a JSON header, raw little-endian data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from veltair.errors import CompileError
from veltair.models.source import Tensor

DTYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "u1"}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor by name, backed by the file (read-only). Raises CompileError where the file is damaged."""
    try:
        data = np.memmap(path, np.uint8, mode="r")
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())
        header.pop("__metadata__", None)
        return {name: _tensor(data[start:], entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CompileError(f"{path.name} is not a sound safetensors file ({error}); install its package again") from error


def _tensor(data: Tensor, entry: Mapping[str, Any]) -> Tensor:
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= len(data):
        raise ValueError(f"offsets {begin}..{end} lie outside {len(data)} bytes of data")
    return np.asarray(data[begin:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"]))
