"""What a simulation found out, as plain data: the table, the JSON file, the page and the trace are made from this alone.

Nothing in it depends on the machine that computed it or on when: the same arguments give the same bytes. Times are integer
microseconds (`_us`), rates requests a second (`_per_s`), shares 0..1.
"""

import msgspec

from veltair.simulate.workload import OutsideStep

SCHEMA_VERSION = 1


class TenantInfo(msgspec.Struct, frozen=True, kw_only=True):
    """As asked for. `share` is of all requests; `arrivals` says the process in words, e.g. "poisson"."""

    name: str
    model: str
    qos_us: int
    percentile: float
    share: float
    arrivals: str
    priority: int = 0
    weight: float = 1.0
    precision: str = "fp32"


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """`measured_cores` are core counts with measured times, `modelled_cores` those the scaling law filled in."""

    name: str
    source: str  # where its times come from, in words
    blocks: int
    variants: int  # of all blocks together
    measured_cores: tuple[int, ...]
    modelled_cores: tuple[int, ...]
    alone_us: dict[int, int]  # cores -> the whole model on the idle machine, fastest variants
    weights_bytes: int = 0
    load_us: int = 0


class MachineInfo(msgspec.Struct, frozen=True, kw_only=True):
    cores: int
    bandwidth_bytes_per_us: float
    weights_budget_bytes: int | None = None
    places: str = "cores that share one cache"


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What was simulated. A run is `requests` long on average, of which the first `warmup` share is not counted."""

    name: str
    machine: MachineInfo
    tenants: tuple[TenantInfo, ...]
    models: tuple[ModelInfo, ...]
    # Requests a second that would keep every core busy, each model on the thriftiest core count that meets its target alone.
    capacity_per_s: float
    requests: int
    warmup: float
    seeds: tuple[int, ...]
    interference: bool
    outside: tuple[OutsideStep, ...] = ()  # each an array: second, pressure, cores held
    aware: bool = True  # the scheduler knows what pressure does
    noise: float  # sigma of the log-normal factor on every unit's time; 0: times are as in the tables
    handover_us: int


class LoadPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One load, every seed. Lists are in the order of `Scenario.seeds`."""

    per_s: float
    of_capacity: float
    attainment: dict[str, tuple[float, ...]]  # tenant -> share of its requests within QoS; refused and dropped ones are not
    kept: tuple[bool, ...]  # every tenant had its percentile of requests within QoS


class LargestLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Largest load at which every tenant keeps its percentile: the mean of the seeds and its 95 % interval (Student's t)."""

    per_s: float
    low_per_s: float
    high_per_s: float
    of_capacity: float
    per_seed_per_s: tuple[float, ...]


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of answered requests. `histogram` holds (lower edge in us, count); bins are an eighth of an octave wide, empty ones absent.

    Bin i begins at 2^(i/8) us and ends where bin i+1 begins.
    """

    mean_us: float
    p50_us: int
    p95_us: int
    p99_us: int
    histogram: tuple[tuple[int, int], ...]


class TenantOutcome(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    asked: int
    in_qos: int
    late: int  # answered, past the deadline
    refused: int
    dropped: int
    attainment: float  # in_qos / asked
    latency: Latency | None  # None: nothing was answered
    queued_mean_us: float  # of answered ones: latency less the time on cores
    core_us_per_request: float  # of answered ones
    units_per_request: float
    cores_per_unit: float
    coverage: float | None  # share of answers that fell into the interval foretold on arrival, which aims at 0.9


class LeaseSpan(msgspec.Struct, frozen=True, kw_only=True):
    """One unit on its cores, from dispatch to the return of the cores (hand-over included)."""

    begin_us: int
    end_us: int
    cores: tuple[int, ...]
    tenant: str
    model: str
    request: str
    first_block: int
    end_block: int
    predicted_us: int
    pressure: float  # that the scheduler reckoned with
    reason: str
    riders: int = 0  # requests beside the first in a batch


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened at one moment. `what`: "arrived", "answered", "late", "refused", "dropped", "load" or "evict"."""

    at_us: int
    what: str
    tenant: str
    model: str
    request: str = ""
    reason: str = ""


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """A bounded stretch of one run behind its warm-up: what lies within `begin_us`..`end_us`, all of it."""

    begin_us: int
    end_us: int
    leases: tuple[LeaseSpan, ...]
    marks: tuple[Mark, ...]


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """One load looked at closely, all seeds together; the timeline is of the first seed."""

    per_s: float
    of_capacity: float
    tenants: tuple[TenantOutcome, ...]
    attainment: float  # of all requests
    mean_latency_us: float  # of all answered requests
    core_use: float  # leased core time over all core time
    conflict_rate: float  # units that got fewer cores than they wanted, over all units
    decisions: int  # events that the scheduler was told of
    units: int
    loads: int  # of weights
    evictions: int
    timeline: Timeline | None = None


class PolicyResult(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    curve: tuple[LoadPoint, ...]  # ascending loads, the same for every policy
    largest: LargestLoad
    at_load: Detail  # at a load that is the same for every policy
    at_largest: Detail | None  # at its own largest load; None where that is nought


class Result(msgspec.Struct, frozen=True, kw_only=True):
    scenario: Scenario
    policies: tuple[PolicyResult, ...]
    schema_version: int = SCHEMA_VERSION

    def policy(self, name: str) -> PolicyResult:
        """Raises KeyError for one that was not simulated."""
        for each in self.policies:
            if each.name == name:
                return each
        raise KeyError(name)


decode_result = msgspec.json.Decoder(Result).decode


def encode_result(result: Result) -> bytes:
    """UTF-8 JSON, keys in the order of the fields."""
    return msgspec.json.encode(result)
