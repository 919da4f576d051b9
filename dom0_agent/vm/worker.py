"""A queue of tasks and, while there are any, one thread that does them: one for each VM.

No idle threads: dom0 is small, and most VMs do nothing most of the time. Knows nothing of VMs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Worker:
    """Does its tasks one after another, in order."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Condition()
        self._tasks: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None

    def put(self, task: Callable[[], None]) -> None:
        """Do ``task`` after those before it."""
        with self._lock:
            self._tasks.append(task)
            if self._thread is None:
                self._begin()

    def join(self, seconds: float) -> bool:
        """Wait until nothing is left to do; ``False`` when that took longer than ``seconds``."""
        with self._lock:
            return self._lock.wait_for(lambda: self._thread is None, seconds)

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                with self._lock:
                    if not self._tasks:
                        return
                    task = self._tasks.popleft()
                task()
        finally:
            # a task that raised a bug's exception ends this thread (and is reported as any thread's), not the queue
            with self._lock:
                self._thread = None
                if self._tasks:
                    self._begin()
                self._lock.notify_all()
