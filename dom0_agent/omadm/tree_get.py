"""Get in all its forms: value, list of children, property, and the ``?list=`` attributes (digest 6.2)."""

from __future__ import annotations

from collections.abc import Iterator

from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Command, Format
from dom0_agent.omadm.nodestore import StoredNode
from dom0_agent.omadm.properties import known_property
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree_access import ItemValue, NodeResult
from dom0_agent.omadm.tree_lookup import Lookup
from dom0_agent.omadm.tree_places import Place
from dom0_agent.omadm.tree_values import DEFAULT_TYPE
from dom0_agent.omadm.uri import DmUri, format_name


class Reader:
    """Answers Get for a server; changes nothing."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def get(self, server_id: str, target: DmUri, uri: str) -> tuple[NodeResult, ...]:
        """The Results for ``target``; ``uri`` is how the server wrote it. Checks 2 to 5 of section 4.1."""
        if target.prop is not None:
            return (NodeResult(uri, ItemValue(self._property(server_id, target.path, target.prop))),)
        if target.list is not None:
            return self._list(server_id, target, uri.partition("?")[0])
        place, node = self._lookup.need(target.path)
        self._require(server_id, place, target.path)
        return (NodeResult(uri, self._value(place, node)),)

    def _value(self, place: Place, node: StoredNode) -> ItemValue:
        if node.is_interior:
            names = self._lookup.children(node.path, place)
            return ItemValue("/".join(map(format_name, names)), Format.NODE, DEFAULT_TYPE)
        return ItemValue("" if node.data is None else node.data, node.format, node.type)

    def _property(self, server_id: str, path: Path, name: str) -> str:
        wanted = known_property(name)
        place, node = self._lookup.need(path)
        self._lookup.require(server_id, Command.GET, path)
        if wanted.leaf_only and node.is_interior:
            raise DMError(Status.NOT_SUPPORTED, f"an interior node has no {name}")
        if wanted.leaf_only and Command.GET not in place.definition.access:
            raise DMError(Status.NOT_ALLOWED, f"{name} tells about a value that must not be read")
        return wanted.read(node)

    def _list(self, server_id: str, target: DmUri, base: str) -> tuple[NodeResult, ...]:
        with_data = _LIST_HAS_DATA.get(target.list or "")
        if with_data is None:
            raise DMError(Status.NOT_SUPPORTED, f"?list={target.list} is not supported")
        place, node = self._lookup.need(target.path)
        self._require(server_id, place, target.path)
        depth = len(target.path)
        results = []
        for below in self.readable(server_id, place, node):
            uri = "/".join((base, *map(format_name, below.path[depth:])))
            has_data = with_data and not below.is_interior
            data = below.data if has_data and below.data is not None else ""
            results.append(NodeResult(uri, ItemValue(data, below.format, below.type), has_data))
        return tuple(results)

    def readable(self, server_id: str, place: Place, node: StoredNode) -> Iterator[StoredNode]:
        """The node and all below it that the server may Get, parents first; the others are left out, with no error."""
        pending = [(place, node)]
        while pending:
            place, node = pending.pop()
            may_get = self._lookup.effective_acl(node.path).grants(Command.GET, server_id)
            if may_get and Command.GET in place.definition.access:
                yield node
            if node.is_interior:
                for name in reversed(self._lookup.children(node.path, place)):
                    found = self._lookup.find((*node.path, name))
                    if found is not None:
                        pending.append(found)

    def _require(self, server_id: str, place: Place, path: Path) -> None:
        self._lookup.require(server_id, Command.GET, path)
        if Command.GET not in place.definition.access:
            raise DMError(Status.NOT_ALLOWED, "Get is not among the node's AccessTypes")


_LIST_HAS_DATA = {"Struct": False, "StructData": True}
