"""Settings of a server: read from TOML, checked, and frozen before any process starts.

endpoint = "tcp://127.0.0.1:7400"
policy = "veltair"
cores = [0, 1]                 # default: all this process may use, as far as its CPU quota pays for them
log = "decisions.jsonl"        # default: none
drain_timeout_s = 10.0

[interference]
source = "auto"                # of outside pressure: "auto", "off", or one of SOURCES; default: "auto"
profile = "host.json"          # as `veltair calibrate` wrote it; default: where it writes without --profile

[tenants.shop]
precision = "bf16"             # of products, for all its models: reduced where that is faster; default: "fp32", exact
priority = 1                   # the higher goes first, whatever the deadlines; default: 0
weight = 2.0                   # its share of a crowded machine against the others' weights; default: 1

[tenants.shop.models.ocr-det]
qos_ms = 60                    # default: what the model was compiled for
percentile = 0.95
precision = "fp32"             # default: the tenant's
"""

import dataclasses
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from veltair.core.values import PRECISIONS, Precision
from veltair.errors import ConfigError
from veltair.host import usable_cores

DEFAULT_ENDPOINT = "tcp://127.0.0.1:7400"  # loopback: a server that others can reach must be asked for
MOST_PRIORITY = 100  # more levels than anybody can keep apart: beyond it stands a weight or a QoS in the wrong place
DEFAULT_QOS_MS = 1000.0  # for a model compiled without --qos and not configured either


SOURCES = ("perf", "psi", "steal", "runqueue", "probe", "residuals")
"""Of outside pressure; what each is stands in veltair/interference/sources."""


@dataclass(frozen=True, slots=True)
class Interference:
    """Where the engine learns how long its models take on this machine, and of processes that are not its own."""

    source: str = "auto"  # or "off", or one of SOURCES
    profile: Path | None = None  # None: where `veltair calibrate` puts it
    times: bool = True  # those that `veltair calibrate --deep` left beside the profile, in place of the bundles' own


@dataclass(frozen=True, slots=True)
class ModelQos:
    """None: what the model was compiled for. `precision` is the coarsest that the tenant permits."""

    qos_ms: float | None = None
    percentile: float | None = None
    precision: Precision = "fp32"
    priority: int = 0  # this and the next are the tenant's, the same for all its models
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """`tenants` maps tenant to model to QoS; None means one tenant "default" with every model."""

    endpoint: str = DEFAULT_ENDPOINT
    policy: str = "veltair"
    cores: tuple[int, ...] | None = None
    log: Path | None = None
    drain_timeout_s: float = 10.0
    tenants: Mapping[str, Mapping[str, ModelQos]] | None = None
    interference: Interference = Interference()


class TenantQos(msgspec.Struct, frozen=True):
    """One tenant's promise for one model."""

    tenant: str
    model: str
    qos_us: int
    percentile: float
    precision: Precision = "fp32"  # the coarsest it permits
    priority: int = 0
    weight: float = 1.0


class EngineSettings(msgspec.Struct, frozen=True):
    """What the directory hands to an engine it starts, as JSON on its standard input (arguments show in `ps`)."""

    endpoint: str  # a TCP port of * lets the engine choose one
    bundles: tuple[str, ...]
    policy: str
    cores: tuple[int, ...]
    drain_timeout_s: float
    tenants: tuple[TenantQos, ...]
    log: str | None = None
    source: str = "auto"  # of outside pressure
    profile: str | None = None  # of the host
    times: bool = True  # of the host, where there are any


def load_config(path: Path) -> ServeConfig:
    """Raises ConfigError naming the key, its value and what to write instead. Model names are checked by the directory."""
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"configuration {str(path)!r} cannot be read: {error.strerror}; name a readable file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {str(path)!r} is not TOML: {error}; mend that line") from error
    return parse_config(table)


def parse_config(table: Mapping[str, Any]) -> ServeConfig:
    settings = _parsed("", table, {**_PARSERS, "tenants": _tenants, "interference": _interference})
    return ServeConfig(**settings)


def with_options(config: ServeConfig, **options: object) -> ServeConfig:
    """`config` with command-line options over it; None means not given. Checked like the file."""
    given = {name: value for name, value in options.items() if value is not None}
    return dataclasses.replace(config, **_parsed("", given, _PARSERS))


