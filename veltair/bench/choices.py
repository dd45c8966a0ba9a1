"""Bundles with less to choose from, to be served beside the whole ones: one variant for each layer, or times of a quiet machine
alone. Only the manifest is another; weights, kernels and reports are links to the bundle's own.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec.structs import replace

from veltair.bench.sensitivity import Layer, layers_of
from veltair.bundle.format import BlockSpec, Manifest, VariantSpec, encode_manifest
from veltair.bundle.store import DIGEST, MANIFEST, read_manifest
from veltair.core.values import LatencyTable

Change = Callable[[Manifest], Manifest]


def whole(manifest: Manifest) -> Manifest:
    """As it is."""
    return manifest


def quiet(manifest: Manifest) -> Manifest:
    """Tables hold the level without pressure alone: nobody who reads them can know what pressure does."""

    def first(variant: VariantSpec) -> VariantSpec:
        return replace(variant, latency_us={cores: row[:1] for cores, row in variant.latency_us.items()}, cache_latency_us={})

    def of(blocks: Iterable[BlockSpec]) -> tuple[BlockSpec, ...]:
        return tuple(replace(block, variants=tuple(map(first, block.variants))) for block in blocks)

    batched = tuple(replace(other, blocks=of(other.blocks)) for other in manifest.batched)
    return replace(manifest, pressure_levels=manifest.pressure_levels[:1], blocks=of(manifest.blocks), batched=batched)


def static(level: float) -> Change:
    """Each layer keeps the one exact variant that is fastest at this pressure: over core counts, in the sum of its times' ratios
    to the best ones."""

    def change(manifest: Manifest) -> Manifest:
        def fastest(layer: Layer) -> int:
            numbers = layer.permitted("fp32")

            def us(number: int, cores: int) -> int:
                blocks = (block.variants[number] for block in layer.blocks)
                return sum(LatencyTable(manifest.pressure_levels, v.latency_us).latency_us(cores, level) for v in blocks)

            counts = sorted(set.intersection(*(set(layer.variants[number].latency_us) for number in numbers)))
            best_us = {cores: min(us(number, cores) for number in numbers) for cores in counts}
            return min(numbers, key=lambda number: sum(us(number, cores) / best_us[cores] for cores in counts))

        def of(form: Manifest) -> tuple[BlockSpec, ...]:
            chosen = [(layer, fastest(layer)) for layer in layers_of(form)]
            return tuple(replace(block, variants=(block.variants[number],)) for layer, number in chosen for block in layer.blocks)

        batched = tuple(replace(other, blocks=of(manifest.at_batch(other.batch))) for other in manifest.batched)
        return replace(manifest, blocks=of(manifest), batched=batched)

    return change


def write_changed(bundles: Path, names: Iterable[str], folder: Path, change: Change) -> Path:
    """The named bundles of the folder `bundles` as `change` makes them, below `folder`, which is made; returns it.

    Raises BundleError for one that is not there or broken.
    """
    for name in dict.fromkeys(names):
        source, copy = (bundles / name).resolve(), folder / name
        manifest = change(read_manifest(source))
        copy.mkdir(parents=True)
        for file in manifest.files:
            (copy / file).symlink_to(source / file)
        text = encode_manifest(manifest)
        (copy / MANIFEST).write_bytes(text)
        (copy / DIGEST).write_text(f"{hashlib.sha256(text).hexdigest()}  {MANIFEST}\n")
    return folder


def same_choice(one: Path, other: Path) -> bool:
    """Whether two folders written by `write_changed` hold the same manifests."""
    return {path.name: (path / DIGEST).read_text() for path in one.iterdir()} == {
        path.name: (path / DIGEST).read_text() for path in other.iterdir()
    }
