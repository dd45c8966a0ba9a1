"""How variants stand pressure, from the tables that the compiler measured: how much each kind slows, where the best one is
another under pressure than without, and what it would cost to have one variant for all levels.

Choices are made layer by layer, as the scheduler makes them: the parts of a long layer run as the same variant. Sums over
layers are taken for whole models, so a layer counts for as much as it takes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from statistics import fmean
from typing import Literal

from veltair.bundle.format import BlockSpec, CallSpec, Manifest, VariantSpec
from veltair.core.values import PRECISIONS, Precision

Resource = Literal["bandwidth", "cache"]
RESOURCES: tuple[Resource, ...] = ("bandwidth", "cache")
WORTH = 0.02  # medians repeat to about as much: a change that gains less may be chance
LIGHT = ("lean", "small")  # kinds that a variant is of by the rule that made it, whatever its algorithm
COMPUTING = (
    "attention",
    "conv",
    "gemm",
    "image",
    "winograd",
)  # kernels that multiply matrices; but a product of one row does not


@dataclass(frozen=True, slots=True)
class At:
    """Where a variant is looked at: on so many cores, under pressure on this."""

    cores: int
    resource: Resource = "bandwidth"


@dataclass(frozen=True, slots=True)
class Layer:
    """A block, or the consecutive ones that are parts of one layer."""

    blocks: tuple[BlockSpec, ...]

    @property
    def name(self) -> str:
        return self.blocks[0].name

    @property
    def variants(self) -> tuple[VariantSpec, ...]:
        return self.blocks[0].variants

    def permitted(self, coarsest: Precision) -> list[int]:
        """Numbers of the variants that may run for a tenant that permits this much."""
        allowed = PRECISIONS[: PRECISIONS.index(coarsest) + 1]
        return [number for number, variant in enumerate(self.variants) if variant.precision in allowed]

    def us(self, variant: int, at: At) -> tuple[int, ...]:
        """At each level of pressure."""
        rows = [_rows(block.variants[variant], at.resource)[at.cores] for block in self.blocks]
        return tuple(sum(level) for level in zip(*rows, strict=True))

    def fastest(self, numbers: Sequence[int], at: At, level: int = 0) -> int:
        """Of these variants; the first where times tie. `level` is its place on the ladder."""
        return min(numbers, key=lambda number: self.us(number, at)[level])


def layers_of(manifest: Manifest) -> list[Layer]:
    groups: list[list[BlockSpec]] = []
    for block in manifest.blocks:
        if block.continues:
            groups[-1].append(block)
        else:
            groups.append([block])
    return [Layer(tuple(group)) for group in groups]


def places(manifest: Manifest) -> Iterator[At]:
    """Every core count and resource under which all variants were measured."""
    for resource in RESOURCES:
        rows = [set(_rows(variant, resource)) for block in manifest.blocks for variant in block.variants]
        yield from (At(cores, resource) for cores in sorted(set.intersection(*rows)))


def _rows(variant: VariantSpec, resource: Resource) -> Mapping[int, tuple[int, ...]]:
    return variant.latency_us if resource == "bandwidth" else variant.cache_latency_us


# How much each kind slows -----------------------------------------------------------------------------------------------


def kind_of(variant: VariantSpec) -> str:
    """What sets it apart: "direct fp32", "winograd bf16", "lean fp32"."""
    light = next((word for word in LIGHT if variant.name.endswith(word)), None)
    return f"{light or variant.algorithm} {variant.precision}"


def kinds_of(layers: Sequence[Layer]) -> list[str]:
    """In the order of their first variants."""
    return list(dict.fromkeys(kind_of(variant) for layer in layers for variant in layer.variants))


def of_kind(layers: Sequence[Layer], kind: str, at: At) -> list[int]:
    """The whole model with this kind of variant: each layer's fastest one of the kind, or of all exact ones where it has none."""
    chosen = []
    for layer in layers:
        mine = [number for number, variant in enumerate(layer.variants) if kind_of(variant) == kind]
        chosen.append(layer.fastest(mine or layer.permitted("fp32"), at))
    return chosen


def that_have(layers: Sequence[Layer], kind: str) -> list[Layer]:
    """The layers with a variant of the kind."""
    return [layer for layer in layers if any(kind_of(variant) == kind for variant in layer.variants)]


def total_us(layers: Sequence[Layer], chosen: Sequence[int], at: At) -> list[int]:
    """Of a whole model, at each level."""
    times = [layer.us(number, at) for layer, number in zip(layers, chosen, strict=True)]
    return [sum(level) for level in zip(*times, strict=True)]


def slowdowns(times: Sequence[int]) -> list[float]:
    return [us / times[0] for us in times]


