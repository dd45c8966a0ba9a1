"""A file of the kernel's that is read again and again: opened once, so that a read is one system call."""

import os
from pathlib import Path

from veltair.errors import SourceUnavailable

USUAL_BYTES = 4096


class KernelFile:
    def __init__(self, path: Path, remedy: str) -> None:
        """Raises SourceUnavailable, with the remedy, where the file cannot be opened."""
        self.path = path
        self._remedy = remedy
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._gone(error) from error

    def read(self, most_bytes: int = USUAL_BYTES) -> bytes:
        """From its beginning. Raises SourceUnavailable where it cannot be read (any more), or holds nothing."""
        try:
            data = os.pread(self._descriptor, most_bytes, 0)
        except OSError as error:
            raise self._gone(error) from error
        if not data:
            raise SourceUnavailable(f"{self.path} is empty; {self._remedy}")
        return data

    def senseless(self, data: bytes) -> SourceUnavailable:
        return SourceUnavailable(f"{self.path} says {data[:40]!r}, which is not what Linux writes there; {self._remedy}")

    def close(self) -> None:
        os.close(self._descriptor)

    def _gone(self, error: OSError) -> SourceUnavailable:
        return SourceUnavailable(f"{self.path} cannot be read: {error.strerror}; {self._remedy}")
