"""`report.html`: everything a report holds can be read off it, it fetches nothing, and no text of a model becomes markup."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import pytest

from veltair.compiler.report import render_report
from veltair.compiler.report.roofline import place
from veltair.compiler.report_schema import Block, Candidate, Peaks, Point, Report

PEAKS: Peaks = {"gflops": {"fp32": 100.0, "bf16": 200.0}, "bandwidth_bytes_per_us": 20_000.0}
POINTS: list[Point] = [
    {"cores": 1, "resource": "", "pressure": 0.0},
    {"cores": 1, "resource": "bandwidth", "pressure": 0.5},
    {"cores": 2, "resource": "", "pressure": 0.0},
]


def candidate(name: str, us: Sequence[float], kept: bool = True, **changes: Any) -> Candidate:
    made: Candidate = {
        "name": name, "precision": "fp32", "algorithm": "direct", "forms": {"direct fp32": 3}, "kept": kept,
        "why": "never the best", "us": list(us), "traffic_bytes": 1_000_000, "working_set_bytes": 300_000,
        "exerts": {"bandwidth": 0.25}, "gate_error": 2e-6, "tolerance": 1e-4,
    }  # fmt: skip
    return {**made, **changes}  # type: ignore[typeddict-item]


def block(name: str, *candidates: Candidate) -> Block:
    return {
        "name": name, "kernels": 3, "flops": 50_000_000, "live_bytes": 4096, "candidates": list(candidates),
        "regret": 0.0, "exact_regret": 0.0,
    }  # fmt: skip


def report(*blocks: Block, **changes: Any) -> Report:
    made: Report = {
        "model": "tiny", "source": "tiny.onnx sha256:12", "made_at": "2026-01-02T03:04:05+00:00", "machine": "a CPU, 2 cores",
        "target": "znver4", "cores": 2, "seed": 7, "warmup": 2, "repeats": 12, "tools": {"apache-tvm": "0.27"}, "batch": 1,
        "precisions": ["fp32"], "peaks": PEAKS, "points": POINTS, "whole_us": [1000.0, 1100.0, 520.0],
        "exact_whole_us": [1200.0, 1300.0, 620.0], "spread": 0.02, "blocks": list(blocks),
        "share_of_time_by_kind": {"conv": 0.75, "fallback": 0.25}, "fallback_share": 0.25,
        "slowest_kernels": [
            {
                "us": 400.0, "us_wide": 210.0, "gflops_per_s": 95.0, "share_of_peak": 0.95, "share_of_time": 0.4, "kind": "conv",
                "algorithm": "direct", "precision": "fp32", "ops": "Conv+Relu", "what": "conv 1x4x8x8x16 -> 1x4x8x8x16",
            }
        ],
        "search": {
            "kernels": 9, "searched": 4, "candidates": 40, "seconds": 12.0, "restarts": 1, "spread": 0.03,
            "failed": [{"kernel": "gemm 8x8", "knobs": {"mr": 4}, "reason": "its process was ended by SIGSEGV"}],
        },
        "gate": {"inputs": 2, "reference": "ONNX Runtime 1.31", "worst_block_error": 3e-6, "whole_model_error": [5e-6]},
        "seconds": {"import": 1.0, "search": 12.0},
    }  # fmt: skip
    return {**made, **changes}  # type: ignore[typeddict-item]


FAST = candidate("fast", [500.0, 900.0, 300.0], why="17.1% slower at worst without it")
LEAN = candidate("lean", [600.0, 620.0, 310.0], why="presses least on others", traffic_bytes=400_000)
SLOW = candidate("slow", [700.0, 950.0, 400.0], kept=False)


class Page(HTMLParser):
    """The rows of every table as text, and every element that was opened and not closed."""

    VOID = frozenset({"meta", "wbr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        """A <line/> holds nothing."""

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if self.rows and ("td" in self.open or "th" in self.open):
            self.rows[-1][-1] += data

    def row(self, first: str) -> list[str]:
        (found,) = [row for row in self.rows if row and row[0] == first]
        return found


def test_every_candidate_stands_with_its_times_and_why_it_was_kept_or_dropped() -> None:
    page = Page(render_report(report(block("00-conv", FAST, LEAN, SLOW))))
    assert page.open == []
    assert page.row("fast")[1:5] == ["kept: 17.1% slower at worst without it", "500 us", "900 us", "300 us"]
    assert page.row("slow")[1] == "dropped: never the best"
    assert "2.0e-06" in page.row("lean")
    assert "1e-04" in page.row("lean")
    assert "1 core, bandwidth 50%" in page.row("candidate")
    assert "2 of 3 kept" in page.text
    assert "the best everywhere" in page.text


def test_the_proof_names_the_best_candidate_at_each_point_and_what_the_kept_set_loses() -> None:
    best = candidate("best", [400.0, 950.0, 300.0], kept=False)
    wrong = candidate("wrong", [1.0, 1.0, 1.0], kept=False, gate_error=0.5)
    page = Page(render_report(report(block("00-conv", FAST, LEAN, best, wrong))))
    assert page.row("best candidate")[2:5] == ["best", "lean", "fast"]
    assert page.row("kept set against it")[2:5] == ["+25.0%", "0.0%", "0.0%"]
    assert "at most 25.0% from the best" in page.text


def test_what_the_gate_rejected_is_no_better_candidate() -> None:
    rejected = candidate("bf16", [100.0, 100.0, 100.0], kept=False, rejected=True)  # each block alone was within its tolerance
    page = Page(render_report(report(block("00-conv", FAST, LEAN, rejected))))
    assert page.row("best candidate")[2:5] == ["fast", "lean", "fast"]
    assert "the best everywhere" in page.text


def test_parts_of_a_layer_are_chosen_for_together() -> None:
    def part(name: str, first: list[float], second: list[float], continues: bool) -> Block:
        return {**block(name, candidate("wide", first), candidate("fast", second, kept=False)), "continues": continues}

    halves = [part("00", [20.0] * 3, [15.0] * 3, False), part("01", [20.0] * 3, [30.0] * 3, True)]
    page = Page(render_report(report(*halves)))
    proofs = [row for row in page.rows if row and row[0] == "best candidate, of 2 parts together"]
    assert [row[2:5] for row in proofs] == [["wide"] * 3] * 2
    assert page.text.count("the best everywhere") == 2


def test_the_gate_has_a_row_for_each_variant_run_from_end_to_end() -> None:
    checks = {"fast: error": "5.0e-06 of the range", "fast: cosine": "1.000000", "bf16: error": "2.3e-01 of the range"}
    gate = {**report(block("00-conv", FAST))["gate"], "checks": checks, "astray": ["bf16"], "exact_whole_model_error": 5e-6}
    page = Page(render_report(report(block("00-conv", LEAN), gate=gate)))
    assert page.row("variant") == ["variant", "error", "cosine", "passes"]
    assert page.row("fast") == ["fast", "5.0e-06 of the range", "1.000000", "yes"]
    assert page.row("bf16") == ["bf16", "2.3e-01 of the range", "-", "not served"]
    assert "5e-06" in page.text
    assert "in reduced precision" not in page.text


def test_a_compile_that_searched_nothing_shows_no_figures_of_a_search() -> None:
    nothing = {**report(block("00-conv", FAST))["search"], "searched": 0, "candidates": 0, "spread": 0.0, "failed": []}
    page = Page(render_report(report(block("00-conv", FAST), search=nothing)))
    assert "9, all known from records" in page.text
    assert "candidates timed" not in page.text
    assert "Failed candidates" not in page.text


def test_whole_model_kernels_failures_and_search_are_told() -> None:
    page = Page(render_report(report(block("00-conv", FAST))))
    assert page.row("1 core, bandwidth 50%") == ["1 core, bandwidth 50%", "1.10 ms", "1.30 ms", "1.10x"]
    assert page.row("Conv+Relu")[-1] == "95%"
    assert page.row("gemm 8x8")[1:] == ["mr 4", "its process was ended by SIGSEGV"]
    for told in ("tiny.onnx sha256:12", "seed 7", "2026-01-02", "apache-tvm 0.27", "9, of which 4", "25.0%", "ONNX Runtime 1.31"):
        assert told in page.text


def test_a_block_is_placed_by_its_work_per_byte_under_the_lower_of_its_two_roofs() -> None:
    compute_bound = place(block("b", FAST), FAST, PEAKS)
    assert compute_bound == (pytest.approx(50.0), pytest.approx(100.0), 100.0)
    streaming = candidate("streams", [5000.0], traffic_bytes=50_000_000, precision="bf16")
    assert place(block("b", streaming), streaming, PEAKS).roof == pytest.approx(20.0)
    page = render_report(report(block("00-conv", FAST, LEAN, SLOW)))
    assert page.count("<circle") == 2  # of kept variants
    assert page.count('<polyline class="roof"') == 2


def test_a_model_without_arithmetic_has_a_page_too() -> None:
    idle: Block = {**block("00-reshape", FAST), "flops": 0}
    page = render_report(report(idle, slowest_kernels=[], share_of_time_by_kind={}))
    assert "No block computes anything" in page


def test_other_batch_sizes_have_their_own_blocks() -> None:
    four = report(block("00-big", FAST, LEAN), batch=4)
    page = Page(render_report(report(block("00-conv", FAST), batched=[four])))
    assert "Batch 4" in page.text
    assert "00-big" in page.text


def test_the_page_fetches_nothing_and_no_name_becomes_markup() -> None:
    evil = "<script>alert(1)</script>\"'&"
    page = render_report(report(block(evil, candidate(evil, [1.0, 1.0, 1.0], why=evil)), model=evil, source=evil))
    assert "<script" not in page
    assert not re.search(r"\b(src|href)\s*=|url\(|@import", page)
    assert Page(page).open == []
    assert evil in Page(page).text
