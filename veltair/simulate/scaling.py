"""Times on core counts that nobody measured: Gunther's Universal Scalability Law, fitted where there are measurements.

    t(c) = t(1) * (sigma + (1 - sigma) / c + kappa * (c - 1))

sigma is the share of the work that does not run in parallel, kappa what cores lose to keeping each other informed
(N. J. Gunther, A General Theory of Computational Scalability Based on Rational Functions, 2008). sigma is a block's own,
from its times on one and two cores. kappa is one number for all, fitted to the published ResNet-50 table (data/, see its README):
over 8 to 56 cores the law with KAPPA errs by 3 % at the median layer and count and by 8 % at nine of ten. The 64-core
column is left out: every layer is slower there than on 56, by half in sum, as where a core is shared with something else;
no smooth law says that (with it kappa is 18e-5, the median error 5 %).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from veltair.core.values import LatencyTable, LayerBlock, Model, Variant

KAPPA = 6.68e-5
FITTED_CORES = (8, 16, 24, 32, 40, 48, 56)
CORE_COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64)
"""Modelled ones; finer steps give a scheduler little and cost it time. Beyond 64, every 16."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How well the law holds, as relative errors over all layers and core counts."""

    kappa: float
    median_error: float
    p90_error: float


def core_counts(most_cores: int) -> tuple[int, ...]:
    """Those that are modelled on a machine of so many cores."""
    counts = [*CORE_COUNTS, *range(CORE_COUNTS[-1] + 16, most_cores + 1, 16)]
    return tuple(c for c in counts if c <= most_cores)


def law(sigma: float, cores: int, kappa: float = KAPPA) -> float:
    """Time on `cores` over time on one."""
    return sigma + (1 - sigma) / cores + kappa * (cores - 1)


def serial_share(one_core_us: int, two_cores_us: int, kappa: float = KAPPA) -> float:
    """sigma, 0..1: two measured times may lie outside of what the law allows."""
    return min(1.0, max(0.0, 2 * (two_cores_us / one_core_us - kappa) - 1))


def scale_model(model: Model, most_cores: int) -> Model:
    """The model with modelled rows for the core counts that have none; measured rows stay as they are.

    A block that was measured on one core only, or not on one, is left alone: nothing tells how it scales. Sensitivity
    to pressure is taken over from the widest measured row.
    """
    counts = core_counts(most_cores)
    blocks = tuple(
        LayerBlock(block.name, tuple(_scale_variant(v, counts) for v in block.variants), block.continues)
        for block in model.blocks
    )
    return replace(model, blocks=blocks, batches={n: scale_model(batch, most_cores) for n, batch in model.batches.items()})


def _scale_variant(variant: Variant, counts: Sequence[int]) -> Variant:
    rows = variant.table.rows_us
    if 1 not in rows or 2 not in rows:
        return variant
    sigma, widest = serial_share(rows[1][0], rows[2][0]), rows[max(rows)]
    modelled: dict[int, tuple[int, ...]] = {}
    for cores in counts:
        if cores not in rows and cores > 2:
            us = rows[1][0] * law(sigma, cores)
            modelled[cores] = tuple(max(1, round(us * at_level / widest[0])) for at_level in widest)
    return replace(variant, table=LatencyTable(variant.table.pressure_levels, {**rows, **modelled}))


def fit(layers: Sequence[Mapping[int, int]]) -> Fit:
    """kappa that leaves the least sum of squared relative errors, each layer with its own t(1) and sigma.

    Golden-section search; for a given kappa the law is linear in a layer's serial and parallel time.
    """
    low, high = 0.0, 1e-3
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > 1e-8:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if _squared(layers, left) <= _squared(layers, right):
            high = right
        else:
            low = left
    kappa = (low + high) / 2
    errors = sorted(abs(e) for layer in layers for e in _errors(layer, kappa))
    return Fit(kappa, errors[len(errors) // 2], errors[len(errors) * 9 // 10])


def _squared(layers: Sequence[Mapping[int, int]], kappa: float) -> float:
    return sum(e * e for layer in layers for e in _errors(layer, kappa))


def _errors(layer: Mapping[int, int], kappa: float) -> list[float]:
    """Relative errors of the best serial and parallel time (neither negative) of one layer."""
    rows = [((1 + kappa * (c - 1)) / us, (1 / c + kappa * (c - 1)) / us) for c, us in layer.items()]
    ss, sp, pp = sum(s * s for s, _ in rows), sum(s * p for s, p in rows), sum(p * p for _, p in rows)
    s1, p1 = sum(s for s, _ in rows), sum(p for _, p in rows)
    both = ss * pp - sp * sp
    serial, parallel = (s1 * pp - p1 * sp) / both, (p1 * ss - s1 * sp) / both
    if serial < 0:
        serial, parallel = 0.0, p1 / pp
    elif parallel < 0:
        serial, parallel = s1 / ss, 0.0
    return [serial * s + parallel * p - 1 for s, p in rows]