# One variant for all levels, or one for each ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Changes:
    """Of `points` (a layer at a level above none), at how many another variant is best than on a quiet machine."""

    points: int
    changed: int
    worth: int  # of those, gaining more than WORTH

    def __add__(self, other: "Changes") -> "Changes":
        return Changes(self.points + other.points, self.changed + other.changed, self.worth + other.worth)


def changes(layer: Layer, coarsest: Precision, at: At) -> Changes:
    numbers = layer.permitted(coarsest)
    quiet_us = layer.us(layer.fastest(numbers, at), at)
    best_us = [min(level) for level in zip(*(layer.us(number, at) for number in numbers), strict=True)]
    gains = [quiet / best - 1 for quiet, best in zip(quiet_us[1:], best_us[1:], strict=True)]
    return Changes(len(gains), sum(gain > 0 for gain in gains), sum(gain > WORTH for gain in gains))


def impossible(layers: Sequence[Layer], coarsest: Precision, at: At) -> tuple[int, int]:
    """At how many points (a variant at a level above none) a layer was faster than on a quiet machine by more than WORTH, and of
    how many: pressure does not do that, so it says how often such a difference is chance."""
    times = [slowdowns(layer.us(number, at))[1:] for layer in layers for number in layer.permitted(coarsest)]
    return sum(ratio < 1 - WORTH for each in times for ratio in each), sum(map(len, times))


def free(layers: Sequence[Layer], coarsest: Precision, at: At) -> list[int]:
    """Each layer's best at each level: microseconds of the whole model."""
    times = [[layer.us(number, at) for number in layer.permitted(coarsest)] for layer in layers]
    return [sum(min(us[level] for us in of_layer) for of_layer in times) for level in range(len(times[0][0]))]


def quietest(layers: Sequence[Layer], coarsest: Precision, at: At) -> list[int]:
    """What is fastest on a quiet machine."""
    return [layer.fastest(layer.permitted(coarsest), at) for layer in layers]


def best_fixed(layers: Sequence[Layer], coarsest: Precision, at: At) -> list[int]:
    """One variant a layer for all levels: of all such choices the one that loses least against `free` in the mean over them.

    The mean loss is a sum over layers, so that the best choice is each layer's own.
    """
    best_us = free(layers, coarsest, at)

    def share(layer: Layer, number: int) -> float:
        return sum(us / best for us, best in zip(layer.us(number, at), best_us, strict=True))

    return [min(layer.permitted(coarsest), key=partial(share, layer)) for layer in layers]


@dataclass(frozen=True, slots=True)
class Loss:
    """Against free choice, as shares of its time, over the levels."""

    mean: float
    worst: float


def loss(layers: Sequence[Layer], chosen: Sequence[int], coarsest: Precision, at: At) -> Loss:
    each = [us / best - 1 for us, best in zip(total_us(layers, chosen, at), free(layers, coarsest, at), strict=True)]
    return Loss(fmean(each), max(each))


# Blocks that memory bounds ----------------------------------------------------------------------------------------------


def balance(manifests: Sequence[Manifest]) -> float:
    """Bytes per flop at which one core's arithmetic and its way to memory take alike: the bandwidth that was measured, over the
    highest rate at which any direct fp32 block computes."""
    rates = [
        block.flops / variant.latency_us[1][0]
        for manifest in manifests
        for block in manifest.blocks
        for variant in block.variants
        if kind_of(variant) == "direct fp32" and 1 in variant.latency_us
    ]
    return max(manifest.measured.bandwidth_bytes_per_us for manifest in manifests) / max(rates)


def bytes_per_flop(layer: Layer) -> float:
    """Of the exact variant that moves least."""
    moved = min(sum(block.variants[number].traffic_bytes for block in layer.blocks) for number in layer.permitted("fp32"))
    return moved / max(1, sum(block.flops for block in layer.blocks))


def bound_by(layer: Layer, manifest: Manifest) -> list[str]:
    """Its kernels that do little with each byte, by name: "depthwise", "layernorm", "move" (gather), "gemm of one row"."""
    calls = [call for block in layer.blocks for call in block.variants[layer.permitted("fp32")[0]].calls]
    return list(dict.fromkeys(name for call in calls if (name := _little(call, manifest)) is not None))


def _little(call: CallSpec, manifest: Manifest) -> str | None:
    name = call.symbol.split("_")[0]
    if name not in COMPUTING:
        return name
    *outer, _ = manifest.tensors[call.tensors[-1]].shape  # (rows, channels), or (1, channels / block, height, width, block)
    rows = prod(outer[2:] if len(outer) == 4 else outer)
    return f"{name} of one row" if rows == 1 else None
