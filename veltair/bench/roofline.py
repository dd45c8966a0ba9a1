"""Kernels against what the machine can do at most, as rows (Williams, Waterman and Patterson 2009, "Roofline").

A kernel is compute-bound if its work takes the multiply-add units longer than its bytes take the memory: intensity (operations
for each byte that no private cache holds) at or above the machine's balance (peak over bandwidth, both measured). Such a
kernel is held against the peak; any other is told in bytes a second.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from veltair.bench.rows import Row
from veltair.bench.turns import middle
from veltair.bench.versus import on_cores

OF_PEAK, OF_CORES = 0.9, 0.95  # two cores 1.9 times as fast as one


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a number of cores together, in one precision."""

    peak_gflops: float
    bandwidth_gbs: float

    def is_compute_bound(self, flops: int, cold_bytes: int) -> bool:
        return flops / self.peak_gflops >= cold_bytes / self.bandwidth_gbs


@dataclass(frozen=True, slots=True)
class Timed:
    """One way to compute a problem on a number of cores, in the same rounds as the others there."""

    name: str  # of the peer with its version; if it is ours, the algorithm, and no other form has the same in its precision
    precision: str
    ours: bool
    seconds: tuple[float, ...]
    cold_bytes: int = 0  # of ours: constants, and what of the activations no private cache holds

    @property
    def p50_s(self) -> float:
        return middle(self.seconds)[0]


@dataclass(frozen=True, slots=True)
class Measured:
    """A problem on a number of cores. `count`: how often the models pose it."""

    label: str
    flops: int
    count: int
    cores: int
    timed: tuple[Timed, ...]

    @property
    def case(self) -> str:
        return f"{self.label}, {on_cores(self.cores)}"

    def ours(self) -> list[Timed]:
        return [t for t in self.timed if t.ours]


AllLimits = dict[tuple[int, str], Limits]  # of cores and precision


def rows(measured: Measured, limits: AllLimits, one_core: Measured | None, about: dict[str, Any]) -> list[Row]:
    """Ours against the machine and against each peer of the same precision; on several cores also against `one_core`."""
    made = []
    for form in measured.ours():
        made.append(_against_machine(measured, form, limits[measured.cores, form.precision], about))
        if one_core is not None:
            made += _against_one_core(measured, form, one_core, limits, about)
    for precision in dict.fromkeys(t.precision for t in measured.ours()):
        best = min((t for t in measured.ours() if t.precision == precision), key=lambda t: t.p50_s)
        for peer in (t for t in measured.timed if not t.ours and t.precision == precision):
            ratio, spread = middle([p / o for p, o in zip(peer.seconds, best.seconds, strict=True)])
            made.append(
                Row(
                    case=measured.case, metric=f"{precision}, best ({best.name})", value=_gflops(measured, best), unit="GFLOP/s",
                    against=f"{peer.name} {precision}", ratio=ratio, spread=spread, **about,
                )
            )  # fmt: skip
    return made


def _gflops(measured: Measured, form: Timed) -> float:
    return measured.flops / form.p50_s / 1e9


def _against_machine(measured: Measured, form: Timed, limits: Limits, about: dict[str, Any]) -> Row:
    seconds, spread = middle(form.seconds)
    name = f"{form.precision} {form.name}"
    if not limits.is_compute_bound(measured.flops, form.cold_bytes):
        rate = form.cold_bytes / seconds / 1e9
        return Row(
            case=measured.case, metric=f"{name}, memory-bound", value=rate, unit="GB/s", against="read bandwidth",
            ratio=rate / limits.bandwidth_gbs, spread=spread, **about,
        )  # fmt: skip
    share = _gflops(measured, form) / limits.peak_gflops
    # Another algorithm does fewer multiplications than it is credited with here: no share of the peak is its limit.
    held: dict[str, Any] = {"target": f">= {OF_PEAK}x", "met": share >= OF_PEAK} if form.name == "direct" else {}
    return Row(
        case=measured.case, metric=name if form.name == "direct" else f"{name}, effective", value=_gflops(measured, form),
        unit="GFLOP/s", against="FMA peak", ratio=share, spread=spread, **held, **about,
    )  # fmt: skip


def _against_one_core(measured: Measured, form: Timed, one_core: Measured, limits: AllLimits, about: dict[str, Any]) -> list[Row]:
    alone = next((t for t in one_core.ours() if (t.name, t.precision) == (form.name, form.precision)), None)
    if alone is None:
        return []
    gain, least = alone.p50_s / form.p50_s, OF_CORES * measured.cores
    bound = limits[measured.cores, form.precision].is_compute_bound(measured.flops, form.cold_bytes)
    held: dict[str, Any] = {"target": f">= {least:.2f}x", "met": gain >= least} if bound else {}
    return [
        Row(
            case=measured.case, metric=f"{form.precision} {form.name}, speed-up", value=gain, unit="x", against="1 core",
            ratio=gain, **held, **about,
        )
    ]  # fmt: skip


def summary(all_measured: Sequence[Measured], limits: AllLimits, about: dict[str, Any]) -> list[Row]:
    """For every number of cores and precision: how much of the time lies in kernels that reach the target, and the means."""
    made = []
    for (cores, precision), limit in limits.items():
        here = [m for m in all_measured if m.cores == cores]
        case = f"{len(here)} problems, {on_cores(cores)}, {precision}"
        direct = [
            (m, t) for m in here for t in m.ours()
            if (t.name, t.precision) == ("direct", precision) and limit.is_compute_bound(m.flops, t.cold_bytes)
        ]  # fmt: skip
        if direct:
            weights = [m.count * t.p50_s for m, t in direct]
            shares = [_gflops(m, t) / limit.peak_gflops for m, t in direct]
            reached = _mean([float(share >= OF_PEAK) for share in shares], weights)
            made.append(
                Row(
                    case=case, metric=f"share of compute-bound time at {OF_PEAK:.0%} of the peak", value=reached, unit="",
                    target="1", met=reached >= 1.0, **about,
                )
            )  # fmt: skip
            mean = _mean(shares, weights)
            made.append(
                Row(
                    case=case, metric="share of the peak, mean over time", value=mean, unit="", against="FMA peak", ratio=mean,
                    target=f">= {OF_PEAK}x", met=mean >= OF_PEAK, **about,
                )
            )  # fmt: skip
        made += _against_peers(case, here, precision, about)
    return made


def _against_peers(case: str, here: Iterable[Measured], precision: str, about: dict[str, Any]) -> list[Row]:
    logs: dict[str, list[float]] = {}
    for m in here:
        mine = [t for t in m.ours() if t.precision == precision]
        for peer in (t for t in m.timed if mine and not t.ours and t.precision == precision):
            best = min(mine, key=lambda t: t.p50_s)
            ratio, _ = middle([p / o for p, o in zip(peer.seconds, best.seconds, strict=True)])
            logs.setdefault(peer.name, []).append(math.log(ratio))
    means = {name: math.exp(sum(found) / len(found)) for name, found in logs.items()}
    return [
        Row(
            case=case, metric="speed, geometric mean", value=mean, unit="x", against=f"{name} {precision}", ratio=mean, **about
        )
        for name, mean in means.items()
    ]  # fmt: skip


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
