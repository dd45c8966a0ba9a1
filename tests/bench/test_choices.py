"""Bundles with less to choose from: what is left in the manifest, and that they open like the bundle they were made of."""

from pathlib import Path

import msgspec
import pytest

from tests.bench.bundles import block, manifest, variant
from veltair.bench.choices import quiet, same_choice, static, whole, write_changed
from veltair.bundle.format import Batched, Manifest
from veltair.bundle.store import read_manifest, to_model, write_bundle
from veltair.errors import BundleMissing

FRAGILE = variant("fast", (100, 150, 240), (60, 90, 150), algorithm="winograd", cache_us=(100, 110, 120))
STURDY = variant("direct", (120, 130, 140), (65, 70, 80))
COARSE = variant("bf16", (10, 10, 10), (5, 5, 5), precision="bf16")
NET = manifest(block("00-conv", FRAGILE, STURDY, COARSE))


def names(form: Manifest) -> list[list[str]]:
    return [[each.name for each in block.variants] for block in form.blocks]


def test_a_static_choice_is_the_exact_variant_that_is_fastest_at_its_pressure() -> None:
    assert names(static(0.0)(NET)) == [["fast"]]
    assert names(static(0.5)(NET)) == [["direct"]]
    assert names(static(0.1)(NET)) == [["fast"]]  # 110 against 122 on one core: between levels on a line
    assert static(1.0)(NET).blocks[0].variants == (STURDY,)


def test_all_core_counts_have_a_say_in_a_static_choice() -> None:
    narrow, wide = variant("direct", (100,), (100,)), variant("wide", (105,), (60,))
    assert names(static(0.0)(manifest(block("00", narrow, wide), levels=(0.0,)))) == [["wide"]]


def test_parts_of_a_layer_keep_the_same_variant() -> None:
    first = block("00", variant("direct", (10,)), variant("wide", (30,)))
    second = block("01", variant("direct", (90,)), variant("wide", (30,)), continues=True)
    form = static(0.0)(manifest(first, second, levels=(0.0,)))
    assert names(form) == [["wide"], ["wide"]]
    assert to_model(form).layer_end(0) == 2


def test_a_quiet_bundle_knows_no_pressure_and_keeps_every_variant() -> None:
    form = quiet(NET)
    assert form.pressure_levels == (0.0,)
    assert names(form) == names(NET)
    assert form.blocks[0].variants[0].latency_us == {1: (100,), 2: (60,)}
    assert to_model(form).blocks[0].variants[1].table.latency_us(1, 1.0) == 120


@pytest.mark.parametrize(("change", "left"), [(quiet, 3), (static(1.0), 1)])
def test_other_batch_sizes_change_likewise(change: "object", left: int) -> None:
    ports = {"inputs": NET.inputs, "outputs": NET.outputs, "tensors": NET.tensors, "arena_bytes": 0}
    form = change(msgspec.structs.replace(NET, batched=(Batched(batch=2, blocks=NET.blocks, **ports),)))  # type: ignore[operator]
    assert [len(block.variants) for block in form.at_batch(2).blocks] == [left]
    assert form.at_batch(2).pressure_levels == form.pressure_levels


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    code = tmp_path / "blocks.so"
    code.write_bytes(b"code")
    write_bundle(tmp_path / "bundles" / "net", NET, b"weights", code, {})
    return tmp_path / "bundles"


def test_what_is_written_reads_as_a_bundle_over_the_same_files(bundles: Path, tmp_path: Path) -> None:
    folder = write_changed(bundles, ["net", "net"], tmp_path / "static", static(1.0))
    read = read_manifest(folder / "net")
    assert names(read) == [["direct"]]
    assert (folder / "net" / "weights.bin").read_bytes() == b"weights"
    assert (folder / "net" / "blocks.so").samefile(bundles / "net" / "blocks.so")
    assert read.files == read_manifest(bundles / "net").files
    assert names(read_manifest(bundles / "net")) == names(NET)


def test_choices_that_come_out_alike_are_seen_to_be(bundles: Path, tmp_path: Path) -> None:
    half, full, none = (write_changed(bundles, ["net"], tmp_path / f"{level}", static(level)) for level in (0.5, 1.0, 0.0))
    assert same_choice(half, full)
    assert not same_choice(half, none)


def test_a_bundle_that_is_not_there_is_named(bundles: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleMissing, match=r"no bundle in .*other"):
        write_changed(bundles, ["other"], tmp_path / "copy", whole)
