"""Tensors as raw frames: how a message and its tensors become a list of frames, and back without a copy."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from veltair.errors import BadTensor
from veltair.wire.messages import TensorHeader, encode

Array = npt.NDArray[Any]
Buffer = bytes | memoryview

# Only plain numbers travel; NumPy's own spellings of other types ("object", "V8", "<f4") are refused.
NAMES = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64"
DTYPES = {name: np.dtype(name) for name in NAMES.split()}
_NAME_OF = {dtype: name for name, dtype in DTYPES.items()}  # NumPy makes up `dtype.name` anew each time, in 3 us


def tensor_headers(tensors: Mapping[str, Array]) -> tuple[TensorHeader, ...]:
    """Raises BadTensor for a dtype that cannot travel."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAME_OF:
            raise BadTensor(f"tensor {name!r} has dtype {tensor.dtype}, which cannot be sent; convert it to one of {_known()}")
    return tuple(TensorHeader(name, _NAME_OF[tensor.dtype], tensor.shape) for name, tensor in tensors.items())


def frames_of(message: object, tensors: Mapping[str, Array]) -> list[Buffer]:
    """Header frame, then one frame a tensor in the mapping's order (that of `tensor_headers`)."""
    return [encode(message), *(_bytes_of(tensor) for tensor in tensors.values())]


def tensors_from(headers: Sequence[TensorHeader], frames: Sequence[Buffer]) -> dict[str, Array]:
    """Arrays over the frames' own memory. Raises BadTensor where a header and its frame do not fit each other."""
    if len(headers) != len(frames):
        raise BadTensor(f"the header names {len(headers)} tensors but {len(frames)} frames follow; send one frame a tensor")
    tensors: dict[str, Array] = {}
    for header, frame in zip(headers, frames, strict=True):
        dtype = DTYPES.get(header.dtype)
        if dtype is None:
            raise BadTensor(f"tensor {header.name!r} has unknown dtype {header.dtype!r}; known: {_known()}")
        if any(extent < 0 for extent in header.shape):
            raise BadTensor(f"tensor {header.name!r} has shape {list(header.shape)}; extents must not be negative")
        expected, got = prod(header.shape) * dtype.itemsize, memoryview(frame).nbytes
        if expected != got:
            raise BadTensor(
                f"tensor {header.name!r} is {header.dtype} {list(header.shape)}, which takes {expected} bytes, "
                f"but its frame holds {got}; send the array's bytes in C order"
            )
        if header.name in tensors:
            raise BadTensor(f"tensor {header.name!r} is given twice; give each once")
        tensors[header.name] = np.frombuffer(frame, dtype).reshape(header.shape)
    return tensors


def _bytes_of(tensor: Array) -> Buffer:
    if tensor.flags.c_contiguous and tensor.dtype.isnative and tensor.size:
        return tensor.data.cast("B")
    little = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data if little.size else b""


def _known() -> str:
    return ", ".join(DTYPES)
