"""Commands cost the same on a tree of 10 000 nodes as on one of 100: counted in calls, because time is noisy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

import pytest

from dom0_agent.omadm.node import Format
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.store.database import Database
from dom0_agent.store.nodes import SqliteNodeStore
from tests.unit.omadm.tree_objects import SERVER, make_tree

NODE = ItemValue(format=Format.NODE)
M = "./Machines/m"


def roll_back(tree: ManagementTree) -> None:
    with tree.atomic() as atomic:
        tree.replace(SERVER, f"{M}/Price", ItemValue("2"))
        tree.delete(SERVER, M)
        atomic.rollback()


COMMANDS: dict[str, Callable[[ManagementTree], object]] = {
    "get": lambda tree: tree.get(SERVER, f"{M}/Price"),
    "get missing": lambda tree: tree.exists(("Machines", "m", "Note")),
    "get interior": lambda tree: tree.get(SERVER, M),
    "get property": lambda tree: tree.get(SERVER, f"{M}/Price?prop=ACL"),
    "get sub-tree": lambda tree: tree.get(SERVER, f"{M}?list=TNDS"),
    "replace": lambda tree: tree.replace(SERVER, f"{M}/Price", ItemValue("1")),
    "add": lambda tree: tree.add(SERVER, "./Machines/another", NODE),
    "add leaf": lambda tree: tree.add(SERVER, f"{M}/Slots/a", ItemValue("x")),
    "rename": lambda tree: tree.replace(SERVER, "./Machines/another?prop=Name", ItemValue("renamed")),
    "delete": lambda tree: tree.delete(SERVER, "./Machines/renamed"),
    "exec": lambda tree: tree.execute(SERVER, f"{M}/Run"),
    "roll-back": roll_back,
}


def grown(tree: ManagementTree, nodes: int) -> ManagementTree:
    with tree.batch():
        number = 0
        while len(tree._store) < nodes:
            tree.add(SERVER, f"./Machines/x{number}", NODE)
            number += 1
    return tree


def calls(action: Callable[[], object]) -> int:
    """How many functions ``action`` calls, in Python and in C."""
    count = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


@pytest.fixture(scope="module")
def counts() -> dict[int, dict[str, int]]:
    found = {}
    for nodes in (100, 10_000):
        tree = grown(make_tree()[0], nodes)
        tree.get(SERVER, f"{M}?list=TNDS")  # imports what is imported when used
        found[nodes] = {name: calls(partial(command, tree)) for name, command in COMMANDS.items()}
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_do_not_care_how_large_the_tree_is(counts: dict[int, dict[str, int]], command: str) -> None:
    """At most half as many calls again: the caches may hold other things. A scan would make it a hundred times."""
    assert counts[10_000][command] <= 1.5 * counts[100][command]


def test_a_commit_writes_only_what_changed(tmp_path: Path) -> None:
    database = Database(tmp_path / "agent.db")
    tree = grown(make_tree(SqliteNodeStore(database))[0], 2000)
    before = database.connection.total_changes
    tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
    assert database.connection.total_changes - before == 1
    tree.add(SERVER, f"{M}/Slots/a", ItemValue("x"))
    assert database.connection.total_changes - before == 3  # the leaf, and its parent's TStamp and VerNo
    database.close()


def test_memory_store_forgets_what_is_committed() -> None:
    store = MemoryNodeStore()
    tree, _, _ = make_tree(store)
    for _ in range(100):
        tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
    assert store.savepoint() == 0
