"""``virmo device add --bootstrap``: the file and its PIN are all that the real agent needs to come to the server."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from image.story.server import Server
from image.story.sim_board import SimBoard
from image.story.steps import DEV_ID, DEVICE


@pytest.mark.parametrize("pin_is_right", [True, False])
def test_a_profile_brings_the_board_to_the_server(tmp_path: Path, pin_is_right: bool) -> None:
    board = SimBoard(tmp_path / "board")
    server = Server(tmp_path / "server", board.server_host)
    server.start()
    try:
        profile = tmp_path / "profile.wbxml"
        shown = server.virmo("device", "add", DEVICE, "--dev-id", DEV_ID, "--bootstrap", str(profile))
        command = shlex.split(next(line for line in shown.splitlines() if "virmo-agent bootstrap" in line))
        assert profile.stat().st_mode & 0o077 == 0
        settings = {"device": {"id": DEV_ID}, "dm": {"poll_interval": 0, "tls": {"ca_file": str(server.ca_file)}}}
        board.configure(yaml.safe_dump(settings), server.ca_file)
        words = command[3:] if pin_is_right else [*command[3:-1], "0000"]
        done = board.agent("bootstrap", str(profile), *words)
        (device,) = server.virmo_json("device", "list")
        assert (done.returncode == 0) == pin_is_right, done.stderr
        assert (device["last_seen_at"] is not None) == pin_is_right
        assert ("MAC is wrong" in done.stderr) != pin_is_right
    finally:
        server.close()
        board.close()
