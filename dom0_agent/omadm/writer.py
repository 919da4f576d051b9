"""Messages to elements: the writing half of the SyncML 1.2 content models, in the order of the DTD (digest 1.1).

A codec brings a :class:`Writer` of its syntax. Knows no bytes and no session; reading is in ``reader``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dom0_agent.omadm.commands import (
    Add,
    Alert,
    Atomic,
    BodyElement,
    Copy,
    Cred,
    Data,
    Delete,
    Exec,
    Get,
    Item,
    Meta,
    Replace,
    Results,
    Sequence,
    Status,
    SyncHdr,
    UnknownCommand,
)
from dom0_agent.omadm.tokens import SYNCML


class Shape:
    """A run of tags known in advance, with a place for each text: what all commands of a kind begin or end with.

    Written as ``"<Status CmdID MsgRef"``: ``<Tag`` opens, ``Tag>`` closes, a bare tag is an element with text. For each
    syntax it is compiled once into a template, so that a usual command costs one formatting, not a dozen calls.
    """

    __slots__ = ("wbxml", "xml")

    def __init__(self, tags: str) -> None:
        xml: list[str] = []
        wbxml: list[bytes] = []
        for tag in tags.split():
            name = tag.strip("<>")
            token = bytes([SYNCML[name] | 0x40])
            if tag.startswith("<"):
                xml.append(f"<{name}>")
                wbxml.append(token)
            elif tag.endswith(">"):
                xml.append(f"</{name}>")
                wbxml.append(b"\x01")
            else:
                xml.append(f"<{name}>%s</{name}>")
                wbxml.append(token.replace(b"%", b"%%") + b"\x03%b\x00\x01")
        self.xml = "".join(xml)
        self.wbxml = b"".join(wbxml)


class Writer(Protocol):
    """One syntax of SyncML. Calls arrive in document order; ``open`` and ``close`` are balanced."""

    def fill(self, shape: Shape, texts: tuple[str, ...]) -> None:
        """A run of elements with these texts."""

    def open(self, tag: str) -> None:
        """Start tag of an element with children."""

    def close(self, tag: str) -> None:
        """Its end tag."""

    def leaf(self, tag: str, text: str) -> None:
        """An element with text, or an empty one."""

    def location(self, tag: str, uri: str, name: str | None) -> None:
        """Target or Source with LocURI and optional LocName."""

    def meta(self, meta: Meta) -> None:
        """A whole Meta element."""

    def data(self, data: Data) -> None:
        """A Data element holding an object that :meth:`carry` has passed."""

    def carry(self, item: Item) -> Item:
        """The item as this syntax can carry it: octets become base64 text in XML."""


def write_header(w: Writer, header: SyncHdr) -> None:
    """SyncHdr in the order of the DTD."""
    w.fill(_HEADER, (header.ver_dtd, header.ver_proto, header.session_id, str(header.msg_id)))
    w.location("Target", header.target, header.target_name)
    w.location("Source", header.source, header.source_name)
    if header.resp_uri is not None:
        w.leaf("RespURI", header.resp_uri)
    if header.cred is not None:
        _write_cred(w, header.cred)
    if header.meta is not None:
        w.meta(header.meta)
    w.close("SyncHdr")


def write_command(w: Writer, command: BodyElement, cmd_id: str) -> None:
    """One element of SyncBody, numbered ``cmd_id`` (members of containers keep their own numbers)."""
    _WRITERS[type(command)](w, command, cmd_id)


def _write_cred(w: Writer, cred: Cred) -> None:
    w.open("Cred")
    w.meta(cred.meta)
    w.leaf("Data", cred.data)
    w.close("Cred")


_HEADER = Shape("<SyncHdr VerDTD VerProto SessionID MsgID")
_ITEM_OF_TARGET = Shape("<Item <Target LocURI Target> Item>")
_ITEM_OF_SOURCE_AND_DATA = Shape("<Item <Source LocURI Source> Data Item>")
_COMMAND = {name: Shape(f"<{name} CmdID") for name in ("Add", "Replace", "Copy", "Delete", "Get", "Exec", "Alert")}
_CONTAINER = {name: Shape(f"<{name} CmdID") for name in ("Atomic", "Sequence")}
_RESULTS = Shape("<Results CmdID MsgRef CmdRef")
_STATUS = Shape("<Status CmdID MsgRef CmdRef Cmd")
_STATUS_OF_ONE_TARGET = Shape("<Status CmdID MsgRef CmdRef Cmd TargetRef Data Status>")
_STATUS_OF_NO_TARGET = Shape("<Status CmdID MsgRef CmdRef Cmd Data Status>")


def _write_items(w: Writer, items: tuple[Item, ...]) -> None:
    for plain_item in items:
        item = plain_item if plain_item.data is None else w.carry(plain_item)
        target, source, data = item.target, item.source, item.data
        if item.meta is None and item.target_name is None and item.source_name is None and not item.more_data:
            if source is None and target is not None and data is None:
                w.fill(_ITEM_OF_TARGET, (target,))
                continue
            if target is None and source is not None and isinstance(data, str) and "\0" not in data:
                w.fill(_ITEM_OF_SOURCE_AND_DATA, (source, data))
                continue
        w.open("Item")
        if target is not None:
            w.location("Target", target, item.target_name)
        if source is not None:
            w.location("Source", source, item.source_name)
        if item.meta is not None:
            w.meta(item.meta)
        if data is not None:
            w.data(data)
        if item.more_data:
            w.leaf("MoreData", "")
        w.close("Item")


def _write_item_command(w: Writer, command: Add | Replace | Copy | Delete | Get, cmd_id: str) -> None:
    w.fill(_COMMAND[command.NAME], (cmd_id,))
    if command.meta is not None:
        w.meta(command.meta)
    _write_items(w, command.items)
    w.close(command.NAME)


def _write_exec(w: Writer, command: Exec, cmd_id: str) -> None:
    w.fill(_COMMAND["Exec"], (cmd_id,))
    if command.meta is not None:
        w.meta(command.meta)
    if command.correlator is not None:
        w.leaf("Correlator", command.correlator)
    _write_items(w, command.items)
    w.close("Exec")


def _write_alert(w: Writer, command: Alert, cmd_id: str) -> None:
    w.fill(_COMMAND["Alert"], (cmd_id,))
    if command.code is not None:
        w.leaf("Data", str(command.code))
    if command.correlator is not None:
        w.leaf("Correlator", command.correlator)
    _write_items(w, command.items)
    w.close("Alert")


def _write_container(w: Writer, command: Atomic | Sequence, cmd_id: str) -> None:
    w.fill(_CONTAINER[command.NAME], (cmd_id,))
    if command.meta is not None:
        w.meta(command.meta)
    for member in command.commands:
        write_command(w, member, member.cmd_id)
    w.close(command.NAME)


def _write_results(w: Writer, command: Results, cmd_id: str) -> None:
    if command.msg_ref is None:
        w.open("Results")
        w.leaf("CmdID", cmd_id)
        w.leaf("CmdRef", command.cmd_ref)
    else:
        w.fill(_RESULTS, (cmd_id, str(command.msg_ref), command.cmd_ref))
    if command.meta is not None:
        w.meta(command.meta)
    if command.target_ref is not None:
        w.leaf("TargetRef", command.target_ref)
    if command.source_ref is not None:
        w.leaf("SourceRef", command.source_ref)
    _write_items(w, command.items)
    w.close("Results")


def _write_status(w: Writer, command: Status, cmd_id: str) -> None:
    head = (cmd_id, str(command.msg_ref), command.cmd_ref, command.cmd)
    targets = command.target_refs
    if not command.source_refs and command.chal is None and command.cred is None and not command.items:
        if len(targets) == 1:
            w.fill(_STATUS_OF_ONE_TARGET, (*head, targets[0], str(command.code)))
            return
        if not targets:
            w.fill(_STATUS_OF_NO_TARGET, (*head, str(command.code)))
            return
    w.fill(_STATUS, head)
    for ref in targets:
        w.leaf("TargetRef", ref)
    for ref in command.source_refs:
        w.leaf("SourceRef", ref)
    if command.cred is not None:
        _write_cred(w, command.cred)
    if command.chal is not None:
        w.open("Chal")
        w.meta(command.chal.meta)
        w.close("Chal")
    w.leaf("Data", str(command.code))
    _write_items(w, command.items)
    w.close("Status")


def _write_unknown(w: Writer, command: UnknownCommand, cmd_id: str) -> None:
    raise ValueError(f"{command.name} is no command of OMA DM and cannot be sent")


_WRITERS: dict[type, Callable[..., None]] = {
    Add: _write_item_command,
    Replace: _write_item_command,
    Copy: _write_item_command,
    Delete: _write_item_command,
    Get: _write_item_command,
    Exec: _write_exec,
    Alert: _write_alert,
    Atomic: _write_container,
    Sequence: _write_container,
    Results: _write_results,
    Status: _write_status,
    UnknownCommand: _write_unknown,
}
