"""Objects coming and going while the tree lives: mounting, factories for MOIDs below open nodes (R-144, A-42).

A stored tree outlives the program that made it, so mounting also makes the stored nodes fit the definition of today.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from dom0_agent.omadm.mo import Change, ManagementObject, Path
from dom0_agent.omadm.nodestore import NodeStore
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree_automatic import AutomaticChildren
from dom0_agent.omadm.tree_places import Places
from dom0_agent.omadm.tree_work import Write
from dom0_agent.omadm.uri import format_path

logger = logging.getLogger(__name__)


class Mounts:
    """Mounts and unmounts objects, and keeps their nodes in line with their definitions."""

    def __init__(self, store: NodeStore, places: Places, automatic: AutomaticChildren) -> None:
        self._store = store
        self._places = places
        self._automatic = automatic

    def mount(self, write: Write, mo: ManagementObject) -> None:
        """Serve ``mo``: make what its definition demands, drop stored nodes that it does not define any more."""
        self._places.mount(mo)
        write.undos.append(lambda: self._forget(mo.mount))
        for depth in range(1, len(mo.mount)):
            self._need_interior(mo.mount[:depth])
        type_ = mo.definition.types[0] if mo.definition.types else ""
        root = self._store.get(mo.mount)
        if root is None:
            self._store.put(self._automatic.interior(mo.mount, mo.definition, type_))
        elif root.type != type_:
            self._store.put(root._replace(type=type_))
        self._conform(write, mo.mount)

    def unmount(self, path: Path) -> None:
        """Serve the object at ``path`` no more."""
        self._forget(path)

    def offer(self, write: Write, moid: str, factory: Callable[[Path], ManagementObject]) -> None:
        """Mount what ``factory`` makes for each interior node of Type ``moid`` below an open node, now and later."""
        self._places.offer(moid, factory)
        for mo in self._places.mounted():
            self._serve_below(write, mo.mount)

    def appeared(self, write: Write, path: Path) -> None:
        """There is a new interior node: it may want an object."""
        node = self._store.get(path)
        place = self._places.resolve(path)
        if node is None or place is None or not place.free:
            return
        factory = self._places.factory(node.type)
        if factory is not None:
            self.mount(write, factory(path))

    def disappearing(self, write: Write, path: Path, change: Change | None) -> None:
        """The sub-tree goes, or moves: objects inside are asked (``change``) or, when it is done already, told off."""
        for mo in reversed(self._places.mounted_below(path)):
            if change is not None and change.new_name is not None and self._places.factory(mo.moid) is None:
                raise DMError(Status.NOT_ALLOWED, f"{format_path(path)} cannot be renamed: {mo.moid} is mounted inside")
            if change is not None and mo.mount != path:
                write.prepare(mo, change)
            self._forget(mo.mount)
            write.undos.append(lambda mo=mo: self._places.mount(mo))  # type: ignore[misc]

    def _need_interior(self, path: Path) -> None:
        if self._store.get(path) is not None:
            return
        place = self._places.resolve(path)
        if place is None or place.mo is not None:
            raise ValueError(f"nothing can be mounted below {format_path(path)}: it does not exist")
        self._store.put(self._automatic.interior(path, None, ""))

    def _forget(self, path: Path) -> None:
        self._places.unmount(path)

    def _conform(self, write: Write, path: Path) -> None:
        """Drop what has no definition any more, make automatic children that are missing, and look into the rest."""
        for name in self._store.children(path):
            child_path = (*path, name)
            if not self._fits(child_path):
                logger.warning("tree.dropped uri=%s: this version has no such node", format_path(child_path))
                self._store.delete(child_path)
        place = self._places.resolve(path)
        if place is not None:
            self._automatic.populate(path, place)
        for name in self._store.children(path):
            child_path = (*path, name)
            node = self._store.get(child_path)
            if node is not None and node.is_interior:
                self.appeared(write, child_path)
                self._conform(write, child_path)

    def _fits(self, path: Path) -> bool:
        """Whether the stored node is of the format that its definition has."""
        place, node = self._places.resolve(path), self._store.get(path)
        return place is not None and node is not None and (place.free or node.format is place.definition.format)

    def _serve_below(self, write: Write, path: Path) -> None:
        for name in self._store.children(path):
            child_path = (*path, name)
            node = self._store.get(child_path)
            if node is not None and node.is_interior:
                self.appeared(write, child_path)
                self._serve_below(write, child_path)
