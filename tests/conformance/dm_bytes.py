"""Both roles driven by handwritten messages, octet by octet.

Messages are written as XML text in the tests. In the WBXML runs libwbxml turns them into WBXML before our code sees
them, and our answers into XML before a test looks at them, so that nothing of ours judges itself. What comes back is an
lxml element without namespaces.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lxml import etree

from dom0_agent.omadm.auth import Account, AuthScheme, Credentials, MemoryNonceStore, NonceRole
from dom0_agent.omadm.client import ClientSession, PendingAlert
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.interaction import UserInterface
from dom0_agent.omadm.server import ServerSession
from dom0_agent.omadm.server_auth import DeviceCredentials, LockOut
from dom0_agent.omadm.session import SessionLimits
from dom0_agent.omadm.tree_access import TreeAccess
from dom0_agent.omadm.wbxml import WbxmlCodec
from dom0_agent.omadm.xml import XmlCodec
from tests.unit.omadm.dm_pair import DEVICE, DEVICE_INFO, SERVER_URI, Application, LeafTree, counting_random

Element = etree._Element

XML, WBXML = "xml", "wbxml"
CODECS: dict[str, Codec] = {XML: XmlCodec(), WBXML: WbxmlCodec()}
NO_CREDENTIALS = Credentials(AuthScheme.NONE)


def converted(tool: str, octets: bytes, *options: str) -> bytes:
    """What one of libwbxml's two tools makes of a document."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        source.write_bytes(octets)
        done = subprocess.run([tool, *options, "-o", target, source], capture_output=True, timeout=20, check=False)
        assert done.returncode == 0, f"{tool}: {done.stderr!r} on {octets!r}"
        return target.read_bytes()


def to_octets(xml: str, syntax: str) -> bytes:
    """A handwritten message in the syntax of this run."""
    return xml.encode() if syntax == XML else converted("xml2wbxml", xml.encode(), "-k", "-n", "-v", "1.2")


def to_element(octets: bytes, syntax: str) -> Element:
    """Octets of ours as a tree without namespaces, read by lxml (and libwbxml)."""
    xml = octets if syntax == XML else converted("wbxml2xml", octets, "-k")
    root = etree.fromstring(xml)
    for element in root.iter(etree.Element):
        element.tag = etree.QName(element).localname
    return root


def message(
    body: str,
    *,
    msg_id: int = 1,
    session_id: str = "1F",
    target: str = DEVICE,
    source: str = SERVER_URI,
    header: str = "",
    final: bool = True,
    ver_dtd: str = "1.2",
    ver_proto: str = "DM/1.2",
) -> str:
    """A whole handwritten message around the elements of its body."""
    return (
        f'<SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr><VerDTD>{ver_dtd}</VerDTD><VerProto>{ver_proto}</VerProto>'
        f"<SessionID>{session_id}</SessionID><MsgID>{msg_id}</MsgID><Target><LocURI>{target}</LocURI></Target>"
        f"<Source><LocURI>{source}</LocURI></Source>{header}</SyncHdr>"
        f"<SyncBody>{body}{'<Final/>' if final else ''}</SyncBody></SyncML>"
    )


def header_status(msg_ref: int, code: int = 200, chal: str = "") -> str:
    """A Status for a SyncHdr."""
    return (
        f"<Status><CmdID>900</CmdID><MsgRef>{msg_ref}</MsgRef><CmdRef>0</CmdRef><Cmd>SyncHdr</Cmd>{chal}"
        f"<Data>{code}</Data></Status>"
    )


def chal(scheme: str = "syncml:auth-md5", nonce: str = "Tm9uY2U=") -> str:
    """A challenge; the usual nonce is ``Nonce``."""
    next_nonce = f'<NextNonce xmlns="syncml:metinf">{nonce}</NextNonce>' if nonce else ""
    return (
        f'<Chal><Meta><Format xmlns="syncml:metinf">b64</Format><Type xmlns="syncml:metinf">{scheme}</Type>'
        f"{next_nonce}</Meta></Chal>"
    )


def cred(data: str, scheme: str = "syncml:auth-md5") -> str:
    """Credentials for a SyncHdr."""
    return (
        f'<Cred><Meta><Format xmlns="syncml:metinf">b64</Format><Type xmlns="syncml:metinf">{scheme}</Type></Meta>'
        f"<Data>{data}</Data></Cred>"
    )


def command(name: str, cmd_id: str, *targets: str, data: str | None = None, meta: str = "") -> str:
    """One command with an Item for each target."""
    value = "" if data is None else f"<Data>{data}</Data>"
    items = "".join(f"<Item><Target><LocURI>{uri}</LocURI></Target>{meta}{value}</Item>" for uri in targets)
    return f"<{name}><CmdID>{cmd_id}</CmdID>{items}</{name}>"


def metinf(**fields: str) -> str:
    """A Meta element."""
    return "<Meta>" + "".join(f'<{k} xmlns="syncml:metinf">{v}</{k}>' for k, v in fields.items()) + "</Meta>"


def texts(root: Element, path: str) -> list[str]:
    """Text of all elements at a path (ElementPath)."""
    return [element.text or "" for element in root.findall(path)]


def codes(root: Element) -> list[tuple[str, str]]:
    """Command names and codes of the Status elements, in order."""
    return [(s.findtext("Cmd", ""), s.findtext("Data", "")) for s in root.findall("SyncBody/Status")]


