"""Bundles on disk: written whole or not at all, and read only after every byte has been checked.

Two rules of this file:
1. A folder under its final name is complete. Everything is written and synced in a hidden sibling and renamed at the end,
   so a crash or a full disk leaves the older bundle (or none), never half of one.
2. Nothing of a bundle is used, mapped or loaded as code before its digests, its schema and its bounds have been checked.
"""

import ctypes
import errno
import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from veltair.bundle.check import check_manifest
from veltair.bundle.format import ALIGNMENT_BYTES, SCHEMA_VERSION, Manifest, decode_manifest, encode_manifest
from veltair.core.values import Footprint, LatencyTable, LayerBlock, Model, ModelName, Precision, Variant
from veltair.errors import BundleCorrupt, BundleError, BundleMissing, BundleSchemaUnknown, BundleTargetMismatch, OutOfDisk

MANIFEST, DIGEST, WEIGHTS, BLOCKS = "manifest.json", "manifest.sha256", "weights.bin", "blocks.so"
REPORT, PAGE = "report.json", "report.html"

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
RENAME_EXCHANGE = 2  # linux/fs.h: swap two names in one step, so that the old bundle is there until the new one is
AT_FDCWD = -100
READ_BYTES = 1 << 20

Weights = bytes | Iterable[tuple[int, npt.NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened, verified bundle. `weights` is the read-only mapping of weights.bin; two engines share its pages."""

    folder: Path
    manifest: Manifest
    model: Model
    weights: npt.NDArray[np.uint8]

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def blocks_so(self) -> Path:
        return self.folder / BLOCKS

    def at_batch(self, batch: int) -> "Bundle":
        """The same files seen at another batch size. Raises ValueError where the model was not compiled for it."""
        manifest = self.manifest.at_batch(batch)
        return replace(self, manifest=manifest, model=to_model(manifest))


def write_bundle(
    folder: Path, manifest: Manifest, weights: Weights, blocks_so: Path, report: Mapping[str, Any], page: str | None = None
) -> Path:
    """Write a bundle to `folder`, in place of an older one only once the new one is whole; returns `folder`.

    `manifest.files` is filled in here. `weights` is the whole file, or (offset, array) pairs with ascending offsets.
    `page` is the report for people, as HTML.
    Raises OutOfDisk (nothing is left behind) and BundleError for other failures to write.
    """
    folder = folder.absolute()
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        files = {
            WEIGHTS: _write(temporary / WEIGHTS, lambda file: _write_weights(file, weights)),
            BLOCKS: _write(temporary / BLOCKS, lambda file: _copy(blocks_so, file)),
            REPORT: _write(temporary / REPORT, lambda file: file.write(json.dumps(report, indent=1).encode())),
        }
        if page is not None:
            files[PAGE] = _write(temporary / PAGE, lambda file: file.write(page.encode()))
        text = msgspec.json.format(encode_manifest(msgspec.structs.replace(manifest, files=files)), indent=1)
        digest = _write(temporary / MANIFEST, lambda file: file.write(text))
        _write(temporary / DIGEST, lambda file: file.write(f"{digest}  {MANIFEST}\n".encode()))
        _sync_folder(temporary)
        _move_into_place(temporary, folder)
    except OSError as error:
        what = f"bundle {manifest.name!r} could not be written to {folder}: {error.strerror or error}"
        if error.errno in NO_ROOM:
            raise OutOfDisk(f"{what}; free some space there or choose another output folder (nothing was changed)") from error
        raise BundleError(f"{what}; check that the folder exists and can be written") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def open_bundle(folder: Path, *, cpu_features: frozenset[str] | None = None) -> Bundle:
    """Verify the bundle in `folder` and map its weights. `cpu_features` stands in for this machine's in tests.

    Raises BundleMissing, BundleCorrupt, BundleSchemaUnknown or BundleTargetMismatch.
    """
    manifest = read_manifest(folder)
    missing = sorted(set(manifest.target.features) - (this_cpu_features() if cpu_features is None else cpu_features))
    if missing or manifest.target.arch != os.uname().machine:
        lacks = f"which lacks {', '.join(missing)}" if missing else f"which is a {os.uname().machine}"
        raise BundleTargetMismatch(
            f"bundle {manifest.name!r} was compiled for {manifest.target.arch} {manifest.target.mcpu}, not for this CPU, "
            f"{lacks}; compile the model again on this machine"
        )
    for name, digest in manifest.files.items():
        if _digest_of(folder / name) != digest:
            raise _corrupt(folder / name, "its sha256 differs from the manifest's")
    weights = _map(folder / WEIGHTS)
    try:
        check_manifest(manifest, weights.nbytes)
        model, *_ = (to_model(manifest.at_batch(batch)) for batch in manifest.batches)
    except ValueError as error:
        raise _corrupt(folder / MANIFEST, str(error)) from error
    return Bundle(folder, manifest, model, weights)


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, its digest and schema checked: enough to list a bundle, not to run it."""
    try:
        text = (folder / MANIFEST).read_bytes()
        digest = (folder / DIGEST).read_text().split()
    except FileNotFoundError as error:
        raise BundleMissing(
            f"no bundle in {folder} ({Path(error.filename).name} is missing); run `veltair compile` first"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _corrupt(folder, f"cannot be read: {error}") from error
    if digest[:1] != [hashlib.sha256(text).hexdigest()]:
        raise _corrupt(folder / MANIFEST, f"its sha256 differs from the one in {DIGEST}")
    try:
        version = msgspec.json.decode(text, type=_Versioned).schema_version  # before the rest: a newer one may look different
        if version != SCHEMA_VERSION:
            raise BundleSchemaUnknown(
                f"bundle {folder.name!r} has schema version {version}, this veltair reads {SCHEMA_VERSION}; "
                f"{'upgrade veltair' if version > SCHEMA_VERSION else 'compile the model again'}"
            )
        return decode_manifest(text)
    except msgspec.MsgspecError as error:
        raise _corrupt(folder / MANIFEST, str(error)) from error


def list_bundles(folder: Path) -> list[Path]:
    """The folders in `folder` that hold a manifest, by name. Hidden ones (still being written) do not count."""
    if not folder.is_dir():
        raise BundleMissing(f"no folder {folder}; give the folder that `veltair compile` wrote its bundles to")
    return sorted(child for child in folder.iterdir() if not child.name.startswith(".") and (child / MANIFEST).is_file())


def to_model(manifest: Manifest) -> Model:
    """What the scheduler needs to know of a bundle, and of what answers several requests in one run."""
    return Model(
        ModelName(manifest.name),
        tuple(
            LayerBlock(
                block.name,
                tuple(
                    Variant(
                        variant.name,
                        LatencyTable(manifest.pressure_levels, variant.latency_us),
                        Footprint(variant.traffic_bytes, variant.working_set_bytes),
                        cast(Precision, variant.precision),  # which Variant checks
                    )
                    for variant in block.variants
                ),
                block.continues,
            )
            for block in manifest.blocks
        ),
        {count: to_model(manifest.at_batch(batch)) for count, batch in manifest.stacks.items()},
    )


def this_cpu_features() -> frozenset[str]:
    """Names as in /proc/cpuinfo's `flags`."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


class _Versioned(msgspec.Struct):
    schema_version: int


def _corrupt(path: Path, why: str) -> BundleCorrupt:
    return BundleCorrupt(f"{path}: {why}; copy the bundle again or compile the model again")


def _write(path: Path, fill: Callable[[IO[bytes]], object]) -> str:
    """Create `path`, let `fill` write it, sync it; its sha256."""
    with path.open("xb") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())
    return _digest_of(path)


def _write_weights(file: IO[bytes], weights: Weights) -> None:
    if isinstance(weights, bytes):
        file.write(weights)
        return
    end = 0
    for offset, array in weights:
        if offset < end or offset % ALIGNMENT_BYTES:
            raise ValueError(f"weight at offset {offset} overlaps the one before, which ends at {end}, or is not aligned")
        file.write(bytes(offset - end))
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)  # no copy: it may be most of the memory
        end = offset + array.nbytes


def _copy(source: Path, file: IO[bytes]) -> None:
    with source.open("rb") as original:
        shutil.copyfileobj(original, file, READ_BYTES)


def _digest_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise _corrupt(path, "the manifest names it but it is missing") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move_into_place(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
    elif not _exchange(temporary, folder):  # a file system without it: two renames, with a gap of microseconds
        aside = temporary.with_suffix(".old")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        temporary.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    _sync_folder(folder.parent)


def _exchange(one: Path, other: Path) -> bool:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return renameat2 is not None and not renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


def _map(path: Path) -> npt.NDArray[np.uint8]:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # a model without constants; an empty file cannot be mapped
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
