"""Reading a log: what a crash leaves is forgiven and counted, everything else is named with its line."""

from pathlib import Path

import pytest

from veltair.errors import LogError
from veltair.observe.read import read_log
from veltair.observe.records import Lost

from .logs import arrived, completed, lifelike, started, tenant, written

ADS = tenant("ads")


def test_a_log_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    records = lifelike(duration_s=1.0)
    log = read_log(written(tmp_path / "log.jsonl", records))
    assert [list(run.records) for run in log.runs] == [records[1:]]
    assert log.runs[0].started == records[0]
    assert log.torn_lines == 0


def test_each_start_of_the_engine_is_a_run_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for policy in ("veltair", "fcfs"):
        written(path, [started(ADS, policy=policy), arrived("a", 5)])
    assert [(run.started.policy, len(run.records)) for run in read_log(path).runs] == [("veltair", 1), ("fcfs", 1)]


def test_a_last_line_cut_short_by_a_crash_is_counted_not_fatal(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl", [started(ADS), arrived("a", 5), arrived("b", 6)])
    path.write_bytes(path.read_bytes()[:-9])
    log = read_log(path)
    assert (len(log.runs[0].records), log.torn_lines) == (1, 1)


def test_a_line_cut_short_before_the_next_run_is_counted_too(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl", [started(ADS), arrived("a", 5), arrived("b", 6)])
    path.write_bytes(path.read_bytes()[:-9])
    log = read_log(written(path, [started(ADS), arrived("c", 1)]))
    assert ([len(run.records) for run in log.runs], log.torn_lines) == ([1, 1], 1)


def test_lost_records_are_added_up_per_run(tmp_path: Path) -> None:
    log = read_log(written(tmp_path / "log.jsonl", [started(ADS), Lost(1, 3), arrived("a", 5), Lost(9, 4)]))
    assert (log.runs[0].lost_records, len(log.runs[0].records)) == (7, 1)


def test_a_bad_line_in_the_middle_is_named_by_its_number(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl", [started(ADS), arrived("a", 5), completed("a", 6, 1)])
    lines = path.read_bytes().splitlines()
    lines[1] = lines[1][:-4]
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(LogError, match=r"log.jsonl', line 2: not JSON .*; remove that line"):
        read_log(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"type":"teleported","at_us":3}', r"line 2: record type 'teleported' is unknown; written by veltair 0\.1\.0"),
        (b'{"type":"arrived","at_us":"noon"}', r"line 2: not a record of a decision log \(Expected `int`"),
        (b"[1, 2]", r"line 2: not a record"),
        (b'{"at_us":3}', r"line 2: not a record .*`type`"),
        (b'{"type":"arrived"\xff}\nmore', r"line 2: not JSON"),
    ],
)
def test_a_line_that_is_no_record_is_named_with_a_remedy(tmp_path: Path, line: bytes, message: str) -> None:
    path = written(tmp_path / "log.jsonl", [started(ADS)])
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(LogError, match=message):
        read_log(path)


def test_a_file_that_is_missing_empty_or_begins_in_the_middle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"cannot be read: No such file or directory; name a file that"):
        read_log(tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(LogError, match="is empty"):
        read_log(tmp_path / "empty.jsonl")
    with pytest.raises(LogError, match="does not begin with a 'started' record"):
        read_log(written(tmp_path / "middle.jsonl", [arrived("a", 5)]))


def test_a_file_of_another_kind_is_refused_and_not_stumbled_over(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[machine]\ncores = 2\n")  # begins like a JSON list
    with pytest.raises(LogError, match="line 1: not a record of a decision log"):
        read_log(tmp_path / "settings.toml")
