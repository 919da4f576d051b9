"""What is told unasked arrives, whatever happens between the event and the server: a real agent that is killed, a real
server that cannot be reached meanwhile."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from image.story.server import Server, free_port
from image.story.sim_board import SimBoard, make_bundle
from image.story.steps import DEV_ID, DEVICE, agent_yaml

MEDIA_TYPE = "application/vnd.virmo.bundle+tar"
PATIENCE = 60.0


class Line:
    """The board's way to the DM endpoint (images come by another): a relay that can be cut, and mended."""

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self._target = target_port
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []

    def mend(self) -> None:
        """Connections get through."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """What was open is gone, and nobody answers."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


class Fleet:
    """A server, a board behind a line, and slow downloads that are always answered 202."""

    def __init__(self, folder: Path) -> None:
        self.board = SimBoard(folder / "board")
        self.server = Server(folder / "server", self.board.server_host)
        self.server.start()
        url = self.board.notification_url
        snippet = self.server.virmo("device", "add", DEVICE, "--dev-id", DEV_ID, "--notify-url", url, "--agent-config")
        config: dict[str, Any] = yaml.safe_load(agent_yaml(snippet))
        (account,) = config["dm"]["accounts"]
        address = urlsplit(account["address"])
        assert address.port is not None
        self.line = Line(address.port)
        account["address"] = address._replace(netloc=f"{address.hostname}:{self.line.port}").geturl()
        config["dm"] |= {"answer_limit": 0.0, "retry_first": 1.0, "retry_max": 1.0}
        config["images"] = {**config.get("images", {}), "bandwidth_limit": 32 << 10}
        self._config = yaml.safe_dump(config)
        self.line.mend()
        self.start_agent()

    def start_agent(self) -> None:
        """Start it, as after a crash."""
        self.board.start_agent(self._config, self.server.ca_file)

    def images(self) -> list[dict[str, Any]]:
        """What the agent says of its images."""
        listed: list[dict[str, Any]] = json.loads(self.board._ctl("--json", "image", "list").stdout)
        return listed

    def waiting(self) -> int:
        """Alerts that the agent has not got rid of."""
        (server,) = json.loads(self.board._ctl("--json", "status").stdout)["servers"]
        return int(server["pending_alerts"])

    def alerts(self) -> list[dict[str, Any]]:
        """What has arrived."""
        rows: list[dict[str, Any]] = self.server.virmo_json("device", "alerts", DEVICE)
        return rows

    def close(self) -> None:
        """End all."""
        self.board.close()
        self.line.cut()
        self.server.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.close()


def until(condition: Callable[[], bool], what: str, fleet: Fleet) -> None:
    """Wait for it."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what}\n{fleet.board.agent_log()}"
        time.sleep(0.1)


def begin_download(fleet: Fleet) -> dict[str, Any]:
    """An order whose Exec was answered 202; the line is cut before the download ends."""
    file = str(fleet.board.bundle)
    order = fleet.server.virmo_json(
        "image", "deliver", DEVICE, "--name", "sample", "--file", file, "--media-type", MEDIA_TYPE
    )
    until(lambda: [i["state"] for i in fleet.images()] == ["DOWNLOADING"], "it downloads", fleet)
    until(lambda: bool(show(fleet, order)["dm_status"] == 202), "the Exec is answered", fleet)
    fleet.line.cut()
    assert [i["state"] for i in fleet.images()] == ["DOWNLOADING"], "the test is slower than the download"
    return dict(order)


def show(fleet: Fleet, order: dict[str, Any]) -> dict[str, Any]:
    """The order now."""
    shown: dict[str, Any] = fleet.server.virmo_json("order", "show", str(order["id"]))
    return shown


@pytest.mark.parametrize("killed", [False, True], ids=["agent lives", "agent is killed"])
def test_image_ready_arrives_when_the_server_can_be_reached_again(fleet: Fleet, killed: bool) -> None:
    """R-093, R-110, R-160 to R-164, A-28, A-29, A-32, A-33: once, as clause 12.1 has it."""
    order = begin_download(fleet)
    until(lambda: [i["state"] for i in fleet.images()] == ["DOWNLOADED"], "it is downloaded", fleet)
    until(lambda: fleet.waiting() == 1, "the alert waits", fleet)
    if killed:
        assert fleet.board._agent is not None
        fleet.board._agent.kill()
        fleet.board._agent.wait()
        fleet.start_agent()
        assert fleet.waiting() == 1
    time.sleep(1)  # tries that fail
    assert fleet.alerts() == []
    fleet.line.mend()
    until(lambda: bool(show(fleet, order)["state"] == "done"), "the order is done", fleet)
    until(lambda: fleet.waiting() == 0, "the server has taken it", fleet)
    (alert,) = fleet.alerts()
    assert alert["type"] == "urn:oma:at:oma-virmo:imageready:1.0"
    assert (alert["format"], alert["mark"], alert["data"]) == ("xml", "informational", "")
    (image,) = fleet.images()
    assert alert["source"] == f"{image['node']}/Operations/Download"
    assert alert["source"].startswith("./VMImgMO/")
    assert alert["correlator"]


def test_a_failed_download_is_told_with_its_code(fleet: Fleet) -> None:
    """A-27: the vendor alert, also after a kill; the order fails with that code."""
    make_bundle(fleet.board.bundle, damaged=True)
    order = begin_download(fleet)
    until(lambda: [i["state"] for i in fleet.images()] == ["DOWNLOAD_FAILED"], "it fails", fleet)
    until(lambda: fleet.waiting() == 1, "the alert waits", fleet)
    assert fleet.board._agent is not None
    fleet.board._agent.kill()
    fleet.board._agent.wait()
    fleet.start_agent()
    fleet.line.mend()
    until(lambda: bool(show(fleet, order)["state"] == "failed"), "the order has failed", fleet)
    assert show(fleet, order)["dm_status"] == 424
    (alert,) = fleet.alerts()
    assert (alert["type"], alert["data"]) == ("Reversed-Domain-Name: org.virmo/operationcomplete", "424")
