"""Frozen values the scheduler reasons about. Times are integer microseconds, sizes bytes, fractions 0..1."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, NewType

TenantId = NewType("TenantId", str)
ModelName = NewType("ModelName", str)
RequestId = NewType("RequestId", str)
LeaseId = NewType("LeaseId", int)
CoreId = NewType("CoreId", int)  # the operating system's number of a CPU

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
"""Of a variant's products, from exact to coarse. A tenant permits one of them, and with it those before it."""


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Measured time of one variant: `rows_us[cores][i]` at `pressure_levels[i]`. Not assumed monotone in cores."""

    pressure_levels: tuple[float, ...]  # ascending, the first is 0.0 (the machine otherwise idle)
    rows_us: Mapping[int, tuple[int, ...]]

    def __post_init__(self) -> None:
        if not self.rows_us or min(self.rows_us) < 1:
            raise ValueError(f"latency table needs rows for 1 core or more, got cores {sorted(self.rows_us)}")
        if (
            not self.pressure_levels
            or self.pressure_levels[0] != 0.0
            or list(self.pressure_levels) != sorted(self.pressure_levels)
        ):
            raise ValueError(f"pressure levels must ascend from 0.0, got {self.pressure_levels}")
        for cores, row in self.rows_us.items():
            if len(row) != len(self.pressure_levels) or any(us < 1 for us in row):
                raise ValueError(f"row for {cores} cores must hold {len(self.pressure_levels)} times >= 1 us, got {row}")

    def latency_us(self, cores: int, pressure: float = 0.0) -> int:
        """Time on `cores` (the widest measured row that is no wider) at `pressure`, linear between levels.

        Raises ValueError below the narrowest row: nobody measured that.
        """
        row = self.rows_us.get(cores) or self.rows_us[max(c for c in self.rows_us if c <= cores)]
        levels = self.pressure_levels
        if pressure <= 0.0 or len(levels) == 1:
            return row[0]
        for i in range(1, len(levels)):
            if pressure <= levels[i]:
                share = (pressure - levels[i - 1]) / (levels[i] - levels[i - 1])
                return round(row[i - 1] + share * (row[i] - row[i - 1]))
        return row[-1]


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a variant presses on while it runs, beside the cores it holds."""

    traffic_bytes: int  # moved beyond the core's own caches in one run (modelled from the schedule's loops)
    working_set_bytes: int  # what must stay cached for the measured time to hold

    def __post_init__(self) -> None:
        if self.traffic_bytes < 0 or self.working_set_bytes < 0:
            raise ValueError(f"footprint must not be negative, got {self}")


@dataclass(frozen=True, slots=True)
class Variant:
    """One compiled form of a layer block: same answer, another footprint."""

    name: str
    table: LatencyTable
    footprint: Footprint
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"variant {self.name!r} has the precision {self.precision!r}; known: {', '.join(PRECISIONS)}")

    def is_permitted(self, coarsest: Precision) -> bool:
        """Whether it may run for a tenant that permits products down to `coarsest`."""
        return PRECISIONS.index(self.precision) <= PRECISIONS.index(coarsest)


@dataclass(frozen=True, slots=True)
class LayerBlock:
    """A run of layers between two narrow cuts, or a part of one long layer; the smallest thing that is scheduled.

    One variant at least is exact. A block that `continues` the one before is a later part of the same layer: variants share
    a layer's iterations out differently, so all its parts must run as the same one.
    """

    name: str
    variants: tuple[Variant, ...]
    continues: bool = False

    def __post_init__(self) -> None:
        if not self.variants:
            raise ValueError(f"block {self.name!r} has no variants")
        if all(variant.precision != "fp32" for variant in self.variants):
            raise ValueError(f"block {self.name!r} has no fp32 variant: tenants that permit no other could not run it")


@dataclass(frozen=True, slots=True)
class Model:
    """A model for one request at a time, and as compiled for several at once: `batches[n]` answers n of them in one run."""

    name: ModelName
    blocks: tuple[LayerBlock, ...]
    batches: Mapping[int, "Model"] = field(default_factory=dict)
    weights_bytes: int = 0  # held while it is resident
    load_us: int = 0  # to bring them in
    late: float = 1.0  # what nineteen of twenty runs stay below, over the sum of its tables; 1.0: nobody measured it

    def __post_init__(self) -> None:
        if any(count < 2 or model.batches for count, model in self.batches.items()):
            raise ValueError(f"model {self.name!r}: batches are of two requests and more, and not nested")
        if not self.blocks:
            raise ValueError(f"model {self.name!r} has no blocks")
        for before, block in zip((None, *self.blocks), self.blocks, strict=False):
            if block.continues and (before is None or [v.name for v in before.variants] != [v.name for v in block.variants]):
                raise ValueError(f"block {block.name!r} continues a layer, so it needs the variants of the block before it")

    def layer_end(self, block: int) -> int:
        """The first block behind `block` that starts anew."""
        end = block + 1
        while end < len(self.blocks) and self.blocks[end].continues:
            end += 1
        return end


@dataclass(frozen=True, slots=True)
class Request:
    id: RequestId
    tenant: TenantId
    model: ModelName
    arrived_us: int
    deadline_us: int  # absolute, on the same clock as `now_us`
    precision: Precision = "fp32"  # the coarsest that its tenant permits
    priority: int = 0  # of its tenant; the higher goes first, whatever the deadlines
    weight: float = 1.0  # of its tenant: the share of a crowded machine that it is owed, against the others' weights

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"request {self.id!r}: weight must be above 0, got {self.weight}")


@dataclass(frozen=True, slots=True)
class Lease:
    """Cores granted to one unit until it ends."""

    id: LeaseId
    cores: tuple[CoreId, ...]

    def __post_init__(self) -> None:
        if not self.cores or len(set(self.cores)) != len(self.cores):
            raise ValueError(f"lease {self.id} needs distinct cores, got {self.cores}")


class Place(NamedTuple):
    """Where a core stands; equal numbers are shared. Threads of one core are SMT siblings."""

    core: int
    cache: int  # last-level
    node: int  # of memory


@dataclass(frozen=True, slots=True)
class Machine:
    """The cores the scheduler may lease, and the memory bandwidth that pressure is a share of.

    `places` tells where each core stands; without it all are cores of their own that share one cache.
    """

    cores: tuple[CoreId, ...]
    bandwidth_bytes_per_us: float = 20_000.0
    places: Mapping[CoreId, Place] = field(default_factory=dict)
    weights_budget_bytes: int | None = None  # for weights of all models; None: all of them fit

    def __post_init__(self) -> None:
        if not self.cores or len(set(self.cores)) != len(self.cores):
            raise ValueError(f"machine needs distinct cores, got {self.cores}")
        if self.bandwidth_bytes_per_us <= 0:
            raise ValueError(f"bandwidth must be positive, got {self.bandwidth_bytes_per_us}")
        if self.places and set(self.places) != set(self.cores):
            raise ValueError(f"places must be given for all cores or none, got {sorted(self.places)} for {self.cores}")
