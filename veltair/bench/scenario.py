"""A scenario: which tenants send which load. The same scenario and seed give the same arrivals, for every policy."""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from veltair.core.values import Precision
from veltair.errors import ConfigError

BURST_REQUESTS = 8  # a page of a document, a batch of uploads: what one user action sends at once

_EXAMPLE = (
    '[[tenant]] with name = "search", model = "minilm", rate_per_s = 20, qos_ms = 50 '
    '(and, if not the defaults, percentile = 0.95, arrivals = "poisson", precision = "fp32")'
)


class TenantLoad(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    model: str
    rate_per_s: float
    qos_ms: float
    percentile: float = 0.95
    arrivals: Literal["poisson", "uniform", "burst"] = "poisson"
    precision: Precision = "fp32"  # the coarsest it permits
    background: bool = False  # there to be in the way: its rate stays whatever the load, and what it misses does not count

    def __post_init__(self) -> None:
        if not self.name or not self.model:
            raise ValueError("name and model must not be empty")
        for key, value in (("rate_per_s", self.rate_per_s), ("qos_ms", self.qos_ms)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{key} must be above 0, got {value:g}")
        if not 0 < self.percentile < 1:
            raise ValueError(f"percentile must lie between 0 and 1 (0.95 means 95 %), got {self.percentile:g}")


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arrivals fall into `warmup_s + duration_s` seconds; those of the warm-up are sent and not counted."""

    name: str
    duration_s: float
    tenant: tuple[TenantLoad, ...]
    seed: int = 0
    warmup_s: float = 2.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise ValueError(f"duration_s must be above 0, got {self.duration_s:g}")
        if not (math.isfinite(self.warmup_s) and self.warmup_s >= 0):
            raise ValueError(f"warmup_s must be 0 or more, got {self.warmup_s:g}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}")
        if not self.tenant:
            raise ValueError("there is no [[tenant]]")
        if all(tenant.background for tenant in self.tenant):
            raise ValueError("every tenant is background; leave one that counts")
        pairs = [(tenant.name, tenant.model) for tenant in self.tenant]
        if twice := sorted({pair for pair in pairs if pairs.count(pair) > 1}):
            raise ValueError(f"tenant {twice[0][0]!r} is there twice with model {twice[0][1]!r}")

    def scaled(self, factor: float) -> "Scenario":
        """All rates times `factor` but those of the background; the pattern of arrivals stays, only denser."""
        if not (math.isfinite(factor) and factor > 0):
            raise ConfigError(f"scale must be above 0, got {factor:g}")
        tenants = tuple(
            tenant if tenant.background else msgspec.structs.replace(tenant, rate_per_s=tenant.rate_per_s * factor)
            for tenant in self.tenant
        )
        return msgspec.structs.replace(self, tenant=tenants)


def read_scenario(path: str | Path) -> Scenario:
    """Raises ConfigError, which names the file, the key and the value."""
    where = f"scenario {str(path)!r}"
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(f"{where} cannot be read: {e.strerror}; name a TOML file") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{where} is not TOML: {e}") from e
    try:
        return msgspec.convert({"name": Path(path).stem, **content}, Scenario, strict=True)
    except msgspec.ValidationError as e:
        raise ConfigError(f"{where}: {_named(str(e), content)}; a tenant is {_EXAMPLE}") from e


def _named(message: str, content: dict[str, Any]) -> str:
    """Say which tenant a path like `$.tenant[1].rate_per_s` means."""
    text, _, path = message.partition(" - at ")
    path = path.strip("`").removeprefix("$").removeprefix(".")
    tenants = content.get("tenant")
    if path.startswith("tenant[") and isinstance(tenants, list):
        index = int(path[len("tenant[") : path.index("]")])
        entry = tenants[index]
        name = entry.get("name") if isinstance(entry, dict) else None
        key = path.partition("].")[2]
        value = f" = {entry[key]!r}" if isinstance(entry, dict) and key in entry else ""
        return f"tenant {name!r}{f', {key}{value}' if key else ''}: {text}"
    value = f" = {content[path]!r}" if path in content and path != "tenant" else ""
    return f"{path}{value}: {text}" if path else text


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Request i is due `at_us[i]` after the start and belongs to tenant number `tenant[i]`; ascending in time."""

    at_us: npt.NDArray[np.int64]
    tenant: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.at_us)


def arrivals_of(scenario: Scenario) -> Arrivals:
    """Each tenant draws from a generator of its own, so that adding one does not move the others' arrivals."""
    end_us = (scenario.warmup_s + scenario.duration_s) * 1e6
    times = [
        _times_us(tenant, end_us, np.random.default_rng([scenario.seed, number])) for number, tenant in enumerate(scenario.tenant)
    ]
    at_us = np.concatenate(times)
    owner = np.concatenate([np.full(len(t), number) for number, t in enumerate(times)])
    order = np.argsort(at_us, kind="stable")
    return Arrivals(at_us[order], owner[order])


def _times_us(tenant: TenantLoad, end_us: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    gap_us = 1e6 / tenant.rate_per_s
    if tenant.arrivals == "uniform":
        return np.arange(rng.random() * gap_us, end_us, gap_us).astype(np.int64)
    size = BURST_REQUESTS if tenant.arrivals == "burst" else 1
    times: list[float] = []
    at_us = 0.0
    while (at_us := at_us + rng.exponential(1.0) * gap_us * size) < end_us:
        times.extend([at_us] * size)
    return np.array(times, dtype=np.float64).astype(np.int64)
