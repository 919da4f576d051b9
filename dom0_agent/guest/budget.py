"""What a guest may cost: counted in windows of time; past it the guest is cut off, and must wait before it comes again.

Knows counts, no transport.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any

from dom0_agent.guest.config import BudgetConfig, GuestConfig
from guest_shim.protocol import ProtocolError


class OverBudget(ProtocolError):  # noqa: N818 - it is what happened
    """The guest went past its budget. The message says which."""


class Budget:
    """One guest's. The meter of an :class:`~guest_shim.endpoint.Endpoint`; each call may raise :class:`OverBudget`.

    Thread-safe: XenStore's hints and a channel's frames come in different threads.
    """

    def __init__(self, config: BudgetConfig, clock: Callable[[], float]) -> None:
        self._limits = {"bytes": config.bytes, "messages": config.messages, "nodes": config.nodes}
        self._window = config.window
        self._clock = clock
        self._began = clock()
        self._spent = dict.fromkeys(self._limits, 0)
        self._lock = threading.Lock()

    def __call__(self, kind: str, size: int, awaited: bool) -> None:
        """A frame came. Credit and what we asked for are free: the protocol bounds them."""
        if not awaited and kind != "credit":
            self.spend("messages", 1)
            self.spend("bytes", size)

    def fields(self, untrusted_fields: dict[str, Any]) -> None:
        """A message's fields have so many values."""
        self.spend("nodes", count_values(untrusted_fields))

    def spend(self, what: str, amount: int) -> None:
        """Take ``amount`` of ``what``."""
        now = self._clock()
        with self._lock:
            if now - self._began >= self._window:
                self._began = now
                self._spent = dict.fromkeys(self._limits, 0)
            self._spent[what] += amount
            over = self._spent[what] > self._limits[what]
        if over:
            raise OverBudget(f"over its budget of {self._limits[what]} {what} in {self._window:g} s")


def count_values(value: Any) -> int:
    """Values in a JSON value, itself included. Its depth was capped when it was read."""
    if isinstance(value, dict):
        return 1 + sum(count_values(inner) for inner in value.values())
    if isinstance(value, list):
        return 1 + sum(count_values(inner) for inner in value)
    return 1


class Penalties:
    """How long guests that broke the rules must stay away: doubles each time, forgotten after good behaviour."""

    def __init__(self, config: GuestConfig, clock: Callable[[], float]) -> None:
        self._first, self._most = config.penalty_first, config.penalty_max
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[Hashable, tuple[float, float]] = {}  # key → end, length

    def add(self, key: Hashable) -> float:
        """``key`` broke the rules; the seconds that it must stay away."""
        now = self._clock()
        with self._lock:
            end, length = self._until.get(key, (now, 0.0))
            length = self._first if now - end > self._most else min(max(length * 2, self._first), self._most)
            self._until[key] = (now + length, length)
        return length

    def left(self, key: Hashable) -> float:
        """Seconds that ``key`` must still stay away; 0: it may come."""
        with self._lock:
            end, _ = self._until.get(key, (0.0, 0.0))
        return max(0.0, end - self._clock())

    def forget(self, key: Hashable) -> None:
        """``key`` is no more."""
        with self._lock:
            self._until.pop(key, None)
