"""The one place where Xen's free memory is given away: to domains that are built, and to guests that grow.

A grant is promised before anything takes it, so that two that begin at the same time never count the same bytes.
Knows numbers only; must not know domains.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from dom0_agent.hypervisor.interface import OutOfMemory

MIB = 1 << 20


class MemoryBroker:
    """Promises out of what ``free`` says, in bytes. ``patience``: seconds to wait for another grant to end."""

    def __init__(self, free: Callable[[], int], patience: float) -> None:
        self._free = free
        self._patience = patience
        self._changed = threading.Condition()
        self._promised = 0

    @contextlib.contextmanager
    def granted(self, need: int, whose: str) -> Iterator[None]:
        """Hold a promise of ``need`` bytes; :class:`OutOfMemory` says how much is missing.

        While others hold promises, free memory is counted too low, never too high: what is refused because of them is
        judged again when they have ended.
        """
        with self._changed:
            while True:
                free = self._free()
                if free - self._promised >= need:
                    break
                if not self._promised:
                    raise OutOfMemory(
                        f"{whose} needs {-(-need // MIB)} MiB (with Xen's overhead), "
                        f"and {free // MIB} MiB are free: power off or suspend another VM"
                    )
                self._changed.wait(self._patience)
            self._promised += need
        try:
            yield
        finally:
            with self._changed:
                self._promised -= need
                self._changed.notify_all()
