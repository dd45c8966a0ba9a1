"""The log's writing end: nothing is lost in silence, nothing is half-written, the caller never waits."""

import logging
from pathlib import Path

import pytest

from veltair.errors import LogError
from veltair.observe import log as log_module
from veltair.observe.log import DecisionLog
from veltair.observe.records import Arrived, Lost, decode_record


def arrived(number: int) -> Arrived:
    return Arrived(at_us=number, request=f"r{number}", tenant="ads", model="tiny", deadline_us=number + 1000)


def records_of(path: Path) -> list[object]:
    return [decode_record(line) for line in path.read_bytes().splitlines()]


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    sent = [arrived(i) for i in range(1000)]
    with DecisionLog(tmp_path / "new folder" / "log.jsonl") as log:
        for record in sent:
            log.write(record)
    assert records_of(log.path) == sent
    assert log.lost_records == 0


def test_closing_twice_is_harmless_and_a_late_record_is_counted(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.jsonl")
    log.close()
    log.close()
    log.write(arrived(1))
    assert log.lost_records == 1


def test_records_beyond_the_capacity_are_counted_and_the_file_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_module, "FLUSH_INTERVAL_S", 3600.0)  # the thread writes at close only
    with caplog.at_level(logging.WARNING), DecisionLog(tmp_path / "log.jsonl", capacity_records=3) as log:
        for i in range(10):
            log.write(arrived(i))
    assert records_of(log.path) == [arrived(0), arrived(1), arrived(2), Lost(at_us=2, records=7)]
    assert log.lost_records == 7
    assert "7 records were lost" in caplog.text


def test_a_full_disk_is_reported_once_and_costs_records_not_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    log = DecisionLog(full)
    for i in range(5):
        log.write(arrived(i))
    log.close()
    assert log.lost_records == 5
    assert caplog.text.count("cannot be written") == 1


def test_a_second_run_continues_the_file_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"type":"arrived","at_us":1')  # an engine that was killed
    with DecisionLog(path) as log:
        log.write(arrived(7))
    torn, whole = path.read_bytes().splitlines()
    assert torn.startswith(b'{"type":"arrived"')
    assert decode_record(whole) == arrived(7)


def test_a_folder_as_log_file_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"cannot be opened: Is a directory; name a writable file"):
        DecisionLog(tmp_path)
