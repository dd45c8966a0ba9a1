"""Times of this host, in the form that the scheduler core reads: what `veltair calibrate --deep` leaves behind for an engine.

For each variant of each block, on each number of cores: the median and the p95 at a few levels of pressure. `on(manifest)` is
the core's model with the medians in place of the compiler's table. A unit's p95 is less than the sum of its blocks' p95, which
are not all late at once: for a whole model it is `late` times the sum of medians.
Pressure is a share of `bandwidth_bytes_per_us`; a core that is to read these times has to be given that same bandwidth.
"""

from dataclasses import replace
from pathlib import Path

import msgspec

from veltair.bundle.format import Manifest
from veltair.bundle.store import to_model
from veltair.core.values import LatencyTable, Model
from veltair.errors import ProfileError, ProfileMissing, ProfileSchemaUnknown
from veltair.interference.corun import Discarded, Subject
from veltair.interference.machine import this_machine
from veltair.interference.profile import default_path, write_whole

SCHEMA_VERSION = 1
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
FILE, CORUNS_FILE = "times.json", "coruns.jsonl"  # beside the host's profile


class Figure(msgspec.Struct, frozen=True):
    """How well held-out co-runs were foretold."""

    of: str  # class of block, "all blocks" or "whole models"
    by: str  # who foretold
    examples: int  # of blocks (or whole models) in co-runs
    mape: float  # mean over them of |foretold - measured| / measured, of medians
    median_error: float  # the median of the same
    coverage: float  # share of single times within the p95 that was foretold
    width: float  # mean of p95 over median as foretold


class VariantTimes(msgspec.Struct, frozen=True):
    """Cores -> microseconds at each level."""

    median_us: dict[int, tuple[int, ...]]
    p95_us: dict[int, tuple[int, ...]]


class BundleTimes(msgspec.Struct, frozen=True):
    digest: str
    late: float  # p95 of the whole model over the sum of its medians
    blocks: tuple[tuple[VariantTimes, ...], ...]


class HostTimes(msgspec.Struct, frozen=True, kw_only=True):
    schema_version: int
    fingerprint: str  # of the machine
    made_at: str  # ISO 8601, UTC
    seed: int
    versions: dict[str, str]
    bandwidth_bytes_per_us: float  # what pressures are shares of
    levels: tuple[float, ...]
    coruns: int  # learnt from, quiet ones included
    pairs: int  # of co-runners
    samples: int  # single times of blocks
    discarded: Discarded
    chosen: dict[str, str]  # class of block -> who foretells it
    figures: tuple[Figure, ...]  # of held-out co-runs
    notes: tuple[str, ...] = ()
    bundles: dict[str, BundleTimes]

    def knows(self, manifest: Manifest) -> bool:
        """Whether this very bundle took part: one that was compiled anew has other times."""
        times = self.bundles.get(manifest.name)
        return times is not None and times.digest == Subject.of(manifest).digest

    def on(self, manifest: Manifest) -> Model:
        """What the core is to know of the bundle: the medians of this host. Unchanged where the bundle took no part."""
        model = to_model(manifest)
        if not self.knows(manifest):
            return model
        times = self.bundles[manifest.name]
        blocks = tuple(
            replace(
                block,
                variants=tuple(
                    replace(variant, table=LatencyTable(self.levels, known.median_us))
                    for variant, known in zip(block.variants, of_block, strict=True)
                ),
            )
            for block, of_block in zip(model.blocks, times.blocks, strict=True)
        )
        return replace(model, blocks=blocks, late=times.late)


def read(path: Path, fingerprint: str) -> HostTimes:
    """Raises ProfileMissing where there is none or it is of another machine, ProfileError where it cannot be read."""
    try:
        text = path.read_bytes()
        if msgspec.json.decode(text, type=_Versioned).schema_version != SCHEMA_VERSION:
            raise ProfileSchemaUnknown(f"{path} is of another version of veltair; run: veltair calibrate --deep BUNDLES")
        times = msgspec.json.decode(text, type=HostTimes)
    except FileNotFoundError as error:
        raise ProfileMissing(f"no times of this host at {path}; run: veltair calibrate --deep BUNDLES") from error
    except (OSError, msgspec.MsgspecError) as error:
        raise ProfileError(f"{path} holds no times: {error}; run: veltair calibrate --deep BUNDLES") from error
    if times.fingerprint != fingerprint:
        raise ProfileMissing(f"{path} is of another machine, or of this one as it was; run: veltair calibrate --deep BUNDLES")
    return times


def current(profile: Path | None = None) -> tuple[HostTimes | None, str]:
    """Those beside the host's profile, or None and the reason, for those who can do without."""
    path = (default_path() if profile is None else profile).parent / FILE
    try:
        return read(path, this_machine().fingerprint), ""
    except ProfileError as error:
        return None, str(error)


def write(times: HostTimes, path: Path) -> None:
    """Whole or not at all. Raises ProfileError."""
    write_whole(msgspec.json.encode(times), path)


class _Versioned(msgspec.Struct):
    schema_version: int
