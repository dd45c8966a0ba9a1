"""Reads a decision log back into runs. Strict about what it does not understand, lenient about what a crash leaves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from veltair.errors import LogError
from veltair.observe.records import Lost, Record, Started, decode_record

_KNOWN_TYPES = frozenset(str(record.__struct_config__.tag) for record in Record.__args__)


@dataclass(frozen=True, slots=True)
class Run:
    """One life of an engine: everything from its `Started` to the next one or the end of the file."""

    started: Started
    records: tuple[Record, ...]  # without `started` and the `Lost` ones
    lost_records: int

    @property
    def end_us(self) -> int:
        return max((record.at_us for record in self.records), default=self.started.at_us)


@dataclass(frozen=True, slots=True)
class Log:
    path: Path
    runs: tuple[Run, ...]
    torn_lines: int  # lines cut short by a crash, at the end of the file or before the next run


def read_log(path: str | Path) -> Log:
    """Raises LogError, which names the file, the line and what to do."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as e:
        raise LogError(
            f"log {str(path)!r} cannot be read: {e.strerror}; name a file that `veltair serve --log FILE` wrote"
        ) from e
    if not data.strip():
        raise LogError(f"log {str(path)!r} is empty; was the engine started with `--log` and has it begun to serve?")
    records, torn = _decode_lines(path, data.split(b"\n"))
    if not isinstance(records[0] if records else None, Started):
        raise LogError(f"log {str(path)!r} does not begin with a 'started' record; give the whole file, not a part of it")
    return Log(path, _split_runs(records), torn)


def _decode_lines(path: Path, lines: Sequence[bytes]) -> tuple[list[Record], int]:
    records: list[Record] = []
    torn = 0
    torn_at: tuple[int, msgspec.DecodeError] | None = None  # forgiven if a new run or nothing follows
    version = "an unknown version"
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = decode_record(line)
        except msgspec.ValidationError as e:
            raise bad_record(path, number, line, e, version) from e
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            if torn_at is not None:
                raise _bad_line(path, *torn_at) from e
            torn, torn_at = torn + 1, (number, e)  # type: ignore[assignment]
            continue
        if isinstance(record, Started):
            version = record.version
        elif torn_at is not None:
            raise _bad_line(path, *torn_at)
        torn_at = None
        records.append(record)
    if torn_at is not None and torn_at[0] != len(lines):  # a line that was ended is not a crash's
        raise _bad_line(path, *torn_at)
    return records, torn


def _bad_line(path: Path, number: int, error: Exception) -> LogError:
    return LogError(f"log {str(path)!r}, line {number}: not JSON ({error}); remove that line, or restore the file from a copy")


def bad_record(path: Path, number: int, line: bytes, error: Exception, version: str) -> LogError:
    where = f"log {str(path)!r}, line {number}"
    try:
        content = msgspec.json.decode(line)
    except msgspec.DecodeError:  # its beginning is of the wrong type, and the rest no JSON
        content = None
    kind = content.get("type") if isinstance(content, dict) else None
    if isinstance(kind, str) and kind not in _KNOWN_TYPES:
        return LogError(
            f"{where}: record type {kind!r} is unknown; written by veltair {version}, read it with that or a newer one"
        )
    return LogError(f"{where}: not a record of a decision log ({error}); give a file that `veltair serve --log FILE` wrote")


def _split_runs(records: Sequence[Record]) -> tuple[Run, ...]:
    starts = [i for i, record in enumerate(records) if isinstance(record, Started)]
    runs = []
    for begin, end in zip(starts, [*starts[1:], len(records)], strict=True):
        started = records[begin]
        assert isinstance(started, Started)
        rest = records[begin + 1 : end]
        lost = sum(record.records for record in rest if isinstance(record, Lost))
        runs.append(Run(started, tuple(record for record in rest if not isinstance(record, Lost)), lost))
    return tuple(runs)
