"""Nodes on disk: the same as in memory, durable at commit, whole values also when large, sound after SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0_agent.omadm.node import Format
from dom0_agent.omadm.nodestore import NodeStore, NodeStoreError, StoredNode
from dom0_agent.store.database import Database
from dom0_agent.store.nodes import LARGE, SqliteNodeStore

NODES = (
    StoredNode((), Format.NODE, acl="Add=*&Get=*", tstamp="20260801T120000Z"),
    StoredNode(("A",), Format.NODE, "urn:x", title="ü", verno=7),
    StoredNode(("A", "text"), Format.CHR, "text/plain", "ä\n&<", untouched=True),
    StoredNode(("A", "octets"), Format.BIN, "", b"\x00\xff"),
    StoredNode(("A", "empty"), Format.CHR, "text/plain", ""),
    StoredNode(("A", "large"), Format.CHR, "text/plain", "x" * (LARGE + 1)),
    StoredNode(("A", "large octets"), Format.BIN, "", b"y" * (LARGE * 2)),
    StoredNode(("A", "live"), Format.INT, "text/plain", None, title="t"),
    StoredNode(("A", "in"), Format.NODE),
    StoredNode(("A", "in", "deep"), Format.CHR, "", "1"),
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "agent.db")
    yield database
    database.close()


def content(store: NodeStore, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], StoredNode | None]:
    found = {path: store.get(path)}
    for name in store.children(path):
        found.update(content(store, (*path, name)))
    return found


def filled(database: Database) -> SqliteNodeStore:
    store = SqliteNodeStore(database)
    for node in NODES:
        store.put(node)
    store.commit()
    return store


def test_everything_comes_back(database: Database) -> None:
    store = filled(database)
    wanted = {node.path: node for node in NODES}
    assert content(store) == wanted
    assert content(SqliteNodeStore(database)) == wanted
    assert len(store) == len(NODES)
    octets = sum(len(node.data) for node in NODES if node.data is not None)
    assert store.octets == octets
    assert abs(SqliteNodeStore(database).octets - octets) <= 2  # characters in memory, octets on disk


def test_uncommitted_changes_are_not_on_disk(database: Database) -> None:
    store = filled(database)
    store.put(StoredNode(("B",), Format.NODE))
    assert SqliteNodeStore(database).get(("B",)) is None


def test_rollback_to_savepoints(database: Database) -> None:
    store = filled(database)
    before, octets = content(store), store.octets
    start = store.savepoint()
    store.delete(("A", "large"))
    middle = store.savepoint()
    after_first = content(store)
    store.rename(("A",), "Z")
    store.delete(("Z", "in"))
    store.put(StoredNode(("Z", "new"), Format.CHR, "", "v"))
    store.rollback(middle)
    assert content(store) == after_first
    store.rollback(start)
    assert content(store) == before
    assert store.octets == octets
    store.commit()
    assert content(SqliteNodeStore(database)) == before


def test_rename_moves_large_values_too(database: Database) -> None:
    store = filled(database)
    store.rename(("A",), "Z")
    store.commit()
    wanted = {(("Z", *path[1:]) if path else path): node.data for path, node in ((node.path, node) for node in NODES)}
    again = SqliteNodeStore(database)
    assert {path: node.data for path, node in content(again).items() if node is not None} == wanted


def test_large_values_stay_on_disk(database: Database) -> None:
    filled(database)
    store = SqliteNodeStore(database)
    assert not store._nodes["A", "large octets"].data
    node = store.get(("A", "large octets"))
    assert node is not None
    assert node.data == b"y" * (LARGE * 2)


def test_delete_of_a_subtree_reaches_the_disk(database: Database) -> None:
    store = filled(database)
    store.delete(("A", "in"))
    store.commit()
    again = SqliteNodeStore(database)
    assert again.get(("A", "in", "deep")) is None
    assert again.children(("A",)) == ("empty", "large", "large octets", "live", "octets", "text")


def test_failed_commit_can_be_rolled_back(database: Database) -> None:
    store = filled(database)
    before = content(store)
    pages = database.query("PRAGMA page_count")[0][0]
    database.query(f"PRAGMA max_page_count={pages}")
    start = store.savepoint()
    store.put(StoredNode(("A", "more"), Format.BIN, "", bytes(100 * 4096)))
    with pytest.raises(NodeStoreError) as caught:
        store.commit()
    assert caught.value.full
    store.rollback(start)
    assert content(store) == before
    database.query("PRAGMA max_page_count=1000000")
    assert content(SqliteNodeStore(database)) == before


_WRITER = """
import sys
from pathlib import Path
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.nodestore import StoredNode
from dom0_agent.store.database import Database
from dom0_agent.store.nodes import SqliteNodeStore
store = SqliteNodeStore(Database(Path(sys.argv[1])))
store.put(StoredNode((), Format.NODE))
for count in range(100000):
    for leaf in range(5):
        store.put(StoredNode((f"leaf{leaf}",), Format.INT, "text/plain", str(count)))
    store.commit()
    print(count, flush=True)
"""


def test_sigkill_loses_nothing_committed_and_leaves_nothing_half(tmp_path: Path) -> None:
    """A session's changes survive a kill, transaction by transaction."""
    path = tmp_path / "agent.db"
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reported = 0
        while reported < 25:
            reported = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        for line in process.stdout:
            reported = int(line) if line.endswith("\n") else reported
    database = Database(path)
    store = SqliteNodeStore(database)
    values = {node.data for node in content(store).values() if node is not None and node.path}
    assert len(values) == 1
    assert reported <= int(str(values.pop())) <= reported + 1
    database.close()
