"""Lets the writers of an SQLite file queue up, threads and processes alike.

SQLite's own waiting is a sleep that grows to a tenth of a second, and whoever wakes at the right moment wins: with many
writers some wait for seconds while the file lies idle. Waiting here ends when the writer before is done.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WriterQueue:
    """Held by one writer at a time among all users of ``lock_file``. Kept open; a dead process holds nothing."""

    def __init__(self, lock_file: Path) -> None:
        self._lock_file = lock_file
        self._mutex = threading.Lock()
        self._descriptor: int | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for one's turn and have it for the block. Not to be nested."""
        with self._mutex:
            descriptor = self._open()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        with self._mutex:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._descriptor
