"""A real server process on loopback, and boards that speak to it over HTTPS with a real client session."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests
import yaml
from sqlalchemy import MetaData, create_engine, select

from dom0_agent.omadm.auth import Account, AuthScheme, Credentials, MemoryNonceStore, NonceRole
from dom0_agent.omadm.client import ClientSession
from dom0_agent.omadm.codec import XML_MEDIA_TYPE, codec_for
from dom0_agent.omadm.session import SessionLimits, SessionOutcome, session_id_text
from tests.unit.virmo_server.simulated_board import SimulatedBoard
from virmo_server.cli.client import Client
from virmo_server.cli.settings import Settings
from virmo_server.config import load_config
from virmo_server.initialise import Installation, initialise

#: A cold start imports a web framework and a database library on a busy machine.
START_SECONDS = 120
SESSION_SECONDS = 20
HMAC_HEADER = "x-syncml-hmac"


class ServerProcess:
    """``virmo-server serve`` in a folder made by ``virmo-server init``; may be stopped, killed and started again.

    With ``database_url`` on that database instead of SQLite, with ``workers`` processes; ``settings`` are those
    that are not as ``init`` made them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str | None = None,
        workers: int = 1,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.port = free_port()
        self._workers = workers
        self.installation: Installation = initialise(
            folder / "server", hosts=["127.0.0.1"], listen="127.0.0.1", port=self.port, server_id="virmo-server"
        )
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca_file = str(self.installation.ca_file)
        self.log_file = folder / "server.log"
        self.token: str = yaml.safe_load(self.installation.client_config_file.read_text())["token"]
        if settings:
            with self.installation.config_file.open("a") as file:
                yaml.safe_dump(dict(settings), file)
        if database_url is not None:
            self.token = self._move_to(database_url)
        self.client = Client(Settings(self.url, self.token, self.ca_file))
        self._boards: list[WireBoard] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        command = [*self._program(), "serve", "--workers", str(self._workers)]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                requests.get(f"{self.url}/health", verify=self.ca_file, timeout=5)
            except (requests.ConnectionError, requests.Timeout):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._process.kill()
                    self._process.wait()
                    raise AssertionError(f"the server does not start:\n{self.log()}") from None
                time.sleep(0.05)
            else:
                return

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        assert self._process is not None
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stored(self) -> str:
        """All rows of all tables of its database, as text."""
        engine = create_engine(load_config(self.installation.config_file).database)
        try:
            tables = MetaData()
            tables.reflect(engine)
            with engine.connect() as connection:
                rows = [row for table in tables.sorted_tables for row in connection.execute(select(table))]
        finally:
            engine.dispose()
        return "\n".join(repr(tuple(row)) for row in rows)

    def _program(self) -> list[str]:
        return [sys.executable, "-m", "virmo_server.main", "--config", str(self.installation.config_file)]

    def _move_to(self, database_url: str) -> str:
        """Use another database; the token of an admin there."""
        with self.installation.config_file.open("a") as file:
            file.write(f"database_url: {database_url}\n")
        command = [*self._program(), "token", "admin", "--role", "admin"]
        token = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=START_SECONDS
        ).stdout.strip()
        client = yaml.safe_load(self.installation.client_config_file.read_text())
        self.installation.client_config_file.write_text(yaml.safe_dump({**client, "token": token}))
        return token

    def _wait_until_gone(self) -> None:
        """Workers of a killed parent end by themselves; until then they would answer for the next one."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                    return
            assert time.monotonic() < deadline, "workers outlive their parent"
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit status."""
        assert self._process is not None
        self._process.send_signal(how)
        status = self._process.wait(30)
        self._wait_until_gone()
        self.client.close()
        for board in self._boards:
            board.http.close()
        return status

    def log(self) -> str:
        """All that it wrote."""
        return self.log_file.read_text()

    def add_board(self, name: str, board: SimulatedBoard | None = None, **more: object) -> WireBoard:
        """Register a board and give it the credentials that the server made."""
        registration = self.client.post("/devices", {"name": name, "dev_id": f"urn:uuid:{name}", **more})
        config = yaml.safe_load(registration["agent_config"])
        made = WireBoard(config, self.ca_file, board or SimulatedBoard())
        self._boards.append(made)
        return made


