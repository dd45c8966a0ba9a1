"""What `report.json` holds, and so what `report.html` can show. Times are microseconds, shares 0..1, all else says its unit.

`build` fills it; `render_report` draws it and looks at nothing else. Lists over points run in the order of `points`: the
first is one core with nothing pressing. A share of None means "cannot be done without".
"""

from typing import NotRequired, TypedDict


class Point(TypedDict):
    """Where times were taken: on `cores` cores, with an antagonist that takes `pressure` (0..1) of `resource`."""

    cores: int
    resource: str  # "cache", "bandwidth"; "" where nothing presses
    pressure: float


class Candidate(TypedDict):
    """One form of a block that was built, gated and timed."""

    name: str
    precision: str
    algorithm: str
    forms: dict[str, int]  # "winograd fp32" -> calls of that form
    kept: bool
    why: str  # it was kept ("17.1% slower at worst without it") or dropped ("never the best")
    worth: NotRequired[float | None]  # of kept ones: what the worst point would lose without it
    us: list[float]  # median at each point
    traffic_bytes: int  # beyond the core's own caches, as modelled by the schedules
    working_set_bytes: int
    exerts: dict[str, float]  # resource -> pressure it puts on others
    gate_error: float  # largest |ours - reference| / max |reference|
    tolerance: float
    rejected: NotRequired[bool]  # by the gate: for its own error, or because the model as a whole strays with it


class Block(TypedDict):
    name: str
    kernels: int
    flops: int
    live_bytes: int  # activations alive at the cut behind it
    candidates: list[Candidate]
    regret: float | None  # of the kept set against the best candidate, at its worst point
    exact_regret: float | None  # the same for tenants that want fp32
    continues: NotRequired[bool]  # a later part of the layer that the block before is a part of: both keep the same candidates
    dropped_before: NotRequired[dict[str, str]]  # candidates that the compile which made the records dropped -> why


class KernelRow(TypedDict):
    """One call of the line, in the form and setting that is fastest on one core."""

    us: float
    us_wide: float  # on all cores
    gflops_per_s: float
    share_of_peak: float  # of one core, in its precision
    share_of_time: float  # of the whole line on one core
    kind: str
    algorithm: str
    precision: str
    ops: str  # the model's operators it stands for
    what: str  # its shapes


class Failed(TypedDict):
    """A candidate of a kernel that TVM refused, or that ended or hung the process it was built in."""

    kernel: str  # its shapes, as in KernelRow.what
    knobs: dict[str, int]
    reason: str


class Search(TypedDict):
    """What this compile had to time; kernels that records knew cost nothing."""

    kernels: int  # distinct ones, other forms included
    searched: int
    candidates: int  # that were timed
    seconds: float
    restarts: int  # of the process that builds and times, because a candidate ended it
    spread: float  # median over timings of (upper - lower quartile) / median
    failed: list[Failed]


class Gate(TypedDict):
    inputs: int
    reference: str  # "ONNX Runtime 1.31"
    worst_block_error: float
    whole_model_error: list[float]  # of each variant run from end to end that may be served
    exact_whole_model_error: NotRequired[float]  # the worst of those in fp32
    checks: NotRequired[dict[str, str]]  # "variant: what was compared end to end" -> what came out, like "same in 4 of 4"
    astray: NotRequired[list[str]]  # of these variants, the ones that may not be served


class Peaks(TypedDict):
    """Of one core: the lines of the roofline, measured (see `peaks`)."""

    gflops: dict[str, float]  # precision -> multiply-adds, counted as two
    bandwidth_bytes_per_us: float


class Report(TypedDict):
    model: str
    source: str  # file name and digest
    made_at: str  # ISO 8601, UTC
    machine: str
    target: str  # LLVM's name of the CPU
    cores: int
    seed: int
    warmup: int
    repeats: int
    tools: dict[str, str]  # package -> version
    batch: int
    precisions: list[str]
    peaks: Peaks
    points: list[Point]
    whole_us: list[float]  # at each point: the sum over blocks of the best kept variant
    exact_whole_us: list[float]  # the same from fp32 variants alone
    spread: float  # of the blocks' timings, as in Search
    blocks: list[Block]
    share_of_time_by_kind: dict[str, float]
    fallback_share: float  # of the time: TVM's generic schedules
    slowest_kernels: list[KernelRow]
    search: Search
    gate: Gate
    seconds: dict[str, float]  # stage -> how long it took
    batched: NotRequired[list["Report"]]  # the other batch sizes of the same compile
