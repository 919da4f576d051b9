"""Bootstrap: the DM profile message, its MAC, what it puts into the tree."""

from __future__ import annotations

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.bootstrap import Profile, ProfileCheck, Security, apply_profile, mac_of, profile_from
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.wbxml import WbxmlCodec
from tests.conformance.rules import cases, rule
from tests.unit.omadm.dm_pair import DEVICE, LeafTree

TYPE = "application/vnd.syncml.dm+wbxml"
ADD = c.Add("1", (c.Item("./Inbox", meta=c.Meta("xml", "application/vnd.syncml.dmtnds+xml"), data="<MgmtTree/>"),))
BODY = WbxmlCodec().encode(c.Message(c.SyncHdr("1", 1, DEVICE, "virmo-server"), (ADD,)))


def protected(security: Security, **keys: object) -> Profile:
    mac = mac_of(BODY, security, **keys)  # type: ignore[arg-type]
    return profile_from(f"{TYPE}; SEC={security.value}; MAC={mac}", BODY)


@rule("Bootstrap: MAC", "HMAC-SHA1 of exactly the WBXML octets, as hexadecimal digits (RFC 2202, test case 2)")
def test_mac_vector() -> None:
    mac = mac_of(b"what do ya want for nothing?", Security.NETWORKID, network_id=b"Jefe")
    assert mac == "EFFCDF6AE5EB2FA2D27416D5F184DF9C259A7C79"


@cases(
    "Bootstrap: MAC",
    "security,keys",
    [
        ("NETWORKID", Security.NETWORKID, {"network_id": b"secret"}),
        ("USERPIN", Security.USERPIN, {"pin": "1234"}),
        ("USERPIN_NETWORKID", Security.USERPIN_NETWORKID, {"pin": "1234", "network_id": b"secret"}),
    ],
)
def test_accepted(security: Security, keys: dict[str, object]) -> None:
    assert ProfileCheck(protected(security, **keys)).accepts(**keys)  # type: ignore[arg-type]


@rule("Bootstrap: MAC", "the key of USERPIN_NETWORKID is PIN:secret")
def test_combined_key() -> None:
    combined = mac_of(BODY, Security.USERPIN_NETWORKID, pin="1234", network_id=b"secret")
    assert combined == mac_of(BODY, Security.NETWORKID, network_id=b"1234:secret")


@rule("Bootstrap: MAC", "is compared without regard to case")
def test_lower_case_mac() -> None:
    mac = mac_of(BODY, Security.USERPIN, pin="1").lower()
    assert ProfileCheck(profile_from(f"{TYPE};SEC=USERPIN;MAC={mac}", BODY)).accepts(pin="1")


@cases(
    "Bootstrap: MAC",
    "keys",
    [("a wrong PIN is refused", {"pin": "4321"}), ("a missing PIN is refused", {})],
)
def test_refused(keys: dict[str, str]) -> None:
    assert not ProfileCheck(protected(Security.USERPIN, pin="1234")).accepts(**keys)  # type: ignore[arg-type]


@rule("Bootstrap: MAC", "one changed octet is noticed")
def test_changed_body() -> None:
    profile = protected(Security.USERPIN, pin="1")
    changed = Profile(profile.untrusted_body[:-1] + b"\x00", profile.security, profile.mac)
    assert not ProfileCheck(changed).accepts(pin="1")


@rule("Bootstrap: MAC", "after three wrong PINs the right one is refused, too")
def test_pin_attempts() -> None:
    check = ProfileCheck(protected(Security.USERPIN, pin="1234"))
    for pin in ("1", "2", "3"):
        assert not check.accepts(pin=pin)
    assert check.locked
    assert not check.accepts(pin="1234")


@rule("Bootstrap: MAC", "a profile without protection is never accepted by its MAC")
def test_unprotected() -> None:
    assert not ProfileCheck(profile_from(TYPE, BODY)).accepts(pin="", network_id=b"")


@cases(
    "Bootstrap: form",
    "content_type",
    [
        ("XML is refused: a profile is WBXML", "application/vnd.syncml.dm+xml"),
        ("another media type is refused", "text/plain"),
        ("SEC without MAC is refused", f"{TYPE}; SEC=USERPIN"),
        ("MAC without SEC is refused", f"{TYPE}; MAC=00"),
        ("an unknown SEC is refused", f"{TYPE}; SEC=NONE; MAC=00"),
    ],
)
def test_forms_that_are_refused(content_type: str) -> None:
    with pytest.raises(ProtocolError):
        profile_from(content_type, BODY)


@rule("Bootstrap: execution", "commands are executed for the server, and each has a status")
def test_execution() -> None:
    tree = LeafTree()
    outcome = apply_profile(profile_from(TYPE, BODY), tree, "virmo-server")
    assert outcome.results == (("Add", "./Inbox", 200),)
    assert outcome.ok
    assert tree.calls == [("Add", "./Inbox")]


@rule("Bootstrap: execution", "a command that fails is reported, nothing is answered")
def test_failed_execution() -> None:
    tree = LeafTree()
    tree.failures["./Inbox"] = 415
    assert not apply_profile(profile_from(TYPE, BODY), tree, "virmo-server").ok


@rule("Bootstrap: execution", "octets that are no message raise ProtocolError")
def test_garbage() -> None:
    with pytest.raises(ProtocolError):
        apply_profile(profile_from(TYPE, b"garbage"), LeafTree(), "virmo-server")
