"""Opens the DM sessions of all accounts when they are due, each account on its own schedule.

For the one thread that owns the management tree. Knows when and with whom; what happens in a session is
:mod:`.dm_session`, and who asked for one is the daemon's to know.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

from dom0_agent.config import DmConfig
from dom0_agent.dm_session import SessionReport, SessionRunner, Trace
from dom0_agent.doorkeeper import Asked
from dom0_agent.omadm.alerts import AlertCode
from dom0_agent.omadm.auth import Account
from dom0_agent.omadm.retry import Backoff
from dom0_agent.schedule import SessionSchedule
from dom0_agent.store.outbox import Outbox
from dom0_agent.transport.tls import TlsConfig

JITTER = 0.5  #: of a pause is left to chance: a fleet does not come back all at once


class SessionKeeper:
    """``settle`` lets the tree follow what has happened, before and after each session; ``note`` hears of each end."""

    def __init__(
        self,
        config: DmConfig,
        runner: SessionRunner,
        accounts: Callable[[], tuple[Account, ...]],
        outbox: Outbox,
        *,
        settle: Callable[[], None],
        note: Callable[[SessionReport], None],
    ) -> None:
        self._config = config
        self._runner = runner
        self._accounts = accounts
        self._outbox = outbox
        self._settle = settle
        self._note = note
        self._tls: Mapping[str, TlsConfig] = {account.server_id: account.tls for account in config.accounts}
        self._schedules = {account.server_id: self._schedule() for account in accounts()}

    def session(self, account: Account, *, asked: Asked | None = None, trace: Trace | None = None) -> SessionReport:
        """Run one session now: client-initiated, or the one that a notification ``asked`` for."""
        self._settle()
        tls = self._tls.get(account.server_id, self._config.tls)
        if asked is None:
            report = self._runner.run(account, tls, trace=trace)
        else:
            opening = AlertCode.SERVER_INITIATED
            report = self._runner.run(
                account, tls, opening=opening, session_id=asked.session_id, nonces=asked.nonces, trace=trace
            )
        self._settle()
        self._note(report)
        return report

    def run(self, account: Account, asked: Asked | None = None, *, trace: Trace | None = None) -> SessionReport:
        """As :meth:`session`; its end decides when the next one is due."""
        report = self.session(account, asked=asked, trace=trace)
        schedule, now = self._of(account), time.monotonic()
        waiting = self._outbox.list(account.server_id)
        schedule.alerts_wait(now, any(alert.attempts for alert in waiting))
        schedule.ended(now, report.ok, late_alerts=not all(alert.attempts for alert in waiting))
        return report

    def ask_all(self) -> None:
        """Have a session with each server soon."""
        now = time.monotonic()
        for schedule in self._schedules.values():
            schedule.ask(now)

    def wait(self, longest: float) -> float:
        """Seconds until the next one is due, at most ``longest``."""
        now = time.monotonic()
        waits = [wait for schedule in self._schedules.values() if (wait := schedule.wait(now)) is not None]
        return min([*waits, longest])

    def run_due(self) -> None:
        """Open those that are due."""
        now = time.monotonic()
        for account in self._accounts():
            schedule = self._of(account)
            schedule.alerts_wait(now, bool(self._outbox.list(account.server_id)))
            if schedule.is_due(now):
                self.run(account)

    def _of(self, account: Account) -> SessionSchedule:
        return self._schedules.setdefault(account.server_id, self._schedule())

    def _schedule(self) -> SessionSchedule:
        config = self._config
        return SessionSchedule(
            config.poll_interval, Backoff(config.retry_first, config.retry_max, JITTER), random.random
        )
