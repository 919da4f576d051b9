"""Which notifications open a session (OMA-TS-DM-Notification)."""

from __future__ import annotations

import pytest

from dom0_agent.doorkeeper import Asked, Doorkeeper, user_agrees
from dom0_agent.omadm.alerts import AlertCode
from dom0_agent.omadm.auth import Account, AuthScheme, Credentials, MemoryNonceStore, NonceRole
from dom0_agent.omadm.interaction import Answer, Outcome, Question
from dom0_agent.omadm.notification import NotificationGuard, UiMode, ZeroNonces, build_notification

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


def test_an_account_without_server_secret_cannot_be_notified(caplog: pytest.LogCaptureFixture) -> None:
    """Where TLS alone says who the server is, anybody could compute the digest."""
    door = Door()
    account = Account("srv", "https://127.0.0.1/dm", ACCOUNT.client, Credentials(AuthScheme.NONE))
    for nonce in (b"Nonce", bytes(4)):
        assert door.keeper.admit(note(secret="", nonce=nonce), [account]) is None
    assert "no server secret" in caplog.text


def test_a_captured_notification_is_worth_nothing_later_either(door: Door) -> None:
    """One with the zero nonce is right for ever; the same octets never open a second session."""
    captured = note(nonce=bytes(4))
    assert door.knock(captured) is not None
    for hours in range(1, 100):
        door.now = hours * 3600.0
        assert door.knock(captured) is None
    assert door.knock(note(session_id=8, nonce=bytes(4))) is not None
    assert door.knock(note(session_id=7)) is not None, "the same session id an hour later is another session"


class User:
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.asked: list[Question] = []

    def ask(self, question: Question) -> Answer:
        self.asked.append(question)
        return Answer(self.outcome)


@pytest.mark.parametrize(
    ("mode", "outcome", "kinds", "agrees"),
    [
        (UiMode.NOT_SPECIFIED, Outcome.REJECTED, [], True),
        (UiMode.BACKGROUND, Outcome.REJECTED, [], True),
        (UiMode.INFORMATIVE, Outcome.ANSWERED, [AlertCode.DISPLAY], True),
        (UiMode.USER_INTERACTION, Outcome.ANSWERED, [AlertCode.CONFIRM_OR_REJECT], True),
        (UiMode.USER_INTERACTION, Outcome.REJECTED, [AlertCode.CONFIRM_OR_REJECT], False),
        (UiMode.USER_INTERACTION, Outcome.TIMED_OUT, [AlertCode.CONFIRM_OR_REJECT], False),
    ],
)
def test_the_user_has_a_say_where_the_server_wants_it(
    door: Door, mode: UiMode, outcome: Outcome, kinds: list[AlertCode], agrees: bool
) -> None:
    """OMA-TS-DM-Notification 6.2.3: ui-mode."""
    asked = door.knock(build_notification("srv", "secret", b"Nonce", 7, ui_mode=mode))
    assert asked is not None
    user = User(outcome)
    assert user_agrees(asked, user) is agrees
    assert [question.kind for question in user.asked] == kinds
    assert user_agrees(asked, None)
