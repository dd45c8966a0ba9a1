"""Tuning records: compact, honest about how they were made, and harmless where they are damaged or old."""

from pathlib import Path

import pytest

from veltair.compiler import records as module
from veltair.compiler.records import KEPT, Records, Timed

HOW = {"machine": "a machine", "seed": 7}


def timed(us: float, wide: float | None = None) -> Timed:
    return Timed({"tile": round(us)}, us, us if wide is None else wide)


def test_what_was_written_is_known_again_with_how_it_was_made(tmp_path: Path) -> None:
    records = Records("cpu", [])
    records.put("conv-1", [timed(2.0), timed(1.0)], spread=0.0314, how=HOW)
    records.put("conv-2", [timed(3.0)], how={**HOW, "seed": 8})
    records.write(tmp_path, "model", {"conv-1": "conv 1x2", "conv-2": "conv 3x4"})
    again = Records("cpu", [tmp_path])
    assert again.get("conv-1") == [timed(1.0), timed(2.0)]
    entry = again.entry("conv-1")
    assert entry is not None
    assert (entry.spread, entry.how) == (0.031, HOW)
    other = again.entry("conv-2")
    assert other is not None
    assert other.how["seed"] == 8
    assert Records("other cpu", [tmp_path]).get("conv-1") is None


def test_a_file_has_one_line_a_kernel_and_only_those_that_are_known(tmp_path: Path) -> None:
    records = Records("cpu", [])
    for key in ("b", "a"):
        records.put(key, [timed(1.0)], how=HOW)
    path = records.write(tmp_path, "model", {"b": "second", "a": "first", "c": "not yet searched"})
    assert [line[:4] for line in path.read_text().splitlines() if "ranked" in line] == ['"a":', '"b":']
    assert path.read_text().count("a machine") == 1
    assert [p.name for p in path.parent.iterdir()] == ["model.json"]


def test_the_fastest_on_all_cores_is_kept_however_slow_it_is_on_one() -> None:
    records = Records("cpu", [])
    widest = timed(99.0, wide=0.5)
    records.put("k", [*(timed(float(us)) for us in range(1, 20)), widest])
    kept = records.get("k")
    assert kept is not None
    assert len(kept) == KEPT
    assert kept[0] == timed(1.0)
    assert kept[-1] == widest


@pytest.mark.parametrize("damage", ["", "{", '{"schedules": 1}', '{"kernels": 3}', "[]"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, damage: str) -> None:
    records = Records("cpu", [])
    records.put("k", [timed(1.0)])
    path = records.write(tmp_path, "model", {"k": "kernel"})
    path.with_name("other.json").write_text(damage)
    assert Records("cpu", [tmp_path]).get("k") == [timed(1.0)]
    path.write_text(damage)
    assert Records("cpu", [tmp_path]).get("k") is None


def test_records_of_older_schedules_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records("cpu", [])
    records.put("k", [timed(1.0)])
    records.write(tmp_path, "model", {"k": "kernel"})
    monkeypatch.setattr(module, "SCHEDULES", module.SCHEDULES + 1)
    assert Records("cpu", [tmp_path]).get("k") is None


def test_a_later_folder_wins(tmp_path: Path) -> None:
    for us, folder in enumerate(["shipped", "own"], start=1):
        records = Records("cpu", [])
        records.put("k", [timed(float(us))])
        records.write(tmp_path / folder, "model", {"k": "kernel"})
    assert Records("cpu", [tmp_path / "shipped", tmp_path / "own"]).get("k") == [timed(2.0)]
