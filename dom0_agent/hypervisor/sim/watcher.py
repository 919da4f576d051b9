"""Notices when a simulated domain comes, goes or ends: the simulator's ``@introduceDomain`` and ``@releaseDomain``.

One thread: pidfds tell the end of processes (also of those that an earlier agent started), inotify tells domains that
others make or remove.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
import os
import selectors
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

logger = logging.getLogger(__name__)

_IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE = 0x40, 0x80, 0x100, 0x200


class Watcher:
    """Calls its subscribers whenever something happened; they look for themselves what it was."""

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()
        self._hints: dict[int, Callable[[], None]] = {}
        self._next = 0
        self._pidfds: dict[int, int] = {}  # pid → pidfd
        self._selector = selectors.DefaultSelector()
        self._inotify = _inotify(directory)
        self._selector.register(self._inotify, selectors.EVENT_READ)
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sim-watcher", daemon=True)
        self._thread.start()

    def subscribe(self, hint: Callable[[], None]) -> Callable[[], None]:
        """Add a subscriber; returns its removal."""
        with self._lock:
            key, self._next = self._next, self._next + 1
            self._hints[key] = hint

        def unsubscribe() -> None:
            with self._lock:
                self._hints.pop(key, None)

        return unsubscribe

    def follow(self, pids: Iterable[int]) -> None:
        """Watch for the end of these processes; those already watched stay so."""
        with self._lock:
            for pid in pids:
                if pid in self._pidfds or self._closed or not pid:
                    continue
                try:
                    pidfd = os.pidfd_open(pid)
                except ProcessLookupError:
                    continue
                self._pidfds[pid] = pidfd
                self._selector.register(pidfd, selectors.EVENT_READ, pid)

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        os.write(self._wake_write, b"\0")
        self._thread.join()
        for descriptor in (self._inotify, self._wake_read, self._wake_write, *self._pidfds.values()):
            os.close(descriptor)
        self._selector.close()

    def _run(self) -> None:
        while True:
            events = self._selector.select()
            with self._lock:
                if self._closed:
                    return
                for key, _ in events:
                    if key.fd == self._inotify:
                        os.read(self._inotify, 65536)
                    elif isinstance(key.data, int):
                        self._ended(key.data)
                hints = list(self._hints.values())
            for hint in hints:
                hint()

    def _ended(self, pid: int) -> None:
        pidfd = self._pidfds.pop(pid)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        try:
            os.waitpid(pid, os.WNOHANG)  # ours to bury, if this process started it
        except ChildProcessError:
            return


def _inotify(directory: Path) -> int:
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    descriptor = int(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
    mask = _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
    if descriptor < 0 or libc.inotify_add_watch(descriptor, os.fsencode(directory), mask) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot watch {directory}: {os.strerror(error)}")
    return descriptor
