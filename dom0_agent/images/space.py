"""Who may still take how much of the file system: free space, minus dom0's reserve, minus what others were promised.

Free space alone is a race: two downloads that both fit are started, and together they do not. So bytes are promised
first and used up as they are written. The ledger is in memory only: after a restart nothing runs, so nothing is
promised.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from dom0_agent.images.errors import NoSpace


def free_bytes(path: Path) -> int:
    """Bytes that a process may still write on the file system of ``path``."""
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


class SpaceLedger:
    """Thread-safe. One for each file system; ``free`` is asked anew at each promise."""

    def __init__(self, path: Path, reserve: int, free: Callable[[Path], int] = free_bytes) -> None:
        self._path = path
        self._reserve = reserve
        self._free = free
        self._lock = threading.Lock()
        self._open: set[Reservation] = set()

    def reserve(self, purpose: str, size: int = 0) -> Reservation:
        """Promise ``size`` bytes for ``purpose`` (for people: "the download", "unpacking").

        :raises NoSpace: they are not there; the message says how much is needed, free, reserved and kept
        """
        reservation = Reservation(self, purpose)
        with self._lock:
            self._open.add(reservation)
        try:
            reservation.ensure(size)
        except NoSpace:
            reservation.release()
            raise
        return reservation

    def reserved(self) -> int:
        """Bytes promised and not yet written."""
        with self._lock:
            return sum(reservation.remaining for reservation in self._open)

    def available(self) -> int:
        """Bytes that could be promised now; never negative."""
        with self._lock:
            others = sum(reservation.remaining for reservation in self._open)
        return max(0, self._free(self._path) - self._reserve - others)

    def _ensure(self, reservation: Reservation, size: int) -> None:
        with self._lock:
            if size > reservation.remaining:
                free = self._free(self._path)
                others = sum(other.remaining for other in self._open if other is not reservation)
                if size > free - self._reserve - others:
                    raise NoSpace(
                        f"not enough space in {self._path} for {reservation.purpose}: needs {size} bytes, "
                        f"{free} are free, of which {others} are reserved for other images and {self._reserve} are "
                        "kept for dom0 (images.reserve); delete images or VMs, or use a larger disk"
                    )
            reservation.remaining = size

    def _consume(self, reservation: Reservation, size: int) -> None:
        with self._lock:
            reservation.remaining = max(0, reservation.remaining - size)

    def _release(self, reservation: Reservation) -> None:
        with self._lock:
            reservation.remaining = 0
            self._open.discard(reservation)


class Reservation:
    """Bytes promised to one purpose. A context manager: leaving it gives back what was not written."""

    def __init__(self, ledger: SpaceLedger, purpose: str) -> None:
        self._ledger = ledger
        self.purpose = purpose
        self.remaining = 0  #: bytes still promised

    def ensure(self, size: int) -> None:
        """Make what is still promised exactly ``size``. :raises NoSpace: and leave it as it was"""
        self._ledger._ensure(self, size)

    def consume(self, size: int) -> None:
        """``size`` bytes have been written: the file system counts them now."""
        self._ledger._consume(self, size)

    def release(self) -> None:
        """Give back the rest; may be called more than once."""
        self._ledger._release(self)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
