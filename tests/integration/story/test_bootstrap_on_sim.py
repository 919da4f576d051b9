"""A board that knows no server gets its account by a bootstrap message, and comes to that server (digest 11)."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


@contextmanager
def offered(unborn: Unborn, content_type: str) -> Iterator[str]:
    """The address at which a web server (with the DM server's certificate) offers the profile."""
    body = unborn.profile.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls = unborn.server.ca_file.parent
        context.load_cert_chain(tls / "server.pem", tls / "server.key")
        web.socket = context.wrap_socket(web.socket, server_side=True)
        thread = threading.Thread(target=web.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"https://127.0.0.1:{web.server_port}/profile"
        finally:
            web.shutdown()
            thread.join()


def test_a_profile_from_the_web_and_the_first_session_in_one_command(unborn: Unborn) -> None:
    """Over HTTPS, SEC and MAC in the Content-Type; the CA of ``dm.tls`` counts for the account that it brings."""
    settings = {"device": {"id": DEV_ID}, "dm": {"poll_interval": 0, "tls": {"ca_file": str(unborn.server.ca_file)}}}
    unborn.board.configure(yaml.safe_dump(settings), unborn.server.ca_file)
    mac = mac_of(unborn.profile.read_bytes(), Security.USERPIN_NETWORKID, network_id=KEY, pin="2468")
    words = ("--network-id-file", str(unborn.key), "--pin")
    with offered(unborn, f"{WBXML_MEDIA_TYPE}; SEC=USERPIN_NETWORKID; MAC={mac.lower()}") as address:
        done = unborn.board.agent("bootstrap", address, *words, "1357")
        assert (done.returncode, "MAC is wrong" in done.stderr) == (1, True)
        assert not unborn.came()
        done = unborn.board.agent("bootstrap", address, *words, "2468")
    assert done.returncode == 0, done.stderr
    assert f"{unborn.account['server_id']}: the session ended well" in done.stdout
    assert unborn.came()
    assert unborn.board.agent("session").returncode == 0, "the account stays"


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
