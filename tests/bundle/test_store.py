"""A bundle is whole or it is not there, and nothing of it is used before it has been checked."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tiny import WEIGHT, WIDTH, rows_manifest, slow_manifest, tiny_manifest

from veltair.bundle import store
from veltair.bundle.format import SCHEMA_VERSION, Manifest, TensorSpec
from veltair.bundle.store import list_bundles, open_bundle, write_bundle
from veltair.errors import BundleCorrupt, BundleError, BundleMissing, BundleSchemaUnknown, BundleTargetMismatch, OutOfDisk


@pytest.fixture
def tiny(artifacts: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(artifacts / "tiny", tmp_path / "tiny"))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and sign it anew, as a faulty or newer compiler would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    text = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(text)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")


def test_what_was_written_is_what_is_opened(artifacts: Path) -> None:
    bundle = open_bundle(artifacts / "tiny")
    assert msgspec.structs.replace(bundle.manifest, files={}) == tiny_manifest()
    np.testing.assert_array_equal(bundle.weights[: WEIGHT.nbytes].view(np.float32).reshape(WIDTH, WIDTH), WEIGHT)
    assert [block.name for block in bundle.model.blocks] == ["product", "rest"]
    assert not bundle.weights.flags.writeable


def test_the_digest_is_one_that_sha256sum_checks(tiny: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--quiet", "manifest.sha256"], cwd=tiny, check=True)


@pytest.mark.parametrize("name", ["manifest.json", "weights.bin", "blocks.so", "report.json"])
def test_one_changed_byte_is_found_and_the_file_named(tiny: Path, name: str) -> None:
    content = bytearray((tiny / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tiny / name).write_bytes(content)
    with pytest.raises(BundleCorrupt, match=rf"{name}: its sha256 differs.*compile the model again"):
        open_bundle(tiny)


@pytest.mark.parametrize("name", ["weights.bin", "blocks.so"])
def test_a_file_that_is_gone_is_named(tiny: Path, name: str) -> None:
    (tiny / name).unlink()
    with pytest.raises(BundleCorrupt, match=f"{name}: the manifest names it but it is missing"):
        open_bundle(tiny)


def test_a_future_schema_is_refused_even_if_the_rest_looks_different(tiny: Path) -> None:
    rewrite(tiny, lambda manifest: (manifest.update(schema_version=SCHEMA_VERSION + 1), manifest.pop("blocks")))
    with pytest.raises(BundleSchemaUnknown, match=r"schema version \d, this veltair reads \d; upgrade veltair"):
        open_bundle(tiny)


def test_code_for_another_cpu_is_refused_by_the_features_it_needs(tiny: Path) -> None:
    rewrite(tiny, lambda manifest: manifest["target"].update(features=["sse2", "avx512f", "avx512_bf16"]))
    with pytest.raises(BundleTargetMismatch, match=r"'tiny'.*lacks avx512_bf16, avx512f; compile the model again"):
        open_bundle(tiny, cpu_features=frozenset({"sse2", "avx2"}))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m["tensors"][4].update(offset=1 << 30), r"tensor 4 \(weight\) at offset 1073741824"),
        (lambda m: m["tensors"][3].update(offset=-64), "tensor 3"),
        (lambda m: m["tensors"][3].update(offset=8), "tensor 3.*not aligned"),
        (lambda m: m["tensors"][3].update(shape=[1 << 40]), "tensor 3"),
        (lambda m: m["tensors"][3].update(dtype="object"), "dtype 'object'"),
        (lambda m: m["inputs"][0].update(tensor=99), "port 'x' names tensor 99"),
        (lambda m: m["inputs"][0].update(shape=[2, 64]), "port 'x'"),
        (lambda m: m["inputs"][0].update(tensor=4), "port 'x'"),
        (lambda m: m["blocks"][0]["variants"][0]["calls"][0].update(tensors=[0, 99]), "tiny_product"),
        (lambda m: m["blocks"][0]["variants"][0].update(latency_us={"0": [1, 1]}), "rows for 1 core or more"),
        (lambda m: m.update(blocks=[]), "no blocks"),
        (lambda m: m["files"].pop("weights.bin"), "weights.bin"),
        (lambda m: m.pop("arena_bytes"), "arena_bytes"),
        (lambda m: m.update(arena_bytes="many"), "arena_bytes"),
    ],
)
def test_a_manifest_that_points_out_of_bounds_is_refused(
    tiny: Path, change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    rewrite(tiny, change)
    with pytest.raises(BundleCorrupt, match=complaint):
        open_bundle(tiny)


def test_a_file_name_cannot_leave_the_folder(tiny: Path) -> None:
    rewrite(tiny, lambda manifest: manifest["files"].update({"../tiny/report.json": manifest["files"]["report.json"]}))
    with pytest.raises(BundleCorrupt, match="leaves the bundle's folder"):
        open_bundle(tiny)


def test_a_missing_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing, match=r"no bundle in .*nowhere.*veltair compile"):
        open_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleMissing, match="no folder"):
        list_bundles(tmp_path / "nowhere")


def test_a_listing_passes_over_what_is_still_being_written(artifacts: Path, tmp_path: Path) -> None:
    shutil.copytree(artifacts / "tiny", tmp_path / ".tiny.1.tmp")
    shutil.copytree(artifacts / "tiny", tmp_path / "b")
    (tmp_path / "a").mkdir()
    assert list_bundles(tmp_path) == [tmp_path / "b"]


def write_slow(folder: Path, artifacts: Path) -> Path:
    return write_bundle(folder, slow_manifest(), b"", artifacts / "slow" / "blocks.so", {})


def test_a_page_for_people_is_checked_like_every_other_file(artifacts: Path, tmp_path: Path) -> None:
    library = artifacts / "slow" / "blocks.so"
    folder = write_bundle(tmp_path / "slow", slow_manifest(), b"", library, {}, "<!doctype html>")
    assert set(open_bundle(folder).manifest.files) == {"weights.bin", "blocks.so", "report.json", "report.html"}
    (folder / "report.html").write_text("other")
    with pytest.raises(BundleCorrupt, match=r"report\.html: its sha256 differs"):
        open_bundle(folder)


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_newer_bundle_takes_the_place_of_the_older(
    tiny: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(store, "_exchange", lambda one, other: False)
    write_slow(tiny, artifacts)
    assert open_bundle(tiny).name == "slow"
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny"]


FILL_THE_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from veltair.bundle.store import write_bundle
from tiny import tiny_manifest
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # the kernel fails the write that passes it, as a full disk does
try:
    write_bundle(Path(sys.argv[1]), tiny_manifest(), bytes(100_000), Path(sys.argv[2]), {})
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_disk_that_fills_leaves_the_older_bundle_and_nothing_half_made(tiny: Path) -> None:
    arguments = [str(tiny), str(tiny / "blocks.so"), str(Path(__file__).parents[1])]
    told = subprocess.run([sys.executable, "-c", FILL_THE_DISK, *arguments], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("OutOfDisk bundle 'tiny' could not be written to")
    assert "free some space there" in told.stdout
    assert open_bundle(tiny).name == "tiny"
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny"]


def test_no_space_left_is_told_as_such(tmp_path: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", no_space)
    with pytest.raises(OutOfDisk, match=r"No space left on device; free some space"):
        write_slow(tmp_path / "slow", artifacts)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, artifacts: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BundleError, match=r"could not be written to .*check that the folder exists"):
        write_slow(tmp_path / "file" / "slow", artifacts)


def test_weights_that_overlap_are_a_mistake_of_the_compiler(tmp_path: Path, artifacts: Path) -> None:
    weights = [(0, np.zeros(64, np.float32)), (128, np.zeros(64, np.float32))]
    manifest: Manifest = msgspec.structs.replace(slow_manifest(), tensors=(TensorSpec("weight", "float32", (64,), 0),))
    with pytest.raises(ValueError, match="offset 128 overlaps the one before, which ends at 256"):
        write_bundle(tmp_path / "slow", manifest, weights, artifacts / "slow" / "blocks.so", {})
    assert list(tmp_path.iterdir()) == []


def test_requests_stack_only_where_every_port_holds_them_side_by_side() -> None:
    rows = rows_manifest()
    assert rows.stacks == {2: 2, 4: 4}
    pair = rows.batched[0]
    same_for_all = msgspec.structs.replace(pair, inputs=(pair.inputs[0], rows.inputs[1]))
    assert msgspec.structs.replace(rows, batched=(same_for_all,)).stacks == {}
    assert msgspec.structs.replace(rows.at_batch(2), batched=(rows.batched[1],)).stacks == {2: 4}
    assert msgspec.structs.replace(rows.at_batch(4), batched=(pair,)).stacks == {}
