"""Many boards at once, and a server that is killed again and again: no order is lost, none is done twice."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.server.server_process import ServerProcess, WireBoard

BOARDS = 4
KILLS = 2
DEADLINE_SECONDS = 150
OPERATIONS = ("power-off", "power-on", "suspend", "resume")


class Poller(threading.Thread):
    """A board that opens sessions until it is stopped, and takes a dead server as boards do: it tries again."""

    def __init__(self, board: WireBoard) -> None:
        super().__init__()
        self.board = board
        self.broken_sessions = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.02):
            try:
                self.board.session()
            except requests.RequestException:  # no connection, or an answer that broke off in its middle
                self.broken_sessions += 1
                self.board.http.close()
            self.board.board.finish_operations()


class Fleet:
    """A server and its boards; orders are given and awaited while the server may die."""

    def __init__(self, folder: Path) -> None:
        self.server = ServerProcess(folder)
        self.server.start()
        self.boards = [self.server.add_board(f"board-{number}") for number in range(BOARDS)]
        for number, board in enumerate(self.boards):
            if number % 2:
                board.board.slow |= {"Download", "Create", "PowerOff", "Suspend"}
        self.kills_left = 0

    def upload(self) -> str:
        """An image in the library; its id."""
        response = requests.post(
            f"{self.server.url}/api/v1/images",
            params={"name": "web", "file_name": "web.img", "media_type": "application/octet-stream"},
            data=bytes(1000),
            headers={"Authorization": f"Bearer {self.server.token}"},
            verify=self.server.ca_file,
            timeout=30,
        )
        return str(response.json()["id"])

    def order(self, **body: object) -> None:
        """The same order for every board."""
        for board in self.boards:
            self.server.client.post(f"/devices/{board.account.client.credentials.name}/orders", body)

    def wait(self) -> list[dict[str, Any]]:
        """All orders when none is open any more; on the way the server is killed as often as planned."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            orders: list[dict[str, Any]] = self.server.client.get("/orders", limit=1000)
            unfinished = [order for order in orders if order["state"] in {"queued", "sent", "accepted"}]
            if not unfinished and not self.kills_left:
                return orders
            assert time.monotonic() < deadline, unfinished
            time.sleep(0.3)
            if self.kills_left:
                self.kills_left -= 1
                self.server.stop(signal.SIGKILL)
                self.server.start()


@contextmanager
def polling(boards: list[WireBoard]) -> Iterator[None]:
    """All boards open sessions by themselves."""
    pollers = [Poller(board) for board in boards]
    for poller in pollers:
        poller.start()
    try:
        yield
    finally:
        for poller in pollers:
            poller.stopped.set()
        for poller in pollers:
            poller.join(60)


@pytest.mark.parametrize("kills", [0, KILLS])
def test_orders_of_many_boards(tmp_path: Path, kills: int) -> None:
    """Each board gets its image and its VM, and each operation takes effect exactly once, whenever the server dies."""
    fleet = Fleet(tmp_path)
    try:
        fleet.order(kind="deliver-image", name="web", image_id=fleet.upload())
        fleet.order(kind="create-vm", name="www", image="web")
        fleet.kills_left = kills
        with polling(fleet.boards):
            fleet.wait()
            for operation in OPERATIONS:
                fleet.order(kind=operation, name="www")
            fleet.kills_left = kills
            orders = fleet.wait()
        assert [order for order in orders if order["state"] != "done"] == []
        for board in (wire.board for wire in fleet.boards):
            assert Counter(board.done) == Counter(["Download", "Create", "PowerOff", "PowerOn", "Suspend", "Resume"])
            assert [board.state(uri) for uri in board.vm_uris()] == ["2"]
        assert "Traceback" not in fleet.server.log()
    finally:
        assert fleet.server.stop() == 0
