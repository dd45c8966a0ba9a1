"""A block's candidates and the proof that those which were kept are enough: at every point, what the best one would gain."""

from collections.abc import Mapping, Sequence

from veltair.compiler.report.markup import count, dot, size, table, text, time
from veltair.compiler.report.roofline import place
from veltair.compiler.report_schema import Block, Candidate, Peaks, Point

WITHIN = 0.05  # of the best candidate at every point: the aim of the selection


def blocks_section(blocks: Sequence[Block], points: Sequence[Point], peaks: Peaks, colours: Mapping[str, int]) -> str:
    """One fold a block, the slowest open."""
    whole = sum(_best_alone(block) for block in blocks) or 1.0
    slowest = max(range(len(blocks)), key=lambda b: _best_alone(blocks[b]), default=0)
    layers = _layers(blocks)
    return "".join(_block(block, layers[b], points, peaks, colours, whole, b == slowest) for b, block in enumerate(blocks))


def _layers(blocks: Sequence[Block]) -> list[list[Block]]:
    """For each block, those of the layer it is a part of: they are chosen for together."""
    layers: list[list[Block]] = []
    for block in blocks:
        if not (layers and block.get("continues")):
            layers.append([])
        layers[-1].append(block)
    return [layer for layer in layers for _ in layer]


def _together(layer: Sequence[Block]) -> list[Candidate]:
    """The candidates with the times of all the layer's parts; what the gate rejected in one of them is rejected."""
    made: list[Candidate] = []
    for parts in zip(*(block["candidates"] for block in layer), strict=True):
        one = parts[0].copy()
        one["us"] = [sum(times) for times in zip(*(part["us"] for part in parts), strict=True)]
        one["rejected"] = any(_is_rejected(part) for part in parts)
        made.append(one)
    return made


def _best_alone(block: Block) -> float:
    """Microseconds of the quickest kept candidate on one core, with nothing pressing."""
    return min(c["us"][0] for c in block["candidates"] if c["kept"])


def _speed(block: Block, candidate: Candidate, peaks: Peaks) -> str:
    if not block["flops"]:
        return f"moves {candidate['traffic_bytes'] / candidate['us'][0] / 1e3:.1f} GB/s"
    where = place(block, candidate, peaks)
    return f"{where.gflops:.0f} GFLOP/s, {where.gflops / where.roof:.0%} of its roof"


def _block(
    block: Block,
    layer: Sequence[Block],
    points: Sequence[Point],
    peaks: Peaks,
    colours: Mapping[str, int],
    whole: float,
    opened: bool,
) -> str:
    kept = [c for c in block["candidates"] if c["kept"]]
    quickest = min(kept, key=lambda c: c["us"][0])
    together = _together(layer)
    regret = max(_losses(together))
    facts = [
        f"{len(kept)} of {len(block['candidates'])} kept",
        f"{time(quickest['us'][0])} on one core, {quickest['us'][0] / whole:.0%} of the model",
        _speed(block, quickest, peaks),
        f"{count(block['kernels'], 'kernel')}, {block['flops'] / 1e6:.1f} MFLOP",
        f"{size(block['live_bytes'])} alive behind it",
    ]
    spans = "".join(f"<span>{text(fact)}</span>" for fact in facts)
    told = f"at most {regret:.1%} from the best" if regret > 0 else "the best everywhere"
    badge = f'<span class="badge {"good" if regret <= WITHIN else "bad"}">{told}</span>'
    heads = ["candidate", "why kept or dropped", *(point_name(p) for p in points), *_OTHER_HEADS]
    rows = [_candidate(c, block, colours) for c in block["candidates"]]
    rows += _proof(together, len(heads), f", of {len(layer)} parts together" if len(layer) > 1 else "")
    classes = ["" if c["kept"] else "dropped" for c in block["candidates"]] + ["sum"] * 2
    return (
        f"<details{' open' if opened else ''}><summary><b>{text(block['name'])}</b>{badge}{spans}</summary>"
        f"<div>{table(heads, rows, left=2, classes=classes)}</div></details>"
    )


_OTHER_HEADS = ("traffic", "working set", "presses", "gate error", "allowed", "calls by form")


def point_name(point: Point) -> str:
    cores = count(point["cores"], "core")
    return f"{cores}, {point['resource']} {point['pressure']:.0%}" if point["resource"] else cores


def _candidate(c: Candidate, block: Block, colours: Mapping[str, int]) -> list[str]:
    forms = ", ".join(f"{n} {form}" for form, n in sorted(c["forms"].items(), key=lambda f: -f[1]))
    best = [min(us) for us in zip(*(other["us"] for other in _passed(block["candidates"])), strict=True)]
    times = [f'<td class="{"best" if us == least else ""}">{time(us)}</td>' for us, least in zip(c["us"], best, strict=True)]
    exerts = ", ".join(f"{pressure:.2f}" for pressure in c["exerts"].values())
    over = "over" if not c["gate_error"] <= c["tolerance"] else ""
    return [
        dot(colours[c["name"]]) + text(c["name"]),
        f'<td class="wrap">{text("kept: " if c["kept"] else "dropped: ")}{text(c["why"])}</td>',
        *times,
        size(c["traffic_bytes"]),
        size(c["working_set_bytes"]),
        text(exerts or "-"),
        f'<td class="{over}">{c["gate_error"]:.1e}</td>',
        f"{c['tolerance']:.0e}",
        f'<td class="wrap">{text(forms)}</td>',
    ]


def _passed(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [c for c in candidates if c["kept"] or not _is_rejected(c)]


def _is_rejected(c: Candidate) -> bool:
    return c.get("rejected", not c["gate_error"] <= c["tolerance"])


def _losses(candidates: Sequence[Candidate]) -> list[float]:
    """At each point, how much slower the best kept candidate is than the best of all that passed the gate."""
    passed = _passed(candidates)
    every = zip(*(c["us"] for c in passed), strict=True)
    kept = zip(*(c["us"] for c in candidates if c["kept"]), strict=True)
    return [min(have) / min(could) - 1.0 for have, could in zip(kept, every, strict=True)]


def _proof(candidates: Sequence[Candidate], width: int, of: str) -> list[list[str]]:
    passed = _passed(candidates)
    points = range(len(candidates[0]["us"]))
    best = [min(passed, key=lambda c: c["us"][k])["name"] for k in points]
    losses = _losses(candidates)
    rest = [""] * (width - 2 - len(best))
    cells = [f'<td class="{"over" if loss > WITHIN else ""}">{"+" if loss > 0 else ""}{loss:.1%}</td>' for loss in losses]
    return [["best candidate" + of, "", *map(text, best), *rest], ["kept set against it", "", *cells, *rest]]
