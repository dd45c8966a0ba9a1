"""A workload file: which tenants ask for what, on which machine, and where the times come from. Checked here, at the edge."""

import math
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from veltair.core.values import Precision
from veltair.errors import ConfigError

READY = Path(__file__).parent / "workloads"
"""Workloads that come along, by the stem of their file."""


def _positive(**values: float | None) -> None:
    _above(0.0, **values)


def _above(least: float, **values: float | None) -> None:
    for key, value in values.items():
        if value is not None and not (math.isfinite(value) and value > least):
            raise ValueError(f"{key} must be above {least:g}, got {value:g}")


class Poisson(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="poisson"):
    """Independent users: gaps are exponential."""


class Uniform(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="uniform"):
    """A camera: equal gaps, the first at a random moment."""


class Bursts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="bursts"):
    """A Markov-modulated Poisson process of two states, calm and `factor` times as busy; both last exponential times."""

    factor: float = 8.0
    burst_s: float = 0.2
    calm_s: float = 1.0

    def __post_init__(self) -> None:
        _above(1.0, factor=self.factor)
        _positive(burst_s=self.burst_s, calm_s=self.calm_s)


class Diurnal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="diurnal"):
    """A rate that swings as a sine around its mean by `swing` of it, once in `period_s`, from `phase` of a period on."""

    period_s: float = 10.0
    swing: float = 0.8
    phase: float = 0.0

    def __post_init__(self) -> None:
        _positive(period_s=self.period_s)
        if not 0 <= self.swing <= 1:
            raise ValueError(f"swing must lie within 0..1 (a share of the mean rate), got {self.swing:g}")


class Closed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="closed"):
    """Clients that send, wait for the answer, think (exponentially long) and send again. More load means more clients."""

    clients: int
    think_ms: float = 100.0

    def __post_init__(self) -> None:
        _positive(clients=self.clients, think_ms=self.think_ms)


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="replay"):
    """Arrivals as recorded in a CSV file: a column `at_s` of timestamps, or columns `minute` and `requests`.

    Replayed as fast as the tenant's rate asks for, or as it was recorded where that says nothing; again from its start if it is
    shorter than the run.
    """

    file: str


Arrivals = Poisson | Uniform | Bursts | Diurnal | Closed | Replay
_BY_NAME: dict[str, Arrivals] = {"poisson": Poisson(), "uniform": Uniform(), "bursts": Bursts(), "diurnal": Diurnal()}


class Tenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One tenant with one model. Its `share` is of all requests; or it has a rate of its own.

    With `copies` it asks for that many models, equal but for their names (`MODEL#0`, ..), by Zipf's law with the exponent
    `popularity`: many customers' fine-tuned versions of one network.
    """

    name: str
    model: str
    qos_ms: float
    percentile: float = 0.95
    share: float | None = None
    rate_per_s: float | None = None
    arrivals: Literal["poisson", "uniform", "bursts", "diurnal"] | Arrivals = "poisson"
    priority: int = 0
    weight: float = 1.0
    precision: Precision = "fp32"
    copies: int = 1
    popularity: float = 1.0

    def __post_init__(self) -> None:
        if not self.name or not self.model:
            raise ValueError("name and model must not be empty")
        _positive(qos_ms=self.qos_ms, weight=self.weight, share=self.share, rate_per_s=self.rate_per_s, copies=self.copies)
        if not 0 < self.percentile < 1:
            raise ValueError(f"percentile must lie between 0 and 1 (0.95 means 95 %), got {self.percentile:g}")
        if not (math.isfinite(self.popularity) and self.popularity >= 0):
            raise ValueError(f"popularity must be 0 (all alike) or more, got {self.popularity:g}")
        closed = isinstance(self.arrivals, Closed)
        if closed and (self.share is not None or self.rate_per_s is not None):
            raise ValueError("a closed loop has clients in place of share and rate_per_s; leave those out")
        if self.share is not None and self.rate_per_s is not None:
            raise ValueError("give either share (of all requests) or rate_per_s")
        if not (closed or isinstance(self.arrivals, Replay)) and self.share is None and self.rate_per_s is None:
            raise ValueError("give either share (of all requests) or rate_per_s")

    @property
    def process(self) -> Arrivals:
        return _BY_NAME[self.arrivals] if isinstance(self.arrivals, str) else self.arrivals

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model,) if self.copies == 1 else tuple(f"{self.model}#{i}" for i in range(self.copies))

    @property
    def qos_us(self) -> int:
        return round(self.qos_ms * 1000)


class ModelSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model that is in no bundle: from a CSV of layer times, or of equal blocks."""

    name: str
    csv: str | None = None  # layer,cores_8,cores_16,.. in us
    service_ms: float | None = None  # on one core, whole
    block_ms: float = 1.0  # of its equal blocks
    two_core_speedup: float | None = None  # None: it runs on one core only
    weights_mb: float = 0.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
        _positive(service_ms=self.service_ms, block_ms=self.block_ms, two_core_speedup=self.two_core_speedup)
        if (self.csv is None) == (self.service_ms is None):
            raise ValueError(f"model {self.name!r}: give either csv (a file of layer times) or service_ms")
        if not (math.isfinite(self.weights_mb) and self.weights_mb >= 0):
            raise ValueError(f"weights_mb must be 0 or more, got {self.weights_mb:g}")


class Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where times of models come from that have no [[model]]: a folder of bundles, or a file of their tables.

    `scale` says what to do about core counts that nobody measured: "usl" models them, "none" leaves them out.
    """

    bundles: str | None = None
    tables: str | None = None
    scale: Literal["usl", "none"] = "usl"

    def __post_init__(self) -> None:
        if self.bundles is not None and self.tables is not None:
            raise ValueError("give either bundles (a folder) or tables (a file)")


class MachineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The machine to simulate. Cores are alike; with `cores_per_cache` and so on they are placed in order."""

    cores: int = 64
    bandwidth_gb_per_s: float = 200.0
    weights_budget_mb: float | None = None  # None: all weights fit
    load_gb_per_s: float = 2.0  # at which weights are brought in
    threads_per_core: int = 1
    cores_per_cache: int | None = None
    cores_per_node: int | None = None

    def __post_init__(self) -> None:
        _positive(
            cores=self.cores,
            bandwidth_gb_per_s=self.bandwidth_gb_per_s,
            weights_budget_mb=self.weights_budget_mb,
            load_gb_per_s=self.load_gb_per_s,
            threads_per_core=self.threads_per_core,
            cores_per_cache=self.cores_per_cache,
            cores_per_node=self.cores_per_node,
        )


class OutsideStep(NamedTuple):
    """From a second on, processes that are not ours press so hard, 0..1 of the bandwidth, and hold so many cores."""

    at_s: float
    pressure: float
    cores: int = 0


class Outside(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Processes that are not ours. Each step is a second and how hard they press from then on, a share of the bandwidth;
    a third number is how many cores they hold from then on, none without it."""

    steps: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        if odd := [list(step) for step in self.steps if len(step) not in (2, 3)]:
            raise ValueError(f"a step is [second, pressure] or [second, pressure, cores], got {odd[0]}")
        seconds = [step[0] for step in self.steps]
        if any(not 0 <= second < math.inf for second in seconds) or seconds != sorted(set(seconds)):
            raise ValueError(f"the seconds of steps must ascend, from 0 or later, got {seconds}")
        if wrong := [step[1] for step in self.steps if not 0 <= step[1] <= 1]:
            raise ValueError(f"a pressure must lie within 0..1 (a share of the bandwidth), got {wrong[0]:g}")
        if bad := [count for step in self.steps for count in step[2:] if not (count >= 0 and float(count).is_integer())]:
            raise ValueError(f"the cores that outsiders hold must be a whole number, 0 or more, got {bad[0]:g}")

    @property
    def told(self) -> tuple[OutsideStep, ...]:
        return tuple(OutsideStep(step[0], step[1], *map(int, step[2:])) for step in self.steps)


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`requests` is how many a run has on average, of which those in its first `warmup` share are not counted."""

    name: str
    tenant: tuple[Tenant, ...]
    model: tuple[ModelSource, ...] = ()
    machine: MachineSpec = MachineSpec()
    costs: Costs = Costs()
    requests: int = 4000
    warmup: float = 0.1
    load: float | None = None  # share of capacity at which policies are compared side by side
    interference: bool = True
    outside: Outside = Outside()
    aware: bool = True  # the scheduler knows what pressure does, and is told of that from outside
    noise: float = 0.0  # sigma of a log-normal factor on each unit's time
    handover_us: int = 50
    folder: str = ""  # of the file: paths in it are relative to that

    def __post_init__(self) -> None:
        if not self.tenant:
            raise ValueError("there is no [[tenant]]")
        _positive(requests=self.requests, load=self.load)
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must lie within 0..1 (a share of the run), got {self.warmup:g}")
        if not 0 <= self.noise <= 1:
            raise ValueError(f"noise must lie within 0..1 (0.1: times stray by about 10 %), got {self.noise:g}")
        if self.handover_us < 0:
            raise ValueError(f"handover_us must be 0 or more, got {self.handover_us}")
        for what, names in (("tenant", [t.name for t in self.tenant]), ("model", [m.name for m in self.model])):
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise ValueError(f"{what} {twice[0]!r} is there twice; give each a name of its own")
        shares = {t.share is not None for t in self.tenant if not isinstance(t.process, Closed)}
        if len(shares) > 1:
            raise ValueError("some tenants have a share and some have none; give all of them a share, or all a rate_per_s")


def read_workload(name: str | Path) -> Workload:
    """A TOML file, or the name of one that comes along. Raises ConfigError, which names the file, the key and the value."""
    path = Path(name)
    if path.suffix != ".toml" and (READY / f"{name}.toml").is_file():
        path = READY / f"{name}.toml"
    where = f"workload {str(name)!r}"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        ready = ", ".join(ready_workloads())
        raise ConfigError(f"{where} cannot be read: {e.strerror}; name a TOML file, or one of: {ready}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{where} is not TOML: {e}") from e
    try:
        return msgspec.convert({"name": path.stem, **content, "folder": str(path.parent)}, Workload, strict=True)
    except msgspec.ValidationError as e:
        raise ConfigError(f"{where}: {_named(str(e), content)}") from e


def ready_workloads() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in READY.glob("*.toml")))


def _named(message: str, content: dict[str, Any]) -> str:
    """Say which entry a path like `$.tenant[1].qos_ms` means, and what it holds."""
    text, _, path = message.partition(" - at ")
    at: Any = content
    said = []
    for part in path.strip("`").removeprefix("$").replace("[", ".[").split("."):
        if part.startswith("["):
            at = at[int(part[1:-1])] if isinstance(at, list) and part[1:-1].isdigit() else None
            said.append(repr(at["name"]) if isinstance(at, dict) and "name" in at else part)
        elif part:
            at = at.get(part) if isinstance(at, dict) else None
            said.append(part)
    value = f" = {at!r}" if isinstance(at, str | int | float) else ""
    return f"{' '.join(said)}{value}: {text}" if said else text
