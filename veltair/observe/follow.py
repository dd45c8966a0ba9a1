"""Reads on in a decision log while an engine writes it: the last run so far, and then what comes."""

import os
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from veltair.errors import LogError
from veltair.observe.read import bad_record
from veltair.observe.records import Record, decode_record

CHUNK_BYTES = 1 << 20
_RUN = b'{"type":"started"'  # as the log writes it. Inside a text its quotes would be escaped.


class Follower:
    """`read` gives what was written since it was last asked, beginning with the `Started` of the last run in the file.

    A line that is not ended yet is left for later, and one that a crash cut short is left out. A file that was replaced or cut
    off (log rotation) is read from its beginning. Every call raises LogError for what cannot be read or is no decision log.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._version = "an unknown version"
        self._file = self._open()
        try:
            self._at = self._last_run()
        except BaseException:
            self._file.close()
            raise

    def read(self) -> Iterator[Record]:
        try:
            there, here = os.stat(self._path), os.fstat(self._file.fileno())
        except OSError as e:
            raise self._unreadable(e) from e
        if there.st_size < self._at or (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            self._file.close()
            self._file = self._open()
            self._at = 0
        chunk_bytes = CHUNK_BYTES
        while True:
            self._file.seek(self._at)
            content = self._file.read(chunk_bytes)
            *lines, _ = content.split(b"\n")
            if not lines and len(content) < chunk_bytes:
                return
            if not lines:  # the tables of many models are one long line
                chunk_bytes *= 2
            for line in lines:
                record = self._decoded(line) if line.strip() else None
                self._at += len(line) + 1
                if record is not None:
                    yield record

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open(self) -> BinaryIO:
        try:
            return open(self._path, "rb")
        except OSError as e:
            raise self._unreadable(e) from e

    def _unreadable(self, error: OSError) -> LogError:
        return LogError(
            f"log {str(self._path)!r} cannot be read: {error.strerror}; name a file that `veltair serve --log FILE` writes here"
        )

    def _last_run(self) -> int:
        if not os.fstat(self._file.fileno()).st_size:
            raise LogError(f"log {str(self._path)!r} is empty; was the engine started with `--log` and has it begun to serve?")
        with mmap(self._file.fileno(), 0, access=ACCESS_READ) as content:
            at = content.rfind(b"\n" + _RUN) + 1
            if at or content[: len(_RUN)] == _RUN:
                return at
        raise LogError(
            f"{str(self._path)!r} is no decision log, no run begins in it; give one of `veltair serve --log FILE`, whole"
        )

    def _decoded(self, line: bytes) -> Record | None:
        """None for a line that was torn."""
        try:
            record: Record = decode_record(line)
        except msgspec.ValidationError as e:
            number = self._path.read_bytes()[: self._at].count(b"\n") + 1
            raise bad_record(self._path, number, line, e, self._version) from e
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        self._version = getattr(record, "version", self._version)
        return record