@dataclass
class WireBoard:
    """A simulated board with its agent configuration."""

    config: dict[str, dict[str, object]]
    ca_file: str
    board: SimulatedBoard
    media_type: str = XML_MEDIA_TYPE
    exchanges: list[tuple[bytes, bytes]] = field(default_factory=list)
    nonces: MemoryNonceStore = field(default_factory=MemoryNonceStore)
    limits: SessionLimits = field(default_factory=SessionLimits)
    _session_number: int = 0

    def __post_init__(self) -> None:
        self.account = read_account(self.config)
        for role, side in ((NonceRole.CLIENT, self.account.client), (NonceRole.SERVER, self.account.server)):
            self.nonces.put(self.account.server_id, role, side.nonce)
        self.http = requests.Session()
        self.http.trust_env = False  # a CA bundle of the environment would win over ours
        self.http.verify = self.ca_file
        self.board.fetch = self.fetch

    def session(self, before_post: Callable[[int], None] = lambda _number: None) -> SessionOutcome:
        """A whole DM session; ``before_post`` is told the number of the message that goes out next."""
        client, body = self.begin()
        number = 0
        while body is not None:
            number += 1
            before_post(number)
            answer, mac = self.post(client.target_uri, body, client.outgoing_hmac)
            self.exchanges.append((body, answer))
            body = client.receive(answer, mac)
        self.board.alerts = [alert for alert in self.board.alerts if alert.id not in client.acknowledged]
        assert client.outcome is not None
        return client.outcome

    def begin(self) -> tuple[ClientSession, bytes | None]:
        """A session and its first message."""
        self._session_number += 1
        device_id = str(self.config["device"]["id"])
        client = ClientSession(
            account=Account(
                self.account.server_id,
                self.account.address,
                client=self.account.client.credentials,
                server=self.account.server.credentials,
            ),
            device_id=device_id,
            tree=self.board,
            nonces=self.nonces,
            random_bytes=os.urandom,
            codec=codec_for(self.media_type),
            session_id=session_id_text(self._session_number),
            device_info=lambda: device_info(device_id),
            alerts=list(self.board.alerts),
            limits=self.limits,
        )
        return client, client.start()

    def post(self, uri: str, body: bytes, mac: str | None = None) -> tuple[bytes, str | None]:
        """One exchange."""
        headers = {"Content-Type": self.media_type} | ({HMAC_HEADER: mac} if mac else {})
        response = self.http.post(uri, data=body, headers=headers, timeout=SESSION_SECONDS)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith(self.media_type)
        return response.content, response.headers.get(HMAC_HEADER)

    def fetch(self, url: str) -> int:
        """Download an image in two ranges, as an agent does that was interrupted; a dead server is waited for."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self._fetch_once(url)
            except requests.RequestException:  # no connection, or a file that broke off in its middle
                if time.monotonic() > deadline:
                    return 500
                time.sleep(0.1)

    def _fetch_once(self, url: str) -> int:
        with requests.Session() as http:
            http.trust_env = False
            http.verify = self.ca_file
            first = http.get(url, headers={"Range": "bytes=0-99"}, timeout=SESSION_SECONDS)
            if first.status_code != 206:
                return 500
            headers = {"Range": "bytes=100-", "If-Range": first.headers["ETag"]}
            rest = http.get(url, headers=headers, timeout=SESSION_SECONDS)
        self.downloaded = first.content + rest.content
        return 200 if rest.status_code == 206 else 500

    @contextmanager
    def polling(self) -> Iterator[None]:
        """The board opens sessions by itself, and its slow operations end between them."""
        stop = threading.Event()
        failures: list[BaseException] = []

        def run() -> None:
            while not stop.wait(0.05):
                try:
                    self.session()
                    self.board.finish_operations()
                except BaseException as error:  # noqa: BLE001 - shown by the test below, whatever it is
                    failures.append(error)
                    return

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(SESSION_SECONDS)
        assert not failures, failures


@dataclass(frozen=True)
class Side:
    """One direction of the agent's account configuration."""

    credentials: Credentials
    nonce: bytes


@dataclass(frozen=True)
class AgentAccount:
    """The account of the agent's configuration snippet."""

    server_id: str
    address: str
    client: Side
    server: Side


def read_account(config: Mapping[str, Mapping[str, object]]) -> AgentAccount:
    """Read what ``virmo device add --agent-config`` prints."""

    accounts = config["dm"]["accounts"]
    assert isinstance(accounts, list)
    account = accounts[0]

    def side(name: str) -> Side:
        values = account[name]
        credentials = Credentials(AuthScheme(values["auth"]), values["name"], values["secret"])
        return Side(credentials, base64.b64decode(values["nonce"]))

    return AgentAccount(account["server_id"], account["address"], side("client"), side("server"))


def device_info(device_id: str) -> dict[str, str]:
    """DevInfo of package 1."""
    return {
        "./DevInfo/DevId": device_id,
        "./DevInfo/Man": "Example",
        "./DevInfo/Mod": "Board",
        "./DevInfo/DmV": "1.2",
        "./DevInfo/Lang": "en",
    }


def free_port() -> int:
    """A TCP port that nobody listens on at present."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
