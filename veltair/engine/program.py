"""A bundle made runnable: its kernels and weights in memory, and calls prebuilt for each arena.

Theory of operation: a model is a straight line of kernel calls over numbered tensors. All pointers are known once an
arena (the activation memory of one request) exists, so every argument array is built then, once; running a unit is a
single call of `veltair_run` (runner.c) through ctypes, which gives up the GIL for the whole unit. TVM's relax virtual
machine is not used: it costs 40-60 us a hand-over in Python dicts and fresh outputs, and it holds the GIL meanwhile.

This module works with TVM's runtime library alone and with the full one: the engine sets TVM_USE_RUNTIME_LIB before
it is imported, the compiler (which measures and gates with it) does not.
"""

import ctypes
import mmap
import os
import tempfile
from collections import deque
from collections.abc import Mapping
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
import tvm_ffi

from veltair.bundle.check import ITEM_BYTES, tensor_bytes
from veltair.bundle.format import CallSpec, TensorSpec
from veltair.bundle.store import Bundle
from veltair.errors import BundleCorrupt, EngineFailed
from veltair.wire.messages import TensorHeader

SYMBOL_PREFIX = "__tvm_ffi_"  # TVM exports the kernel `f` as a C function of this prefix and its name
DLTENSOR_PTR = 7  # kTVMFFIDLTensorPtr in tvm/ffi/c_api.h
CPU = 1  # kDLCPU
DTYPE_CODES = {"int": 0, "uint": 1, "float": 2, "bfloat": 4, "bool": 6}  # DLDataTypeCode


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("dtype_code", ctypes.c_uint8),
        ("dtype_bits", ctypes.c_uint8),
        ("dtype_lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Any(ctypes.Structure):
    _fields_ = [("type_index", ctypes.c_int32), ("zero_padding", ctypes.c_uint32), ("value", ctypes.c_void_p)]


class _Call(ctypes.Structure):
    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("args", ctypes.POINTER(_Any)),
        ("num_args", ctypes.c_int16),
        ("before", ctypes.c_int16),
        ("first", ctypes.c_int32),
        ("end", ctypes.c_int32),
        ("extent", ctypes.c_int32),
    ]


class _Block(ctypes.Structure):
    _fields_ = [("calls", ctypes.POINTER(_Call)), ("num_calls", ctypes.c_int64)]


