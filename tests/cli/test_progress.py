"""The compile's one bar: never backwards, and its time left follows the pace of what runs."""

import io

import pytest
from rich.console import Console

from veltair.cli.progress import STAGES, CompileBar, Estimate


def test_a_compile_goes_from_nothing_to_all_and_never_back() -> None:
    estimate, shown = Estimate(), []
    for stage in STAGES:
        for done in range(5):
            estimate.step(stage, done, 4 if done else 100, 0.0)  # each stage turns out to be another size than it first seemed
            shown.append(estimate.fraction())
    assert shown == sorted(shown)
    assert shown[0] == 0.0
    assert shown[-1] == 1.0


def test_time_left_is_the_stage_at_its_pace_and_what_is_expected_of_the_others() -> None:
    estimate = Estimate()
    estimate.step("search", 0, 60, 100.0)
    estimate.step("search", 20, 60, 110.0)
    later = estimate.left_s(110.0) - 10.0 / 20 * 40
    estimate.step("search", 60, 60, 130.0)
    assert estimate.left_s(130.0) == pytest.approx(later)
    estimate.step("write", 1, 1, 200.0)
    assert estimate.left_s(200.0) < later


def test_a_stage_that_was_passed_over_is_not_waited_for() -> None:
    estimate = Estimate()
    estimate.step("import", 0, 1, 0.0)  # of a file that somebody brought: nothing had to be exported
    estimate.step("write", 0, 1, 0.0)
    first = estimate.left_s(0.0)
    estimate.step("write", 1, 1, 0.0)
    assert estimate.left_s(0.0) == 0.0 < first
    assert estimate.fraction() == 1.0


def test_a_search_of_many_kernels_is_most_of_the_bar() -> None:
    estimate = Estimate()
    estimate.step("import", 1, 1, 0.0)
    estimate.step("search", 0, 200, 0.0)
    assert estimate.fraction() < 0.05
    estimate.step("search", 200, 200, 0.0)
    assert estimate.fraction() > 0.8


def test_a_log_file_gets_a_line_for_each_stage() -> None:
    log = io.StringIO()
    with CompileBar(Console(file=log), clock=lambda: 0.0) as bar:
        for done in range(3):
            bar("import", done, 2)
            bar("a stage from elsewhere", done, 2)
    assert log.getvalue().splitlines()[:2] == [STAGES["import"], "a stage from elsewhere"]


def test_a_terminal_sees_stage_count_and_time_left() -> None:
    screen = io.StringIO()
    with CompileBar(Console(file=screen, force_terminal=True, width=120, color_system=None), clock=lambda: 0.0) as bar:
        bar("search", 3, 60)
    assert "timing kernel schedules 3/60" in screen.getvalue()
    assert "left" in screen.getvalue()
