"""Which notifications open a session (OMA-TS-DM-Notification)."""

from __future__ import annotations

import pytest

from dom0_agent.doorkeeper import Asked, Doorkeeper
from dom0_agent.omadm.auth import Account, AuthScheme, Credentials, MemoryNonceStore, NonceRole
from dom0_agent.omadm.notification import NotificationGuard, ZeroNonces, build_notification

ACCOUNT = Account(
    "srv",
    "https://127.0.0.1/dm",
    Credentials(AuthScheme.MD5, "board", "s"),
    Credentials(AuthScheme.MD5, "srv", "secret"),
)


class Door:
    def __init__(self, most: int = 10) -> None:
        self.nonces = MemoryNonceStore()
        self.nonces.put("srv", NonceRole.SERVER, b"Nonce")
        self.now = 0.0
        self.keeper = Doorkeeper(self.nonces, NotificationGuard(lambda: self.now, most=most))

    def knock(self, octets: bytes) -> Asked | None:
        return self.keeper.admit(octets, [ACCOUNT])


def note(session_id: int = 7, server: str = "srv", secret: str = "secret", nonce: bytes = b"Nonce") -> bytes:
    return build_notification(server, secret, nonce, session_id)


@pytest.fixture
def door() -> Door:
    return Door()


def test_a_known_server_gets_the_session_it_asks_for(door: Door) -> None:
    asked = door.knock(note())
    assert asked is not None
    assert (asked.account, asked.session_id, asked.nonces) == (ACCOUNT, 7, door.nonces)


def test_a_server_that_lost_its_nonce_gets_a_session_with_the_zero_nonce(door: Door) -> None:
    asked = door.knock(note(nonce=bytes(4)))
    assert asked is not None
    assert isinstance(asked.nonces, ZeroNonces)


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (note(secret="wrong"), "wrong digest"),
        (note(nonce=b"stale"), "wrong digest"),
        (note(server="other"), "unknown server"),
        (b"", "shorter than its header"),
        (b"x" * 2000, "at most"),
        (b"x" * 40, "not known"),
    ],
)
def test_everything_else_is_dropped_and_logged(
    door: Door, caplog: pytest.LogCaptureFixture, octets: bytes, reason: str
) -> None:
    assert door.knock(octets) is None
    assert reason in caplog.text
    assert "secret" not in caplog.text


def test_a_captured_notification_is_worth_nothing(door: Door) -> None:
    assert door.knock(note()) is not None
    assert door.knock(note()) is None


def test_a_mad_server_is_held_back_and_forgiven() -> None:
    door = Door(most=3)
    admitted = [door.knock(note(session_id)) is not None for session_id in range(1, 7)]
    assert admitted == [True] * 3 + [False] * 3
    door.now = 61.0
    assert door.knock(note(9)) is not None
