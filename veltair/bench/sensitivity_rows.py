"""What `sensitivity` finds in bundles, as rows. Times on all cores that were measured are modelled under pressure (no core was
left for an antagonist), and say so."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from veltair.bench.rows import Row
from veltair.bench.sensitivity import (
    WORTH,
    At,
    Changes,
    Layer,
    Loss,
    balance,
    best_fixed,
    bound_by,
    bytes_per_flop,
    changes,
    impossible,
    kind_of,
    kinds_of,
    layers_of,
    loss,
    of_kind,
    places,
    quietest,
    slowdowns,
    that_have,
    total_us,
)
from veltair.bundle.format import Manifest
from veltair.core.values import PRECISIONS, Precision

ALL = "all models"

About = Mapping[str, Any]  # machine and seed of a row
_Found = list[tuple[Changes, tuple[int, int], Loss, Loss]]


def kind_rows(manifests: Sequence[Manifest], about: About) -> Iterator[Row]:
    """Each model with each kind of variant: so many times as slow at each level."""
    for manifest in manifests:
        layers = layers_of(manifest)
        for cores in _cores(manifest):
            for kind in kinds_of(layers):
                case = f"{manifest.name}, {kind}, {_where(manifest, cores)}"
                mine = that_have(layers, kind)
                yield Row(case=case, metric="layers that have it", value=len(mine), unit=f"of {len(layers)}", **about)
                for at in (at for at in places(manifest) if at.cores == cores):
                    yield from _slowed(case, manifest, total_us(layers, of_kind(layers, kind, at), at), at, about)
                    most = slowdowns(total_us(mine, of_kind(mine, kind, at), at))[-1]
                    metric = f"these layers, {at.resource} {manifest.pressure_levels[-1]:g}"
                    yield Row(case=case, metric=metric, value=most, unit="x", **about)


def layer_rows(manifests: Sequence[Manifest], about: About) -> Iterator[Row]:
    """The variants of layers where another one is best under pressure on the bandwidth, by more than chance."""
    for manifest in manifests:
        for at in (at for at in places(manifest) if at.resource == "bandwidth"):
            for layer in layers_of(manifest):
                if not any(changes(layer, coarsest, at).worth for coarsest in _permissions([layer])):
                    continue
                for number, variant in enumerate(layer.variants):
                    where = _where(manifest, at.cores)
                    case = f"{manifest.name}/{layer.name}, {variant.name} ({kind_of(variant)}), {where}"
                    us = layer.us(number, at)
                    yield Row(case=case, metric="quiet", value=us[0], unit="us", **about)
                    yield from _slowed(case, manifest, us, at, about)


def worth_rows(manifests: Sequence[Manifest], about: About) -> Iterator[Row]:
    """At how many points the best variant changes, how often tables err by as much, and what it costs to have one variant for all
    levels; by model and in all."""
    of_all: dict[str, _Found] = {}
    for manifest in manifests:
        layers = layers_of(manifest)
        for coarsest in _permissions(layers):
            for at in places(manifest):
                found = (
                    sum((changes(layer, coarsest, at) for layer in layers), Changes(0, 0, 0)),
                    impossible(layers, coarsest, at),
                    loss(layers, best_fixed(layers, coarsest, at), coarsest, at),
                    loss(layers, quietest(layers, coarsest, at), coarsest, at),
                )
                where = f"{coarsest} permitted, {_where(manifest, at.cores)}, {at.resource}"
                of_all.setdefault(where, []).append(found)
                yield from _worth(f"{manifest.name}, {where}", *found, about)
    for where, each in of_all.items():
        counted = sum((counts for counts, _, _, _ in each), Changes(0, 0, 0))
        chance = sum(faster for _, (faster, _), _, _ in each), sum(points for _, (_, points), _, _ in each)
        fixed, quiet = _over([lost for _, _, lost, _ in each]), _over([lost for _, _, _, lost in each])
        yield from _worth(f"{ALL}, {where}", counted, chance, fixed, quiet, about)


def memory_rows(manifests: Sequence[Manifest], about: About) -> Iterator[Row]:
    """The layers that move more bytes for each flop than a core can have while it computes."""
    most = balance(manifests)
    for manifest in manifests:
        for layer in layers_of(manifest):
            if (moved := bytes_per_flop(layer)) <= most:
                continue
            for cores in _cores(manifest):
                where = _where(manifest, cores)
                case = f"{manifest.name}/{layer.name} ({', '.join(bound_by(layer, manifest)) or 'products'}), {where}"
                yield Row(case=case, metric="bytes a flop", value=moved, unit="", against=f"balance {most:.2g}", **about)
                for at in (at for at in places(manifest) if at.cores == cores):
                    [quickest] = quietest([layer], "fp32", at)
                    yield from _slowed(case, manifest, layer.us(quickest, at), at, about)
                found = changes(layer, "fp32", At(cores))
                yield Row(case=case, metric="best changes", value=found.changed, unit=f"of {found.points}", **about)


def _cores(manifest: Manifest) -> list[int]:
    return sorted({at.cores for at in places(manifest)})


def _where(manifest: Manifest, cores: int) -> str:
    modelled = " (modelled)" if cores == manifest.measured.cores else ""
    return f"{cores} core{'s' * (cores > 1)}{modelled}"


def _permissions(layers: Sequence[Layer]) -> list[Precision]:
    """Those that make a difference."""
    offered = {variant.precision for layer in layers for variant in layer.variants}
    return [precision for precision in PRECISIONS if precision in offered]


def _slowed(case: str, manifest: Manifest, us: Sequence[int], at: At, about: About) -> Iterator[Row]:
    for level, times in list(zip(manifest.pressure_levels, slowdowns(us), strict=True))[1:]:
        yield Row(case=case, metric=f"{at.resource} {level:g}", value=times, unit="x", **about)


def _worth(case: str, counted: Changes, chance: tuple[int, int], fixed: Loss, quiet: Loss, about: About) -> Iterator[Row]:
    for metric, count in (("best changes", counted.changed), (f"by over {WORTH:.0%}", counted.worth)):
        yield Row(case=case, metric=metric, value=count, unit=f"of {counted.points}", **about)
    faster, points = chance
    yield Row(case=case, metric="faster than quiet: chance", value=faster, unit=f"of {points}", **about)
    for what, lost in (("one for all", fixed), ("quiet one", quiet)):
        yield Row(case=case, metric=f"{what}: mean loss", value=100 * lost.mean, unit="%", **about)
        yield Row(case=case, metric=f"{what}: worst", value=100 * lost.worst, unit="%", **about)


def _over(losses: Sequence[Loss]) -> Loss:
    """Of models alike."""
    return Loss(fmean(each.mean for each in losses), max(each.worst for each in losses))
