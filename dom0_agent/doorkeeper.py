"""Decides whether a notification (package 0) is a reason to open a session (OMA-TS-DM-Notification; digest 10).

Known server, right digest, not seen before, not too many: everything else is dropped without a word to its sender.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from dom0_agent.omadm.alerts import AlertCode
from dom0_agent.omadm.auth import Account, NonceRole, NonceStore
from dom0_agent.omadm.interaction import Outcome, Question, UserInterface
from dom0_agent.omadm.notification import (
    NotificationGuard,
    UiMode,
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
    ui_mode: UiMode = UiMode.NOT_SPECIFIED


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
        if not account.server.secret:
            log.warning("event=notification_dropped reason='no server secret' server=%s", account.server_id)
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
        return Asked(account, notification.session_id, nonces, notification.ui_mode)


def user_agrees(asked: Asked, ui: UserInterface | None) -> bool:
    """Whether to go on: ``ui-mode`` may want the user told, or asked. Where nobody can be asked, the server decides."""
    kind = _KINDS.get(asked.ui_mode)
    if kind is None or ui is None:
        return True
    answer = ui.ask(Question(kind, f"{asked.account.server_id} begins a management session with this device."))
    if answer.outcome is Outcome.ANSWERED:
        return True
    log.warning(
        "event=notification_declined server=%s outcome=%s", asked.account.server_id, answer.outcome.name.lower()
    )
    return False


_KINDS = {UiMode.INFORMATIVE: AlertCode.DISPLAY, UiMode.USER_INTERACTION: AlertCode.CONFIRM_OR_REJECT}
