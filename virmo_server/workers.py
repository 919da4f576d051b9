"""Keeps worker processes running: makes them by fork, starts another when one ends, stops all on a signal.

Knows nothing of what they do. Workers share a listening socket that the parent holds, so that connections that wait are
taken up by another worker when one dies.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

logger = logging.getLogger(__name__)

#: A worker that fails sooner was not able to start; after so many in a row all is given up. One that was killed is not
#: counted: that says nothing of the next.
EARLY_SECONDS = 5.0
MAX_EARLY_ENDS = 5
#: After the signal to stop; then they are killed.
STOP_SECONDS = 20.0
_POLL_SECONDS = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class _Started:
    """A process that runs, and since when on the monotonic clock."""

    number: int
    at: float


class Workers:
    """``count`` processes that each call ``work`` with their number until it returns."""

    def __init__(self, work: Callable[[int], int], count: int) -> None:
        self._work = work
        self._started: dict[int, _Started] = {}
        self._free = list(range(count))
        self._early_ends = 0
        self._stopping = False
        self._read_end, self._write_end = os.pipe()

    def run(self) -> int:
        """Until SIGINT or SIGTERM: 0 after an orderly end, 1 when workers cannot start."""
        for signal_number in _SIGNALS:
            signal.signal(signal_number, self._stop)
        while not self._stopping and self._early_ends < MAX_EARLY_ENDS:
            while self._free and not self._stopping:
                self._start(self._free.pop(0))
            self._reap()
            time.sleep(_POLL_SECONDS)
        is_orderly = self._stopping
        if not is_orderly:
            logger.error("giving up: workers ended %d times just after their start", self._early_ends)
        self._end()
        return 0 if is_orderly else 1

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _start(self, number: int) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(self._run_child(number))
        self._started[pid] = _Started(number, time.monotonic())

    def _run_child(self, number: int) -> int:
        os.close(self._write_end)
        for signal_number in _SIGNALS:
            signal.signal(signal_number, signal.SIG_DFL)
        threading.Thread(target=self._end_with_parent, daemon=True).start()
        return self._work(number)

    def _end_with_parent(self) -> None:
        """A parent that was killed closes the pipe; a worker that nobody watches any more ends as well."""
        os.read(self._read_end, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    def _reap(self) -> None:
        for pid in list(self._started):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done == 0:
                continue
            started = self._started.pop(pid)
            self._free.append(started.number)
            lived = time.monotonic() - started.at
            code = os.waitstatus_to_exitcode(status)
            self._early_ends = self._early_ends + 1 if code > 0 and lived < EARLY_SECONDS else 0
            if not self._stopping:
                logger.error("worker %d ended with %d after %.0f s: starting another", pid, code, lived)

    def _end(self) -> None:
        for pid in self._started:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        self._stopping = True
        while self._started and time.monotonic() < deadline:
            self._reap()
            time.sleep(_POLL_SECONDS)
        for pid in self._started:
            logger.error("worker %d does not end: killing it", pid)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
