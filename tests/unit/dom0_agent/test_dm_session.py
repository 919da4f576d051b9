"""A whole session over real HTTP: what a hostile server, a full disk or a silent user may do to the agent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from dom0_agent.config import DmConfig
from dom0_agent.dm_session import HMAC_HEADER, SessionReport, SessionRunner
from dom0_agent.omadm import commands as c
from dom0_agent.omadm.auth import Account, AuthScheme, Credentials, MemoryNonceStore, NonceRole
from dom0_agent.omadm.codec import XML_MEDIA_TYPE
from dom0_agent.omadm.interaction import Answer, Outcome, Question
from dom0_agent.omadm.server import ServerSession
from dom0_agent.omadm.server_auth import DeviceCredentials
from dom0_agent.omadm.xml import XmlCodec
from dom0_agent.store.database import Database, StoreError
from dom0_agent.store.outbox import Outbox
from dom0_agent.transport.tls import TlsConfig
from tests.unit.omadm.dm_pair import Application, counting_random
from tests.unit.omadm.tree_objects import make_tree

DEVICE = "urn:uuid:4c3c5a3e-0000-4000-8000-00000000000a"
Edit = Callable[[bytes], bytes]


class Endpoint:
    """A DM server on a loopback port; ``edit`` may falsify its answers."""

    def __init__(self, scheme: AuthScheme, client_name: str = "board") -> None:
        self.application = Application()
        self.edit: Edit = lambda answer: answer
        self.macs: list[str | None] = []
        self.known = DeviceCredentials(
            Credentials(scheme, client_name, "secret"), Credentials(scheme, "srv", "server secret")
        )
        self._nonces = MemoryNonceStore()
        self._session: ServerSession | None = None
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                mac = self.headers.get(HMAC_HEADER)
                answer, own_mac = endpoint.answer(body, mac)
                self.send_response(200)
                self.send_header("Content-Type", XML_MEDIA_TYPE)
                self.send_header("Content-Length", str(len(answer)))
                if own_mac is not None:
                    self.send_header(HMAC_HEADER, own_mac)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self._http = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._http.server_port}/dm"

    @property
    def account(self) -> Account:
        return Account("srv", self.address, self.known.client, self.known.server)

    def answer(self, body: bytes, mac: str | None) -> tuple[bytes, str | None]:
        self.macs.append(mac)
        header = XmlCodec().decode(body).header
        if self._session is None or self._session.session_id != header.session_id:
            self._session = ServerSession(
                session_id=header.session_id,
                device_id=DEVICE,
                user_name=header.source_name,
                uri=self.address,
                codec=XmlCodec(),
                lookup=lambda _device, _user: self.known,
                nonces=self._nonces,
                random_bytes=counting_random(),
            )
        answer = self._session.receive(body, self.application, mac)
        return self.edit(answer), self._session.outgoing_hmac

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)


class Board:
    """The agent's side: a tree, nonces, an outbox in a real database."""

    def __init__(self, folder: Path) -> None:
        self.tree, _, _ = make_tree()
        self.nonces = MemoryNonceStore()
        self.questions: list[Question] = []
        self.answer: Answer | None = None
        self.trace: list[str] = []
        self._database = Database(folder / "agent.sqlite")
        self.outbox = Outbox(self._database)

    def ask(self, question: Question) -> Answer:
        """This board is its own user."""
        self.questions.append(question)
        assert self.answer is not None
        return self.answer

    def session(self, account: Account) -> SessionReport:
        runner = SessionRunner(
            config=DmConfig(connect_timeout=2, answer_timeout=5),
            device_id=DEVICE,
            tree=self.tree,
            nonces=self.nonces,
            outbox=self.outbox,
            device_info=lambda: {"./DevInfo/DevId": DEVICE},
            between=lambda: None,
            ui=self if self.answer is not None else None,
        )
        tls = TlsConfig(allow_plain_http=True)
        return runner.run(account, tls, trace=lambda direction, _body: self.trace.append(direction))

    def close(self) -> None:
        self._database.close()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    made = Board(tmp_path)
    yield made
    made.close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint(AuthScheme.MD5)
    yield made
    made.close()


@pytest.mark.parametrize("name", ["board", "M\u00fcller", "\u010d\u0161\u017e \u6771", 'say "hi" \\ there'])
def test_hmac_both_ways_whatever_the_device_is_called(board: Board, name: str) -> None:
    """Security 5.4 over HTTP: names that are no Latin-1 travel as their UTF-8 octets."""
    endpoint = Endpoint(AuthScheme.HMAC, name)
    try:
        endpoint.application = Application([c.Get(items=(c.Item("./Machines/m/Label"),))])
        assert board.session(endpoint.account) == SessionReport("srv", True, "the session ended well")
        assert list(endpoint.application.codes.values()) == [200]
        assert endpoint.macs[-1] is not None
        assert board.session(endpoint.account).ok
        assert len(endpoint.macs) == 4, "with the nonces of the first session the second needs no challenge"
    finally:
        endpoint.close()


@pytest.mark.parametrize("address", ["https://[::1", "http://a..b/dm", "", "http://127.0.0.1:1/dm"])
def test_an_address_in_dmacc_that_is_none_fails_the_session_and_not_the_agent(board: Board, address: str) -> None:
    report = board.session(Account("srv", address))
    assert not report.ok
    assert report.sentence


@pytest.mark.parametrize("uri", ["https://[::1", "http://a..b/dm", "ftp://x/", "nonsense"])
def test_a_resp_uri_that_is_none_fails_the_session_and_not_the_agent(
    board: Board, endpoint: Endpoint, uri: str
) -> None:
    endpoint.edit = lambda answer: answer.replace(
        b"</Source><Meta>", b"</Source><RespURI>" + uri.encode() + b"</RespURI><Meta>"
    )
    report = board.session(endpoint.account)
    assert not report.ok
    assert len(board.trace) == 3  # sent, received, and what could not be sent


def test_a_disk_that_is_full_fails_the_session_and_not_the_agent(board: Board, endpoint: Endpoint) -> None:
    class FullNonces(MemoryNonceStore):
        def put(self, account: str, role: NonceRole, nonce: bytes) -> None:
            raise StoreError("cannot write agent.sqlite: disk is full")

    board.nonces = FullNonces()
    report = board.session(endpoint.account)
    assert (report.ok, report.retry) == (False, True)
    assert "disk is full" in report.sentence
    board.nonces = MemoryNonceStore()
    assert board.session(endpoint.account).ok


@pytest.mark.parametrize(
    ("answer", "code", "member"),
    [(Answer(Outcome.ANSWERED), 200, 200), (Answer(Outcome.REJECTED), 304, 215), (None, 406, 200)],
)
def test_the_user_is_asked(board: Board, endpoint: Endpoint, answer: Answer | None, code: int, member: int) -> None:
    """OMA-TS-DM 9: a Sequence ends with the user's No; without a terminal the alert is answered 406."""
    board.answer = answer
    alert = c.Alert(code=1101, items=(c.Item(data="MAXDT=5&DR=1"), c.Item(data="Really?")))
    get = c.Get(items=(c.Item("./Machines/m/Label"),))
    endpoint.application = Application([c.Sequence(commands=(alert, get))])
    assert board.session(endpoint.account).ok
    (outcome,) = endpoint.application.outcomes.values()
    assert [result.status for result in outcome.members] == [code, member]
    assert [(question.text, question.max_display) for question in board.questions] == [("Really?", 5)] * bool(answer)