def code_of(root: Element, cmd_ref: str, target: str | None = None) -> str:
    """The code that a command (or one Item of it) was answered with."""
    for status in root.findall(f"SyncBody/Status[CmdRef='{cmd_ref}']"):
        refs = texts(status, "TargetRef")
        if target is None or target in refs or not refs:
            return str(status.findtext("Data"))
    raise AssertionError(f"no Status for {cmd_ref} in {etree.tostring(root)!r}")


class Board:
    """A client session talked to by hand. Without ``client``/``server`` the transport is trusted both ways."""

    def __init__(
        self,
        syntax: str,
        tree: TreeAccess | None = None,
        *,
        client: Credentials = NO_CREDENTIALS,
        server: Credentials = NO_CREDENTIALS,
        client_nonce: bytes | None = None,
        server_nonce: bytes | None = None,
        alerts: Sequence[PendingAlert] = (),
        ui: UserInterface | None = None,
        limits: SessionLimits | None = None,
        device_info: Mapping[str, str] = DEVICE_INFO,
    ) -> None:
        self.syntax = syntax
        self.tree = tree if tree is not None else LeafTree()
        self.nonces = MemoryNonceStore()
        if client_nonce is not None:
            self.nonces.put("virmo-server", NonceRole.CLIENT, client_nonce)
        if server_nonce is not None:
            self.nonces.put("virmo-server", NonceRole.SERVER, server_nonce)
        self.session = ClientSession(
            account=Account("virmo-server", SERVER_URI, client, server),
            device_id=DEVICE,
            tree=self.tree,
            nonces=self.nonces,
            random_bytes=counting_random(),
            codec=CODECS[syntax],
            session_id="1F",
            device_info=lambda: device_info,
            alerts=alerts,
            ui=ui,
            limits=limits or SessionLimits(),
        )
        self._msg_ids = itertools.count(1)
        self.last: bytes = b""

    def start(self) -> Element:
        """Package 1."""
        self.last = self.session.start()
        return to_element(self.last, self.syntax)

    def say(self, body: str, *, accept: bool = True, hmac: str | None = None, **options: object) -> Element | None:
        """A message of the server; ``accept`` puts the Status 200 for our header before ``body``."""
        options.setdefault("msg_id", next(self._msg_ids))
        if accept:
            body = header_status(self.session._msg_id) + body
        return self.receive(to_octets(message(body, **options), self.syntax), hmac)  # type: ignore[arg-type]

    def receive(self, octets: bytes, hmac: str | None = None) -> Element | None:
        """Octets of the server."""
        answer = self.session.receive(octets, hmac)
        if answer is None:
            return None
        self.last = answer
        return to_element(answer, self.syntax)

    def ask(self, body: str, **options: object) -> Element:
        """Like :meth:`say`, for messages that must be answered."""
        if self.session.state.value == "New":
            self.start()
        answer = self.say(body, **options)  # type: ignore[arg-type]
        assert answer is not None, self.session.outcome
        return answer


class Desk:
    """A server session talked to by hand."""

    def __init__(
        self,
        syntax: str,
        application: Application | None = None,
        *,
        known: DeviceCredentials | None = None,
        unknown_device: bool = False,
        client_nonce: bytes | None = None,
        server_nonce: bytes | None = None,
        lock_out: LockOut | None = None,
        limits: SessionLimits | None = None,
        resp_uri: str | None = None,
    ) -> None:
        self.syntax = syntax
        self.application = application or Application()
        self.nonces = MemoryNonceStore()
        if client_nonce is not None:
            self.nonces.put(DEVICE, NonceRole.CLIENT, client_nonce)
        if server_nonce is not None:
            self.nonces.put(DEVICE, NonceRole.SERVER, server_nonce)
        credentials = None if unknown_device else known or DeviceCredentials(NO_CREDENTIALS, NO_CREDENTIALS)

        def make(saved: Mapping[str, object] | None) -> ServerSession:
            return ServerSession(
                session_id="1F",
                device_id=DEVICE,
                user_name="Bruce2",
                uri=SERVER_URI,
                codec=CODECS[syntax],
                lookup=lambda _device, _user: credentials,
                nonces=self.nonces,
                random_bytes=counting_random(),
                lock_out=lock_out,
                limits=limits or SessionLimits(),
                resp_uri=resp_uri,
                saved=saved,
            )

        self._make = make
        self.session = make(None)
        self._msg_ids = itertools.count(1)
        self.last: bytes = b""

    def say(self, body: str, *, hmac: str | None = None, **options: object) -> Element:
        """A message of the device."""
        options.setdefault("msg_id", next(self._msg_ids))
        options = {"target": SERVER_URI, "source": DEVICE} | options
        return self.receive(to_octets(message(body, **options), self.syntax), hmac)  # type: ignore[arg-type]

    def receive(self, octets: bytes, hmac: str | None = None) -> Element:
        """Octets of the device."""
        self.last = self.session.receive(octets, self.application, hmac)
        return to_element(self.last, self.syntax)

    def take_up_again(self) -> None:
        """Store the session and go on with another one made from what was stored."""
        self.session = self._make(json.loads(json.dumps(self.session.to_dict())))

    def open(self, extra: str = "", **options: object) -> Element:
        """Package 1."""
        return self.say(PACKAGE_1 + extra, **options)  # type: ignore[arg-type]


PACKAGE_1 = (
    "<Alert><CmdID>1</CmdID><Data>1201</Data></Alert><Replace><CmdID>2</CmdID><Item><Source><LocURI>./DevInfo/DevId"
    f"</LocURI></Source><Data>{DEVICE}</Data></Item></Replace>"
)
