"""A board that knows no server gets its account by a bootstrap message, and comes to that server (digest 11)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.bootstrap import Security, mac_of
from dom0_agent.omadm.codec import WBXML_MEDIA_TYPE
from dom0_agent.omadm.tnds import XML_TYPE
from dom0_agent.omadm.wbxml import WbxmlCodec
from image.story.server import Server
from image.story.sim_board import SimBoard
from image.story.steps import DEV_ID, DEVICE
from tests.unit.mo.test_inbox import DMACC, document, leaf, node

KEY = b"a key that network and board share"


class Unborn:
    """A running server that has registered a board, and the board, which knows nothing of it."""

    def __init__(self, folder: Path) -> None:
        self.board = SimBoard(folder / "board")
        self.server = Server(folder / "server", self.board.server_host)
        self.server.start()
        snippet = self.server.virmo("device", "add", DEVICE, "--dev-id", DEV_ID, "--agent-config")
        self.account: dict[str, Any] = yaml.safe_load(snippet)["dm"]["accounts"][0]
        self.board.configure(
            yaml.safe_dump({"device": {"id": DEV_ID}, "dm": {"poll_interval": 0}}), self.server.ca_file
        )
        self.key = folder / "key"
        self.key.write_bytes(KEY + b"\n")
        self.profile = folder / "profile.wbxml"
        self.profile.write_bytes(profile(self.account))

    def content_type(self, mac: str) -> str:
        return f"{WBXML_MEDIA_TYPE}; SEC=NETWORKID; MAC={mac}"

    def came(self) -> bool:
        (device,) = self.server.virmo_json("device", "list")
        return device["last_seen_at"] is not None


def profile(account: dict[str, Any]) -> bytes:
    """The bootstrap message for an account of the agent's configuration."""
    levels = {"client": "CLCRED", "server": "SRVCRED"}
    entries = [
        node(
            level,
            leaf("AAuthLevel", level),
            leaf("AAuthType", "DIGEST"),
            leaf("AAuthName", account[side]["name"]),
            leaf("AAuthSecret", account[side]["secret"]),
            leaf("AAuthData", account[side]["nonce"], "b64"),
        )
        for side, level in levels.items()
    ]
    tnds = document(
        node(
            "new",
            leaf("AppID", "w7"),
            leaf("ServerID", account["server_id"]),
            node("AppAddr", node("1", leaf("Addr", account["address"]))),
            node("AppAuth", *entries),
            type_=DMACC,
        )
    )
    item = c.Item("./Inbox", meta=c.Meta("xml", XML_TYPE), data=tnds.data)
    return WbxmlCodec().encode(c.Message(c.SyncHdr("1", 1, "device", "bootstrap"), (c.Add("1", (item,)),)))


@pytest.fixture
def unborn(tmp_path: Path) -> Iterator[Unborn]:
    made = Unborn(tmp_path)
    yield made
    made.server.close()
    made.board.close()


def test_a_profile_with_the_right_mac_brings_the_board_to_its_server(unborn: Unborn) -> None:
    mac = mac_of(unborn.profile.read_bytes(), Security.NETWORKID, network_id=KEY)
    words = ("--content-type", unborn.content_type(mac), "--network-id-file", str(unborn.key))
    done = unborn.board.agent("bootstrap", str(unborn.profile), *words)
    # The account is there; its server's certificate is of a private CA, which the profile cannot bring.
    assert f"{unborn.account['server_id']}: " in done.stdout
    unborn.board.configure(
        yaml.safe_dump({"device": {"id": DEV_ID}, "dm": {"poll_interval": 0, "accounts": [unborn.account]}}),
        unborn.server.ca_file,
    )
    assert unborn.board.agent("session").returncode == 0
    assert unborn.came()


@pytest.mark.parametrize(
    ("mac", "words", "complaint"),
    [
        ("00" * 20, ("--network-id-file", "{key}"), "MAC is wrong"),
        ("00" * 20, (), "--network-id-file is needed"),
        (None, (), "no MAC"),
    ],
)
def test_a_profile_that_is_not_proven_changes_nothing(
    unborn: Unborn, mac: str | None, words: tuple[str, ...], complaint: str
) -> None:
    extra = [] if mac is None else ["--content-type", unborn.content_type(mac)]
    extra += [word.format(key=unborn.key) for word in words]
    done = unborn.board.agent("bootstrap", str(unborn.profile), *extra)
    assert done.returncode == 1
    assert complaint in done.stderr
    done = unborn.board.agent("session")
    assert "there is no server account" in done.stderr


def test_root_may_vouch_for_a_file(unborn: Unborn) -> None:
    done = unborn.board.agent("bootstrap", str(unborn.profile), "--trust-file")
    assert "Add ./Inbox: 200" in done.stdout
    assert unborn.account["server_id"] in unborn.board.agent("session").stdout