class _Bytes(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class _Error(ctypes.Structure):
    """TVMFFIObject's header, then the start of TVMFFIErrorCell."""

    _fields_ = [("header", ctypes.c_byte * 24), ("kind", _Bytes), ("message", _Bytes)]


class Arena:
    """The activation memory of one run, with every kernel call bound to it. One thread may use it at a time.

    `shares` has the ports' memory of each request that the run answers, by name: all of it for one alone. Arenas are pooled, so
    one holds what the request before left in it; kernels must not count on zeros.
    """

    def __init__(self, program: "Program") -> None:
        manifest = program.bundle.manifest
        # a private mapping is page-aligned, and its pages are only taken once they are touched
        self._memory = mmap.mmap(-1, max(manifest.arena_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.bytes = np.frombuffer(self._memory, np.uint8)
        bases = {"weight": program.bundle.weights.ctypes.data}
        arena = self.bytes.ctypes.data
        self.tensors = (_DLTensor * len(manifest.tensors))(
            *(_dltensor(spec, bases.get(spec.kind, arena)) for spec in manifest.tensors)
        )
        self.views = {port.name: self._view(manifest.tensors[port.tensor]) for port in (*manifest.inputs, *manifest.outputs)}
        self.shares = [
            {name: _share(view, place, program.requests) for name, view in self.views.items()}
            for place in range(program.requests)
        ]
        self.calls = [
            [self._bind(program, call) for call in variant.calls] for block in manifest.blocks for variant in block.variants
        ]
        self.call_arrays = [(_Call * len(calls))(*calls) for calls in self.calls]
        self.table = (_Block * len(self.calls))(*(_Block(calls, len(calls)) for calls in self.call_arrays))
        self.block_ns = (ctypes.c_int64 * len(manifest.blocks))()
        self.failed = (ctypes.c_int32 * 2)()

    def _view(self, spec: TensorSpec) -> npt.NDArray[Any]:
        count = prod(spec.shape)
        return np.frombuffer(self._memory, spec.dtype, count, spec.offset).reshape(spec.shape)

    def _bind(self, program: "Program", call: CallSpec) -> _Call:
        base, step = ctypes.addressof(self.tensors), ctypes.sizeof(_DLTensor)
        bound = [_Any(DLTENSOR_PTR, 0, base + step * number) for number in call.tensors]
        if call.scratch is not None:  # behind the arguments, for the runner
            spec = program.bundle.manifest.tensors[call.scratch]
            bound.append(_Any(0, tensor_bytes(spec), self.bytes.ctypes.data + spec.offset))
        args = (_Any * len(bound))(*bound)
        return _Call(program.kernel(call.symbol), args, len(call.tensors), call.before, *(call.iterations or (0, 0, 0)))


class Library:
    """The kernels of a blocks.so, in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._module, self._library = _load(path)
        self._kernels: dict[str, int] = {}
        self.run = self._library.veltair_run
        self.run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p]

    def kernel(self, symbol: str) -> int:
        """Address of a kernel; raises BundleCorrupt where blocks.so does not export it."""
        if symbol not in self._kernels:
            try:
                function = getattr(self._library, SYMBOL_PREFIX + symbol)
            except AttributeError as error:
                raise BundleCorrupt(
                    f"{self._path} has no kernel {symbol!r} that the manifest names; compile the model again"
                ) from error
            self._kernels[symbol] = ctypes.cast(function, ctypes.c_void_p).value or 0
        return self._kernels[symbol]


class Program:
    """One bundle, loaded. Thread-safe: several lanes may run it at once, each on its own arena.

    `batches` has the programs that answer several requests in one run, by their number; they share the library.
    """

    def __init__(self, bundle: Bundle, library: Library | None = None, requests: int = 1) -> None:
        self.bundle = bundle
        self.requests = requests
        self.name = bundle.name
        self.output_headers = tuple(TensorHeader(port.name, port.dtype, port.shape) for port in bundle.manifest.outputs)
        self._variants_before = [0, *accumulate(len(block.variants) for block in bundle.manifest.blocks)]
        self._units: dict[tuple[int, int, tuple[int, ...]], Any] = {}
        self._pool: deque[Arena] = deque()
        self._library = library or Library(bundle.blocks_so)
        self._run = self._library.run
        self.batches = {
            count: Program(bundle.at_batch(batch), self._library, count) for count, batch in bundle.manifest.stacks.items()
        }
        self.release(Arena(self))  # binds every call once, so that a missing kernel shows now and not on a request

    def kernel(self, symbol: str) -> int:
        """Address of a kernel; raises BundleCorrupt where blocks.so does not export it."""
        return self._library.kernel(symbol)

    def new_arena(self) -> Arena:
        try:
            return self._pool.pop()
        except IndexError:
            return Arena(self)

    def release(self, arena: Arena) -> None:
        """Give an arena back. Whoever still holds views of it must be done with them."""
        self._pool.append(arena)

    def write_inputs(self, arena: Arena, inputs: Mapping[str, npt.NDArray[Any]], place: int = 0) -> None:
        """Of the request at `place` of the run. Shapes and dtypes have been checked by the caller."""
        share = arena.shares[place]
        for name, value in inputs.items():
            share[name][...] = value

    def read_outputs(self, arena: Arena) -> dict[str, npt.NDArray[Any]]:
        """Copies, since the arena goes on to the next request."""
        return {port.name: arena.views[port.name].copy() for port in self.bundle.manifest.outputs}

    def output_bytes(self, arena: Arena, place: int = 0) -> list[bytes]:
        """Copies of the outputs of the request at `place`, each as the frame that is sent for it, in the manifest's order."""
        share = arena.shares[place]
        return [share[header.name].tobytes() for header in self.output_headers]

    def run(self, arena: Arena, first_block: int, end_block: int, variants: tuple[int, ...]) -> tuple[int, ...]:
        """Run blocks first_block <= i < end_block, block i as variant `variants[i - first_block]`; microseconds a block.

        The GIL is free meanwhile. Raises EngineFailed naming block, kernel and TVM's message.
        """
        chosen = self._units.get((first_block, end_block, variants)) or self._choose(first_block, end_block, variants)
        count = end_block - first_block
        code = self._run(arena.table, chosen, count, arena.block_ns, arena.failed)
        if code:
            raise self._failure(first_block + arena.failed[0], variants[arena.failed[0]], arena.failed[1])
        return tuple((ns + 500) // 1000 for ns in arena.block_ns[:count])

    def _choose(self, first_block: int, end_block: int, variants: tuple[int, ...]) -> Any:
        """Places in an arena's table, kept: the same few units are run over and over."""
        blocks = self.bundle.manifest.blocks
        if not 0 <= first_block < end_block <= len(blocks) or len(variants) != end_block - first_block:
            raise ValueError(f"{self.name}: no unit of blocks {first_block}..{end_block} with {len(variants)} variants")
        for block, variant in zip(blocks[first_block:end_block], variants, strict=True):
            if not 0 <= variant < len(block.variants):
                raise ValueError(f"{self.name}: block {block.name!r} has {len(block.variants)} variants, not number {variant}")
        before = self._variants_before[first_block:end_block]
        chosen = (ctypes.c_int32 * len(variants))(*(b + v for b, v in zip(before, variants, strict=True)))
        if len(self._units) < 4096:  # variants may be mixed freely; a bound on what is kept
            self._units[first_block, end_block, variants] = chosen
        return chosen

    def _failure(self, block_number: int, variant_number: int, call_number: int) -> EngineFailed:
        block = self.bundle.manifest.blocks[block_number]
        variant = block.variants[variant_number]
        return EngineFailed(
            f"model {self.name!r} failed in block {block.name!r}, variant {variant.name!r}, "
            f"kernel {variant.calls[call_number].symbol!r}: {_raised_message()}; try again, or compile the model anew if it stays"
        )


def runner_source() -> Path:
    """The C file that the compiler links into blocks.so."""
    return Path(__file__).with_name("runner.c")


def _dltensor(spec: TensorSpec, base: int) -> _DLTensor:
    kind = spec.dtype.rstrip("0123456789")
    strides = [prod(spec.shape[i + 1 :]) for i in range(len(spec.shape))]
    extents = ctypes.c_int64 * len(spec.shape)
    bits = ITEM_BYTES[spec.dtype] * 8
    return _DLTensor(
        base + spec.offset, CPU, 0, len(spec.shape), DTYPE_CODES[kind], bits, 1, extents(*spec.shape), extents(*strides), 0
    )  # fmt: skip


def _share(view: npt.NDArray[Any], place: int, requests: int) -> npt.NDArray[Any]:
    """What belongs to one of the requests that lie side by side along the first axis."""
    if requests == 1:
        return view
    rows = len(view) // requests
    return view[place * rows : (place + 1) * rows]


def _load(path: Path) -> tuple[Any, ctypes.CDLL]:
    """Through TVM first, which fills in the hooks that kernels call its thread pool with, then for plain C addresses.

    The dynamic loader knows a library by its path: one replaced under the same name would come back in its old form.
    Hence the link of a name used only once.
    """
    with tempfile.TemporaryDirectory(prefix="veltair-") as folder:
        link = Path(folder) / path.name
        link.symlink_to(path.absolute())
        try:
            module = tvm.runtime.load_module(os.fspath(link))
            library = ctypes.CDLL(os.fspath(link), mode=os.RTLD_NOW | os.RTLD_LOCAL)
            library.veltair_run  # noqa: B018 - looks the symbol up
            library.veltair_prepare()
        except (OSError, RuntimeError, AttributeError) as error:
            raise BundleCorrupt(f"{path} cannot be loaded: {error}; compile the model again") from error
    return module, library


def _raised_message() -> str:
    """What TVM says of the kernel that has just failed on this thread."""
    ffi = tvm_ffi.LIB
    handle = ctypes.c_void_p()
    ffi.TVMFFIErrorMoveFromRaised(ctypes.byref(handle))
    if not handle:
        return "no message"
    error = _Error.from_address(handle.value or 0)
    parts = [ctypes.string_at(part.data, part.size).decode(errors="replace") for part in (error.kind, error.message)]
    ffi.TVMFFIObjectDecRef(handle)
    return ": ".join(parts)
