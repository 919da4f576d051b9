"""A device and a server in memory: our two sessions wired together, with a tree of plain leaves behind the client."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.auth import Account, AuthScheme, Credentials, MemoryNonceStore
from dom0_agent.omadm.client import ClientSession, PendingAlert
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.interaction import UserInterface
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.server import ServerSession
from dom0_agent.omadm.server_auth import DeviceCredentials, LockOut
from dom0_agent.omadm.server_outcomes import CommandOutcome, CommandRequest
from dom0_agent.omadm.session import DEFAULT_LIMITS, SessionLimits
from dom0_agent.omadm.status import CommitFailed, DMError, Status
from dom0_agent.omadm.tree_access import ItemValue, NodeResult
from dom0_agent.omadm.xml import XmlCodec

DEVICE = "urn:uuid:4c3c5a3e-0000-4000-8000-000000000001"
SERVER_URI = "https://server.example/dm"
CLIENT_MD5 = Credentials(AuthScheme.MD5, "Bruce2", "OhBehave")
SERVER_MD5 = Credentials(AuthScheme.MD5, "virmo-server", "srvpwd")
ACCOUNT = Account("virmo-server", SERVER_URI, CLIENT_MD5, SERVER_MD5)
KNOWN = DeviceCredentials(CLIENT_MD5, SERVER_MD5)
DEVICE_INFO = {"./DevInfo/DevId": DEVICE, "./DevInfo/Man": "ACME", "./DevInfo/DmV": "1.2"}


class LeafTree:
    """A :class:`TreeAccess` of leaves without checks, that can be told to fail at a URI."""

    def __init__(self, leaves: Mapping[str, str | bytes] | None = None) -> None:
        self.leaves: dict[str, ItemValue] = {
            uri: ItemValue(data, Format.BIN if isinstance(data, bytes) else Format.CHR, "text/plain")
            for uri, data in (leaves or {}).items()
        }
        self.failures: dict[str, int] = {}
        self.undo_failures: set[str] = set()
        self.commit_failure: int | None = None
        self.calls: list[tuple[str, ...]] = []
        self.exec_status = 200
        self._journal: list[tuple[str, ItemValue | None]] | None = None

    def _enter(self, command: str, uri: str, *rest: str) -> None:
        self.calls.append((command, uri, *rest))
        if uri in self.failures:
            raise DMError(self.failures[uri], f"{uri} fails on purpose")

    def _write(self, uri: str, value: ItemValue | None) -> None:
        if self._journal is not None:
            self._journal.append((uri, self.leaves.get(uri)))
        if value is None:
            del self.leaves[uri]
        else:
            self.leaves[uri] = value

    def get(self, server_id: str, uri: str) -> Sequence[NodeResult]:
        self._enter("Get", uri)
        if uri.endswith("?list=StructData"):
            return [NodeResult(leaf, value) for leaf, value in self.leaves.items()]
        if uri not in self.leaves:
            raise DMError(Status.NOT_FOUND, uri)
        return [NodeResult(uri, self.leaves[uri])]

    def add(self, server_id: str, uri: str, value: ItemValue) -> None:
        self._enter("Add", uri)
        if uri in self.leaves:
            raise DMError(Status.ALREADY_EXISTS, uri)
        self._write(uri, value)

    def replace(self, server_id: str, uri: str, value: ItemValue) -> None:
        self._enter("Replace", uri)
        if uri not in self.leaves:
            raise DMError(Status.NOT_FOUND, uri)
        self._write(uri, value)

    def delete(self, server_id: str, uri: str) -> None:
        self._enter("Delete", uri)
        if uri not in self.leaves:
            raise DMError(Status.NOT_FOUND, uri)
        self._write(uri, None)

    def copy(self, server_id: str, source: str, target: str) -> None:
        self._enter("Copy", target, source)
        if source not in self.leaves:
            raise DMError(Status.NOT_FOUND, source)
        self._write(target, self.leaves[source])

    def execute(self, server_id: str, uri: str, data: str | bytes, correlator: str | None) -> int:
        self._enter("Exec", uri, str(data), correlator or "")
        return self.exec_status

    @contextmanager
    def atomic(self) -> Iterator[LeafTransaction]:
        self._journal = []
        transaction = LeafTransaction(self, self._journal)
        try:
            yield transaction
        finally:
            if not transaction.ended:
                transaction.rollback()
            self._journal = None


class LeafTransaction:
    """The journal of one Atomic on a :class:`LeafTree`."""

    def __init__(self, tree: LeafTree, journal: list[tuple[str, ItemValue | None]]) -> None:
        self._tree = tree
        self._journal = journal
        self.ended = False

    def commit(self) -> None:
        if self._tree.commit_failure is not None:
            raise CommitFailed(self._tree.commit_failure, "fails on purpose", self.rollback())
        self.ended = True

    def rollback(self) -> Sequence[bool]:
        self.ended = True
        worked = []
        for uri, before in reversed(self._journal):
            worked.append(uri not in self._tree.undo_failures)
            if not worked[-1]:
                continue
            if before is None:
                self._tree.leaves.pop(uri, None)
            else:
                self._tree.leaves[uri] = before
        return worked[::-1]


class Application:
    """A :class:`ServerApplication` with a list of packages to send, remembering what it hears."""

    def __init__(self, *packages: Sequence[c.ManagementCommand | c.Alert]) -> None:
        self._packages = list(packages)
        self._numbers = itertools.count(1)
        self.info: dict[str, str] = {}
        self.alerts: list[c.Alert] = []
        self.alert_status = 200
        self.outcomes: dict[str, CommandOutcome] = {}

    def device_info(self, values: Mapping[str, str]) -> None:
        self.info.update(values)

    def alert(self, alert: c.Alert) -> int:
        self.alerts.append(alert)
        return self.alert_status

    def outcome(self, outcome: CommandOutcome) -> None:
        assert outcome.ref not in self.outcomes, "a ref comes back exactly once"
        self.outcomes[outcome.ref] = outcome

    def commands(self) -> Sequence[CommandRequest]:
        package = self._packages.pop(0) if self._packages else ()
        return [CommandRequest(f"r{next(self._numbers)}", command) for command in package]

    @property
    def codes(self) -> dict[str, int | None]:
        return {ref: outcome.status for ref, outcome in self.outcomes.items()}


def counting_random() -> Callable[[int], bytes]:
    """Nonces that a reader of a test can tell apart."""
    numbers = itertools.count(1)
    return lambda size: (b"nonce%04d" % next(numbers)).ljust(size, b".")[:size]


class Pair:
    """Both ends and what they remember between sessions."""

    def __init__(
        self,
        tree: LeafTree | None = None,
        *,
        account: Account = ACCOUNT,
        known: DeviceCredentials | None = KNOWN,
        codec: Codec | None = None,
        client_limits: SessionLimits = DEFAULT_LIMITS,
        server_limits: SessionLimits = DEFAULT_LIMITS,
        ui: UserInterface | None = None,
        lock_out: LockOut | None = None,
        resp_uri: str | None = None,
    ) -> None:
        self.tree = tree if tree is not None else LeafTree()
        self.account = account
        self.known = known
        self.codec = codec or XmlCodec()
        self.client_limits = client_limits
        self.server_limits = server_limits
        self.ui = ui
        self.lock_out = lock_out
        self.resp_uri = resp_uri
        self.client_nonces = MemoryNonceStore()
        self.server_nonces = MemoryNonceStore()
        self.random = counting_random()
        self._session_ids = itertools.count(0x1F)
        self.sent: list[c.Message] = []  #: of the client
        self.answers: list[c.Message] = []  #: of the server
        self.bodies: list[bytes] = []

    def client(self, session_id: str, alerts: Sequence[PendingAlert] = ()) -> ClientSession:
        return ClientSession(
            account=self.account,
            device_id=DEVICE,
            tree=self.tree,
            nonces=self.client_nonces,
            random_bytes=self.random,
            codec=self.codec,
            session_id=session_id,
            device_info=lambda: DEVICE_INFO,
            alerts=alerts,
            ui=self.ui,
            limits=self.client_limits,
        )

    def server(self, session_id: str, saved: Mapping[str, object] | None = None) -> ServerSession:
        return ServerSession(
            session_id=session_id,
            device_id=DEVICE,
            user_name="Bruce2",
            uri=SERVER_URI,
            codec=self.codec,
            lookup=lambda device_id, user_name: self.known,
            nonces=self.server_nonces,
            random_bytes=self.random,
            lock_out=self.lock_out,
            limits=self.server_limits,
            resp_uri=self.resp_uri,
            saved=saved,
        )

    def run(self, application: Application, alerts: Sequence[PendingAlert] = (), most: int = 200) -> ClientSession:
        """One whole session; the server session is stored and taken up again between any two messages."""
        session_id = f"{next(self._session_ids):X}"
        client, server = self.client(session_id, alerts), self.server(session_id)
        self.sent, self.answers, self.bodies = [], [], []
        body: bytes | None = client.start()
        while body is not None:
            assert len(self.sent) < most, "the session does not end"
            self.sent.append(self.codec.decode(body))
            answer = server.receive(body, application, client.outgoing_hmac)
            self.answers.append(self.codec.decode(answer))
            self.bodies += [body, answer]
            saved = json.loads(json.dumps(server.to_dict()))
            hmac = server.outgoing_hmac
            server = self.server(session_id, saved)
            body = client.receive(answer, hmac)
        self.last_server = server
        return client


def statuses(message: c.Message) -> list[tuple[str, int]]:
    """Command names and codes of the Status elements of a message, in order."""
    return [(command.cmd, command.code) for command in message.body if isinstance(command, c.Status)]
