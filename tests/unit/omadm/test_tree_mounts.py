"""Management objects in the tree: where they can be, open nodes, objects by MOID, a stored tree meeting new code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Command, Format, NodeDef, Source, Value
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from tests.unit.omadm.tree_objects import (
    DEFINITION,
    FULL_ACL,
    MOID,
    SERVER,
    Clock,
    Machines,
    make_tree,
    snapshot,
)

M = "./Machines/m"
NODE = ItemValue(format=Format.NODE)
LAMP = "urn:example:mo:lamp:1.0"
LAMP_DEFINITION = NodeDef(
    "*",
    Format.NODE,
    frozenset({Command.GET, Command.ADD, Command.DELETE, Command.REPLACE}),
    "ZeroOrMore",
    types=(LAMP,),
    children=(
        NodeDef("State", Format.INT, frozenset({Command.GET}), default="30"),
        NodeDef("Switch", Format.NULL, frozenset({Command.EXEC}), types=()),
    ),
)


def refused(action: Callable[..., object], *arguments: object) -> int:
    with pytest.raises(DMError) as caught:
        action(*arguments)
    return int(caught.value.status)


def get(tree: ManagementTree, uri: str) -> ItemValue:
    (result,) = tree.get(SERVER, uri)
    return result.value


# -- open nodes --------------------------------------------------------------------------------------------------------


def test_anything_can_be_stored_below_an_open_node() -> None:
    tree, machines, _ = make_tree()
    tree.add(SERVER, f"{M}/Ext/a", ItemValue("", Format.NODE, "urn:x"))
    tree.add(SERVER, f"{M}/Ext/a/b/c", ItemValue("5", Format.INT))
    tree.add(SERVER, f"{M}/Ext/a/text", ItemValue("x"))
    tree.add(SERVER, f"{M}/Ext/a/octets", ItemValue(b"\x00", Format.BIN, "image/png"))
    assert get(tree, f"{M}/Ext/a?prop=Type").data == "urn:x"
    assert get(tree, f"{M}/Ext/a/b/c") == ItemValue("5", Format.INT, "text/plain")
    assert get(tree, f"{M}/Ext/a/octets") == ItemValue(b"\x00", Format.BIN, "image/png")
    tree.replace(SERVER, f"{M}/Ext/a/b/c", ItemValue("6"))
    tree.replace(SERVER, f"{M}/Ext/a/octets", ItemValue("AQ==", Format.B64))
    assert get(tree, f"{M}/Ext/a/b/c") == ItemValue("6", Format.INT, "text/plain")
    assert get(tree, f"{M}/Ext/a/octets") == ItemValue(b"\x01", Format.BIN, "image/png")
    tree.replace(SERVER, f"{M}/Ext/a/text", ItemValue("true", Format.BOOL, "text/x"))
    assert get(tree, f"{M}/Ext/a/text") == ItemValue("true", Format.BOOL, "text/x")
    assert [change.path[3:] for change in machines.prepared] == [
        ("a",),
        ("a", "b"),
        ("a", "b", "c"),
        ("a", "text"),
        ("a", "octets"),
        ("a", "b", "c"),
        ("a", "octets"),
        ("a", "text"),
    ]
    tree.delete(SERVER, f"{M}/Ext/a/b")
    assert get(tree, f"{M}/Ext/a").data == "octets/text"


def test_unknown_objects_execute_nothing() -> None:
    """A-42: plain storage, Exec 405."""
    tree, machines, _ = make_tree()
    tree.add(SERVER, f"{M}/Ext/run", ItemValue("", Format.NULL))
    assert refused(tree.execute, SERVER, f"{M}/Ext/run") == Status.NOT_ALLOWED
    assert machines.executed == []


@pytest.mark.parametrize(
    ("uri", "value", "status"),
    [
        (f"{M}/Ext/a", ItemValue("x", Format.INT), Status.UNSUPPORTED_FORMAT),
        (f"{M}/Ext/a", ItemValue("x" * 1001), Status.TOO_LARGE),
        (f"{M}/Ext/leaf/below", ItemValue("x"), Status.NOT_ALLOWED),
        (f"{M}/Ext/leaf", ItemValue("x"), Status.ALREADY_EXISTS),
    ],
)
def test_what_is_checked_below_an_open_node(uri: str, value: ItemValue, status: int) -> None:
    tree, _, _ = make_tree()
    tree.add(SERVER, f"{M}/Ext/leaf", ItemValue("x"))
    assert refused(tree.add, SERVER, uri, value) == status


# -- objects by MOID ---------------------------------------------------------------------------------------------------


def lamps_of(tree: ManagementTree) -> list[Machines]:
    made: list[Machines] = []

    def factory(path: Path) -> Machines:
        made.append(Machines(mount=path, moid=LAMP, definition=LAMP_DEFINITION))
        return made[-1]

    tree.offer(LAMP, factory)
    return made


def test_an_interior_node_with_a_known_moid_gets_its_object() -> None:
    """R-144, A-42: by Type, not by name."""
    tree, machines, _ = make_tree()
    made = lamps_of(tree)
    tree.add(SERVER, f"{M}/Ext/whatever", ItemValue("", Format.NODE, LAMP))
    (lamp,) = made
    assert tree.find_mo(LAMP) == (("Machines", "m", "Ext", "whatever"),)
    assert tree.find_mo(MOID) == (("Machines",),)
    assert get(tree, f"{M}/Ext/whatever").data == "State/Switch"
    assert get(tree, f"{M}/Ext/whatever/State").data == "30"
    assert tree.execute(SERVER, f"{M}/Ext/whatever/Switch") == Status.OK
    assert lamp.executed[0].uri == f"{M}/Ext/whatever/Switch"
    assert refused(tree.replace, SERVER, f"{M}/Ext/whatever/State", ItemValue("1")) == Status.NOT_ALLOWED
    assert [change.path[-1] for change in machines.prepared] == ["whatever"]
    assert lamp.prepared == []


def test_the_object_goes_and_comes_back_with_its_node() -> None:
    tree, _, _ = make_tree()
    made = lamps_of(tree)
    tree.add(SERVER, f"{M}/Ext/lamp", ItemValue("", Format.NODE, LAMP))
    before = snapshot(tree)
    with tree.atomic() as atomic:
        tree.delete(SERVER, M)
        assert tree.find_mo(LAMP) == ()
        assert [change.command for change in made[0].prepared] == [Command.DELETE]
        atomic.rollback()
    assert snapshot(tree) == before
    assert tree.execute(SERVER, f"{M}/Ext/lamp/Switch") == Status.OK
    tree.delete(SERVER, f"{M}/Ext/lamp")
    assert tree.find_mo(LAMP) == ()
    with tree.atomic() as atomic:
        tree.add(SERVER, f"{M}/Ext/lamp", ItemValue("", Format.NODE, LAMP))
        atomic.rollback()
    assert tree.find_mo(LAMP) == ()


def test_an_object_inside_can_veto() -> None:
    tree, _, _ = make_tree()
    made = lamps_of(tree)
    tree.add(SERVER, f"{M}/Ext/lamp", ItemValue("", Format.NODE, LAMP))
    made[0].veto["Machines", "m"] = DMError(Status.FORBIDDEN, "the lamp is on")
    before = snapshot(tree)
    assert refused(tree.delete, SERVER, M) == Status.FORBIDDEN
    assert snapshot(tree) == before
    assert tree.find_mo(LAMP) != ()


def test_rename_above_an_object_moves_it() -> None:
    tree, _, _ = make_tree()
    made = lamps_of(tree)
    tree.add(SERVER, f"{M}/Ext/lamp", ItemValue("", Format.NODE, LAMP))
    tree.replace(SERVER, f"{M}?prop=Name", ItemValue("n"))
    assert tree.find_mo(LAMP) == (("Machines", "n", "Ext", "lamp"),)
    tree.execute(SERVER, "./Machines/n/Ext/lamp/Switch")
    assert len(made) == 2
    assert made[1].executed


def test_rename_above_a_fixed_object_is_refused() -> None:
    tree, _, _ = make_tree()
    tree.device_add(("Machines", "m", "Ext", "lamp"))
    tree.mount(Machines(mount=("Machines", "m", "Ext", "lamp"), moid=LAMP, definition=LAMP_DEFINITION))
    assert refused(tree.replace, SERVER, f"{M}?prop=Name", ItemValue("n")) == Status.NOT_ALLOWED
    assert tree.execute(SERVER, f"{M}/Ext/lamp/Switch") == Status.OK


def test_offer_after_the_nodes_are_there() -> None:
    tree, _, _ = make_tree()
    tree.add(SERVER, f"{M}/Ext/deep/lamp", ItemValue("", Format.NODE, LAMP))
    lamps_of(tree)
    assert tree.find_mo(LAMP) == (("Machines", "m", "Ext", "deep", "lamp"),)


# -- mounting ----------------------------------------------------------------------------------------------------------


def test_mount_below_the_root_makes_what_is_between() -> None:
    tree, _, _ = make_tree()
    tree.mount(Machines(mount=("Vendor", "X", "Machines")))
    assert get(tree, ".").data == "Machines/Vendor"
    assert get(tree, "./Vendor").data == "X"
    assert get(tree, "./Vendor/X/Machines").data == "Operations"
    assert refused(tree.delete, SERVER, "./Vendor") == Status.NOT_ALLOWED
    assert refused(tree.add, SERVER, "./Vendor/Y", NODE) == Status.NOT_ALLOWED


def test_mount_where_something_is_mounted_or_nothing_is() -> None:
    tree, _, _ = make_tree()
    with pytest.raises(ValueError, match="another object"):
        tree.mount(Machines())
    with pytest.raises(ValueError, match="does not exist"):
        tree.mount(Machines(mount=("Machines", "none", "Ext", "x")))
    with pytest.raises(ValueError, match="another object"):
        tree.mount(Machines(mount=()))
    assert tree.find_mo(MOID) == (("Machines",),)


def test_unmounted_object_serves_no_more() -> None:
    tree, _, _ = make_tree()
    tree.unmount(("Machines",))
    assert tree.find_mo(MOID) == ()
    assert get(tree, ".").data == ""
    assert refused(tree.get, SERVER, M) == Status.NOT_FOUND


def test_new_definition_meets_an_old_store() -> None:
    """New children with occurrence One appear in every instance, what is not defined any more goes."""
    store = MemoryNodeStore()
    tree, _, _ = make_tree(store)
    tree.add(SERVER, f"{M}/Note", ItemValue("x"))
    machine = DEFINITION.children[0]
    children = tuple(child for child in machine.children if child.name not in ("Note", "Label", "Slots"))
    children += (NodeDef("Colour", default="red"), NodeDef("Slots", Format.CHR, default="none"))
    newer = replace(DEFINITION, children=(replace(machine, children=children), *DEFINITION.children[1:]))
    tree = ManagementTree(store, Clock())
    tree.mount(Machines(definition=replace(newer, types=("urn:new",))))
    assert get(tree, "./Machines?prop=Type").data == "urn:new"
    assert get(tree, M).data == "Colour/Ext/Id/Price/Run/Slots/Stock"
    assert get(tree, f"{M}/Colour").data == "red"
    assert get(tree, f"{M}/Slots") == ItemValue("none", Format.CHR, "text/plain")


def test_restart_mounts_objects_by_moid_again() -> None:
    store = MemoryNodeStore()
    tree, _, _ = make_tree(store)
    lamps_of(tree)
    tree.add(SERVER, f"{M}/Ext/lamp", ItemValue("", Format.NODE, LAMP))
    for order in ("offer first", "mount first"):
        again = ManagementTree(store, Clock())
        if order == "offer first":
            lamps_of(again)
            again.mount(Machines())
        else:
            again.mount(Machines())
            lamps_of(again)
        assert again.find_mo(LAMP) == (("Machines", "m", "Ext", "lamp"),)


# -- the device's side -------------------------------------------------------------------------------------------------


def test_device_side_ignores_rights_but_not_shapes() -> None:
    tree, machines, _ = make_tree()
    tree.device_set_acl((), "Get=nobody")
    tree.device_add(("Machines", "d"), acl="Get=*")
    tree.device_set(("Machines", "d", "Id"), Value("mine"))
    tree.device_set(("Machines", "d", "Note"), Value("made"))
    tree.device_set(("Machines", "e", "Ext", "x"), Value("1", Format.INT))
    assert tree.value(("Machines", "d", "Id")) == "mine"
    assert tree.value(("Machines", "d", "Note")) == "made"
    assert tree.stored_value(("Machines", "d", "Note")) == "made"
    assert tree.children(("Machines",)) == ("Operations", "d", "e", "m")
    assert {change.server_id for change in machines.prepared} == {None}
    assert refused(tree.device_set, ("Machines", "d", "Price"), Value("x", Format.INT)) == Status.UNSUPPORTED_FORMAT
    assert refused(tree.device_set, ("Machines", "d", "Nothing"), Value("x")) == Status.NOT_ALLOWED
    assert refused(tree.device_add, ("Machines", "d")) == Status.ALREADY_EXISTS
    assert refused(lambda: tree.device_add(("Machines", "f"), acl="Get")) == Status.COMMAND_FAILED
    tree.device_delete(("Machines", "d", "Id"))
    tree.device_delete(("Machines", "d"))
    assert refused(tree.device_delete, ("Machines", "d")) == Status.NOT_FOUND


def test_device_side_reads() -> None:
    tree, machines, _ = make_tree()
    machines.stock["m"] = 4
    assert tree.value(("Machines", "m", "Stock")) == "4"
    assert tree.stored_value(("Machines", "m", "Stock")) is None
    assert tree.value(("Machines", "none")) is None
    assert tree.value(("Machines",)) is None
    assert tree.node(("Machines", "none")) is None
    assert tree.children(("Machines", "m", "Price")) == ()
    assert tree.children(("none",)) == ()
    assert tree.exists(("Machines", "m", "Stock"))
    assert not tree.exists(("Machines", "m", "Fault"))


def test_objects_may_write_while_they_prepare() -> None:
    """What an object writes through the device side belongs to the command and is undone with it."""

    class Counting(Machines):
        def prepare(self, change: object) -> None:
            if self.tree is not None and not self.busy:
                self.busy = True
                self.tree.device_set(("Machines", "m", "Id"), Value("counted"))
                self.busy = False

        tree: ManagementTree | None = None
        busy = False

    tree = ManagementTree(MemoryNodeStore(), Clock())
    counting = Counting()
    tree.mount(counting)
    tree.device_set_acl((), FULL_ACL)
    tree.add(SERVER, M, NODE)
    counting.tree = tree
    with tree.atomic() as atomic:
        tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
        assert tree.value(("Machines", "m", "Id")) == "counted"
        assert atomic.rollback() == [True]
    assert tree.value(("Machines", "m", "Id")) == "id-of-m"
    tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
    assert tree.value(("Machines", "m", "Id")) == "counted"


def test_definition_with_live_interior_is_stored() -> None:
    """Only leaves are live: an interior node with source LIVE is an ordinary one."""
    definition = NodeDef(
        "L", Format.NODE, types=(), children=(NodeDef("in", Format.NODE, source=Source.LIVE, types=()),)
    )
    tree = ManagementTree(MemoryNodeStore(), Clock())
    tree.mount(Machines(mount=("L",), definition=definition))
    assert tree.children(("L",)) == ("in",)
