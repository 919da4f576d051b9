"""The DM endpoint: who may speak, what is refused, and what survives lost messages and restarts."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from dom0_agent.omadm.codec import WBXML_MEDIA_TYPE, XML_MEDIA_TYPE, codec_for
from dom0_agent.omadm.session import EndReason, SessionLimits
from dom0_agent.omadm.tree_access import ItemValue
from tests.integration.server.conftest import POSTGRESQL, SQLITE, Virmo
from tests.integration.server.server_process import ServerProcess, Side, WireBoard

BACKENDS = (SQLITE, POSTGRESQL)


def with_secret(board: WireBoard, side: str, secret: str) -> None:
    """Give the board a wrong secret."""
    account = board.account
    old: Side = getattr(account, side)
    changed = Side(replace(old.credentials, secret=secret), old.nonce)
    board.account = replace(account, client=changed) if side == "client" else replace(account, server=changed)


@pytest.mark.parametrize("auth", ["md5", "hmac", "basic"])
def test_authentication_both_ways(server: ServerProcess, auth: str) -> None:
    """OMA-TS-DM-Security 5: every scheme; the first session needs no challenge, both nonces were provisioned."""
    board = server.add_board(f"auth-{auth}", auth=auth)
    for _ in range(3):
        assert board.session().ok
    device = server.client.get(f"/devices/auth-{auth}")
    assert device["last_seen_at"] is not None
    assert device["auth_failed_at"] is None


def test_wbxml_is_answered_in_wbxml(server: ServerProcess) -> None:
    """OMA-TS-DM-Protocol: an answer has the encoding of its question."""
    board = server.add_board("binary")
    board.media_type = WBXML_MEDIA_TYPE
    assert board.session().ok
    assert server.client.get("/orders", device="binary")[0]["state"] == "done"
    assert not board.exchanges[0][1].startswith(b"<")


def test_device_that_restarts_in_the_other_syntax(server: ServerProcess) -> None:
    """libdmclient always uses session id 1: a session in WBXML after one in XML that broke off, and back."""
    board = server.add_board("bilingual")
    for media_type in (XML_MEDIA_TYPE, WBXML_MEDIA_TYPE, XML_MEDIA_TYPE):
        board.media_type = media_type
        board._session_number = 0
        client, body = board.begin()
        assert body is not None
        answer, mac = board.post(client.target_uri, body)
        assert client.receive(answer, mac) is not None  # and here it breaks off
    board._session_number = 0
    assert board.session().ok


def test_a_session_does_not_go_on_in_another_syntax(server: ServerProcess) -> None:
    board = server.add_board("converted")
    client, body = board.begin()
    assert body is not None
    answer, mac = board.post(client.target_uri, body)
    second = client.receive(answer, mac)
    assert second is not None
    as_wbxml = codec_for(WBXML_MEDIA_TYPE).encode(codec_for(XML_MEDIA_TYPE).decode(second))
    refused = requests.post(
        client.target_uri,
        data=as_wbxml,
        headers={"Content-Type": WBXML_MEDIA_TYPE},
        verify=server.ca_file,
        timeout=5,
    )
    assert (refused.status_code, "began in another media type" in refused.text) == (400, True)
    answer, mac = board.post(client.target_uri, second)
    assert client.receive(answer, mac) is None or client.outcome is None


def test_stale_nonces_are_cured_by_challenges(server: ServerProcess) -> None:
    """A board restored from a backup knows old nonces (OMA-TS-DM-Security 5.3)."""
    board = server.add_board("restored")
    board.nonces.__init__()  # type: ignore[misc]
    assert board.session().ok
    assert server.client.get("/devices/restored")["auth_failed_at"] is None


def test_wrong_client_secret_leaves_the_order_untouched(server: ServerProcess, virmo: Virmo) -> None:
    """401 with a challenge; a line in the log, a line in the device list, nothing sent."""
    board = server.add_board("imposter")
    with_secret(board, "client", "not-the-secret")
    outcome = board.session()
    assert outcome.reason is EndReason.AUTHENTICATION
    order = server.client.get("/orders", device="imposter")[0]
    assert (order["state"], order["step"]) == ("queued", "roots")
    assert b"401" in board.exchanges[0][1]
    assert b"NextNonce" in board.exchanges[0][1]
    assert "authentication failed" in virmo("device", "list").out
    assert "authentication failed: device=imposter" in server.log()


def test_wrong_server_secret_costs_no_order(server: ServerProcess) -> None:
    """The device does not believe us: it executes nothing, and the order waits for a better session."""
    board = server.add_board("sceptic")
    right = board.account
    with_secret(board, "server", "not-the-secret")
    assert board.session().reason is EndReason.PEER_UNKNOWN
    assert board.board.log == []
    assert server.client.get("/orders", device="sceptic")[0]["state"] in {"queued", "sent"}
    board.account = right
    assert board.session().ok
    assert server.client.get("/orders", device="sceptic")[0]["state"] == "done"


def test_unknown_device_gets_a_challenge_and_nothing_else(server: ServerProcess) -> None:
    board = server.add_board("known")
    board.config["device"]["id"] = "urn:uuid:nobody-knows-me"
    assert board.session().reason is EndReason.AUTHENTICATION
    assert "unknown device dev_id='urn:uuid:nobody-knows-me'" in server.log()


def test_no_secret_in_the_log(server: ServerProcess, virmo: Virmo, image_file: Path) -> None:
    board = server.add_board("discreet")
    with board.polling():
        virmo("image", "deliver", "discreet", "--name", "web", "--file", image_file, "--wait", "--timeout", "60")
    with_secret(board, "client", "wrong-but-private")
    board.session()
    wrong = {"Authorization": "Bearer virmo_wrong"}
    requests.get(f"{server.url}/api/v1/devices", headers=wrong, verify=server.ca_file, timeout=5)
    log = server.log()
    image_id = server.client.get("/images")[0]["id"]
    secrets = [
        board.account.client.credentials.secret,
        board.account.server.credentials.secret,
        "wrong-but-private",
        server.token,
        "virmo_wrong",
        image_id,
    ]
    assert [secret for secret in secrets if secret in log] == []


def test_repeated_message_is_answered_again_and_done_once(server: ServerProcess) -> None:
    """The answer got lost on its way: the transport repeats the request."""
    board = server.add_board("stutterer")
    client, body = board.begin()
    while body is not None:
        answer, mac = board.post(client.target_uri, body)
        again, _ = board.post(client.target_uri, body)
        assert again == answer
        body = client.receive(answer, mac)
    assert client.outcome is not None
    assert client.outcome.ok
    assert server.client.get("/orders", device="stutterer")[0]["state"] == "done"


def test_device_that_restarts_with_the_same_session_id(server: ServerProcess) -> None:
    board = server.add_board("forgetful")
    client, body = board.begin()
    assert body is not None
    answer, _ = board.post(client.target_uri, body)
    second = client.receive(answer)
    assert second is not None
    board.post(client.target_uri, second)
    board._session_number = 0
    assert board.session().ok
    assert server.client.get("/orders", device="forgetful")[0]["state"] == "done"


def test_small_messages(server: ServerProcess) -> None:
    """MaxMsgSize of the device is respected: the package is split."""
    board = server.add_board("tiny")
    board.limits = SessionLimits(max_msg_size=1500)
    for number in range(5):
        board.board.add("other", f"./VirMO/vm{number}", ItemValue())
    assert board.session().ok
    assert all(len(answer) <= 1500 for _, answer in board.exchanges)
    assert len(server.client.get("/devices/tiny/vms")) == 5


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"hello", 415),
        (XML_MEDIA_TYPE, b"", 400),
        (XML_MEDIA_TYPE, b"<SyncML>", 400),
        (XML_MEDIA_TYPE, b"\x00" * 100, 400),
        (XML_MEDIA_TYPE, b"<a/>" * 400_000, 413),
        (XML_MEDIA_TYPE, b'<!DOCTYPE x [<!ENTITY e "x">]><SyncML>&e;</SyncML>', 400),
    ],
)
def test_what_is_no_message_is_refused(server: ServerProcess, content_type: str, body: bytes, status: int) -> None:
    response = requests.post(
        f"{server.url}/dm", data=body, headers={"Content-Type": content_type}, verify=server.ca_file, timeout=10
    )
    assert response.status_code == status, response.text


def test_only_post(server: ServerProcess) -> None:
    assert requests.get(f"{server.url}/dm", verify=server.ca_file, timeout=10).status_code == 405


def test_resp_uri_is_how_the_device_reaches_us(server: ServerProcess) -> None:
    """A device behind another address is told that address, in RespURI and in DownloadURI."""
    url = f"https://localhost:{server.port}"
    board = server.add_board("elsewhere", base_url=url)
    assert board.session().ok
    answer = codec_for(XML_MEDIA_TYPE).decode(board.exchanges[0][1])
    assert answer.header.resp_uri == f"{url}/dm"
    assert board.account.address == f"{url}/dm"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_sessions_and_orders_survive_a_restart(tmp_path: Path, how: signal.Signals) -> None:
    """The server is restarted between any two messages: the session goes on, the order ends done, once."""
    server = ServerProcess(tmp_path)
    server.start()
    board = server.add_board("patient")

    def restart(number: int) -> None:
        if number == 2:
            server.stop(how)
            server.start()

    try:
        assert board.session(restart).ok
        assert [order["state"] for order in server.client.get("/orders")] == ["done"]
    finally:
        assert server.stop() == 0
