"""Interoperability: a conversation with libdmclient, recorded message by message in both syntaxes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.server import ServerSession
from dom0_agent.omadm.session import EndReason
from tests.conformance.dm_bytes import CODECS
from tests.conformance.foreign_client import BOX, CREDENTIALS, DEVICE, PACKAGES, application, session
from tests.conformance.rules import rule
from tests.unit.omadm.dm_pair import Application

RECORDED = Path(__file__).with_name("recorded")


class Conversation:
    """Our server's session fed with what libdmclient sent; ``parked``: stored and taken up again between messages."""

    def __init__(self, syntax: str, *, parked: bool = False) -> None:
        self.application: Application = application()
        self.answers: list[c.Message] = []
        codec = CODECS[syntax]
        self.session = session(codec)
        for file in sorted(RECORDED.glob(f"libdmclient-*.{syntax}")):
            if parked:
                self.session = session(codec, json.loads(json.dumps(self.session.to_dict())))
            self.answers.append(codec.decode(self.session.receive(file.read_bytes(), self.application)))


def codes_of(message: c.Message, command: str) -> list[int]:
    return [status.code for status in message.body if isinstance(status, c.Status) and status.cmd == command]


@rule("Interoperability: libdmclient", "a session with a client that is not ours ends well, both sides proved by MD5")
@pytest.mark.parametrize("parked", [False, True])
def test_the_session_ends_well(syntax: str, parked: bool) -> None:
    conversation = Conversation(syntax, parked=parked)
    assert conversation.session.ended is not None
    assert conversation.session.ended.reason is EndReason.DONE
    first, second, third, *others = conversation.answers
    assert codes_of(first, "SyncHdr") == [401]  # its nonce was another one
    assert codes_of(second, "SyncHdr") == [212]
    assert second.header.cred is not None
    assert codes_of(third, "SyncHdr") == [212]  # it had asked who we are: package 2 again, with other credentials
    assert third.header.cred not in (None, second.header.cred)
    assert all(codes_of(answer, "SyncHdr") == [212] and answer.header.cred is None for answer in others)
    assert conversation.application.info["./DevInfo/DevId"] == DEVICE


@rule("Interoperability: libdmclient", "each of 19 commands is answered with the status that the specification wants")
def test_statuses(syntax: str) -> None:
    expected = [status for package in PACKAGES for _, status in package]
    assert list(Conversation(syntax).application.codes.values()) == expected


@rule("Interoperability: libdmclient", "values come back as they were sent; a NUL behind children is no part of a name")
def test_values(syntax: str) -> None:
    outcomes = Conversation(syntax).application.outcomes.values()
    values: dict[str | None, list[str]] = {}
    for outcome in outcomes:
        for item in outcome.results:
            data = item.data.decode() if isinstance(item.data, bytes) else item.data
            values.setdefault(item.source, []).append((data or "").removesuffix("\0" if syntax == "wbxml" else ""))
    assert values[BOX] == ["text"]
    assert values[f"{BOX}/text"] == ["<a> & ]]> ä", "other"]
    assert values[f"{BOX}/text?prop=Name"] == ["text"]
    assert "Replace=virmo-server" in values[f"{BOX}/text?prop=ACL"][0]


@rule("Interoperability: libdmclient", "the user's choice comes back in the Status of the alert")
def test_the_users_choice(syntax: str) -> None:
    (choice,) = [
        status.items
        for outcome in Conversation(syntax).application.outcomes.values()
        for status in outcome.statuses
        if status.items
    ]
    assert [item.data for item in choice] == ["2"]


def test_the_recorded_device_knows_its_secret(syntax: str) -> None:
    """The recording proves something: with another secret of the same length nothing of it is believed."""
    codec = CODECS[syntax]
    stranger: ServerSession = session(codec, secret="anothersecret!")
    assert len("anothersecret!") == len(CREDENTIALS.client.secret)
    heard = application()
    for file in sorted(RECORDED.glob(f"libdmclient-*.{syntax}"))[:2]:
        answer = codec.decode(stranger.receive(file.read_bytes(), heard))
        assert codes_of(answer, "SyncHdr") == [401]
    assert heard.info == {}
