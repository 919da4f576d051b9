"""Notification (package 0): layout, digest, verification, zero nonce, replay guard."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.auth import MemoryNonceStore, NonceRole
from dom0_agent.omadm.notification import (
    Initiator,
    NotificationGuard,
    UiMode,
    Verification,
    ZeroNonces,
    build_notification,
    parse_notification,
    verify_notification,
)
from dom0_agent.omadm.status import ProtocolError
from tests.conformance.rules import cases, rule
from tests.unit.omadm.dm_pair import Application, LeafTree, Pair

ID = "com.mgmtsrv.manage"
SAMPLE = build_notification(ID, "srvpwd", b"Nonce", 0x1234, ui_mode=UiMode.BACKGROUND, initiator=Initiator.CLIENT)


@rule("Notification: layout", "the specification's example of a trigger")
def test_example_of_the_specification() -> None:
    assert SAMPLE[16:].hex().upper() == "02D0000000123412" + ID.encode().hex().upper()


@rule("Notification: digest", "MD5(B64(MD5(server-identifier:password)):nonce:B64(MD5(trigger)))")
def test_digest_vector() -> None:
    assert SAMPLE[:16].hex() == "10369e83e3fc7103a4a21acce6e242ae"


@cases(
    "Notification: fields",
    "options,field,value",
    [
        ("version 1.1 is written as 11", {}, "version", 11),
        ("version 1.2 is read", {"version": 12}, "version", 12),
        ("version 1.3 is read", {"version": 13}, "version", 13),
        ("the session id is big endian", {"session_id": 0x1234}, "session_id", 0x1234),
        ("the largest session id", {"session_id": 0xFFFF}, "session_id", 0xFFFF),
        ("ui-mode not specified", {"ui_mode": UiMode.NOT_SPECIFIED}, "ui_mode", UiMode.NOT_SPECIFIED),
        ("ui-mode background", {"ui_mode": UiMode.BACKGROUND}, "ui_mode", UiMode.BACKGROUND),
        ("ui-mode informative", {"ui_mode": UiMode.INFORMATIVE}, "ui_mode", UiMode.INFORMATIVE),
        ("ui-mode user interaction", {"ui_mode": UiMode.USER_INTERACTION}, "ui_mode", UiMode.USER_INTERACTION),
        ("initiator server", {"initiator": Initiator.SERVER}, "initiator", Initiator.SERVER),
        ("initiator client", {"initiator": Initiator.CLIENT}, "initiator", Initiator.CLIENT),
        ("vendor octets are kept", {"vendor": b"\x01\x02"}, "vendor", b"\x01\x02"),
        ("the server identifier is UTF-8", {"server_id": "sörver"}, "server_id", "sörver"),
    ],
)
def test_fields(options: dict[str, object], field: str, value: object) -> None:
    arguments: dict[str, object] = {"server_id": ID, "secret": "s", "nonce": b"n", "session_id": 1} | options
    octets = build_notification(**arguments)  # type: ignore[arg-type]
    assert getattr(parse_notification(octets), field) == value


@cases(
    "Notification: malformed",
    "octets",
    [
        ("nothing", b""),
        ("shorter than the header", SAMPLE[:20]),
        ("shorter than the server identifier", SAMPLE[:-1]),
        ("session id 0", SAMPLE[:16] + bytes.fromhex("02D0000000000012") + SAMPLE[24:]),
        ("length 0", SAMPLE[:16] + bytes.fromhex("02D0000000123400")),
        ("version 1.0", SAMPLE[:16] + bytes.fromhex("0290000000123412") + SAMPLE[24:]),
        ("version 2.0", SAMPLE[:16] + bytes.fromhex("0510000000123412") + SAMPLE[24:]),
        ("a server identifier that is not UTF-8", SAMPLE[:16] + bytes.fromhex("02D0000000123401FF")),
        ("endless", SAMPLE + bytes(2000)),
    ],
)
def test_malformed(octets: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_notification(octets)


@cases(
    "Notification: malformed",
    "session_id,server_id",
    [("session id 0 is not built", 0, ID), ("an empty identifier is not built", 1, "")],
)
def test_not_built(session_id: int, server_id: str) -> None:
    with pytest.raises(ValueError, match="notification"):
        build_notification(server_id, "s", b"n", session_id)


@rule("Notification: verification", "right with the stored nonce")
def test_stored_nonce() -> None:
    assert verify_notification(parse_notification(SAMPLE), "srvpwd", b"Nonce") is Verification.STORED


@cases(
    "Notification: verification",
    "secret,nonce",
    [
        ("another secret fails", "other", b"Nonce"),
        ("another nonce fails", "srvpwd", b"other"),
        ("no nonce fails", "srvpwd", None),
    ],
)
def test_wrong_digest(secret: str, nonce: bytes | None) -> None:
    assert verify_notification(parse_notification(SAMPLE), secret, nonce) is Verification.FAILED


@rule("Notification: verification", "one changed bit of the trigger fails")
def test_changed_trigger() -> None:
    octets = bytearray(SAMPLE)
    octets[17] ^= 1
    assert verify_notification(parse_notification(bytes(octets)), "srvpwd", b"Nonce") is Verification.FAILED


@cases(
    "Notification: zero nonce",
    "zero",
    [("as four zero octets", bytes(4)), ("as the text 0x00000000", b"0x00000000")],
)
def test_zero_nonce(zero: bytes) -> None:
    octets = build_notification(ID, "srvpwd", zero, 1)
    assert verify_notification(parse_notification(octets), "srvpwd", b"Nonce") is Verification.ZERO


@rule("Notification: zero nonce", "the whole session uses it, and both sides renew their nonces")
def test_session_with_zero_nonce() -> None:
    pair = Pair(LeafTree({"./X": "1"}))
    stores = pair.client_nonces, pair.server_nonces
    pair.client_nonces, pair.server_nonces = ZeroNonces(stores[0]), ZeroNonces(stores[1])  # type: ignore[assignment]
    application = Application([c.Get(items=(c.Item("./X"),))])
    pair.run(application)
    assert application.codes == {"r1": 200}
    assert pair.sent[0].header.cred is not None
    assert len(pair.sent) == 2, "the zero nonce was not accepted at once"
    for role in NonceRole:
        assert stores[0].get("virmo-server", role) not in (None, bytes(4))


@rule("Notification: zero nonce", "a store under it is untouched until a nonce is renewed")
def test_zero_nonces_read() -> None:
    store = MemoryNonceStore()
    store.put("s", NonceRole.CLIENT, b"old")
    zero = ZeroNonces(store)
    assert zero.get("s", NonceRole.CLIENT) == bytes(4)
    assert store.get("s", NonceRole.CLIENT) == b"old"
    zero.put("s", NonceRole.CLIENT, b"new")
    assert zero.get("s", NonceRole.CLIENT) == store.get("s", NonceRole.CLIENT) == b"new"


@rule("Notification: replay", "the same notification opens one session only")
def test_replay() -> None:
    guard = NotificationGuard(lambda: 0.0)
    notification = parse_notification(SAMPLE)
    assert guard.admit(notification)
    assert not guard.admit(notification)


@rule("Notification: replay", "the same session id opens one session only, whatever else differs")
def test_same_session_id() -> None:
    guard = NotificationGuard(lambda: 0.0)
    assert guard.admit(parse_notification(SAMPLE))
    assert not guard.admit(parse_notification(build_notification(ID, "srvpwd", b"Nonce", 0x1234, vendor=b"x")))


@rule("Notification: replay", "after a while a session id may be used again")
def test_session_id_again() -> None:
    now = [0.0]
    guard = NotificationGuard(lambda: now[0])
    assert guard.admit(parse_notification(SAMPLE))
    now[0] = 61.0
    again = build_notification("com.mgmtsrv.manage", "srvpwd", b"next nonce", 0x1234)
    assert guard.admit(parse_notification(again))


@rule("Notification: replay", "the same octets open no second session, however late they come")
def test_octets_again() -> None:
    now = [0.0]
    guard = NotificationGuard(lambda: now[0])
    assert guard.admit(parse_notification(SAMPLE))
    now[0] = 1e6
    assert not guard.admit(parse_notification(SAMPLE))


@rule("Notification: flood", "a server cannot open more than ten sessions a minute, others still can")
def test_flood() -> None:
    guard = NotificationGuard(lambda: 0.0)
    admitted = [guard.admit(parse_notification(build_notification(ID, "s", b"n", n))) for n in range(1, 20)]
    assert admitted.count(True) == 10
    assert guard.admit(replace(parse_notification(SAMPLE), server_id="other"))
