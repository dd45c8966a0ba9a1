"""Puts the sections of a report into one file. Nothing in it is fetched, and it draws without a script."""

from collections.abc import Mapping, Sequence
from importlib.resources import files

from veltair.compiler.report.blocks import blocks_section, point_name
from veltair.compiler.report.markup import COLOURS, card, count, dot, meter, table, text, tile, time
from veltair.compiler.report.roofline import roofline
from veltair.compiler.report_schema import Block, Gate, KernelRow, Report, Search

MOST_FAILED = 200  # rows of the table of failed candidates; a model with more of them has another problem


def render_report(report: Report) -> str:
    """The page of a report. Same report, same page."""
    parts = {"{{title}}": text(f"veltair: {report['model']}"), "{{style}}": _asset("page.css"), "{{main}}": _main(report)}
    page = _asset("page.html")
    pieces = []
    for mark, part in parts.items():  # in order of appearance; what was put in is not searched again
        before, _, page = page.partition(mark)
        pieces += [before, part]
    return "".join([*pieces, page])


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _main(report: Report) -> str:
    colours, failed = _colours(report["blocks"]), report["search"]["failed"]
    sections = [
        _head(report),
        _tiles(report),
        card(
            "Roofline",
            "Each kept variant of each block, alone on one core; larger where it takes longer. The lines are this core's "
            "measured peaks and memory bandwidth. Right of the ridge the multiply-adds decide, left of it the bytes. "
            "Winograd counts the direct form's multiply-adds, so it may rise above a line.",
            roofline(report["blocks"], report["peaks"], colours),
        ),
        card(
            "Whole model",
            "The sum over blocks of the best kept variant at each core count and pressure.",
            _whole(report),
            "half",
        ),
        card("Where the time goes", "Share of the time on one core, by kind of kernel.", _kinds(report), "half"),
        card(
            "Blocks, variants and the proof of selection",
            "Times are medians. Bold is the best at that point of what passed the gate. The kept set is right when it is within "
            "5 % of that at every point; what was dropped says why. What a candidate presses on the others' bandwidth is a share "
            "of what an antagonist does; forms count Winograd's multiply-adds as the direct form's.",
            blocks_section(report["blocks"], report["points"], report["peaks"], colours),
        ),
        card(
            "Slowest kernels",
            "Each in its fastest exact form and setting, on one core, weights cold. Winograd counts the direct form's "
            "multiply-adds, so its share may be above all of the peak.",
            _kernels(report),
        ),
        *(_batched(other) for other in report.get("batched", ())),
        card("Gate", "Every variant of every block is compared with the reference before it may be used.", _gate(report), "half"),
        card("Search", "What this compile had to build and time; known kernels cost nothing.", _search(report), "half"),
        *([card("Failed candidates", _failed_note(report["search"]), _failed(report["search"]))] if failed else []),
        card("How this was made", "Enough to make it again.", _how(report)),
    ]
    return "\n".join(sections)


def _colours(blocks: Sequence[Block]) -> dict[str, int]:
    names = dict.fromkeys(c["name"] for kept in (True, False) for b in blocks for c in b["candidates"] if c["kept"] == kept)
    return {name: place % COLOURS for place, name in enumerate(names)}


def _head(report: Report) -> str:
    line = f"{report['source']} · {report['machine']} · {report['target']} · seed {report['seed']} · {report['made_at']}"
    return f'<div class="head"><h1>{text(report["model"])}</h1><p>{text(line)}</p></div>'


def _alone(report: Report) -> dict[int, int]:
    """Cores -> place of the point where nothing presses."""
    return {point["cores"]: k for k, point in enumerate(report["points"]) if not point["resource"]}


