"""Messages to elements: the writing half of the SyncML 1.2 content models, in the order of the DTD (digest 1.1).

A codec brings a :class:`Writer` of its syntax. Knows no bytes and no session; reading is in ``element``.
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


class Writer(Protocol):
    """One syntax of SyncML. Calls arrive in document order; ``open`` and ``close`` are balanced."""

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
    w.open("SyncHdr")
    w.leaf("VerDTD", header.ver_dtd)
    w.leaf("VerProto", header.ver_proto)
    w.leaf("SessionID", header.session_id)
    w.leaf("MsgID", str(header.msg_id))
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


def _write_items(w: Writer, items: tuple[Item, ...]) -> None:
    for plain_item in items:
        item = plain_item if plain_item.data is None else w.carry(plain_item)
        w.open("Item")
        if item.target is not None:
            w.location("Target", item.target, item.target_name)
        if item.source is not None:
            w.location("Source", item.source, item.source_name)
        if item.meta is not None:
            w.meta(item.meta)
        if item.data is not None:
            w.data(item.data)
        if item.more_data:
            w.leaf("MoreData", "")
        w.close("Item")


def _write_item_command(w: Writer, command: Add | Replace | Copy | Delete | Get, cmd_id: str) -> None:
    w.open(command.NAME)
    w.leaf("CmdID", cmd_id)
    if command.meta is not None:
        w.meta(command.meta)
    _write_items(w, command.items)
    w.close(command.NAME)


def _write_exec(w: Writer, command: Exec, cmd_id: str) -> None:
    w.open("Exec")
    w.leaf("CmdID", cmd_id)
    if command.meta is not None:
        w.meta(command.meta)
    if command.correlator is not None:
        w.leaf("Correlator", command.correlator)
    _write_items(w, command.items)
    w.close("Exec")


def _write_alert(w: Writer, command: Alert, cmd_id: str) -> None:
    w.open("Alert")
    w.leaf("CmdID", cmd_id)
    if command.code is not None:
        w.leaf("Data", str(command.code))
    if command.correlator is not None:
        w.leaf("Correlator", command.correlator)
    _write_items(w, command.items)
    w.close("Alert")


def _write_container(w: Writer, command: Atomic | Sequence, cmd_id: str) -> None:
    w.open(command.NAME)
    w.leaf("CmdID", cmd_id)
    if command.meta is not None:
        w.meta(command.meta)
    for member in command.commands:
        write_command(w, member, member.cmd_id)
    w.close(command.NAME)


def _write_results(w: Writer, command: Results, cmd_id: str) -> None:
    w.open("Results")
    w.leaf("CmdID", cmd_id)
    if command.msg_ref is not None:
        w.leaf("MsgRef", str(command.msg_ref))
    w.leaf("CmdRef", command.cmd_ref)
    if command.meta is not None:
        w.meta(command.meta)
    if command.target_ref is not None:
        w.leaf("TargetRef", command.target_ref)
    if command.source_ref is not None:
        w.leaf("SourceRef", command.source_ref)
    _write_items(w, command.items)
    w.close("Results")


def _write_status(w: Writer, command: Status, cmd_id: str) -> None:
    w.open("Status")
    w.leaf("CmdID", cmd_id)
    w.leaf("MsgRef", str(command.msg_ref))
    w.leaf("CmdRef", command.cmd_ref)
    w.leaf("Cmd", command.cmd)
    for ref in command.target_refs:
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
