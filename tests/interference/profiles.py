"""Machines and profiles as tests need them: a small virtual machine, and what was measured on it."""

from typing import Any

import msgspec

from veltair.interference.machine import Cache, Machine
from veltair.interference.probe import Quiet
from veltair.interference.profile import SCHEMA_VERSION, Bandwidth, HostProfile, Rung

MACHINE = Machine(
    cpu="AMD EPYC (family 25, model 17, stepping 1)",
    kernel="6.18.44",
    cpus=2,
    cores=(0, 1),
    quota=None,
    siblings=((0,), (1,)),
    nodes=((0, 1),),
    caches=(Cache(2, 1 << 20, (0,)), Cache(2, 1 << 20, (1,)), Cache(3, 32 << 20, (0, 1))),
)


def machine(**changes: Any) -> Machine:
    return msgspec.structs.replace(MACHINE, **changes)


def stream(*slowdowns: float) -> tuple[Rung, ...]:
    """Rungs of a streaming antagonist at even levels, up to full."""
    return tuple(
        Rung("stream", (k + 1) / len(slowdowns), 16.0 * (k + 1) / len(slowdowns), slowdown, slowdown * 1.2)
        for k, slowdown in enumerate(slowdowns)
    )


def profile(**changes: Any) -> HostProfile:
    made = HostProfile(
        schema_version=SCHEMA_VERSION,
        machine=MACHINE,
        probe=Quiet(100.0, 120.0, 4.0, 9000),
        bandwidth_gb_per_s=Bandwidth(20.0, 34.0),
        ladder=stream(1.1, 1.2, 1.4, 1.6),
        fma_peak_gflops={"fp32": 118.0},
        made_at="2026-01-01T00:00:00+00:00",
        took_s=20.0,
        seed=0,
        versions={"veltair": "0.1.0"},
    )
    return msgspec.structs.replace(made, **changes)
