"""Manifests as tests need them: layers with a few variants, whose times stand in the test."""

from collections.abc import Mapping

from veltair.bundle.format import (
    SCHEMA_VERSION,
    BlockSpec,
    CallSpec,
    Manifest,
    MeasureSpec,
    PortSpec,
    TargetSpec,
    TensorSpec,
    VariantSpec,
)

Times = tuple[int, ...]


def variant(
    name: str,
    one_core_us: Times,
    two_cores_us: Times | None = None,
    *,
    cache_us: Times | None = None,
    precision: str = "fp32",
    algorithm: str = "direct",
    traffic_bytes: int = 0,
    calls: tuple[CallSpec, ...] = (),
) -> VariantSpec:
    rows: Mapping[int, Times | None] = {1: one_core_us, 2: two_cores_us}
    return VariantSpec(
        name,
        calls,
        {cores: us for cores, us in rows.items() if us is not None},
        traffic_bytes,
        0,
        0.0,
        precision,
        algorithm,
        cache_latency_us={} if cache_us is None else {1: cache_us},
    )


def block(name: str, *variants: VariantSpec, flops: int = 1_000_000, continues: bool = False) -> BlockSpec:
    return BlockSpec(name, flops, 0, variants, continues)


def manifest(*blocks: BlockSpec, name: str = "net", levels: tuple[float, ...] = (0.0, 0.5, 1.0)) -> Manifest:
    """Tensor 0 is one row, tensor 1 eight of them, tensor 2 an image."""
    shapes = ((1, 64), (8, 64), (1, 4, 14, 14, 16))
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        source="made by hand",
        qos=None,
        target=TargetSpec("x86_64", "x86-64", 4, ("sse2",)),
        tools={},
        measured=MeasureSpec("test", 2, 0, 1, 0, 20_000.0),
        pressure_levels=levels,
        inputs=(PortSpec("x", 0, "float32", shapes[0]),),
        outputs=(PortSpec("y", 1, "float32", shapes[1]),),
        tensors=tuple(TensorSpec("activation", "float32", shape, 0) for shape in shapes),
        arena_bytes=0,
        blocks=blocks,
        files={},
    )
