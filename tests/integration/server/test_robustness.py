"""Many boards at once, and a server that is killed again and again: no order is lost, none is done twice."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.server.conftest import POSTGRESQL, SQLITE
from tests.integration.server.server_process import ServerProcess, WireBoard

#: A server killed during a TLS handshake leaves the client library's socket to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <ssl\.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)

BOARDS = 4
KILLS = 2
#: Most of it are starts of servers, which a busy machine draws out.
DEADLINE_SECONDS = 400
#: The server's death breaks a session as the device's does: orders must outlive as many as it is killed.
SETTINGS = {"dm": {"step_attempts": 50}}
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

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.server.start()
        self.boards = [self.server.add_board(f"board-{number}") for number in range(BOARDS)]
        for number, board in enumerate(self.boards):
            if number % 2:
                board.board.slow |= {"Download", "Create", "PowerOff", "Suspend"}
        self.kills_left = 0
        self.random = random.Random(BOARDS)

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

    def kill(self) -> None:
        """Kill a worker, which its parent replaces; the whole server, where it is one process."""
        workers = self.server.workers()
        if workers:
            with suppress(ProcessLookupError):  # it was killed a moment ago, and the next one is on its way
                os.kill(self.random.choice(workers), signal.SIGKILL)
            return
        self.server.stop(signal.SIGKILL)
        self.server.start()

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
                self.kill()


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


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet on the database and with the number of workers that the parameter names."""
    backend, workers = request.param
    url = None
    if backend == POSTGRESQL:
        url = request.getfixturevalue("postgresql").create_database(f"robust-{workers}")
    fleet = Fleet(ServerProcess(tmp_path, database_url=url, workers=workers, settings=SETTINGS))
    yield fleet
    assert fleet.server.stop() == 0
    gc.collect()  # what broken connections left must be met here, where it is expected


@pytest.mark.parametrize(
    ("fleet", "kills"),
    [
        ((SQLITE, 1), 2),
        ((POSTGRESQL, 2), 4),
        pytest.param((SQLITE, 1), 0, marks=pytest.mark.long),
        pytest.param((SQLITE, 2), 8, marks=pytest.mark.long),
        pytest.param((POSTGRESQL, 1), 8, marks=pytest.mark.long),
    ],
    indirect=["fleet"],
    ids=str,
)
@pytest.mark.timeout(1000)
def test_orders_of_many_boards(fleet: Fleet, kills: int) -> None:
    """Each board gets its image and its VM, and each operation takes effect exactly once, whoever dies when."""
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
