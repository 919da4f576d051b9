"""Nodes that the tree makes by itself: the children with occurrence One of a node that appears (R-101, R-113, A-23)."""

from __future__ import annotations

from collections.abc import Callable

from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Format, NodeDef
from dom0_agent.omadm.nodestore import NodeStore, StoredNode
from dom0_agent.omadm.tree_places import Place
from dom0_agent.omadm.tree_values import DEFAULT_TYPE


class AutomaticChildren:
    """Fills sub-trees with what their definition demands. ``now`` gives the TStamp of this moment."""

    def __init__(self, store: NodeStore, now: Callable[[], str]) -> None:
        self._store = store
        self._now = now

    def populate(self, path: Path, place: Place) -> None:
        """Make the missing automatic children of the interior node at ``path``, and theirs; live leaves need none."""
        for name, child in place.named():
            if child.definition.occurrence != "One" or child.is_live:
                continue
            child_path = (*path, name)
            if self._store.get(child_path) is None:
                self._store.put(self._node(child_path, child))
            if child.definition.is_interior:
                self.populate(child_path, child)

    def interior(self, path: Path, definition: NodeDef | None, type_: str) -> StoredNode:
        """An interior node made now."""
        title = "" if definition is None else definition.title
        return StoredNode(path, Format.NODE, type_, title=title, tstamp=self._now())

    def _node(self, path: Path, place: Place) -> StoredNode:
        definition = place.definition
        type_ = definition.types[0] if definition.types else ""
        if definition.is_interior:
            return self.interior(path, definition, type_)
        value = None if place.mo is None else place.mo.initial(path)
        return StoredNode(
            path,
            definition.format,
            type_ or DEFAULT_TYPE,
            _default(definition) if value is None else value.data,
            title=definition.title,
            tstamp=self._now(),
            untouched=value is None and definition.settable_default,
        )


def _default(definition: NodeDef) -> str | bytes:
    return definition.default.encode() if definition.format is Format.BIN else definition.default
