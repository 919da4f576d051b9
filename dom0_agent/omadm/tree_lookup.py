"""Finding nodes: stored and live ones alike, their children, and the ACL that is in force for them."""

from __future__ import annotations

from dom0_agent.omadm.acl import ROOT_DEFAULT, Acl, parse_acl
from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Command
from dom0_agent.omadm.nodestore import NodeStore, StoredNode
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree_places import Place, Places
from dom0_agent.omadm.uri import format_path


class Lookup:
    """Reads the store through the definitions. A live leaf looks like a stored one whose ``data`` was just read."""

    def __init__(self, store: NodeStore, places: Places) -> None:
        self._store = store
        self._places = places
        self._acls: dict[Path, Acl] = {}  #: effective ACLs; dropped as a whole when any ACL or path changes

    def find(self, path: Path) -> tuple[Place, StoredNode] | None:
        """The node with its place, or ``None`` when there is no such node now."""
        place = self._places.resolve(path)
        if place is None:
            return None
        node = self._live(path, place) if place.is_live else self._store.get(path)
        return None if node is None else (place, node)

    def need(self, path: Path) -> tuple[Place, StoredNode]:
        """As :meth:`find`; :class:`DMError` 404."""
        place = self._places.resolve(path)
        if place is not None:  # as in find, which would cost each command one more call
            node = self._live(path, place) if place.is_live else self._store.get(path)
            if node is not None:
                return place, node
        raise DMError(Status.NOT_FOUND, f"{format_path(path)} does not exist")

    def children(self, path: Path, place: Place) -> list[str]:
        """Names of the children there are now, live leaves included."""
        names = list(self._store.children(path))
        if place.mo is None:  # between the root and the objects only what is mounted counts
            return [name for name in names if self._places.resolve((*path, name)) is not None]
        known = set(names)
        for name, child in place.named():
            if child.is_live:
                # A leaf that must be there is not read for its name: reading can mean asking a hypervisor or a guest.
                required = child.definition.occurrence == "One"
                present = required or self._live((*path, name), child) is not None
                if present and name not in known:
                    names.append(name)
                elif not present and name in known:
                    names.remove(name)
        return sorted(names) if len(names) != len(known) else names

    def effective_acl(self, path: Path) -> Acl:
        """Own ACL if there is one, else the nearest ancestor's; never merged (7.4)."""
        acl = self._acls.get(path)
        if acl is None:
            node = self._store.get(path)
            if node is not None and node.acl:
                acl = parse_acl(node.acl)
            else:
                acl = self.effective_acl(path[:-1]) if path else parse_acl(ROOT_DEFAULT)
            if node is not None:  # else not kept: when the node comes, it may bring an ACL of its own
                self._acls[path] = acl
        return acl

    def forget_acls(self) -> None:
        """An ACL or a path changed."""
        self._acls.clear()

    def require(self, server_id: str, command: Command, path: Path) -> None:
        """:class:`DMError` 425 unless the ACL in force at ``path`` grants ``command`` to ``server_id``."""
        if not self.effective_acl(path).grants(command, server_id):
            raise DMError(
                Status.PERMISSION_DENIED, f"the ACL at {format_path(path)} does not grant {command} to {server_id}"
            )

    def _live(self, path: Path, place: Place) -> StoredNode | None:
        parent = self._store.get(path[:-1])
        if parent is None or place.mo is None:
            return None
        value = place.mo.read(path)
        if value is None:
            return None
        record = self._store.get(path)  # only there when the leaf has properties of its own
        if record is not None:
            return record._replace(format=value.format, type=value.type, data=value.data)
        return StoredNode(path, value.format, value.type, value.data, tstamp=parent.tstamp)
