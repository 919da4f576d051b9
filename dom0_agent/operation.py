"""Where an operation came from, how it ended, and the handle to wait for it: shared by VMs and images.

Knows no DM session: ``Origin`` is carried along (and persisted with the journal) so that whoever hears of the end can
report it to the right server.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """The Exec that asked for an operation. ``uri`` is the executed node, as the later alert's Source names it."""

    server_id: str
    uri: str
    correlator: str | None = None


@dataclass(frozen=True, slots=True)
class OperationResult:
    """The end of an operation: a DM status code (200 is success) and a sentence for people."""

    status: int
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether the operation did what was asked."""
        return 200 <= self.status < 300


class OperationHandle:
    """One running operation. ``wait`` is the only thing a DM session may do with it.

    Exactly one of two things reports the end: the waiter that got the result, or (when the waiter gave up, or there
    was none) the completion listener. ``wait`` and ``finish`` settle between them, under a lock, which one it is.
    """

    def __init__(self, origin: Origin | None = None) -> None:
        self.origin = origin
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._result: OperationResult | None = None
        self._abandoned = origin is None

    def wait(self, seconds: float) -> OperationResult | None:
        """The result if the operation ends within ``seconds``; else ``None``, and the end will be reported as alert."""
        self._done.wait(seconds)
        with self._lock:
            if self._result is None:
                self._abandoned = True
            return self._result

    def finish(self, result: OperationResult) -> bool:
        """Set the end once; ``True`` when nobody waits any more, so that an alert is due."""
        with self._lock:
            self._result = result
            self._done.set()
            return self._abandoned


class OperationRefused(Exception):  # noqa: N818 - it names what happened, as the people who catch it say it
    """The operation was not begun: ``status`` is the DM status code to answer with; nothing has changed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
