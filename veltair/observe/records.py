"""The decision log: JSON lines, one record a decision, in the order they were taken.

Times `at_us` are microseconds since the engine's start (one monotonic clock); `Started.wall_time_s` ties them to the
calendar. The dashboard and the simulator read this file and nothing else.
"""

import msgspec

from veltair.core.values import Machine, Model, Precision


class BlockInfo(msgspec.Struct, frozen=True):
    name: str
    variants: tuple[str, ...]


class ModelRecord(msgspec.Struct, frozen=True):
    name: str
    blocks: tuple[BlockInfo, ...]


class TenantRecord(msgspec.Struct, frozen=True):
    name: str
    model: str
    qos_us: int
    percentile: float
    precision: str = "fp32"  # the coarsest it permits
    priority: int = 0
    weight: float = 1.0


class CoreRecord(msgspec.Struct, frozen=True):
    """What the scheduler was made of: with it, the rest of the log can be replayed to the same decisions."""

    machine: Machine
    models: tuple[Model, ...]


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The first record of every engine run."""

    at_us: int
    wall_time_s: float
    version: str
    policy: str
    machine: str
    cores: tuple[int, ...]
    models: tuple[ModelRecord, ...]
    tenants: tuple[TenantRecord, ...]
    quota_cores: float | None = None  # of CPU time, by cgroup
    core: CoreRecord | None = None
    sources: tuple[str, ...] = ()  # of outside pressure, that are read
    refused_sources: tuple[str, ...] = ()  # those that would have been better, and why not


class Arrived(msgspec.Struct, frozen=True, tag="arrived"):
    at_us: int
    request: str
    tenant: str
    model: str
    deadline_us: int
    precision: Precision = "fp32"  # and the rest as its tenant was promised it
    priority: int = 0
    weight: float = 1.0


class RejectedChoice(msgspec.Struct, frozen=True):
    what: str
    why: str


class Dispatched(msgspec.Struct, frozen=True, tag="dispatched"):
    at_us: int
    request: str
    tenant: str
    model: str
    lease: int
    cores: tuple[int, ...]
    first_block: int
    end_block: int
    variants: tuple[str, ...]
    predicted_us: int
    pressure: float
    reason: str
    rejected: tuple[RejectedChoice, ...] = ()
    waiting: int = 0  # requests that wait for cores after this decision
    riders: tuple[str, ...] = ()  # the others of its batch


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """A unit ended. `block_us` are the measured times of its blocks."""

    at_us: int
    lease: int
    request: str
    measured_us: int
    block_us: tuple[int, ...] = ()
    failed: str | None = None


class Completed(msgspec.Struct, frozen=True, tag="completed"):
    at_us: int
    request: str
    tenant: str
    model: str
    latency_us: int  # from receipt by the engine to the answer's hand-over
    predicted_us: int
    deadline_us: int
    low_us: int | None = None  # of the latency foretold on arrival: it lies within nine times out of ten
    high_us: int | None = None


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    at_us: int
    request: str
    tenant: str
    model: str
    code: str
    reason: str
    earliest_us: int | None = None  # the scheduler's: what the client is told is longer by an answer's way back


class Dropped(msgspec.Struct, frozen=True, tag="dropped"):
    at_us: int
    request: str
    tenant: str
    model: str
    code: str
    reason: str


class WeightsAsked(msgspec.Struct, frozen=True, tag="weights_asked"):
    """The weights of a model are being brought in."""

    at_us: int
    model: str


class WeightsLoaded(msgspec.Struct, frozen=True, tag="weights_loaded"):
    at_us: int
    model: str


class WeightsEvicted(msgspec.Struct, frozen=True, tag="weights_evicted"):
    at_us: int
    model: str


class PressureTold(msgspec.Struct, frozen=True, tag="pressure"):
    """What the scheduler takes for the pressure of processes that are not ours from now on."""

    at_us: int
    pressure: float  # 0..1
    error: float = 0.0  # one standard deviation
    cores: float = 0.0  # of CPU time that they use
    held: tuple[int, ...] = ()  # CPUs they have most of


class Drifted(msgspec.Struct, frozen=True, tag="drifted"):
    """The times of a model's units are far from its tables from now on, or (`over`) near them again."""

    at_us: int
    model: str
    over: bool
    ratio: float  # measured over predicted, lately


class Woken(msgspec.Struct, frozen=True, tag="woken"):
    """The time came that the scheduler had asked to be woken at."""

    at_us: int


class DrainBegan(msgspec.Struct, frozen=True, tag="drain_began"):
    at_us: int


class Lost(msgspec.Struct, frozen=True, tag="lost"):
    """Written by the log itself: so many records before this one did not fit or could not be written."""

    at_us: int
    records: int


Record = (
    Started
    | Arrived
    | Dispatched
    | Finished
    | Completed
    | Refused
    | Dropped
    | WeightsAsked
    | WeightsLoaded
    | WeightsEvicted
    | PressureTold
    | Drifted
    | Woken
    | DrainBegan
    | Lost
)

encode_record = msgspec.json.Encoder().encode
decode_record = msgspec.json.Decoder(Record).decode
