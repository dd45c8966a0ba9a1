"""The host's profile: what this machine can do, how crowded it can get, and what the probe feels of that. Made once.

`veltair calibrate` writes it; the engine and the model of interference read it. A profile belongs to a machine (`Machine`):
where anything that its numbers depend on is another, it is stale, and `stale_reason` says why in a sentence.
"""

import errno
import os
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from veltair.errors import ProfileError, ProfileMissing, ProfileSchemaUnknown
from veltair.interference.machine import Machine, this_machine
from veltair.interference.probe import Quiet

SCHEMA_VERSION = 1  # also where the probe or an antagonist does something else than before: their numbers change meaning
VARIABLE = "VELTAIR_HOST_PROFILE"
LEAST_FELT = 0.03

Kind = Literal["cache", "stream", "compute"]


class Bandwidth(msgspec.Struct, frozen=True):
    """Read from memory, GB/s (bytes per nanosecond)."""

    one_core: float
    all_cores: float


class Rung(msgspec.Struct, frozen=True):
    """One step of the antagonist's ladder, and what the probe felt of it beside a quiet machine (1.0: nothing)."""

    kind: Kind
    level: float  # 0..1: share of the time (stream, compute), share of the last-level cache (cache)
    gb_per_s: float  # that all antagonists together moved meanwhile: from memory (stream), from cache (cache), 0 (compute)
    slowdown_median: float
    slowdown_p95: float
    slowdown_low: float = 1.0  # of the rounds' medians the 10th percentile, and next the 90th: far apart where a hypervisor
    slowdown_high: float = 1.0  # moves our cores about, so that they share a cache or a way to memory now and not then
    disturbed: bool = False  # the rounds do not agree about it
    discarded: int = 0  # readings that could not be true


class HostProfile(msgspec.Struct, frozen=True):
    schema_version: int
    machine: Machine
    probe: Quiet
    bandwidth_gb_per_s: Bandwidth
    ladder: tuple[Rung, ...]  # () where there is one core: nobody can press from another
    fma_peak_gflops: dict[str, float]  # of one core, by precision ("fp32", "bf16"); empty: unknown
    made_at: str  # ISO 8601, UTC
    took_s: float
    seed: int
    versions: dict[str, str]  # of the tools that measured
    notes: tuple[str, ...] = ()  # what was not as it should be, in sentences

    @property
    def discarded(self) -> int:
        """Readings that could not be true, in all parts."""
        return self.probe.discarded + sum(rung.discarded for rung in self.ladder)

    def rungs(self, kind: Kind) -> tuple[Rung, ...]:
        """Of one kind, by level."""
        return tuple(sorted((rung for rung in self.ladder if rung.kind == kind), key=lambda rung: rung.level))

    def pressure(self, slowdown: float) -> float:
        """The level of streaming antagonists, 0..1, that slows the probe so, between rungs on a line.

        0.0 without a ladder, and where not even the top rung slows the probe by LEAST_FELT: it then tells nothing.
        """
        knots = [(1.0, 0.0)]
        for rung in self.rungs("stream"):
            if rung.slowdown_median > knots[-1][0]:  # a higher level that was felt less is noise
                knots.append((rung.slowdown_median, rung.level))
        felt, levels = zip(*knots, strict=True)
        return float(np.interp(slowdown, felt, levels)) if felt[-1] >= 1.0 + LEAST_FELT else 0.0


def default_path() -> Path:
    """VELTAIR_HOST_PROFILE, or host.json in the user's cache folder."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "veltair" / "host.json"


def read(path: Path) -> HostProfile:
    """Raises ProfileMissing, ProfileSchemaUnknown, or ProfileError where the file cannot be read or is something else."""
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise ProfileMissing(f"no profile of this host at {path}; run: veltair calibrate") from error
    except OSError as error:
        raise ProfileError(f"{path} cannot be read: {error.strerror}; name another file with --profile or {VARIABLE}") from error
    try:
        version = msgspec.json.decode(text, type=_Versioned).schema_version  # before the rest: another may look different
        if version != SCHEMA_VERSION:
            raise ProfileSchemaUnknown(
                f"{path} has schema version {version}, this veltair reads {SCHEMA_VERSION}; run: veltair calibrate"
            )
        return msgspec.json.decode(text, type=HostProfile)
    except msgspec.MsgspecError as error:
        raise ProfileError(
            f"{path} is no host profile: {error}; name another file, or write over it: veltair calibrate --force"
        ) from error


def make_folder(path: Path) -> None:
    """For the file to be written to. Raises ProfileError, so that it is known before anything is measured."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise _not_written(path, f"{path.parent} is no folder") from error
    except OSError as error:
        raise _not_written(path, error.strerror) from error
    if not os.access(path.parent, os.W_OK):
        raise _not_written(path, os.strerror(errno.EACCES))


def write(profile: HostProfile, path: Path) -> None:
    """Whole or not at all: an older one stays until the new one is there. Raises ProfileError."""
    write_whole(msgspec.json.format(msgspec.json.encode(profile), indent=1), path)


def write_whole(text: bytes, path: Path) -> None:
    """As `write`, for what is kept beside a profile."""
    make_folder(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _not_written(path, error.strerror) from error
    finally:
        temporary.unlink(missing_ok=True)


def stale_reason(profile: HostProfile, machine: Machine) -> str | None:
    """Why a profile does not hold for `machine`, as a sentence; None: it does."""
    then, now = profile.machine, machine
    if then.cpu != now.cpu:
        return f"it is of another machine: {then.cpu}, this one is {now.cpu}"
    if then.cpus != now.cpus:
        return f"it is of a machine with {_count(then.cpus, 'CPU')}, this one has {now.cpus}"
    if then.kernel != now.kernel:
        return f"it was made under Linux {then.kernel}, this is {now.kernel}"
    if then.cores != now.cores:
        return f"it was made on cores {_list(then.cores)}, now we may use {_list(now.cores)}"
    if then.quota != now.quota:
        return f"the CPU quota was {_quota(then.quota)}, now it is {_quota(now.quota)}"
    for what in ("siblings", "nodes", "caches"):
        if getattr(then, what) != getattr(now, what):
            return f"the cores' {what} were others: this virtual machine was laid out anew"
    return None


def current(path: Path | None = None, machine: Machine | None = None) -> tuple[HostProfile | None, str]:
    """The profile that holds for this machine, or None and the reason, for those who can do without one."""
    path = default_path() if path is None else path
    try:
        profile = read(path)
    except ProfileError as error:
        return None, str(error)
    reason = stale_reason(profile, this_machine() if machine is None else machine)
    return (profile, "") if reason is None else (None, f"the profile {path} is stale: {reason}; run: veltair calibrate")


class _Versioned(msgspec.Struct):
    schema_version: int


def _not_written(path: Path, why: str | None) -> ProfileError:
    return ProfileError(f"{path} cannot be written: {why}; name another file with --profile or {VARIABLE}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _list(cores: tuple[int, ...]) -> str:
    return ",".join(map(str, cores)) or "none"


def _quota(quota: float | None) -> str:
    return "unlimited" if quota is None else f"{quota:g} CPUs"
