"""Bounds of a manifest. Kernels write through raw pointers, so what a manifest says is checked before it is believed."""

from math import prod

from veltair.bundle.format import ALIGNMENT_BYTES, CallSpec, Manifest, PortSpec, TensorSpec

ITEM_BYTES = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2,
    "int32": 4, "uint32": 4, "float32": 4, "int64": 8, "uint64": 8, "float64": 8,
}  # fmt: skip
MOST_ITERATIONS = (1 << 31) - 1  # of a parallel loop: what the runner's int holds
MOST_LOOPS = (1 << 15) - 1  # before the shared one: likewise
MOST_SCRATCH_BYTES = (1 << 32) - 1
REQUIRED_FILES = ("weights.bin", "blocks.so")


def tensor_bytes(spec: TensorSpec | PortSpec) -> int:
    return ITEM_BYTES[spec.dtype] * prod(spec.shape)


def check_manifest(manifest: Manifest, weights_bytes: int) -> None:
    """Raises ValueError naming the first thing that is out of bounds. Latency tables are checked by `to_model`."""
    if not manifest.name or "/" in manifest.name:
        raise ValueError(f"model name {manifest.name!r} is empty or holds a slash")
    for name in REQUIRED_FILES:
        if name not in manifest.files:
            raise ValueError(f"files does not list {name}")
    for name in manifest.files:
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"file name {name!r} leaves the bundle's folder")
    if len(set(manifest.batches)) != len(manifest.batches) or min(manifest.batches) < 1:
        raise ValueError(f"batch sizes must be distinct and at least 1, got {manifest.batches}")
    for batch in manifest.batches:
        _check_form(manifest.at_batch(batch), weights_bytes)


def _check_form(manifest: Manifest, weights_bytes: int) -> None:
    """The tensors, ports and blocks of one batch size."""
    for number, tensor in enumerate(manifest.tensors):
        _check_tensor(number, tensor, weights_bytes if tensor.kind == "weight" else manifest.arena_bytes)
    names = [port.name for port in (*manifest.inputs, *manifest.outputs)]
    if not manifest.inputs or not manifest.outputs or len(set(names)) != len(names):
        raise ValueError(f"inputs and outputs must be there and have distinct names, got {names}")
    for port in manifest.inputs:
        _check_port(port, manifest, ("input",))
    for port in manifest.outputs:
        _check_port(port, manifest, ("output", "activation"))
    _check_blocks(manifest)


def _check_tensor(number: int, tensor: TensorSpec, room_bytes: int) -> None:
    if tensor.dtype not in ITEM_BYTES:
        raise ValueError(f"tensor {number} has dtype {tensor.dtype!r}; known: {', '.join(ITEM_BYTES)}")
    if any(extent < 1 for extent in tensor.shape):
        raise ValueError(f"tensor {number} has shape {tensor.shape}")
    if tensor.offset < 0 or tensor.offset % ALIGNMENT_BYTES or tensor.offset + tensor_bytes(tensor) > room_bytes:
        raise ValueError(f"tensor {number} ({tensor.kind}) at offset {tensor.offset} is not aligned or passes {room_bytes} bytes")


def _check_port(port: PortSpec, manifest: Manifest, kinds: tuple[str, ...]) -> None:
    if not 0 <= port.tensor < len(manifest.tensors):
        raise ValueError(f"port {port.name!r} names tensor {port.tensor} of {len(manifest.tensors)}")
    if port.dtype == "bfloat16":
        raise ValueError(f"port {port.name!r} is bfloat16, which NumPy callers do not have; convert inside the model")
    tensor = manifest.tensors[port.tensor]
    if (tensor.dtype, tensor.shape) != (port.dtype, port.shape) or tensor.kind not in kinds:
        raise ValueError(
            f"port {port.name!r} is {port.dtype} {port.shape}, "
            f"its tensor {port.tensor} is {tensor.kind} {tensor.dtype} {tensor.shape}"
        )


def _check_blocks(manifest: Manifest) -> None:
    if not manifest.blocks:
        raise ValueError("there are no blocks")
    for block in manifest.blocks:
        if not block.variants:
            raise ValueError(f"block {block.name!r} has no variants")
        for variant in block.variants:
            for call in variant.calls:
                if not call.tensors or not all(0 <= t < len(manifest.tensors) for t in call.tensors):
                    raise ValueError(f"block {block.name!r}, {call.symbol}: tensors {call.tensors} of {len(manifest.tensors)}")
                first, end, extent = call.iterations or (0, 1, 1)
                if not 0 <= first <= end <= extent <= MOST_ITERATIONS:
                    raise ValueError(f"block {block.name!r}, {call.symbol}: iterations {first} to {end} of {extent}")
                if call.before and not (call.iterations and _is_scratch(manifest, call)):
                    raise ValueError(f"block {block.name!r}, {call.symbol}: {call.before} loops before its own, without memory")


def _is_scratch(manifest: Manifest, call: CallSpec) -> bool:
    """Whether the call's scratch is an activation whose size the runner can hold."""
    if call.scratch is None or not 0 <= call.scratch < len(manifest.tensors) or not 0 < call.before <= MOST_LOOPS:
        return False
    tensor = manifest.tensors[call.scratch]
    return tensor.kind == "activation" and tensor_bytes(tensor) <= MOST_SCRATCH_BYTES