def parse_cores(text: str) -> tuple[int, ...]:
    """`0,2-4` → (0, 2, 3, 4)."""
    cores: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise ConfigError(f"cores {text!r}: {part!r} is neither a number nor a range; write for example 0,2-4")
        cores += range(int(match[1]), int(match[2] or match[1]) + 1)
    return _cores("cores", cores)


def _parsed(where: str, table: Mapping[str, Any], parsers: Mapping[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
    for key in table:
        if key not in parsers:
            raise ConfigError(f"unknown key {where + key!r}; known here: {', '.join(sorted(parsers))}")
    return {key: parsers[key](where + key, value) for key, value in table.items()}


def _endpoint(key: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"tcp://[^/\s]+:\d{1,5}|ipc://\S+", value):
        raise ConfigError(f"{key} = {value!r} is no endpoint; write for example {DEFAULT_ENDPOINT!r}")
    if value.startswith("tcp") and not 1 <= int(value.rsplit(":", 1)[1]) <= 65535:
        raise ConfigError(f"{key} = {value!r} has no valid port; choose one of 1..65535")
    return value


def _name(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key} = {value!r} is no name; write a text in quotes")
    return value


def _cores(key: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not value or any(type(core) is not int for core in value):
        raise ConfigError(f"{key} = {value!r} is no list of core numbers; write for example [0, 1]")
    if len(set(value)) != len(value):
        raise ConfigError(f"{key} = {list(value)!r} names a core twice; name each once")
    strangers = sorted(set(value) - set(usable_cores()))
    if strangers:
        raise ConfigError(f"{key} = {list(value)!r}: this process may not use {strangers}; choose from {list(usable_cores())}")
    return tuple(value)


def _path(key: str, value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(f"{key} = {value!r} is no path; write a text in quotes")
    return Path(value)


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{key} = {value!r} must be true or false")
    return value


def _positive(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ConfigError(f"{key} = {value!r} must be a finite number above 0")
    return float(value)


def _percentile(key: str, value: Any) -> float:
    share = _positive(key, value)
    if share >= 1:
        raise ConfigError(f"{key} = {value!r} must be below 1; write 0.95 for the 95th percentile")
    return share


def _precision(key: str, value: Any) -> Precision:
    if value not in PRECISIONS:
        raise ConfigError(f"{key} = {value!r} is no precision; write one of: {', '.join(map(repr, PRECISIONS))}")
    return cast(Precision, value)


def _priority(key: str, value: Any) -> int:
    if type(value) is not int or abs(value) > MOST_PRIORITY:
        raise ConfigError(f"{key} = {value!r} is no priority; write a whole number within -{MOST_PRIORITY}..{MOST_PRIORITY}")
    return value


def _source(key: str, value: Any) -> str:
    known = ("auto", "off", *SOURCES)
    if value not in known:
        raise ConfigError(f"{key} = {value!r} is no source of pressure; write one of: {', '.join(map(repr, known))}")
    return cast(str, value)


def _interference(key: str, value: Any) -> Interference:
    return Interference(**_parsed(f"{key}.", _table(key, value), {"source": _source, "profile": _path, "times": _flag}))


def _tenants(key: str, value: Any) -> dict[str, dict[str, ModelQos]]:
    tenants = {}
    for tenant, table in _table(key, value).items():
        settings = _parsed(f"{key}.{tenant}.", _table(f"{key}.{tenant}", table), _TENANT_PARSERS)
        models = settings.pop("models", {})
        if not models:
            raise ConfigError(f"tenant {tenant!r} has no models; add a [{key}.{tenant}.models.MODEL] table")
        tenants[tenant] = {
            model: ModelQos(**settings | _parsed(f"{key}.{tenant}.models.{model}.", _table(model, qos), _QOS_PARSERS))
            for model, qos in models.items()
        }
    if not tenants:
        raise ConfigError(f"{key} is empty; leave it out to serve every model to the tenant 'default'")
    return tenants


def _table(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{key} = {value!r} must be a table; write [{key}]")
    return value


_TENANT_PARSERS: dict[str, Callable[[str, Any], Any]] = {
    "models": _table,
    "precision": _precision,
    "priority": _priority,
    "weight": _positive,
}
_QOS_PARSERS: dict[str, Callable[[str, Any], Any]] = {"qos_ms": _positive, "percentile": _percentile, "precision": _precision}
_PARSERS: dict[str, Callable[[str, Any], Any]] = {
    "endpoint": _endpoint,
    "policy": _name,
    "cores": _cores,
    "log": _path,
    "drain_timeout_s": _positive,
}
