"""What is made of an outsider's switches and a decision log; and a ladder's antagonist as the outsider."""

import os
from pathlib import Path

import pytest

from veltair.bench import outsider as module
from veltair.bench.outsider import Turn, cpu_seconds, noticed, others_cores, outsider, take_turns
from veltair.host import usable_cores
from veltair.observe.read import Run
from veltair.observe.records import PressureTold, Started

WALL_S = 1_700_000_000.0
ENGINE_US = 5_000_000  # of the engine's clock when it wrote the first record


def wall(ms: float) -> int:
    return round(WALL_S * 1e6 + ms * 1e3)


def log(*told: tuple[float, float, int] | tuple[float, float]) -> Run:
    """What was told, with which milliseconds of the wall clock: pressure, and the core that is held."""
    started = Started(ENGINE_US, WALL_S, "0.1.0", "veltair", "Test CPU", (0, 1), (), ())
    told_us = [(ENGINE_US + round(ms * 1e3), pressure, tuple(held)) for ms, pressure, *held in told]
    return Run(started, tuple(PressureTold(at_us, pressure, held=held) for at_us, pressure, held in told_us), 0)


def turn(on_ms: float, off_ms: float, end_ms: float) -> Turn:
    return Turn(wall(on_ms), wall(off_ms), wall(end_ms))


def test_times_count_from_the_switch_to_what_was_told_first() -> None:
    found = noticed([turn(1000, 2000, 3000)], log((1040, 0.5), (1080, 0.875), (2060, 0.5), (2120, 0.0)), 1)
    assert (found.rise_us, found.fall_us) == ([40_000], [120_000])
    assert found.told_share == pytest.approx(0.96)
    assert found.wrongly == 0


def test_its_core_is_somebody_elses_from_when_the_scheduler_is_told_so() -> None:
    log_of_core_1 = log((1030, 0.0, 0), (1050, 0.5, 1), (2060, 0.5), (2120, 0.0))
    found = noticed([turn(1000, 2000, 3000), turn(3000, 4000, 5000)], log_of_core_1, 1)
    assert (found.taken_us, found.back_us) == ([50_000, None], [60_000, 0])


def test_what_was_not_told_before_the_next_switch_was_missed() -> None:
    found = noticed([turn(0, 100, 200), turn(200, 300, 400)], log((250, 0.5)), 1)
    assert found.rise_us == [None, 50_000]
    assert found.fall_us == [0, None]  # of the first nothing had been told that could fall


def test_who_is_told_of_while_nobody_is_there_counts_once_the_last_one_is_forgotten() -> None:
    found = noticed([turn(0, 1000, 2000)], log((50, 0.5), (1100, 0.25), (1160, 0.0), (1500, 0.75), (1600, 0.0)), 1)
    assert found.wrongly == 1


def test_turns_follow_one_another_and_the_switch_ends_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    switched: list[bool] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    turns = take_turns(switched.append, 3, seed=1)
    assert switched == [True, False] * 3
    assert len(slept) == 6
    assert all(0.4 <= s <= 1.2 for s in slept)
    assert all(turn.on_us <= turn.off_us <= turn.end_us for turn in turns)


def test_the_outsider_works_only_while_it_is_let(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no stress-ng
    with outsider("stream", usable_cores()[-1]) as (what, switch):
        assert what == "the ladder's antagonist"
        switch(True)
        switch(False)


def test_what_others_use_is_some_part_of_this_machine() -> None:
    assert 0.0 <= others_cores(0.15) <= (os.cpu_count() or 1) + 0.25


def test_cpu_time_grows() -> None:
    assert 0.0 < cpu_seconds(os.getpid()) <= cpu_seconds(os.getpid())
