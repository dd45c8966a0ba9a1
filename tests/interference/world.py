"""A machine made up: two bundles, and co-runs on it that follow a law known to the test."""

from collections.abc import Callable, Mapping
from math import exp
from random import Random

import msgspec

from tests.interference.profiles import profile
from veltair.bundle.format import (
    SCHEMA_VERSION,
    BlockSpec,
    Manifest,
    MeasureSpec,
    QosSpec,
    TargetSpec,
    TensorSpec,
    VariantSpec,
)
from veltair.interference.corun import CoRun, Outsider, Subject, Unit, draw
from veltair.interference.model import Host, Key
from veltair.interference.profile import Rung

LEVELS = (0.0, 0.5, 1.0)
L2 = 1 << 20


def variant(us: int, slowed: float, megabytes: int, **changes: object) -> VariantSpec:
    """Slowed so many times at full pressure, by its table; twice as fast on two cores."""
    row = [round(us * (1 + (slowed - 1) * level)) for level in LEVELS]
    rows = {1: tuple(row), 2: tuple(each // 2 for each in row)}
    return msgspec.structs.replace(VariantSpec(f"{us} us", (), rows, megabytes << 20, 256 << 10, 0.0), **changes)


def manifest(name: str, blocks: Mapping[str, tuple[VariantSpec, ...]], **changes: object) -> Manifest:
    made = Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        source="made up",
        qos=QosSpec(50.0),
        target=TargetSpec("x86_64", "x86-64", 4, ()),
        tools={},
        measured=MeasureSpec("test", 2, 0, 1, 0, 20_000.0),
        pressure_levels=LEVELS,
        inputs=(),
        outputs=(),
        tensors=(),
        arena_bytes=0,
        blocks=tuple(BlockSpec(block, 10**8, 0, variants) for block, variants in blocks.items()),
        files={},
    )
    return msgspec.structs.replace(made, **changes)


def with_indices(of: Manifest) -> Manifest:
    return msgspec.structs.replace(of, tensors=(TensorSpec("activation", "int32", (1,), 0),))


# The tables know how much convolutions suffer; of matrix products they say that nothing slows them.
CONVS = manifest("convs", {f"{i:02d}-conv": (variant(1000 + 100 * i, 1.2, 4), variant(900, 1.2, 12)) for i in range(4)})
PRODUCTS = manifest("products", {f"{i:02d}-matmul": (variant(500 + 50 * i, 1.0, 8),) for i in range(3)})
HOST = Host(
    profile(ladder=(*profile().ladder, Rung("compute", 1.0, 0.0, 1.02, 1.1), Rung("cache", 0.5, 9.0, 1.4, 1.5))),
    {each.name: Subject.of(each) for each in (CONVS, PRODUCTS)},
)
SUBJECTS = list(HOST.subjects.values())

Law = Callable[[Key, float], float]
"""How many times as slow a block is at a pressure."""


def truth(key: Key, pressure: float) -> float:
    """Convolutions as their tables say; products suffer much, which their tables do not."""
    return 1 + (0.2 if key.bundle == "convs" else 0.8) * pressure


def coruns(count: int, law: Law = truth, seed: int = 0, noise: float = 0.03) -> list[CoRun]:
    rng = Random(seed)
    return [_timed(*draw(SUBJECTS, 2, L2, rng), law, noise, rng) for _ in range(count)]


def _timed(victim: Unit, beside: Unit | Outsider | None, law: Law, noise: float, rng: Random) -> CoRun:
    pressure = HOST.pressure_of(beside)
    block_us = tuple(
        tuple(round(HOST.table_us(key, 0.0) * law(key, pressure) * exp(rng.gauss(0, noise))) for _ in range(6))
        for key in HOST.keys(victim)
    )
    return CoRun(victim, beside, block_us)
