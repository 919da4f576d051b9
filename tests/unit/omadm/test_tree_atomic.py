"""Atomic on the tree: real roll-back, of the store and of what management objects did; batches; failing storage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dom0_agent.omadm.mo import Change
from dom0_agent.omadm.node import Format, Value
from dom0_agent.omadm.nodestore import MemoryNodeStore, NodeStoreError
from dom0_agent.omadm.status import CommitFailed, DMError, Status
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.store.database import Database
from dom0_agent.store.nodes import SqliteNodeStore
from tests.unit.omadm.tree_objects import FULL_ACL, SERVER, Clock, Machines, make_tree, snapshot

M = "./Machines/m"
NODE = ItemValue(format=Format.NODE)


def refused(action: Callable[..., object], *arguments: object) -> int:
    with pytest.raises(DMError) as caught:
        action(*arguments)
    return int(caught.value.status)


def test_commit_makes_all_of_it_durable_and_tells_the_objects_once() -> None:
    tree, machines, _ = make_tree()
    with tree.atomic() as atomic:
        tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
        tree.add(SERVER, "./Machines/n", NODE)
        assert machines.told == []
        atomic.commit()
    assert [[change.path for change in told] for told in machines.told] == [
        [("Machines", "m", "Price"), ("Machines", "n")]
    ]


def test_add_and_replace_of_the_same_node_in_one_atomic() -> None:
    tree, _, _ = make_tree()
    with tree.atomic() as atomic:
        tree.add(SERVER, f"{M}/Note", ItemValue("a"))
        tree.replace(SERVER, f"{M}/Note", ItemValue("b"))
        atomic.commit()
    assert tree.value(("Machines", "m", "Note")) == "b"


def test_rollback_restores_everything() -> None:
    """Every kind of write, and what the objects did for it, last first."""
    tree, machines, _ = make_tree()
    machines.lights["m"] = "false"
    tree.add(SERVER, f"{M}/Slots/a", ItemValue("x"))
    before = snapshot(tree)
    machines.prepared.clear()
    with tree.atomic() as atomic:
        tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
        tree.replace(SERVER, f"{M}/Light", ItemValue("true"))
        tree.add(SERVER, "./Machines/n/Owners/o", ItemValue("x"))
        tree.copy(SERVER, f"{M}/Price", "./Machines/n/Price")
        tree.replace(SERVER, f"{M}?prop=ACL", ItemValue("Get=*&Replace=*&Delete=*"))
        tree.replace(SERVER, f"{M}?prop=Title", ItemValue("t"))
        tree.replace(SERVER, f"{M}?prop=Name", ItemValue("renamed"))
        tree.delete(SERVER, "./Machines/renamed/Slots/a")
        tree.delete(SERVER, "./Machines/renamed")
        assert atomic.rollback() == [True] * 9
    assert snapshot(tree) == before
    assert machines.lights == {"m": "false"}
    assert machines.undone == machines.prepared[::-1]
    assert machines.told[1:] == []


def test_leaving_without_commit_rolls_back() -> None:
    tree, _, _ = make_tree()
    before = snapshot(tree)
    with tree.atomic():
        tree.delete(SERVER, M)
    assert snapshot(tree) == before
    with pytest.raises(KeyboardInterrupt), tree.atomic():
        tree.delete(SERVER, M)
        raise KeyboardInterrupt
    assert snapshot(tree) == before
    tree.replace(SERVER, f"{M}/Price", ItemValue("9"))  # and the tree is as usable as ever
    assert tree.value(("Machines", "m", "Price")) == "9"


def test_undo_that_fails_is_reported_and_the_others_are_still_undone() -> None:
    """516 for the member whose undo failed, 216 for the rest."""
    tree, machines, _ = make_tree()
    before = snapshot(tree)
    machines.broken_undo.add(("Machines", "m", "Label"))
    with tree.atomic() as atomic:
        tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
        tree.replace(SERVER, f"{M}/Label", ItemValue("x"))
        tree.add(SERVER, "./Machines/n", NODE)
        assert atomic.rollback() == [True, False, True]
    assert snapshot(tree) == before
    assert [change.path for change in machines.undone] == [("Machines", "n"), ("Machines", "m", "Price")]


def test_failed_member_is_no_executed_write() -> None:
    tree, machines, _ = make_tree()
    machines.veto["Machines", "m", "Label"] = DMError(Status.FORBIDDEN, "no")
    with tree.atomic() as atomic:
        tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
        assert refused(tree.replace, SERVER, f"{M}/Label", ItemValue("x")) == Status.FORBIDDEN
        assert atomic.rollback() == [True]


def test_nested_atomic_and_exec_are_refused() -> None:
    """6.1, A-51: 500 and 405."""
    tree, machines, _ = make_tree()
    with tree.atomic() as atomic:
        with pytest.raises(DMError) as caught, tree.atomic():
            raise AssertionError("must not be entered")
        assert caught.value.status == Status.COMMAND_FAILED
        assert refused(tree.execute, SERVER, f"{M}/Run") == Status.NOT_ALLOWED
        atomic.commit()
    assert machines.executed == []


class FailingStore(MemoryNodeStore):
    """Fails at commit when told to."""

    failing: NodeStoreError | None = None

    def commit(self) -> None:
        if self.failing is not None:
            raise self.failing
        super().commit()


@pytest.mark.parametrize(("full", "status"), [(True, Status.DEVICE_FULL), (False, Status.DATA_STORE_FAILURE)])
def test_storage_that_fails_at_commit_rolls_back(full: bool, status: int) -> None:
    store = FailingStore()
    tree, machines, _ = make_tree(store)
    before = snapshot(tree)
    store.failing = NodeStoreError("disk", full=full)
    assert refused(tree.replace, SERVER, f"{M}/Price", ItemValue("1")) == status
    with tree.atomic() as atomic:
        tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
        tree.add(SERVER, "./Machines/n", NODE)
        machines.broken_undo.add(("Machines", "n"))
        with pytest.raises(CommitFailed) as caught:
            atomic.commit()
        assert (caught.value.status, caught.value.undone) == (status, (True, False))
    assert snapshot(tree) == before
    assert len(machines.undone) == 2
    assert machines.told == []
    store.failing = None
    tree.replace(SERVER, f"{M}/Price", ItemValue("1"))


def test_objects_that_fail_after_the_commit_do_not_hurt(caplog: pytest.LogCaptureFixture) -> None:
    tree, machines, _ = make_tree()

    machines.deaf = True
    tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
    assert tree.value(("Machines", "m", "Price")) == "1"
    assert "mo.committed failed" in caplog.text


@pytest.mark.parametrize("way", ["plain", "atomic", "batch"])
def test_objects_may_write_when_they_are_told(tmp_path: Path, way: str) -> None:
    """What an object writes through the device side in ``committed`` is durable when the command is."""

    class Counting(Machines):
        tree: ManagementTree | None = None

        def committed(self, changes: Sequence[Change]) -> None:
            if self.tree is not None and changes[0].path[-1] == "Price":
                self.tree.device_set(("Machines", "m", "Label"), Value("told"))

    database = Database(tmp_path / "agent.db")
    tree = ManagementTree(SqliteNodeStore(database), Clock())
    counting = Counting()
    tree.mount(counting)
    tree.device_set_acl((), FULL_ACL)
    tree.add(SERVER, M, NODE)
    counting.tree = tree
    if way == "plain":
        tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
    elif way == "atomic":
        with tree.atomic() as atomic:
            tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
            atomic.commit()
    else:
        with tree.batch():
            tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
    assert (on_disk(database, "Price"), on_disk(database, "Label")) == ("1", "told")
    database.close()


# -- batches -----------------------------------------------------------------------------------------------------------


def test_batch_is_durable_at_its_end_and_commands_fail_alone(tmp_path: Path) -> None:
    database = Database(tmp_path / "agent.db")
    tree, machines, _ = make_tree(SqliteNodeStore(database))
    with tree.batch():
        tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
        assert refused(tree.replace, SERVER, f"{M}/Price", ItemValue("x")) == Status.UNSUPPORTED_FORMAT
        tree.replace(SERVER, f"{M}/Label", ItemValue("y"))
        assert on_disk(database, "Price") == "0"
        assert machines.told == []
    assert (on_disk(database, "Price"), on_disk(database, "Label")) == ("1", "y")
    assert len(machines.told) == 1
    database.close()


def test_exec_and_atomic_in_a_batch_see_durable_nodes(tmp_path: Path) -> None:
    database = Database(tmp_path / "agent.db")
    tree, machines, _ = make_tree(SqliteNodeStore(database))
    with tree.batch():
        tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
        tree.execute(SERVER, f"{M}/Run")
        assert on_disk(database, "Price") == "1"
        assert len(machines.told) == 1
        tree.replace(SERVER, f"{M}/Price", ItemValue("2"))
        with tree.atomic() as atomic:
            assert on_disk(database, "Price") == "2"
            tree.replace(SERVER, f"{M}/Price", ItemValue("3"))
            atomic.rollback()
    assert on_disk(database, "Price") == "2"
    database.close()


def on_disk(database: Database, leaf: str) -> object:
    return database.query("SELECT data FROM node WHERE path = ?", (f"Machines/m/{leaf}",))[0]["data"]


def test_tree_comes_back_from_disk(tmp_path: Path) -> None:
    """Values, ACLs, titles, TStamp, VerNo and "untouched" survive a restart."""
    database = Database(tmp_path / "agent.db")
    tree, _, _ = make_tree(SqliteNodeStore(database))
    tree.replace(SERVER, f"{M}/Price", ItemValue("7"))
    tree.replace(SERVER, f"{M}?prop=ACL", ItemValue("Get=*&Add=*&Replace=*"))
    tree.add(SERVER, f"{M}/Slots/a", ItemValue("x"))
    before = snapshot(tree)
    database.close()
    database = Database(tmp_path / "agent.db")
    again = ManagementTree(SqliteNodeStore(database), Clock())
    again.mount(Machines())
    assert snapshot(again) == before
    again.add(SERVER, f"{M}/Label", ItemValue("first"))
    database.close()


_WRITER = """
import sys
from pathlib import Path
from dom0_agent.omadm.mo import Change
from dom0_agent.omadm.node import Format, Value
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.store.database import Database
from dom0_agent.store.nodes import SqliteNodeStore
from tests.unit.omadm.tree_objects import FULL_ACL, SERVER, Clock, Machines
tree = ManagementTree(SqliteNodeStore(Database(Path(sys.argv[1]))), Clock())
tree.mount(Machines())
tree.device_set_acl((), FULL_ACL)
for name in "ab":
    tree.add(SERVER, f"./Machines/{name}", ItemValue(format=Format.NODE))
