"""Turns the hypervisor's hints into something to wait on: "has anything happened since I looked?".

A hint means nothing but "look again"; one that comes while nobody waits is not lost, because it is counted.
"""

from __future__ import annotations

import threading


class Hints:
    """A counter of hints. ``hint`` may be called from any thread and never blocks."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0

    def hint(self) -> None:
        """Something may have happened."""
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    @property
    def count(self) -> int:
        """How many there have been; take it before you look, and give it to :meth:`wait`."""
        with self._condition:
            return self._count

    def wait(self, seen: int, seconds: float) -> int:
        """Return as soon as there were more than ``seen``, or after ``seconds``; returns the count now."""
        with self._condition:
            self._condition.wait_for(lambda: self._count > seen, seconds)
            return self._count
