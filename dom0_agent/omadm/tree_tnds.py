"""Whole sub-trees in one command: Add and Replace of a TNDS document, and Get with ``?list=TNDS`` (6.2, 8).

Works by the same writes as single commands, so every node passes the same checks; the first failure fails all. Values
for leaves that belong to the client (no Add, no Replace among their AccessTypes) are ignored (reading A-23), so that
a document that was read can be written back.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Command, Format
from dom0_agent.omadm.nodestore import StoredNode
from dom0_agent.omadm.status import DMError, ProtocolError, Status
from dom0_agent.omadm.tnds import TndsNode, decode_tnds
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.omadm.tree_lookup import Lookup
from dom0_agent.omadm.tree_places import Place, Places
from dom0_agent.omadm.tree_work import Write
from dom0_agent.omadm.tree_writes import Writes
from dom0_agent.omadm.uri import UriLimits, check_path, format_path

_SETTABLE = (Command.ADD, Command.REPLACE)


class TndsWrites:
    """Add and Replace with a TNDS document as value."""

    def __init__(self, places: Places, lookup: Lookup, writes: Writes, limits: UriLimits) -> None:
        self._places = places
        self._lookup = lookup
        self._writes = writes
        self._limits = limits

    def add(self, write: Write, server_id: str | None, target: Path, value: ItemValue) -> None:
        """Add every top-level node of the document below ``target``; each must be new."""
        for node in decode(value):
            parent = (*target, *node.path)
            path = (*parent, node.name or self._free_name(parent))
            if self._lookup.find(path) is not None:
                raise DMError(Status.ALREADY_EXISTS, f"{format_path(path)} is there already")
            self._add(write, server_id, path, node)

    def _free_name(self, parent: Path) -> str:
        """A name for a node that the document leaves unnamed (NodeName empty: the client names it)."""
        number = 1
        while self._lookup.find((*parent, str(number))) is not None:
            number += 1
        return str(number)

    def replace(self, write: Write, server_id: str | None, target: Path, value: ItemValue) -> None:
        """Make the sub-tree at ``target`` equal to the document, whose one top-level node is that node."""
        self._lookup.need(target)
        nodes = decode(value)
        if len(nodes) != 1 or nodes[0].path or nodes[0].name not in ("", *target[-1:]):
            raise DMError(
                Status.UNSUPPORTED_FORMAT,
                f"a TNDS document that replaces {format_path(target)} has that node, and only it, at its top",
            )
        if server_id is not None:
            self._lookup.require(server_id, Command.REPLACE, target)
        self._replace(write, server_id, target, nodes[0])

    def _add(self, write: Write, server_id: str | None, path: Path, node: TndsNode) -> None:
        check_path(path, self._limits)
        found = self._lookup.find(path)
        if found is None:
            if not self._is_clients(path, node):
                self._writes.add(write, server_id, path, item_of(node))
        elif not node.is_interior and not found[1].is_interior:
            self._set_automatic(write, server_id, path, found, node)
        elif node.is_interior != found[1].is_interior:
            raise DMError(Status.UNSUPPORTED_FORMAT, f"{format_path(path)}: leaf and interior node are mixed up")
        for child in node.children:
            self._add(write, server_id, (*path, child.name), child)
        self._set_properties(path, node)

    def _is_clients(self, path: Path, node: TndsNode) -> bool:
        """A leaf that only the client can make, such as one whose live value is not there now."""
        place = self._places.resolve(path)
        return place is not None and not node.is_interior and not place.free and not _settable(place)

    def _set_automatic(
        self, write: Write, server_id: str | None, path: Path, found: tuple[Place, StoredNode], node: TndsNode
    ) -> None:
        """A leaf that came as automatic child of the node added before it."""
        if node.value is not None and (server_id is None or _settable(found[0])):
            self._writes.set_automatic(write, server_id, found, item_of(node))

    def _set_properties(self, path: Path, node: TndsNode) -> None:
        """ACL and Title as the document has them, after the children, which an ACL could forbid to add."""
        if self._lookup.find(path) is not None and (node.acl or node.title):
            self._writes.update(path, acl=node.acl or None, title=node.title or None)

    def _replace(self, write: Write, server_id: str | None, path: Path, node: TndsNode) -> None:
        place, stored = self._lookup.need(path)
        if node.is_interior != stored.is_interior:
            raise DMError(Status.UNSUPPORTED_FORMAT, f"{format_path(path)}: leaf and interior node are mixed up")
        if not stored.is_interior:
            same = node.value == stored.data and node.type in ("", stored.type)
            if node.value is not None and not same and (server_id is None or _settable(place)):
                self._writes.set_value(write, server_id, path, item_of(node))
        else:
            self._replace_children(write, server_id, path, node)
        if (node.acl and node.acl != stored.acl) or (node.title and node.title != stored.title):
            if server_id is not None:
                self._writes.require_acl_right(server_id, path)
            self._set_properties(path, node)

    def _replace_children(self, write: Write, server_id: str | None, path: Path, node: TndsNode) -> None:
        place, _ = self._lookup.need(path)
        wanted = {child.name for child in node.children}
        for name in self._lookup.children(path, place):
            if name not in wanted:
                self._delete_if_servers(write, server_id, (*path, name))
        for child in node.children:
            child_path = (*path, child.name)
            if self._lookup.find(child_path) is None:
                self._add(write, server_id, child_path, child)
            else:
                self._replace(write, server_id, child_path, child)

    def _delete_if_servers(self, write: Write, server_id: str | None, path: Path) -> None:
        """Delete what the document lacks; what only the client can delete stays."""
        place, _ = self._lookup.need(path)
        if Command.DELETE in place.definition.access and not place.is_live:
            self._writes.delete(write, server_id, path)


def item_of(node: TndsNode) -> ItemValue:
    """What an Add or Replace of this node alone would carry."""
    if node.is_interior:
        return ItemValue(format=Format.NODE, type=node.type or None)
    return ItemValue("" if node.value is None else node.value, node.format, node.type or None)


def decode(value: ItemValue) -> Sequence[TndsNode]:
    """The document's nodes; :class:`DMError` 415 when the value is no TNDS document."""
    data = value.data
    try:
        if value.format is Format.B64 and isinstance(data, str):
            data = base64.b64decode("".join(data.split()), validate=True)
        return decode_tnds(data)
    except (ProtocolError, binascii.Error, ValueError) as error:
        raise DMError(Status.UNSUPPORTED_FORMAT, f"not a TNDS document: {error}") from error


def _settable(place: Place) -> bool:
    return not place.definition.access.isdisjoint(_SETTABLE)
