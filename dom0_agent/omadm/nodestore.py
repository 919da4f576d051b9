"""Where the nodes of the tree are kept: the contract, and the implementation in memory.

A store only keeps; it checks nothing and knows no URI, ACL or MO. Changes count from the last :meth:`NodeStore.commit`;
they can be taken back to any savepoint since then. One thread uses a store.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Format


class StoredNode(NamedTuple):
    """One node with its properties. ``data`` is ``None`` for interior nodes and for leaves whose value is live.

    A named tuple, not a dataclass, because each write makes one and a tree keeps thousands.
    """

    path: Path
    format: Format
    type: str = ""
    data: str | bytes | None = None
    acl: str = ""  #: own value; "" inherits
    title: str = ""
    tstamp: str = ""  #: YYYYMMDDThhmmssZ
    verno: int = 0
    untouched: bool = False  #: an automatic child that still has its default (reading A-23)

    @property
    def is_interior(self) -> bool:
        """Interior nodes have children and no value."""
        return self.format is Format.NODE


class NodeStoreError(Exception):
    """The store could not make changes durable; they are still there in memory, to be rolled back."""

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full  #: for want of space


class NodeStore(Protocol):
    """Nodes by path. A node's parent is always there before it and goes after it."""

    def get(self, path: Path) -> StoredNode | None:
        """The node, or ``None``."""

    def children(self, path: Path) -> tuple[str, ...]:
        """Names of the node's children, sorted, so that listings do not depend on history."""

    def count_children(self, path: Path) -> int:
        """How many children the node has, without listing them."""

    def __len__(self) -> int:
        """How many nodes there are."""

    @property
    def octets(self) -> int:
        """About how long all values are together (text counts as ASCII)."""

    def put(self, node: StoredNode) -> None:
        """Insert the node, or replace the one at its path."""

    def delete(self, path: Path) -> None:
        """Delete the node with all below it; nothing happens when it is not there."""

    def rename(self, path: Path, new_name: str) -> None:
        """Change the last segment of the node's path, and with it the paths of all below it."""

    def savepoint(self) -> int:
        """Now, as a mark for :meth:`rollback`."""

    def rollback(self, savepoint: int) -> None:
        """Take back all changes since ``savepoint``."""

    def commit(self) -> None:
        """Make all changes durable; savepoints end. Raises :class:`NodeStoreError`, nothing is durable then."""


class MemoryNodeStore:
    """NodeStore in memory; commit makes nothing durable. Every operation costs only what it touches."""

    def __init__(self) -> None:
        self._nodes: dict[Path, StoredNode] = {}
        self._children: dict[Path, dict[str, None]] = {}
        self._octets = 0
        self._log: list[tuple[Path, StoredNode | None]] = []  #: (path, what was there before), oldest first

    def get(self, path: Path) -> StoredNode | None:
        """See :class:`NodeStore`."""
        return self._nodes.get(path)

    def children(self, path: Path) -> tuple[str, ...]:
        """See :class:`NodeStore`."""
        return tuple(sorted(self._children.get(path, ())))

    def count_children(self, path: Path) -> int:
        """See :class:`NodeStore`."""
        return len(self._children.get(path, ()))

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def octets(self) -> int:
        """See :class:`NodeStore`."""
        return self._octets

    def put(self, node: StoredNode) -> None:
        """See :class:`NodeStore`."""
        path = node.path
        before = self._nodes.get(path)
        self._log.append((path, before))
        self._exchange(path, before, node)

    def delete(self, path: Path) -> None:
        """See :class:`NodeStore`."""
        for node in reversed(list(self._subtree(path))):
            self._log.append((node.path, node))
            self._unset(node.path)

    def rename(self, path: Path, new_name: str) -> None:
        """See :class:`NodeStore`."""
        moved = [self.get(node.path) for node in self._subtree(path)]
        self.delete(path)
        for node in moved:
            if node is not None:
                self.put(node._replace(path=(*path[:-1], new_name, *node.path[len(path) :])))

    def savepoint(self) -> int:
        """See :class:`NodeStore`."""
        return len(self._log)

    def rollback(self, savepoint: int) -> None:
        """See :class:`NodeStore`."""
        while len(self._log) > savepoint:
            path, before = self._log.pop()
            if before is None:
                self._unset(path)
            else:
                self._set(before)

    def commit(self) -> None:
        """See :class:`NodeStore`."""
        self._log.clear()

    def _subtree(self, path: Path) -> Iterator[StoredNode]:
        """The node and all below it, parents first."""
        pending = [path]
        while pending:
            current = pending.pop()
            node = self._nodes.get(current)
            if node is not None:
                yield node
                pending.extend((*current, name) for name in self._children.get(current, ()))

    def _set(self, node: StoredNode) -> None:
        self._exchange(node.path, self._nodes.get(node.path), node)

    def _exchange(self, path: Path, before: StoredNode | None, node: StoredNode) -> None:
        self._nodes[path] = node
        if node.data is not None:
            self._octets += self._weight(node)
        if before is not None:
            if before.data is not None:
                self._octets -= self._weight(before)
        elif path:
            self._children.setdefault(path[:-1], {})[path[-1]] = None

    def _unset(self, path: Path) -> None:
        self._octets -= self._weight(self._nodes.pop(path))
        if not path:
            return
        siblings = self._children[path[:-1]]
        del siblings[path[-1]]
        if not siblings:
            del self._children[path[:-1]]

    def _weight(self, node: StoredNode) -> int:
        """Octets of the node's value."""
        return 0 if node.data is None else len(node.data)
