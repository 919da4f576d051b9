"""Waiting longer after each failure: between tries to reach a server, and before credentials are looked at again.

Pure arithmetic over a clock that is passed in (seconds, any origin, never going back). Knows no session and no network.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass

#: Devices that a lock-out remembers; above it the ones that may try again soonest are forgotten.
MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds: ``base`` doubled with each failure up to ``cap``, spread by ``jitter`` (0 to 1) downwards."""

    base: float = 10.0
    cap: float = 3600.0
    jitter: float = 0.25

    def delay(self, failures: int, random: Callable[[], float]) -> float:
        """How long to wait after ``failures`` failures in a row (from 1); ``random`` gives values from 0 to 1."""
        if failures < 1:
            return 0.0
        whole = min(self.cap, self.base * 2.0 ** min(failures - 1, 64))
        return whole * (1.0 - self.jitter * random())


@dataclass(frozen=True, slots=True)
class LockRecord:
    """Failures in a row of one device, and until when its credentials are not looked at."""

    failures: int
    until: float


class BackoffLockOut:
    """After ``free`` failures in a row a device is locked out, for longer with each further one (digest 5, Security 5).

    ``records`` may be any mapping that outlives the process and is shared by workers; a plain dict otherwise.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        free: int = 5,
        backoff: Backoff = Backoff(base=30.0, cap=3600.0, jitter=0.0),
        records: MutableMapping[str, LockRecord] | None = None,
    ) -> None:
        self._clock = clock
        self._free = free
        self._backoff = backoff
        self._records: MutableMapping[str, LockRecord] = {} if records is None else records

    def is_locked(self, device_id: str) -> bool:
        """Whether credentials of this device are not even looked at for now."""
        record = self._records.get(device_id)
        return record is not None and self._clock() < record.until

    def failed(self, device_id: str) -> None:
        """Wrong credentials were given."""
        before = self._records.get(device_id)
        failures = (before.failures if before is not None else 0) + 1
        wait = self._backoff.delay(failures - self._free, lambda: 0.0)
        if before is None and len(self._records) >= MAX_REMEMBERED:
            del self._records[min(self._records, key=lambda known: self._records[known].until)]
        self._records[device_id] = LockRecord(failures, self._clock() + wait)

    def succeeded(self, device_id: str) -> None:
        """The device proved itself: all is forgotten."""
        self._records.pop(device_id, None)