for count in range(1000000):
    with tree.atomic() as atomic:
        for name in "ab":
            tree.replace(SERVER, f"./Machines/{name}/Price", ItemValue(str(count)))
            tree.replace(SERVER, f"./Machines/{name}?prop=Title", ItemValue(str(count)))
        tree.add(SERVER, f"./Machines/{count}", ItemValue(format=Format.NODE))
        if count:
            tree.delete(SERVER, f"./Machines/{count - 1}")
        if count % 3:
            atomic.commit()
            print(count, flush=True)
    if not count % 3:
        tree.add(SERVER, f"./Machines/{count}", ItemValue(format=Format.NODE))
        if count:
            tree.delete(SERVER, f"./Machines/{count - 1}")
"""


def test_killed_at_any_moment_an_atomic_is_there_wholly_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    arguments = [sys.executable, "-c", _WRITER, str(path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout is not None
        reported = 0
        while reported < 20:
            reported = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        for line in process.stdout:
            reported = int(line) if line.endswith("\n") else reported
    database = Database(path)
    tree = ManagementTree(SqliteNodeStore(database), Clock())
    tree.mount(Machines())
    prices = {tree.value(("Machines", name, "Price")) for name in "ab"}
    assert len(prices) == 1
    (price,) = prices
    assert price is not None
    for name in "ab":
        node = tree.node(("Machines", name))
        assert node is not None
        assert node.title == price
    assert reported <= int(price) <= reported + 2
    database.close()
