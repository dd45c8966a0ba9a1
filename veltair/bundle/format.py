"""The manifest of a bundle: what `compile` writes and `serve` loads. Everything in it is data; nothing is executed.

A bundle is a folder:

    manifest.json     this schema (UTF-8 JSON)
    manifest.sha256   digest of manifest.json, in the format of sha256sum
    weights.bin       constant tensors, each at a 64-byte aligned offset, mapped read-only
    blocks.so         kernels (TVM C ABI) and the runner that calls a range of them in one go
    report.json       how the variants were measured and chosen, and report.html, the same for people

A model is a straight line of kernel calls over numbered tensors. A block is a range of that line; each of its
variants lists its own calls. Weights live at an offset of weights.bin, activations at an offset of one arena whose
size the compiler planned, so a request in flight owns one arena and may pause between any two blocks. The same model at
other batch sizes stands beside it with tensors, blocks and ports of its own, over the same weights.bin and blocks.so.
"""

from typing import Literal

import msgspec

SCHEMA_VERSION = 2
ALIGNMENT_BYTES = 64  # TVM refuses to wrap memory that is less aligned

TensorKind = Literal["input", "output", "weight", "activation"]


class TensorSpec(msgspec.Struct, frozen=True):
    """One tensor of the line. `offset` is into weights.bin for weights and into the arena for all others."""

    kind: TensorKind
    dtype: str
    shape: tuple[int, ...]
    offset: int


class PortSpec(msgspec.Struct, frozen=True):
    """A named input or output of the model and the tensor that holds it. `max_value` bounds integer inputs (token ids)."""

    name: str
    tensor: int
    dtype: str
    shape: tuple[int, ...]
    max_value: int | None = None


class CallSpec(msgspec.Struct, frozen=True):
    """One kernel call: exported symbol, then tensor numbers in parameter order (the last ones are written).

    A call with `iterations` (first, end, extent) runs first <= i < end of the `extent` iterations of the kernel's last
    parallel loop: a part of it. Other calls run the rest. The `before` loops in front of that one are run by the first part,
    and what they make stands in the tensor `scratch` of the arena until the last one ends.
    """

    symbol: str
    tensors: tuple[int, ...]
    iterations: tuple[int, int, int] | None = None
    before: int = 0
    scratch: int | None = None


class VariantSpec(msgspec.Struct, frozen=True):
    name: str
    calls: tuple[CallSpec, ...]
    latency_us: dict[int, tuple[int, ...]]  # cores -> time at each of the manifest's levels of pressure on the bandwidth
    traffic_bytes: int  # as modelled by the schedules' loops
    working_set_bytes: int
    gate_max_error: float  # largest |ours - reference| / max |reference| over the gate's inputs
    precision: str = "fp32"  # of its coarsest product; "bf16" only for tenants that allow it
    algorithm: str = "direct"  # or what else some of its convolutions use, like "winograd"
    tolerance: float = 1e-4  # that gate_max_error had to stay within
    cache_latency_us: dict[int, tuple[int, ...]] = {}  # as latency_us, under pressure on the last-level cache
    pressure: float = 0.0  # 0..1, what it puts on others as measured; 1 is what the streaming antagonist does


class BlockSpec(msgspec.Struct, frozen=True):
    name: str
    flops: int
    live_bytes: int  # activations alive at the cut behind this block
    variants: tuple[VariantSpec, ...]
    continues: bool = False  # a later part of the layer that the block before is a part of: to be run as the same variant


class TargetSpec(msgspec.Struct, frozen=True):
    """What the code needs of a CPU: refused elsewhere. `features` are names as in /proc/cpuinfo."""

    arch: str  # "x86_64"
    mcpu: str  # LLVM's name, e.g. "znver4"
    lanes: int  # fp32 lanes of a vector register
    features: tuple[str, ...]


class QosSpec(msgspec.Struct, frozen=True):
    target_ms: float
    percentile: float = 0.95


class MeasureSpec(msgspec.Struct, frozen=True):
    """How the latency tables were made."""

    machine: str
    cores: int
    warmup: int
    repeats: int
    seed: int
    bandwidth_bytes_per_us: float


class Batched(msgspec.Struct, frozen=True, kw_only=True):
    """The model at another batch size."""

    batch: int
    inputs: tuple[PortSpec, ...]
    outputs: tuple[PortSpec, ...]
    tensors: tuple[TensorSpec, ...]
    arena_bytes: int
    blocks: tuple[BlockSpec, ...]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    schema_version: int
    name: str
    source: str  # file name and sha256 of the model that was compiled
    qos: QosSpec | None
    target: TargetSpec
    tools: dict[str, str]  # package -> version
    measured: MeasureSpec
    pressure_levels: tuple[float, ...]
    inputs: tuple[PortSpec, ...]
    outputs: tuple[PortSpec, ...]
    tensors: tuple[TensorSpec, ...]
    arena_bytes: int
    blocks: tuple[BlockSpec, ...]
    files: dict[str, str]  # file name -> sha256, for every file but the manifest's own pair
    batch: int = 1  # of the fields above
    batched: tuple[Batched, ...] = ()  # the other sizes

    @property
    def batches(self) -> tuple[int, ...]:
        return (self.batch, *(other.batch for other in self.batched))

    @property
    def stacks(self) -> dict[int, int]:
        """How many requests of this batch size which other size takes in one run: count to batch.

        Those where every input and output holds the requests side by side along its first axis; one that is the same for all
        could not tell them apart.
        """
        ports = (*self.inputs, *self.outputs)
        return {
            other.batch // self.batch: other.batch
            for other in self.batched
            if other.batch > self.batch
            and other.batch % self.batch == 0
            and all(
                port.shape and many.shape == (port.shape[0] * (other.batch // self.batch), *port.shape[1:])
                for port, many in zip(ports, (*other.inputs, *other.outputs), strict=True)
            )
        }

    def at_batch(self, batch: int) -> "Manifest":
        """The same bundle seen at another batch size. Raises ValueError where it was not compiled for it."""
        if batch == self.batch:
            return self
        for other in self.batched:
            if other.batch == batch:
                fields = {name: getattr(other, name) for name in Batched.__struct_fields__}
                return msgspec.structs.replace(self, **fields, batched=())
        have = ", ".join(map(str, self.batches))
        raise ValueError(f"{self.name}: not compiled for batch {batch}; it has {have} (veltair compile --batch)")


encode_manifest = msgspec.json.Encoder().encode
decode_manifest = msgspec.json.Decoder(Manifest).decode