def _tiles(report: Report) -> str:
    whole, blocks = report["whole_us"], report["blocks"]
    rate = sum(b["flops"] for b in blocks) / max(report["exact_whole_us"][0], 1e-3) / 1e3
    peak = report["peaks"]["gflops"]["fp32"]
    kept = sum(c["kept"] for b in blocks for c in b["candidates"])
    tiles = [tile(time(whole[k]), f"on {count(cores, 'core')}, alone") for cores, k in _alone(report).items()]
    tiles += [
        tile(f"{rate:.0f} GFLOP/s", f"in fp32 on one core, {rate / peak:.0%} of its peak"),
        tile(f"{len(blocks)}", f"block{'s' * (len(blocks) != 1)}, {count(kept, 'variant')} kept"),
        _error_tile(report["gate"]),
        tile(f"{report['fallback_share']:.1%}", "of the time in generic schedules"),
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _error_tile(gate: Gate) -> str:
    """The exact variants' error first: a coarser one's is of another size, and its outputs are judged by more than that."""
    worst = max(gate["whole_model_error"], default=0.0)
    exact = gate.get("exact_whole_model_error", worst)
    coarse = f", {worst:.0e} in reduced precision" if worst > exact else ""
    return tile(f"{exact:.0e}", f"worst error of the whole model in fp32{coarse}")


def _whole(report: Report) -> str:
    one = report["whole_us"][0]
    rows = [
        [text(point_name(point)), time(us), time(exact), f"{us / one:.2f}x"]
        for point, us, exact in zip(report["points"], report["whole_us"], report["exact_whole_us"], strict=True)
    ]
    return table(["cores and pressure", "best variants", "fp32 alone", "against one core alone"], rows)


def _kinds(report: Report) -> str:
    shares = list(report["share_of_time_by_kind"].items())
    stack = "".join(f'<i style="width:{share:.2%};background:var(--c{i % COLOURS})"></i>' for i, (_, share) in enumerate(shares))
    rows = [[dot(i) + text(kind), f"{share:.1%}"] for i, (kind, share) in enumerate(shares)]
    return f'<div class="stack">{stack}</div>{table(["kind", "share"], rows)}'


def _kernels(report: Report) -> str:
    heads = ["operators", "kernel", "one core", "all cores", "share of time", "GFLOP/s", "share of peak"]
    return table(heads, [_kernel(row) for row in report["slowest_kernels"]], left=2)


def _kernel(row: KernelRow) -> list[str]:
    return [
        f'<td class="wrap">{text(row["ops"]).replace("+", "+<wbr>")}</td>',
        text(row["what"]),
        time(row["us"]),
        time(row["us_wide"]),
        f"{row['share_of_time']:.1%}",
        f"{row['gflops_per_s']:.0f}",
        meter(row["share_of_peak"]),
    ]


def _batched(report: Report) -> str:
    """Another batch size of the same model: its own blocks and choices."""
    whole = ", ".join(f"{time(report['whole_us'][k])} on {count(cores, 'core')}" for cores, k in _alone(report).items())
    body = blocks_section(report["blocks"], report["points"], report["peaks"], _colours(report["blocks"]))
    return card(f"Batch {report['batch']}", f"The whole model takes {whole}.", body)


def _gate(report: Report) -> str:
    gate = report["gate"]
    facts = {
        "reference": gate["reference"],
        "inputs": str(gate["inputs"]),
        "worst error of a block": f"{gate['worst_block_error']:.1e} of its range",
        "worst error of the whole": f"{max(gate['whole_model_error'], default=0.0):.1e} of its range",
    }
    return _facts(facts) + _end_to_end(gate)


def _end_to_end(gate: Gate) -> str:
    """A row for each variant run from end to end, a column for each thing that was compared."""
    found: dict[str, dict[str, str]] = {}
    for check, outcome in gate.get("checks", {}).items():
        variant, _, what = check.rpartition(": ")
        found.setdefault(variant, {})[what] = outcome
    if not found:
        return ""
    heads = list(dict.fromkeys(what for checks in found.values() for what in checks))
    astray = gate.get("astray", [])
    rows = [
        [text(variant), *(text(checks.get(what, "-")) for what in heads), "not served" if variant in astray else "yes"]
        for variant, checks in found.items()
    ]
    classes = ["dropped" if variant in astray else "" for variant in found]
    return "<h3>The model from end to end</h3>" + table(["variant", *heads, "passes"], rows, classes=classes)


def _search(report: Report) -> str:
    search = report["search"]
    if not search["searched"]:
        return _facts({"kernels": f"{search['kernels']}, all known from records"})
    return _facts(
        {
            "kernels": f"{search['kernels']}, of which {search['searched']} were not known from records",
            "candidates timed": str(search["candidates"]),
            "candidates failed": str(len(search["failed"])),
            "time": f"{search['seconds']:.0f} s",
            "restarts of the process": str(search["restarts"]),
            "spread of the timings": f"{search['spread']:.1%} between quartiles",
        }
    )


def _failed_note(search: Search) -> str:
    if len(search["failed"]) > MOST_FAILED:
        return f"The first {MOST_FAILED} of {len(search['failed'])}."
    return "Settings that could not be built or run. They are left out; each kernel had others that work."


def _failed(search: Search) -> str:
    rows = [
        [
            text(f["kernel"]),
            text(", ".join(f"{k} {v}" for k, v in f["knobs"].items())),
            f'<td class="wrap">{text(f["reason"])}</td>',
        ]
        for f in search["failed"][:MOST_FAILED]
    ]
    return table(["kernel", "setting", "reason"], rows, left=3)


def _how(report: Report) -> str:
    peaks = ", ".join(f"{precision} {peak:.0f} GFLOP/s" for precision, peak in report["peaks"]["gflops"].items())
    return _facts(
        {
            "machine": f"{report['machine']}; code for {report['target']}",
            "peaks of a core": f"{peaks}; {report['peaks']['bandwidth_bytes_per_us'] / 1e3:.1f} GB/s",
            "block timings": f"{report['warmup']} warm-up and {report['repeats']} counted runs, "
            f"spread {report['spread']:.1%} between quartiles",
            "precisions": ", ".join(report["precisions"]),
            "batch": str(report["batch"]),
            "seed": str(report["seed"]),
            "stages": ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in report["seconds"].items()),
            "tools": ", ".join(f"{package} {version}" for package, version in report["tools"].items()),
        }
    )


def _facts(facts: Mapping[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in facts.items()) + "</dl>"
