"""When the next DM session with a server is due. Pure arithmetic on the times that it is given.

Knows no thread and no clock of its own. Reasons for a session: somebody asks, the poll interval is over, or alerts
wait. A failed session is tried again with doubling pauses and a little chance in them, so that a fleet whose server
was down does not come back all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dom0_agent.omadm.retry import Backoff


@dataclass(slots=True)
class SessionSchedule:
    """The schedule of one account. Times are seconds of a monotonic clock; ``chance`` gives 0 ≤ x < 1."""

    poll_interval: float  #: 0: no polling
    backoff: Backoff  #: pauses after failed sessions
    chance: Callable[[], float]
    _due: float | None = None
    _failures: int = 0
    _alerts_wait: bool = False

    def ask(self, now: float) -> None:
        """Somebody wants a session at once; pending retries do not hold it up."""
        self._due = now

    def alerts_wait(self, now: float, waiting: bool) -> None:
        """Alerts are (not) waiting: they make a session due at once, but do not cut a retry's pause short."""
        if waiting and not self._alerts_wait and self._failures == 0:
            self.ask(now)
        self._alerts_wait = waiting

    def ended(self, now: float, ok: bool, *, late_alerts: bool = False) -> None:
        """A session ended; when is the next one due? At once for ``late_alerts``, which came too late to be in it."""
        if ok:
            self._failures = 0
            if late_alerts:
                self.ask(now)
                return
            # An alert that the server would not take (yet) is repeated like a failed session, not in a tight loop.
            pauses = ([self.poll_interval] if self.poll_interval else []) + (
                [self.backoff.cap] if self._alerts_wait else []
            )
            self._due = now + min(pauses) if pauses else None
            return
        self._failures += 1
        self._due = now + self.backoff.delay(self._failures, self.chance)

    def is_due(self, now: float) -> bool:
        """Whether to open a session now."""
        return self._due is not None and now >= self._due

    def wait(self, now: float) -> float | None:
        """Seconds until one is due; ``None``: not until somebody asks."""
        return None if self._due is None else max(0.0, self._due - now)
