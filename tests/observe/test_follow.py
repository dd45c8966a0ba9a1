"""Reading on in a log that is being written: lines as they are ended, the last run only, and files that are replaced."""

from pathlib import Path

import pytest

from veltair.errors import LogError
from veltair.observe.follow import Follower
from veltair.observe.records import Record, encode_record

from .logs import arrived, started, tenant


def lines(*records: Record) -> bytes:
    return b"".join(encode_record(record) + b"\n" for record in records)


FIRST, SECOND = started(tenant("ads")), started(tenant("ads"), policy="fcfs")
A, B, C = arrived("a", 1), arrived("b", 2), arrived('{"type":"started"', 3)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_it_gives_what_was_written_since_it_was_asked_last(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(FIRST, A))
    with Follower(log) as follower:
        assert list(follower.read()) == [FIRST, A]
        assert list(follower.read()) == []
        append(log, lines(B))
        assert list(follower.read()) == [B]


def test_a_log_is_read_in_pieces_whatever_the_length_of_its_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("veltair.observe.follow.CHUNK_BYTES", 16)
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(FIRST, A, B) + lines(C)[:40])
    with Follower(log) as follower:
        assert list(follower.read()) == [FIRST, A, B]
        append(log, lines(C)[40:])
        assert list(follower.read()) == [C]


def test_a_line_that_is_not_ended_is_left_for_later(tmp_path: Path) -> None:
    log, line = tmp_path / "log.jsonl", lines(A)
    log.write_bytes(lines(FIRST) + line[:20])
    with Follower(log) as follower:
        assert list(follower.read()) == [FIRST]
        append(log, line[20:])
        assert list(follower.read()) == [A]


def test_it_begins_with_the_last_run_and_goes_on_into_the_next(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(FIRST, A, SECOND, B, C))  # the text of C looks like a run's beginning, but for its quotes
    with Follower(log) as follower:
        assert list(follower.read()) == [SECOND, B, C]
        append(log, lines(A)[:30] + b"\n" + lines(FIRST, B))  # a crash in the middle of a line, and another start
        assert list(follower.read()) == [FIRST, B]


def test_a_file_that_was_replaced_or_cut_off_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(FIRST, A, B))
    with Follower(log) as follower:
        list(follower.read())
        log.write_bytes(lines(SECOND))
        assert list(follower.read()) == [SECOND]
        log.rename(tmp_path / "old.jsonl")
        log.write_bytes(lines(FIRST, A, B, C))
        assert list(follower.read()) == [FIRST, A, B, C]


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(FIRST))
    with Follower(log) as follower:
        list(follower.read())
        log.unlink()
        with pytest.raises(LogError, match=r"log .*log\.jsonl' cannot be read: No such file"):
            list(follower.read())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; was the engine started with `--log`"),
        (b"<!doctype html>\n<p>{}</p>\n", "is no decision log, no run begins in it"),
        (lines(A), "is no decision log, no run begins in it"),
        (bytes(range(256)), "is no decision log, no run begins in it"),
        (lines(FIRST, A) + b'{"type":"moved","at_us":3}\n', "line 3: record type 'moved' is unknown; written by veltair 0.1.0"),
        (lines(FIRST) + b'{"type":"arrived","at_us":"x"}\n', "line 2: not a record of a decision log"),
    ],
)
def test_what_is_no_log_is_refused_with_the_reason(tmp_path: Path, content: bytes, said: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(content)
    with pytest.raises(LogError) as caught, Follower(log) as follower:
        list(follower.read())
    assert said in str(caught.value)
