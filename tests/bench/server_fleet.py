"""Boards in one process for ``bench_server``: registered in bulk, each a real DM client session, few connections.

What a board says first in a session is made before the clock starts, and what the server answered is judged after it
has stopped: the figures are the server's.
"""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dom0_agent.omadm.auth import Account, AuthScheme, Credentials, MemoryNonceStore, NonceRole
from dom0_agent.omadm.client import ClientSession, PendingAlert
from dom0_agent.omadm.codec import XML_MEDIA_TYPE, codec_for
from dom0_agent.omadm.session import session_id_text
from tests.integration.server.server_process import device_info
from tests.unit.virmo_server.simulated_board import SimulatedBoard
from virmo_server.devices.registry import NewDevice, register
from virmo_server.services import Services

#: Connections that are open at a time.
CONNECTIONS = 128
CODEC = codec_for(XML_MEDIA_TYPE)
_REGISTERED_AT_ONCE = 500
_CLIENT_SOURCE = Path(__file__).with_name("post_all.c")
_RUN_SECONDS = 600


@dataclass
class Board:
    """A registered board."""

    device_id: str
    account: Account
    nonces: MemoryNonceStore = field(default_factory=MemoryNonceStore)
    tree: SimulatedBoard = field(default_factory=SimulatedBoard)
    alerts: Sequence[PendingAlert] = ()  #: that each session begins with
    sessions: int = 0

    def begin(self) -> ClientSession:
        """A new session."""
        self.sessions += 1
        return ClientSession(
            account=self.account,
            device_id=self.device_id,
            tree=self.tree,
            nonces=self.nonces,
            random_bytes=os.urandom,
            codec=CODEC,
            session_id=session_id_text(self.sessions),
            device_info=lambda: device_info(self.device_id),
            alerts=self.alerts,
        )


def register_boards(services: Services, count: int) -> list[Board]:
    """So many new boards, without orders."""
    boards: list[Board] = []
    while len(boards) < count:
        with services.database.write() as session:
            for number in range(len(boards), min(count, len(boards) + _REGISTERED_AT_ONCE)):
                new = NewDevice(name=f"board-{number}", dev_id=f"urn:uuid:bench-{number}")
                _, made = register(
                    session, new, server_id=services.config.server_id, vault=services.vault, clock=services.clock
                )
                scheme = AuthScheme(new.auth)
                account = Account(
                    made.server_name,
                    f"{services.config.public_url}/dm",
                    client=Credentials(scheme, made.client_name, made.client_secret),
                    server=Credentials(scheme, made.server_name, made.server_secret),
                )
                board = Board(new.dev_id, account)
                board.nonces.put(made.server_name, NonceRole.CLIENT, made.client_nonce)
                board.nonces.put(made.server_name, NonceRole.SERVER, made.server_nonce)
                boards.append(board)
    return boards


@dataclass(frozen=True)
class Load:
    """What a run measured; ``seconds`` is the whole run, ``latencies`` are of single requests or sessions."""

    seconds: float
    latencies: Sequence[float]

    @property
    def rate(self) -> float:
        """Requests (or sessions) in a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: int) -> float:
        """A latency in milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def together(loads: Sequence[Load]) -> Load:
    """Runs one after the other as one."""
    return Load(sum(load.seconds for load in loads), [latency for load in loads for latency in load.latencies])


class Connection:
    """A kept HTTP/1.1 connection; knows as much of HTTP as the answers need."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes) -> bytes:
        """One exchange; the body of a 200."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(_request(body))
        head = await reader.readuntil(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        return _body(head + await reader.readexactly(int(lines[b"content-length"])))

    def close(self) -> None:
        """Close it."""
        if self._streams is not None:
            self._streams[1].close()


def post_all(port: int, bodies: Sequence[bytes]) -> tuple[Load, list[bytes]]:
    """Send each body once, by a client that costs next to nothing; the answers in the bodies' order."""
    with tempfile.TemporaryDirectory(prefix="virmo-bench-") as folder:
        client, asked, answered = (Path(folder) / name for name in ("post_all", "requests", "answers"))
        subprocess.run(["tcc", "-o", str(client), str(_CLIENT_SOURCE)], check=True, timeout=60)
        with asked.open("wb") as file:
            for request in map(_request, bodies):
                file.write(struct.pack("<I", len(request)) + request)
        command = [str(client), str(port), str(min(CONNECTIONS, len(bodies))), str(asked), str(answered)]
        subprocess.run(command, check=True, timeout=_RUN_SECONDS)
        untrusted = answered.read_bytes()
    (took,), position = struct.unpack_from("<Q", untrusted), 8
    latencies, answers = [], []
    while position < len(untrusted):
        latency, length = struct.unpack_from("<QI", untrusted, position)
        position += 12 + length
        latencies.append(latency / 1e9)
        answers.append(_body(untrusted[position - length : position]))
    assert len(answers) == len(bodies)
    return Load(took / 1e9, latencies), answers


def _request(body: bytes) -> bytes:
    head = f"POST /dm HTTP/1.1\r\nHost: bench\r\nContent-Type: {XML_MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _body(answer: bytes) -> bytes:
    """The body of a 200."""
    if not answer.startswith(b"HTTP/1.1 200"):
        raise AssertionError(answer.decode())
    return answer.partition(b"\r\n\r\n")[2]


def poll(port: int, boards: Sequence[Board]) -> Load:
    """A session of one message by each board; all must end well."""
    clients = [board.begin() for board in boards]
    bodies = [_first(client) for client in clients]
    load, answers = post_all(port, bodies)
    for client, answer in zip(clients, answers, strict=True):
        assert client.receive(answer, None) is None
        assert client.outcome is not None
        assert client.outcome.ok, client.outcome
    return load


def work(port: int, boards: Sequence[Board]) -> Load:
    """A session by each board, with all that the server wants of it; all must end well."""

    async def one(connection: Connection, number: int) -> None:
        client = boards[number].begin()
        body: bytes | None = _first(client)
        while body is not None:
            body = client.receive(await connection.post(body), None)
        assert client.outcome is not None
        assert client.outcome.ok, client.outcome

    return _run(port, len(boards), one)


def _first(client: ClientSession) -> bytes:
    body = client.start()
    assert body is not None
    return body


def _run(port: int, count: int, one: Callable[[Connection, int], object]) -> Load:
    latencies = [0.0] * count
    numbers = iter(range(count))

    async def worker(connection: Connection) -> None:
        for number in numbers:
            began = time.perf_counter()
            await one(connection, number)  # type: ignore[misc]
            latencies[number] = time.perf_counter() - began
        connection.close()

    async def all_workers() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(worker(Connection(port)) for _ in range(min(CONNECTIONS, count))))
        return time.perf_counter() - began

    return Load(asyncio.run(all_workers()), latencies)
