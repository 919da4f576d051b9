"""Decides whether a notification (package 0) is a reason to open a session (OMA-TS-DM-Notification; digest 10).

Known server, right digest, not seen before, not too many: everything else is dropped without a word to its sender.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from dom0_agent.omadm.auth import Account, NonceRole, NonceStore
from dom0_agent.omadm.notification import (
    NotificationGuard,
    Verification,
    ZeroNonces,
    parse_notification,
    verify_notification,
)
from dom0_agent.omadm.status import ProtocolError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """A verified server asks for the session ``session_id``; ``nonces`` are to be used in it."""

    account: Account
    session_id: int
    nonces: NonceStore


class Doorkeeper:
    """Looks at notifications; ``guard`` remembers the ones that were let in."""

    def __init__(self, nonces: NonceStore, guard: NotificationGuard) -> None:
        self._nonces = nonces
        self._guard = guard

    def admit(self, untrusted_octets: bytes, accounts: Iterable[Account]) -> Asked | None:
        """The session that is asked for, or ``None``; the log says why."""
        try:
            notification = parse_notification(untrusted_octets)
        except ProtocolError as error:
            log.warning("event=notification_dropped reason=%r", str(error))
            return None
        account = next((known for known in accounts if known.server_id == notification.server_id), None)
        if account is None:
            log.warning("event=notification_dropped reason='unknown server' server=%r", notification.server_id)
            return None
        nonce = self._nonces.get(account.server_id, NonceRole.SERVER)
        verification = verify_notification(notification, account.server.secret, nonce)
        if verification is Verification.FAILED:
            log.warning("event=notification_dropped reason='wrong digest' server=%s", account.server_id)
            return None
        if not self._guard.admit(notification):
            log.warning("event=notification_dropped reason='repeated or too many' server=%s", account.server_id)
            return None
        nonces = ZeroNonces(self._nonces) if verification is Verification.ZERO else self._nonces
        return Asked(account, notification.session_id, nonces)
