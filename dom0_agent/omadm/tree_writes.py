"""The writes a tree can do: add, set, delete, rename. Each does the checks from existence on (steps 3 to 7 of 4.1).

``server_id`` is ``None`` when the device itself writes: then ACL, AccessType and Scope do not count, the shape does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dom0_agent.omadm.acl import AclSyntaxError, automatic_acl, is_server_id, parse_acl
from dom0_agent.omadm.mo import Change, Path
from dom0_agent.omadm.node import Command, Format, NodeDef, Scope, Value
from dom0_agent.omadm.nodestore import NodeStore, StoredNode
from dom0_agent.omadm.properties import check_title
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.omadm.tree_automatic import AutomaticChildren
from dom0_agent.omadm.tree_lookup import Lookup
from dom0_agent.omadm.tree_mounts import Mounts
from dom0_agent.omadm.tree_places import Place, Places
from dom0_agent.omadm.tree_values import interior_type, leaf_value, wants_interior
from dom0_agent.omadm.tree_work import Write
from dom0_agent.omadm.uri import format_path

_VERNO_MODULUS = 1 << 16


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """What a tree may hold, so that no server can fill the device: 420 beyond.

    The defaults are ten times what a busy device needs: about 10 MB of memory for the nodes, as values above 4 KiB stay
    on disk.
    """

    nodes: int = 20_000
    octets: int = 64 << 20  #: of all values together


class Writes:
    """Add, set, delete and rename, on the store and the objects."""

    def __init__(
        self,
        store: NodeStore,
        places: Places,
        lookup: Lookup,
        mounts: Mounts,
        automatic: AutomaticChildren,
        *,
        now: Callable[[], str],
        limits: TreeLimits,
    ) -> None:
        """``now`` gives the TStamp of this moment."""
        self._store = store
        self._places = places
        self._lookup = lookup
        self._mounts = mounts
        self._automatic = automatic
        self._now = now
        self._limits = limits

    def add(self, write: Write, server_id: str | None, path: Path, value: ItemValue, acl: str = "") -> None:
        """Add a leaf or interior node, missing interior parents too (implicit Add, section 6)."""
        found = self._lookup.find(path)
        if found is not None:
            self._add_to_default(write, server_id, path, found, value)
            return
        anchor = self._anchor(path)
        parent_place = self._places.resolve(path[:-1])
        if parent_place is not None and parent_place.reserves(path[-1]):
            raise DMError(Status.ALREADY_EXISTS, f"{format_path(path)}: the name is reserved (A-24)")
        if server_id is not None:
            self._lookup.require(server_id, Command.ADD, anchor)
        anchor_node = self._store.get(anchor)
        if anchor_node is not None and not anchor_node.is_interior:
            raise DMError(Status.NOT_ALLOWED, f"{format_path(anchor)} is a leaf: nothing can be added below it")
        for depth in range(len(anchor) + 1, len(path)):
            if self._store.get(path[:depth]) is None:  # else it came as automatic child of the one before
                self._add_one(write, server_id, path[:depth], ItemValue(format=Format.NODE), undefined=Status.NOT_FOUND)
        made = self._lookup.find(path)
        if made is None:
            self._add_one(write, server_id, path, value, undefined=Status.NOT_ALLOWED, acl=acl)
            return
        self._check_access(server_id, made[0].definition, Command.ADD, path)
        if wants_interior(made[0], value):
            interior_type(made[0], value, path)
        else:
            self._set(write, server_id, Command.ADD, made, value)

    def set_value(self, write: Write, server_id: str | None, path: Path, value: ItemValue) -> None:
        """Replace a leaf's value."""
        place, node = self._lookup.need(path)
        if server_id is not None:
            self._lookup.require(server_id, Command.REPLACE, path)
        if node.format is Format.NODE:
            raise DMError(Status.NOT_ALLOWED, f"{format_path(path)} is an interior node: it has no value to replace")
        self._check_access(server_id, place.definition, Command.REPLACE, path)
        self._set(write, server_id, Command.REPLACE, (place, node), value)

    def set_automatic(
        self, write: Write, server_id: str | None, found: tuple[Place, StoredNode], value: ItemValue
    ) -> None:
        """Set a leaf that came as automatic child in this same command; rights on its parent were checked with it."""
        self._set(write, server_id, Command.ADD, found, value)

    def delete(self, write: Write, server_id: str | None, path: Path) -> None:
        """Delete a node with all below it; only the addressed node's own rights count."""
        place, _ = self._lookup.need(path)
        if server_id is not None:
            self._lookup.require(server_id, Command.DELETE, path)
        if not path:
            raise DMError(Status.NOT_ALLOWED, "the root cannot be deleted")
        if server_id is not None and place.definition.scope is Scope.PERMANENT:
            raise DMError(Status.NOT_ALLOWED, f"{format_path(path)} is permanent")
        self._check_access(server_id, place.definition, Command.DELETE, path)
        if server_id is not None:
            self._check_minimum(place, path)
        change = Change(Command.DELETE, path, None, server_id)
        write.prepare(place.mo, change)
        self.remove(write, path, change)

    def remove(self, write: Write, path: Path, change: Change | None = None) -> None:
        """Take the sub-tree out of the store; its object agreed to ``change``, or did it itself (``None``)."""
        self._mounts.disappearing(write, path, change)
        self._store.delete(path)
        self._lookup.forget_acls()
        self._touch(path[:-1])

    def rename(self, write: Write, server_id: str | None, path: Path, new_name: str) -> None:
        """Replace of the Name property; rights were checked, ``new_name`` is a valid name."""
        place, _ = self._lookup.need(path)
        if not path or place.definition.scope is Scope.PERMANENT or not place.is_unnamed:
            raise DMError(Status.NOT_ALLOWED, f"{format_path(path)} has a fixed name")
        self._check_access(server_id, place.definition, Command.REPLACE, path)
        target = (*path[:-1], new_name)
        parent_place = self._places.resolve(path[:-1])
        if self._lookup.find(target) is not None or (parent_place is not None and parent_place.reserves(new_name)):
            raise DMError(Status.ALREADY_EXISTS, f"{format_path(target)} is there already")
        if self._places.resolve(target) is not place:
            raise DMError(Status.NOT_ALLOWED, f"{format_path(target)} is the place of another node")
        change = Change(Command.REPLACE, path, None, server_id, new_name)
        write.prepare(place.mo, change)
        self._mounts.disappearing(write, path, change)
        self._store.rename(path, new_name)
        self._lookup.forget_acls()
        self.update(target)
        self._touch(path[:-1])
        self._announce(write, target)

    def update(self, path: Path, *, acl: str | None = None, title: str | None = None) -> None:
        """Change properties, and with them TStamp and VerNo; a live leaf gets a record for them.

        :class:`DMError` 500 when ``acl`` is none, 405 when it would leave the root without, 413 a Title too long.
        """
        if acl is not None:
            check_acl(acl, path)
        if title is not None:
            check_title(title)
        _, node = self._lookup.need(path)
        record = self._store.get(path) or node._replace(data=None)
        self._store.put(
            record._replace(
                acl=record.acl if acl is None else acl,
                title=record.title if title is None else title,
                tstamp=self._now(),
                verno=(record.verno + 1) % _VERNO_MODULUS,
            )
        )
        if acl is not None:
            self._lookup.forget_acls()

    def require_acl_right(self, server_id: str, path: Path) -> None:
        """Replace on the node or its parent for an interior node, on the parent for a leaf (7.4); else 425."""
        _, node = self._lookup.need(path)
        if path and self._lookup.effective_acl(path[:-1]).grants(Command.REPLACE, server_id):
            return
        if path and not node.is_interior:
            raise DMError(
                Status.PERMISSION_DENIED,
                f"the ACL of a leaf is changed by who has Replace on {format_path(path[:-1])}",
            )
        self._lookup.require(server_id, Command.REPLACE, path)

    def _add_to_default(
        self,
        write: Write,
        server_id: str | None,
        path: Path,
        found: tuple[Place, StoredNode],
        value: ItemValue,
    ) -> None:
        place, node = found
        if not node.untouched or not place.definition.settable_default:
            raise DMError(Status.ALREADY_EXISTS, f"{format_path(path)} is there already")
        if server_id is not None:
            self._lookup.require(server_id, Command.ADD, path[:-1])
        self._check_access(server_id, place.definition, Command.ADD, path)
        self._set(write, server_id, Command.ADD, found, value)

    def _add_one(
        self, write: Write, server_id: str | None, path: Path, value: ItemValue, *, undefined: Status, acl: str = ""
    ) -> None:
        where = format_path(path)
        place = self._places.resolve(path)
        if place is None:
            raise DMError(undefined, f"{where}: no management object has such a node")
        if server_id is not None and place.definition.scope is Scope.PERMANENT:
            raise DMError(Status.NOT_ALLOWED, f"{where} is permanent: only the device can make it")
        self._check_access(server_id, place.definition, Command.ADD, path)
        self._check_maximum(place, path)
        if wants_interior(place, value):
            node = StoredNode(path, Format.NODE, interior_type(place, value, path))
            stored = None
        elif place.definition.is_interior:
            raise DMError(Status.UNSUPPORTED_FORMAT, f"{where} is an interior node: Format must be node")
        else:
            stored = self._fitting(leaf_value(place, value, path))
            node = StoredNode(path, stored.format, stored.type, stored.data)
        if len(self._store) >= self._limits.nodes:
            raise DMError(Status.DEVICE_FULL, f"{where}: the tree has {len(self._store)} nodes, which is its limit")
        write.prepare(place.mo, Change(Command.ADD, path, stored, server_id))
        parent = path[:-1]
        if not acl and stored is None and server_id is not None:
            acl = self._automatic_acl(server_id, parent, place)
        if not place.is_live:
            self._store.put(node._replace(acl=acl, title=place.definition.title, tstamp=self._now()))
        if stored is None:
            self._automatic.populate(path, place)
            self._mounts.appeared(write, path)
        self._touch(parent)

    def _automatic_acl(self, server_id: str, parent: Path, place: Place) -> str:
        """What 7.4 gives who adds without Replace on the parent; nothing where nodes only come in (the Inbox)."""
        in_force = self._lookup.effective_acl(parent)
        owns = in_force.grants(Command.REPLACE, server_id)
        if owns or Command.GET not in place.definition.access or not is_server_id(server_id):
            return ""
        return str(automatic_acl(server_id, in_force))

    def _set(
        self,
        write: Write,
        server_id: str | None,
        command: Command,
        found: tuple[Place, StoredNode],
        value: ItemValue,
    ) -> None:
        place, node = found
        stored = self._fitting(leaf_value(place, _completed(place, node, value), node.path))
        write.prepare(place.mo, Change(command, node.path, stored, server_id))
        if place.is_live:
            if self._store.get(node.path) is not None:
                self.update(node.path)
            return
        self._store.put(
            StoredNode(
                node.path,
                stored.format,
                stored.type,
                stored.data,
                node.acl,
                node.title,
                self._now(),
                (node.verno + 1) % _VERNO_MODULUS,
            )
        )

    def _fitting(self, value: Value) -> Value:
        """``value``; :class:`DMError` 420 when the tree would hold too much with it."""
        if self._store.octets + len(value.data) > self._limits.octets:
            raise DMError(Status.DEVICE_FULL, f"the tree's values would exceed {self._limits.octets} octets")
        return value

    def _touch(self, path: Path) -> None:
        """An interior node's value is its list of children: it changed."""
        node = self._store.get(path)
        if node is not None:
            self._store.put(node._replace(tstamp=self._now(), verno=(node.verno + 1) % _VERNO_MODULUS))

    def _anchor(self, path: Path) -> Path:
        """The nearest ancestor that exists."""
        for depth in range(len(path) - 1, 0, -1):
            if self._lookup.find(path[:depth]) is not None:
                return path[:depth]
        return ()

    def _announce(self, write: Write, path: Path) -> None:
        """After a move: interior nodes below may have to be served by objects again."""
        node = self._store.get(path)
        if node is not None and node.is_interior:
            self._mounts.appeared(write, path)
            for name in self._store.children(path):
                self._announce(write, (*path, name))

    def _check_access(self, server_id: str | None, definition: NodeDef, command: Command, path: Path) -> None:
        if server_id is not None and command not in definition.access:
            raise DMError(Status.NOT_ALLOWED, f"{format_path(path)}: {command} is not among its AccessTypes")

    def _check_maximum(self, place: Place, path: Path) -> None:
        if place.free or place.definition.name != "*":
            return
        occurrence, _, limit = place.definition.occurrence.partition(":")
        maximum = 1 if occurrence in ("One", "ZeroOrOne") else int(limit) if limit else None
        if maximum is not None and self._unnamed_siblings(path) >= maximum:
            status = Status.DEVICE_FULL if limit else Status.NOT_ALLOWED
            raise DMError(status, f"{format_path(path)}: {maximum} such nodes are allowed, and there")

    def _check_minimum(self, place: Place, path: Path) -> None:
        if place.definition.occurrence.startswith("OneOr") and self._unnamed_siblings(path) <= 1:
            raise DMError(Status.NOT_ALLOWED, f"{format_path(path)} is the last one, and there must be one")

    def _unnamed_siblings(self, path: Path) -> int:
        parent = path[:-1]
        place = self._places.resolve(parent)
        if place is None:
            return 0
        fixed = sum(1 for name, _ in place.named() if self._store.get((*parent, name)) is not None)
        return self._store.count_children(parent) - fixed


def _completed(place: Place, node: StoredNode, value: ItemValue) -> ItemValue:
    """Where Meta is silent the node stays what it is; base64 is how XML carries a bin value."""
    format_ = value.format
    if place.free and (format_ is None or (format_ is Format.B64 and node.format is Format.BIN)):
        format_ = node.format
    elif value.type:
        return value
    return ItemValue(value.data, format_, value.type or node.type)


def check_acl(text: str, path: Path) -> None:
    """:class:`DMError` 500 when ``text`` is no ACL, 405 when the root would have none."""
    if not text and not path:
        raise DMError(Status.NOT_ALLOWED, "the root must have an ACL")
    try:
        parse_acl(text)
    except AclSyntaxError as error:
        raise DMError(Status.COMMAND_FAILED, str(error)) from error
