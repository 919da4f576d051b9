"""Every element of a DM message as a frozen dataclass (OMA-TS-DM-RepPro 1.2; digest section 1).

These are values: codecs make them from bytes, sessions make and read them. They know no syntax, no session and no tree.
``Data`` is ``str``, or ``bytes`` where raw octets travelled (WBXML OPAQUE) or shall travel (Format ``bin``).
A ``cmd_id`` is the empty string until a session numbers the command, or when a peer left CmdID out (status 400).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from dom0_agent.omadm.frozen import frozen

Data = str | bytes


@frozen
class Meta:
    """MetInf content of ``Meta`` (RepPro 7, MetaInf 1.2). ``next_nonce`` is the base64 text; sizes are octets."""

    format: str | None = None
    type: str | None = None
    mark: str | None = None
    size: int | None = None
    next_nonce: str | None = None
    max_msg_size: int | None = None
    max_obj_size: int | None = None
    emi: tuple[str, ...] = ()


@frozen
class Cred:
    """Credentials in SyncHdr (RepPro 6.1.4); ``meta.type`` names the scheme."""

    meta: Meta
    data: str


@frozen
class Chal:
    """A challenge in Status (RepPro 6.1.2): scheme and nonce the sender of the Status asks for."""

    meta: Meta


@frozen
class Item:
    """One Item of a command; ``target`` and ``source`` are LocURIs, the names are LocName (RepPro 6.4.1)."""

    target: str | None = None
    source: str | None = None
    meta: Meta | None = None
    data: Data | None = None
    more_data: bool = False
    target_name: str | None = None
    source_name: str | None = None


@frozen
class SyncHdr:
    """The header of a message (RepPro 6.2.2). ``source_name`` is the user name for MD5 and HMAC authentication."""

    session_id: str
    msg_id: int
    target: str
    source: str
    target_name: str | None = None
    source_name: str | None = None
    resp_uri: str | None = None
    cred: Cred | None = None
    meta: Meta | None = None
    ver_dtd: str = "1.2"
    ver_proto: str = "DM/1.2"


@frozen
class Add:
    """Add nodes (RepPro 6.5.1)."""

    NAME: ClassVar[str] = "Add"
    cmd_id: str = ""
    items: tuple[Item, ...] = ()
    meta: Meta | None = None


@frozen
class Replace:
    """Replace values or properties (RepPro 6.5.10); from a client only to send DevInfo."""

    NAME: ClassVar[str] = "Replace"
    cmd_id: str = ""
    items: tuple[Item, ...] = ()
    meta: Meta | None = None


@frozen
class Copy:
    """Copy leaf to leaf (RepPro 6.5.4)."""

    NAME: ClassVar[str] = "Copy"
    cmd_id: str = ""
    items: tuple[Item, ...] = ()
    meta: Meta | None = None


@frozen
class Delete:
    """Delete nodes with all below them (RepPro 6.5.5)."""

    NAME: ClassVar[str] = "Delete"
    cmd_id: str = ""
    items: tuple[Item, ...] = ()
    meta: Meta | None = None


@frozen
class Get:
    """Read nodes, properties (``?prop=``) or sub-trees (``?list=``) (RepPro 6.5.7)."""

    NAME: ClassVar[str] = "Get"
    cmd_id: str = ""
    items: tuple[Item, ...] = ()
    meta: Meta | None = None


@frozen
class Exec:
    """Run the operation behind a node (RepPro 6.5.6)."""

    NAME: ClassVar[str] = "Exec"
    cmd_id: str = ""
    items: tuple[Item, ...] = ()
    meta: Meta | None = None
    correlator: str | None = None


@frozen
class Alert:
    """A notification to the peer (RepPro 6.5.2); ``code`` is ``None`` when Data was missing or no number."""

    NAME: ClassVar[str] = "Alert"
    cmd_id: str = ""
    code: int | None = None
    items: tuple[Item, ...] = ()
    correlator: str | None = None


@frozen
class Atomic:
    """All or nothing (RepPro 6.5.3)."""

    NAME: ClassVar[str] = "Atomic"
    cmd_id: str = ""
    commands: tuple[BodyElement, ...] = ()
    meta: Meta | None = None


@frozen
class Sequence:
    """In this order (RepPro 6.5.12)."""

    NAME: ClassVar[str] = "Sequence"
    cmd_id: str = ""
    commands: tuple[BodyElement, ...] = ()
    meta: Meta | None = None


@frozen
class Results:
    """What a Get found (RepPro 6.5.11); each Item names its node in Source."""

    NAME: ClassVar[str] = "Results"
    cmd_id: str = ""
    msg_ref: int | None = None
    cmd_ref: str = ""
    items: tuple[Item, ...] = ()
    meta: Meta | None = None
    target_ref: str | None = None
    source_ref: str | None = None


@frozen
class Status:
    """The answer to one command, or (``cmd_ref`` "0", ``cmd`` SyncHdr) to a message header (RepPro 6.5.13)."""

    NAME: ClassVar[str] = "Status"
    cmd_id: str = ""
    msg_ref: int = 0
    cmd_ref: str = "0"
    cmd: str = "SyncHdr"
    code: int = 0
    target_refs: tuple[str, ...] = ()
    source_refs: tuple[str, ...] = ()
    cred: Cred | None = None
    chal: Chal | None = None
    items: tuple[Item, ...] = ()


@frozen
class UnknownCommand:
    """A well-formed element of SyncBody that DM does not define; answered 501 (digest section 15)."""

    cmd_id: str = ""
    name: str = ""

    @property
    def NAME(self) -> str:  # noqa: N802 - same attribute as on the known commands
        """The element's local name, for the Status."""
        return self.name


ItemCommand = Add | Replace | Copy | Delete | Get | Exec
Container = Atomic | Sequence
ManagementCommand = ItemCommand | Container
BodyElement = Add | Replace | Copy | Delete | Get | Exec | Alert | Atomic | Sequence | Results | Status | UnknownCommand


@frozen
class Message:
    """A whole SyncML document: header, body in document order, and whether it closes its package."""

    header: SyncHdr
    body: tuple[BodyElement, ...] = ()
    final: bool = True


def effective_meta(command: Meta | None, item: Meta | None) -> Meta | None:
    """Meta of an Item inside a command: what the Item says wins, field by field (digest 1.2)."""
    if command is None:
        return item
    if item is None:
        return command
    return Meta(
        format=item.format if item.format is not None else command.format,
        type=item.type if item.type is not None else command.type,
        mark=item.mark if item.mark is not None else command.mark,
        size=item.size if item.size is not None else command.size,
        next_nonce=item.next_nonce if item.next_nonce is not None else command.next_nonce,
        max_msg_size=item.max_msg_size if item.max_msg_size is not None else command.max_msg_size,
        max_obj_size=item.max_obj_size if item.max_obj_size is not None else command.max_obj_size,
        emi=item.emi or command.emi,
    )


def walk(commands: tuple[BodyElement, ...]) -> Iterator[BodyElement]:
    """Commands in document order, a container before its members."""
    for command in commands:
        yield command
        if isinstance(command, (Atomic, Sequence)):
            yield from walk(command.commands)
