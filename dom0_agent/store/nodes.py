"""The management tree's nodes in SQLite, behind the same contract as in memory.

All nodes are also held in memory, so reads never touch the disk and a Get costs the same on a tree of ten thousand
nodes; only values above ``LARGE`` octets stay on disk until they are asked for. Changes are collected and written in
one short transaction by ``commit``: other threads are never kept waiting by an Atomic that takes its time.
"""

from __future__ import annotations

import sqlite3

from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.nodestore import MemoryNodeStore, NodeStoreError, StoredNode
from dom0_agent.store.database import Database, StoreError

#: Octets above which a value is left on disk: configuration is far below, firmware packages are far above.
LARGE = 4096


class _OnDisk(str):
    """Stands in memory for a value that is on disk; ``octets`` is how long that is."""

    octets: int


def _on_disk(octets: int) -> _OnDisk:
    stand_in = _OnDisk()
    stand_in.octets = octets
    return stand_in


class SqliteNodeStore(MemoryNodeStore):
    """NodeStore whose commits are durable; a session's changes survive SIGKILL and a power cut."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        for row in database.query(_LOAD, (LARGE,)):
            self._set(_from_row(row))

    def get(self, path: Path) -> StoredNode | None:
        """See ``NodeStore``."""
        node = self._nodes.get(path)
        if node is not None and isinstance(node.data, _OnDisk):
            row = self._database.query("SELECT data FROM node WHERE path = ?", ("/".join(path),))[0]
            return node._replace(data=row["data"])
        return node

    def commit(self) -> None:
        """See ``NodeStore``."""
        changed = {path for path, _ in self._log}
        if not changed:
            return
        gone = [("/".join(path),) for path in changed if path not in self._nodes]
        kept = [node for node in map(self._nodes.get, changed) if node is not None]
        try:
            with self._database.transaction() as connection:
                connection.executemany("DELETE FROM node WHERE path = ?", gone)
                connection.executemany(_PUT, map(_to_row, kept))
        except (sqlite3.Error, StoreError) as error:
            raise NodeStoreError(str(error), full=_is_full(error)) from error
        super().commit()
        for node in kept:
            if node.data is not None and len(node.data) > LARGE:
                self._set(node._replace(data=_on_disk(len(node.data))))

    def _weight(self, node: StoredNode) -> int:
        return node.data.octets if isinstance(node.data, _OnDisk) else super()._weight(node)


_LOAD = (
    "SELECT path, format, type, acl, title, tstamp, verno, untouched, "
    "coalesce(length(CAST(data AS BLOB)), 0) AS octets, "
    "CASE WHEN length(CAST(data AS BLOB)) > ? THEN NULL ELSE data END AS data FROM node"
)
_PUT = (
    "INSERT INTO node (path, format, type, data, acl, title, tstamp, verno, untouched) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET format = excluded.format, "
    "type = excluded.type, data = excluded.data, acl = excluded.acl, title = excluded.title, "
    "tstamp = excluded.tstamp, verno = excluded.verno, untouched = excluded.untouched"
)


def _to_row(node: StoredNode) -> tuple[object, ...]:
    return (
        "/".join(node.path),
        node.format.value,
        node.type,
        node.data,
        node.acl,
        node.title,
        node.tstamp,
        node.verno,
        int(node.untouched),
    )


def _from_row(row: sqlite3.Row) -> StoredNode:
    return StoredNode(
        path=tuple(row["path"].split("/")) if row["path"] else (),
        format=Format(row["format"]),
        type=row["type"],
        data=_on_disk(row["octets"]) if row["octets"] > LARGE else row["data"],
        acl=row["acl"],
        title=row["title"],
        tstamp=row["tstamp"],
        verno=row["verno"],
        untouched=bool(row["untouched"]),
    )


def _is_full(error: Exception) -> bool:
    cause = error if isinstance(error, sqlite3.Error) else error.__cause__
    return isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
