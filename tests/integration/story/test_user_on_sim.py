"""The user of dom0 is asked by the real agent, at the terminal of ``virmo-agent session`` and at that of the daemon."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.auth import AuthScheme
from image.story.sim_board import SimBoard
from tests.unit.dom0_agent.test_dm_session import DEVICE, Endpoint
from tests.unit.omadm.dm_pair import Application

PATIENCE = 60.0  #: seconds for anything to appear on the screen


class Screen:
    """A pseudo-terminal: what is shown at it, and its keyboard."""

    def __init__(self) -> None:
        self.keyboard, self.line = pty.openpty()
        self.shown = ""

    @property
    def path(self) -> str:
        return os.ttyname(self.line)

    def await_text(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            left = deadline - time.monotonic()
            assert left > 0, self.shown
            if select.select([self.keyboard], [], [], left)[0]:
                self.shown += os.read(self.keyboard, 4096).decode()

    def type(self, text: str) -> None:
        os.write(self.keyboard, text.encode())

    def close(self) -> None:
        os.close(self.keyboard)
        os.close(self.line)


@pytest.fixture
def screen() -> Iterator[Screen]:
    made = Screen()
    yield made
    made.close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint(AuthScheme.MD5)
    alerts = [
        c.Alert(code=code, items=(c.Item(data="MAXDT=50"), *(c.Item(data=text) for text in texts)))
        for code, texts in ((1100, ["Maintenance"]), (1101, ["Now?"]), (1103, ["Which?", "red", "blue"]))
    ]
    made.application = Application(alerts)
    yield made
    made.close()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[SimBoard]:
    made = SimBoard(tmp_path / "board")
    yield made
    made.close()


def configuration(endpoint: Endpoint, **dm: object) -> str:
    account = {
        "server_id": "srv",
        "address": endpoint.address,
        "client": {"auth": "md5", "name": "board", "secret": "secret"},
        "server": {"auth": "md5", "name": "srv", "secret": "server secret"},
        "tls": {"allow_plain_http": True},
    }
    return yaml.safe_dump({"device": {"id": DEVICE}, "dm": {"accounts": [account], "poll_interval": 0, **dm}})


def answer_all(screen: Screen, endpoint: Endpoint) -> None:
    screen.await_text("Now?")
    assert "Maintenance" in screen.shown
    screen.await_text("yes or no?")
    screen.type("n\n")
    screen.await_text("2: blue")
    screen.await_text("number of one?")
    screen.type("2\n")
    deadline = time.monotonic() + PATIENCE
    while len(endpoint.application.outcomes) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list(endpoint.application.codes.values()) == [200, 304, 200]
    (status,) = endpoint.application.outcomes["r3"].statuses
    assert [item.data for item in status.items] == ["2"]


def test_at_the_terminal_of_a_session(board: SimBoard, endpoint: Endpoint, screen: Screen, tmp_path: Path) -> None:
    board.configure(configuration(endpoint), tmp_path / "no-ca.pem")
    command = [sys.executable, "-m", "dom0_agent.cli", "--config", str(board.config), "session"]
    with subprocess.Popen(command, stdin=screen.line, stdout=screen.line, stderr=subprocess.DEVNULL) as session:
        answer_all(screen, endpoint)
        screen.await_text("the session ended well")
        assert session.wait(PATIENCE) == 0


def test_at_the_daemons_console(board: SimBoard, endpoint: Endpoint, screen: Screen, tmp_path: Path) -> None:
    board.start_agent(configuration(endpoint, console=screen.path), tmp_path / "no-ca.pem")
    answer_all(screen, endpoint)
    endpoint.application = Application([c.Alert(code=1101, items=(c.Item(data="MAXDT=600"), c.Item(data="Wait?")))])
    asking = subprocess.Popen(
        [sys.executable, "-m", "dom0_agent.cli", "--config", str(board.config), "session"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    screen.await_text("Wait?")
    began = time.monotonic()
    board.stop_agent()
    assert time.monotonic() - began < 20, "the daemon does not wait ten minutes for its user when it shall stop"
    asking.communicate(timeout=PATIENCE)
