"""What a compile has to tell, in the form of `report_schema`: filled here, drawn elsewhere."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from veltair.bundle.format import Manifest
from veltair.compiler.assemble import BlockCandidate, Blocks
from veltair.compiler.candidates import Chosen, Lines
from veltair.compiler.gate import Verdict
from veltair.compiler.line import Call
from veltair.compiler.measure import Measured
from veltair.compiler.report_schema import Block, Candidate, Gate, KernelRow, Peaks, Point, Report, Search
from veltair.compiler.schedules.base import Kernel
from veltair.compiler.select import Selection

SLOWEST = 12
FALLBACK = "fallback"


@dataclass(frozen=True, slots=True)
class Told:
    """One batch size of the model, as the stages left it."""

    batch: int
    lines: Lines
    blocks: Blocks
    verdict: Verdict
    measured: Measured
    chosen: Sequence[Selection]


def made_report(
    manifest: Manifest, told: Told, search: Search, peaks: Peaks, seconds: Mapping[str, float], what: Callable[[Kernel], str]
) -> Report:
    """The report of one batch size; `what` describes a kernel by its shapes."""
    points, verdict, measured = told.measured.points(), told.verdict, told.measured
    kinds: dict[str, float] = {}
    for chosen in _quickest(told):
        kinds[chosen.call.kernel.kind] = kinds.get(chosen.call.kernel.kind, 0.0) + chosen.us
    total = sum(kinds.values()) or 1.0
    return Report(
        model=manifest.name,
        source=manifest.source,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=manifest.measured.machine,
        target=manifest.target.mcpu,
        cores=manifest.measured.cores,
        seed=manifest.measured.seed,
        warmup=manifest.measured.warmup,
        repeats=measured.repeats,
        tools=manifest.tools,
        batch=told.batch,
        precisions=sorted({v.precision for b in manifest.at_batch(told.batch).blocks for v in b.variants}, reverse=True),
        peaks=peaks,
        points=[
            Point(cores=cores, resource=pressed.resource if pressed else "", pressure=pressed.level if pressed else 0.0)
            for cores, pressed in points
        ],
        whole_us=_whole(told, exact=False),
        exact_whole_us=_whole(told, exact=True),
        spread=round(measured.spread, 4),
        blocks=[_block(manifest, told, b) for b in range(len(told.blocks))],
        share_of_time_by_kind={kind: round(us / total, 4) for kind, us in sorted(kinds.items(), key=lambda k: -k[1])},
        fallback_share=round(kinds.get(FALLBACK, 0.0) / total, 4),
        slowest_kernels=_slowest(told, peaks, total, what),
        search=search,
        gate=Gate(
            inputs=verdict.inputs,
            reference=f"ONNX Runtime {version('onnxruntime')}",
            worst_block_error=max(verdict.errors[b][v] for b, chosen in enumerate(told.chosen) for v in chosen.kept),
            whole_model_error=[error for rule, error in verdict.whole.items() if rule not in verdict.astray],
            exact_whole_model_error=max(
                (error for rule, error in verdict.whole.items() if rule not in verdict.astray and _is_exact(told, rule)),
                default=0.0,
            ),
            checks=verdict.checks,
            astray=sorted(verdict.astray),
        ),
        seconds=dict(seconds),
    )


def _quickest(told: Told) -> Sequence[Chosen]:
    """Each call in the exact form that is fastest on one core."""
    return told.lines.get("fast") or told.lines["direct"]


def _is_exact(told: Told, rule: str) -> bool:
    return all(c.exact for block in told.blocks for c in block if rule in c.rules)


def _whole(told: Told, *, exact: bool) -> list[float]:
    """At each point, the sum over blocks of the best kept variant."""
    sums = [0.0] * len(told.measured.points())
    for b, (candidates, chosen) in enumerate(zip(told.blocks, told.chosen, strict=True)):
        kept = [v for v in chosen.kept if candidates[v].exact or not exact]
        for k, us in enumerate(zip(*(told.measured.at_points(b, v) for v in kept), strict=True)):
            sums[k] += min(us)
    return sums


def _block(manifest: Manifest, told: Told, b: int) -> Block:
    spec, candidates, chosen = manifest.at_batch(told.batch).blocks[b], told.blocks[b], told.chosen[b]
    told_of_choice = chosen.as_data([c.name for c in candidates])
    names = {c.name for c in candidates}
    return Block(
        name=spec.name,
        kernels=sum(c.call.part == 0 for c in candidates[0].calls),
        flops=spec.flops,
        live_bytes=spec.live_bytes,
        candidates=[_candidate(told, b, v, candidate, chosen) for v, candidate in enumerate(candidates)],
        regret=told_of_choice["regret"],
        exact_regret=told_of_choice["exact_regret"],
        continues=spec.continues,
        dropped_before={name: why for name, why in chosen.dropped.items() if name not in names},
    )


def _candidate(told: Told, b: int, v: int, candidate: BlockCandidate, chosen: Selection) -> Candidate:
    kept = v in chosen.kept
    forms = Counter(f"{c.call.kernel.algorithm} {c.call.kernel.precision}" for c in candidate.calls)
    made = Candidate(
        name=candidate.name,
        precision=candidate.precision,
        algorithm=candidate.algorithm,
        forms=dict(forms),
        kept=kept,
        why=_why_kept(candidate.name, chosen) if kept else chosen.dropped[candidate.name],
        us=list(told.measured.at_points(b, v)),
        traffic_bytes=candidate.traffic_bytes,
        working_set_bytes=candidate.working_set_bytes,
        exerts={"bandwidth": told.measured.pressure[b][v]},
        gate_error=told.verdict.errors[b][v],
        tolerance=candidate.tolerance,
        rejected=(b, v) in told.verdict.rejected,
    )
    if kept:
        made["worth"] = _share(chosen.worth[candidate.name])
    return made


def _why_kept(name: str, chosen: Selection) -> str:
    if name in chosen.gentle:
        return "presses least on others"
    worth = _share(chosen.worth[name])
    return "nothing else is exact" if worth is None else f"{worth:.1%} slower at worst without it"


def _share(worth: float) -> float | None:
    return None if worth == math.inf else round(worth, 4)


def _slowest(told: Told, peaks: Peaks, total: float, what: Callable[[Kernel], str]) -> list[KernelRow]:
    whole = [c for c in _quickest(told) if c.call.part == 0]
    rows = sorted(whole, key=lambda c: -c.us * c.call.parts)[:SLOWEST]
    return [_row(c, c.call, peaks, total, what) for c in rows]


def _row(chosen: Chosen, call: Call, peaks: Peaks, total: float, what: Callable[[Kernel], str]) -> KernelRow:
    us, us_wide = chosen.us * call.parts, chosen.us_wide * call.parts
    rate = call.kernel.flops / us / 1e3
    return KernelRow(
        us=round(us, 1),
        us_wide=round(us_wide, 1),
        gflops_per_s=round(rate, 1),
        share_of_peak=round(rate / peaks["gflops"][call.kernel.precision], 3),
        share_of_time=round(us / total, 4),
        kind=call.kernel.kind,
        algorithm=call.kernel.algorithm,
        precision=call.kernel.precision,
        ops=call.label,
        what=what(call.kernel),
    )
