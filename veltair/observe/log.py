"""The decision log's writing end: the scheduler appends to a deque, a thread encodes and writes.

Rules of the file:
1. `write` costs the caller one length check and one append. It takes no lock, encodes nothing, wakes nobody.
2. Memory is bounded. What does not fit is counted, and the file says so itself with a `Lost` record: a log with a
   hole is never taken for a whole one.
3. Whole lines only. A write that fails half-way (a full disk) is cut back, so that what follows can be read.
"""

import logging
import os
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

from veltair.errors import LogError
from veltair.observe.records import Lost, Record, encode_record

# About 30 s at 2,000 decisions a second, and some 60 MB at most: longer stalls of a disk than that are rare.
DEFAULT_CAPACITY_RECORDS = 65_536
# Polling, rather than waking the thread per record, keeps the cost of a system call off the scheduler's path.
FLUSH_INTERVAL_S = 0.05
# Encoding holds the GIL; small batches with a write (which releases it) between them let the lanes in.
BATCH_RECORDS = 256

_logger = logging.getLogger(__name__)


class DecisionLog:
    """Appends records to the JSON-lines file at `path`; an existing log is continued, each run begins with `Started`.

    `write` may be called from any thread as long as callers take turns (the engine's lock sees to that). Raises
    LogError where the file cannot be opened; never raises afterwards, since a full disk must not stop inference.
    """

    def __init__(self, path: str | Path, *, capacity_records: int = DEFAULT_CAPACITY_RECORDS) -> None:
        self.path = Path(path)
        self._capacity = capacity_records
        self._pending: deque[Record] = deque()
        self._turned_away = 0  # only `write` adds to it
        self._unwritten = 0  # only the thread adds to it
        self._told_lost = 0
        self._last_at_us = 0
        self._failing = False
        self._closing = threading.Event()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - lives as long as the log
        except OSError as e:
            raise LogError(f"decision log {str(self.path)!r} cannot be opened: {e.strerror}; name a writable file") from e
        self._end = self._file.tell()
        self._separate_from_torn_line()
        self._thread = threading.Thread(target=self._drain, name="veltair-log", daemon=True)
        self._thread.start()

    @property
    def lost_records(self) -> int:
        """Records that were handed over but are not in the file."""
        return self._turned_away + self._unwritten

    def write(self, record: Record) -> None:
        if len(self._pending) >= self._capacity or self._closing.is_set():
            self._turned_away += 1
        else:
            self._pending.append(record)

    def close(self) -> None:
        """Writes what is pending and closes the file. May be called twice."""
        self._closing.set()
        self._thread.join()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _drain(self) -> None:
        while not self._closing.wait(FLUSH_INTERVAL_S):
            self._write_pending()
        self._write_pending()

    def _write_pending(self) -> None:
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(BATCH_RECORDS, len(self._pending)))]
            self._last_at_us = batch[-1].at_us
            if not self._append(b"".join(encode_record(record) + b"\n" for record in batch)):
                self._unwritten += len(batch)
        lost = self.lost_records
        if lost > self._told_lost:
            missing = Lost(at_us=self._last_at_us, records=lost - self._told_lost)
            if self._append(encode_record(missing) + b"\n"):
                _logger.warning("decision log %s: %d records were lost", self.path, missing.records)
                self._told_lost = lost

    def _append(self, data: bytes) -> bool:
        """All of `data` or nothing of it."""
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as e:
            if not self._failing:
                _logger.error("decision log %s cannot be written: %s; records are lost until it can", self.path, e.strerror)
            self._failing = True
            self._cut_back()
            return False
        self._failing = False
        self._end += len(data)
        return True

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._file.fileno(), self._end)
        except OSError:
            _logger.debug("decision log %s is no regular file, half a line may stay in it", self.path)

    def _separate_from_torn_line(self) -> None:
        """An engine that crashed may have left half a line; a new run must not be glued to it."""
        if self._end == 0 or not self.path.is_file():
            return
        with open(self.path, "rb") as existing:
            existing.seek(-1, os.SEEK_END)
            if existing.read(1) != b"\n":
                self._append(b"\n")
