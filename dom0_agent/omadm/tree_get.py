"""Get in all its forms: value, list of children, property, and the ``?list=`` attributes (digest 6.2)."""

from __future__ import annotations

from collections.abc import Iterator

from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Command, Format
from dom0_agent.omadm.nodestore import StoredNode
from dom0_agent.omadm.properties import known_property
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tnds import XML_TYPE, TndsNode, encode_tnds, selection
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
        attribute = target.list or ""
        properties = selection(attribute)
        if attribute not in _PLAIN_LISTS and properties is None:
            raise DMError(Status.NOT_SUPPORTED, f"?list={attribute} is not supported")
        place, node = self._lookup.need(target.path)
        self._require(server_id, place, target.path)
        if properties is not None:
            document = encode_tnds((self._tnds(server_id, place, node, properties),))
            return (NodeResult(base, ItemValue(document, Format.XML, XML_TYPE)),)
        depth = len(target.path)
        results = []
        for below in self._readable(server_id, place, node):
            uri = "/".join((base, *map(format_name, below.path[depth:])))
            has_data = attribute == "StructData" and not below.is_interior
            data = below.data if has_data and below.data is not None else ""
            results.append(NodeResult(uri, ItemValue(data, below.format, below.type), has_data))
        return tuple(results)

    def _readable(self, server_id: str, place: Place, node: StoredNode) -> Iterator[StoredNode]:
        """The node and all below it that the server may Get, parents first; the others are left out, with no error."""
        pending = [(place, node)]
        while pending:
            place, node = pending.pop()
            if self._may_get(server_id, place, node):
                yield node
            if node.is_interior:
                for name in reversed(self._lookup.children(node.path, place)):
                    found = self._lookup.find((*node.path, name))
                    if found is not None:
                        pending.append(found)

    def _tnds(self, server_id: str, place: Place, node: StoredNode, properties: frozenset[str]) -> TndsNode:
        children = []
        for name in self._lookup.children(node.path, place) if node.is_interior else ():
            child = self._lookup.find((*node.path, name))
            if child is not None and self._may_get(server_id, *child):
                children.append(self._tnds(server_id, *child, properties))
        return TndsNode(
            name=node.path[-1] if node.path else ".",
            format=node.format if "Format" in properties else None,
            type=node.type if "Type" in properties else "",
            value=None if node.is_interior or "Value" not in properties else node.data,
            acl=node.acl if "ACL" in properties else "",
            title=node.title if "Title" in properties else "",
            tstamp=node.tstamp if "TStamp" in properties else "",
            verno=str(node.verno) if "VerNo" in properties else "",
            children=tuple(children),
        )

    def _may_get(self, server_id: str, place: Place, node: StoredNode) -> bool:
        granted = self._lookup.effective_acl(node.path).grants(Command.GET, server_id)
        return granted and Command.GET in place.definition.access

    def _require(self, server_id: str, place: Place, path: Path) -> None:
        self._lookup.require(server_id, Command.GET, path)
        if Command.GET not in place.definition.access:
            raise DMError(Status.NOT_ALLOWED, "Get is not among the node's AccessTypes")


_PLAIN_LISTS = ("Struct", "StructData")
