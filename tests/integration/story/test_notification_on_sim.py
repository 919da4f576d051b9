"""A daemon seen from outside: it comes within a second when it is notified, and its sessions can be watched."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from dom0_agent.omadm.xml import XmlCodec
from image.story.server import Server
from image.story.sim_board import SimBoard
from image.story.steps import DEV_ID, DEVICE

ROUNDS = 5
PATIENCE = 30.0  #: seconds for one order


class Listening:
    """A server, and a board that does not poll."""

    def __init__(self, folder: Path) -> None:
        self.board = SimBoard(folder / "board")
        self.server = Server(folder / "server", self.board.server_host)
        self.server.start()
        url = self.board.notification_url
        snippet = self.server.virmo("device", "add", DEVICE, "--dev-id", DEV_ID, "--notify-url", url, "--agent-config")
        config = yaml.safe_load(snippet)
        config["dm"]["poll_interval"] = 0
        self.board.start_agent(yaml.safe_dump(config), self.server.ca_file)
        self.until(lambda device: device["last_seen_at"] is not None)

    def device(self) -> dict[str, Any]:
        (device,) = self.server.virmo_json("device", "list")
        return dict(device)

    def until(self, condition: Any) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while not condition(device := self.device()):
            assert time.monotonic() < deadline, self.board.agent_log()
            time.sleep(0.1)
        return device


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    made = Listening(tmp_path_factory.mktemp("listening"))
    yield made
    made.board.close()
    made.server.close()


def test_a_notified_board_comes_within_a_second(listening: Listening) -> None:
    """OMA-TS-DM-Notification; digest 10. The median of several rounds, from the moment that package 0 is written until
    the whole session has been heard.
    """
    took = []
    for _ in range(ROUNDS):
        before = listening.device()["notified_at"]
        order = listening.server.virmo_json("node", "get", DEVICE, "./DevInfo/Man")
        done = listening.server.virmo_json("order", "show", str(order["id"]), "--wait", "--timeout", str(PATIENCE))
        assert (done["state"], done["dm_status"]) == ("done", 200), listening.board.agent_log()
        device = listening.until(lambda device, before=before: device["notified_at"] != before)
        notified, seen = (datetime.fromisoformat(device[name]) for name in ("notified_at", "last_seen_at"))
        took.append((seen - notified).total_seconds())
    assert statistics.median(took) < 1.0, took
    assert "event=notification_dropped" not in listening.board.agent_log()


@pytest.mark.parametrize("who", ["daemon", "foreground"])
def test_sessions_can_be_watched(listening: Listening, tmp_path: Path, who: str) -> None:
    """``--trace`` names command, node and status; ``--trace-dir`` keeps what travelled, whoever runs the session."""
    if who == "foreground":
        listening.board.stop_agent()
    done = listening.board.agent("session", "--trace", "--trace-dir", str(tmp_path / "kept"))
    assert done.returncode == 0, done.stderr
    assert "1201 CLIENT_INITIATED" in done.stdout
    assert "./DevInfo/DevId" in done.stdout
    assert "212 AUTHENTICATED" in done.stdout
    assert done.stdout.endswith("virmo-server: the session ended well\n")
    kept = sorted((tmp_path / "kept").iterdir())
    assert [file.name for file in kept[:2]] == ["0001-sent.xml", "0002-received.xml"]
    assert len(kept) == done.stdout.count(" bytes\n")
    first = XmlCodec().decode(kept[0].read_bytes())
    assert (first.header.source, first.header.msg_id) == (DEV_ID, 1)
    assert (tmp_path / "kept").stat().st_mode & 0o077 == 0
    other = listening.board.agent("session", "--server", "nobody", "--trace")
    assert other.returncode == 1
    assert "no server account for 'nobody'" in other.stderr
