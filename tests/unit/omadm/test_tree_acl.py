"""ACLs on the tree: inheritance, the parent rule, automatic ACLs, the worked example of the specification (7.4)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from dom0_agent.omadm.node import Command, Format, NodeDef, Value
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from tests.unit.omadm.tree_objects import OTHER, SERVER, Machines, make_tree

NODE = ItemValue(format=Format.NODE)
M = "./Machines/m"


def status(action: Callable[..., object], *arguments: object) -> int:
    """200, or why not."""
    try:
        action(*arguments)
    except DMError as error:
        return int(error.status)
    return 200


def own_acl(tree: ManagementTree, uri: str) -> str:
    (result,) = tree.get(SERVER, f"{uri}?prop=ACL")
    return str(result.value.data)


# -- the worked example ------------------------------------------------------------------------------------------------


@pytest.fixture
def example() -> ManagementTree:
    tree = ManagementTree(MemoryNodeStore(), lambda: datetime(2026, 8, 1, tzinfo=UTC))
    every = frozenset(Command)
    for mount in ("NodeA", "NodeB"):
        definition = NodeDef(mount, Format.NODE, every, types=(), open=True)
        tree.mount(Machines(mount=(mount,), definition=definition))
    for path, acl in (
        (("NodeA",), "Get=ServerC&Replace=ServerC"),
        (("NodeB",), "Get=ServerA&Replace=ServerA"),
    ):
        tree.device_set_acl(path, acl)
    tree.device_add(("NodeA", "Node1"), Value("1"), acl="Get=*")
    tree.device_add(("NodeB", "Node3"), acl="Get=ServerB&Replace=ServerB&Delete=ServerB")
    tree.device_add(("NodeB", "Node3", "Node4"), Value("4"))
    tree.device_add(("NodeB", "Node3", "Node5"), Value("5"), acl="Get=ServerA&Replace=ServerA")
    return tree


SERVERS = ("ServerA", "ServerB", "ServerC", "ServerD")


def who(action: Callable[[str], object]) -> str:
    """Letters of the servers that may."""
    return "".join(server[-1] for server in SERVERS if status(action, server) == 200)


def test_worked_example_node1(example: ManagementTree) -> None:
    node1 = "./NodeA/Node1"
    assert who(lambda server: example.get(server, node1)) == "ABCD"
    assert who(lambda server: example.replace(server, node1, ItemValue("x"))) == ""
    assert who(lambda server: example.delete(server, node1)) == ""
    (result,) = example.get("ServerA", f"{node1}?prop=ACL")
    assert result.value.data == "Get=*"
    assert who(lambda server: example.replace(server, f"{node1}?prop=ACL", ItemValue("Get=*"))) == "C"


def test_worked_example_node_b(example: ManagementTree) -> None:
    node3, node4, node5 = "./NodeB/Node3", "./NodeB/Node3/Node4", "./NodeB/Node3/Node5"
    assert who(lambda server: example.get(server, node4)) == "B"
    (result,) = example.get("ServerB", f"{node4}?prop=ACL")
    assert result.value.data == ""
    assert who(lambda server: example.replace(server, node4, ItemValue("x"))) == "B"
    assert who(lambda server: example.replace(server, node5, ItemValue("x"))) == "A"
    assert who(lambda server: example.replace(server, f"{node5}?prop=ACL", ItemValue("Get=ServerA"))) == "B"
    # an interior node's ACL: who has Replace on the node itself or on its parent
    acl = ItemValue("Get=ServerB&Replace=ServerB&Delete=ServerB")
    assert who(lambda server: example.replace(server, f"{node3}?prop=ACL", acl)) == "AB"
    assert who(lambda server: example.add(server, f"./NodeA/{server}", ItemValue("x"))) == ""
    assert who(lambda server: example.delete(server, node3)) == "B"


# -- inheritance -------------------------------------------------------------------------------------------------------


def test_root_default_lets_everybody_add_and_get_only() -> None:
    tree = ManagementTree(MemoryNodeStore(), lambda: datetime(2026, 8, 1, tzinfo=UTC))
    tree.mount(Machines())
    assert own_acl(tree, ".") == "Add=*&Get=*"
    assert status(tree.add, SERVER, M, NODE) == 200
    assert status(tree.replace, OTHER, f"{M}/Price", ItemValue("1")) == Status.PERMISSION_DENIED
    assert status(tree.execute, OTHER, f"{M}/Run") == Status.PERMISSION_DENIED
    assert status(tree.delete, OTHER, M) == Status.PERMISSION_DENIED


def test_own_value_is_never_merged_with_the_inherited_one() -> None:
    tree, _, _ = make_tree()
    tree.device_set_acl(("Machines", "m"), "Get=*")
    assert status(tree.get, SERVER, f"{M}/Price") == 200
    assert status(tree.replace, SERVER, f"{M}/Price", ItemValue("1")) == Status.PERMISSION_DENIED
    tree.device_set_acl(("Machines", "m", "Price"), f"Replace={SERVER}")
    assert status(tree.replace, SERVER, f"{M}/Price", ItemValue("1")) == 200
    assert status(tree.get, SERVER, f"{M}/Price") == Status.PERMISSION_DENIED


def test_emptied_acl_inherits_again() -> None:
    tree, _, _ = make_tree()
    tree.replace(SERVER, f"{M}?prop=ACL", ItemValue(f"Replace={SERVER}"))
    assert status(tree.get, SERVER, f"{M}/Slots") == Status.PERMISSION_DENIED
    tree.replace(SERVER, f"{M}?prop=ACL", ItemValue(""))
    assert status(tree.get, SERVER, f"{M}/Slots") == 200
    assert own_acl(tree, M) == ""


def test_change_is_seen_at_once_deep_below() -> None:
    tree, _, _ = make_tree()
    assert status(tree.get, OTHER, f"{M}/Slots") == 200
    tree.device_set_acl((), f"Get={SERVER}&Replace={SERVER}")
    assert status(tree.get, OTHER, f"{M}/Slots") == Status.PERMISSION_DENIED
    assert status(tree.get, OTHER, f"{M}/Stock") == Status.PERMISSION_DENIED


@pytest.mark.parametrize("gone", ["deleted", "renamed", "rolled back"])
def test_rights_of_a_node_that_went_do_not_come_back_with_its_name(gone: str) -> None:
    tree, _, _ = make_tree()
    new = "./Machines/new"
    tree.device_set_acl(("Machines",), "Add=*&Get=*")
    if gone == "rolled back":
        with tree.atomic():
            tree.add(SERVER, new, NODE)
            assert status(tree.replace, SERVER, f"{new}/Price", ItemValue("1")) == 200
    else:
        tree.add(SERVER, new, NODE)
        assert status(tree.replace, SERVER, f"{new}/Price", ItemValue("1")) == 200
        if gone == "deleted":
            tree.delete(SERVER, new)
        else:
            tree.replace(SERVER, f"{new}?prop=Name", ItemValue("moved"))
            assert status(tree.replace, SERVER, "./Machines/moved/Price", ItemValue("1")) == 200
    tree.add(OTHER, new, NODE)
    assert status(tree.replace, OTHER, f"{new}/Price", ItemValue("2")) == 200
    assert status(tree.replace, SERVER, f"{new}/Price", ItemValue("3")) == Status.PERMISSION_DENIED


def test_live_leaves_take_acls() -> None:
    tree, machines, _ = make_tree()
    tree.replace(SERVER, f"{M}/Stock?prop=ACL", ItemValue(f"Get={OTHER}"))
    machines.stock["m"] = 3
    assert status(tree.get, SERVER, f"{M}/Stock") == Status.PERMISSION_DENIED
    (result,) = tree.get(OTHER, f"{M}/Stock")
    assert result.value.data == "3"


# -- changing ACLs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("acl", ["Get", "Get=&Add=*", "Copy=*", "Get=a b", "nonsense"])
def test_bad_acl_is_500(acl: str) -> None:
    tree, _, _ = make_tree()
    assert status(tree.replace, SERVER, f"{M}?prop=ACL", ItemValue(acl)) == Status.COMMAND_FAILED
    assert own_acl(tree, M) == ""


def test_root_acl() -> None:
    tree, _, _ = make_tree()
    assert status(tree.replace, SERVER, ".?prop=ACL", ItemValue("")) == Status.NOT_ALLOWED
    assert status(tree.replace, SERVER, ".?prop=ACL", ItemValue("Get=*")) == 200
    assert status(tree.replace, SERVER, ".?prop=ACL", ItemValue("Get=*&Add=*")) == Status.PERMISSION_DENIED


# -- the automatic ACL -------------------------------------------------------------------------------------------------


def test_added_interior_node_belongs_to_its_server() -> None:
    """Without Replace on the parent the device grants Add, Delete, Replace; Get and Exec stay as they were."""
    tree, _, _ = make_tree()
    tree.device_set_acl(("Machines",), f"Add=*&Exec={SERVER}&Get=*")
    tree.add(SERVER, "./Machines/new", NODE)
    assert own_acl(tree, "./Machines/new") == f"Add={SERVER}&Delete={SERVER}&Exec={SERVER}&Get=*&Replace={SERVER}"
    assert status(tree.replace, SERVER, "./Machines/new/Price", ItemValue("1")) == 200
    assert status(tree.execute, SERVER, "./Machines/new/Run") == 200
    assert status(tree.replace, OTHER, "./Machines/new/Price", ItemValue("1")) == Status.PERMISSION_DENIED
    assert status(tree.get, OTHER, "./Machines/new/Price") == 200
    assert status(tree.delete, SERVER, "./Machines/new") == 200


def test_a_server_that_no_acl_can_name_gets_no_automatic_acl() -> None:
    """Its id would make an ACL that nobody can parse, or that says something else."""
    tree, _, _ = make_tree()
    tree.device_set_acl(("Machines",), "Add=*&Get=*")
    tree.add("evil&Replace=*", "./Machines/new", NODE)
    assert own_acl(tree, "./Machines/new") == ""
    assert status(tree.replace, OTHER, "./Machines/new/Price", ItemValue("1")) == Status.PERMISSION_DENIED


def test_with_replace_on_the_parent_the_new_node_inherits() -> None:
    tree, _, _ = make_tree()
    tree.add(SERVER, "./Machines/new", NODE)
    assert own_acl(tree, "./Machines/new") == ""


def test_added_leaf_inherits() -> None:
    tree, _, _ = make_tree()
    tree.device_set_acl(("Machines", "m", "Slots"), "Add=*&Get=*")
    tree.add(SERVER, f"{M}/Slots/a", ItemValue("x"))
    assert own_acl(tree, f"{M}/Slots/a") == ""
    assert status(tree.replace, SERVER, f"{M}/Slots/a", ItemValue("y")) == Status.PERMISSION_DENIED


def test_implicit_add_checks_the_nearest_ancestor_that_exists() -> None:
    tree, _, _ = make_tree()
    tree.device_set_acl(("Machines",), f"Add={SERVER}&Get=*")
    assert status(tree.add, OTHER, "./Machines/n/Owners/a", ItemValue("x")) == Status.PERMISSION_DENIED
    assert status(tree.add, SERVER, "./Machines/n/Owners/a", ItemValue("x")) == 200
    assert own_acl(tree, "./Machines/n").startswith(f"Add={SERVER}")
    assert own_acl(tree, "./Machines/n/Owners") == ""


def test_account_that_leaves_is_forgotten_everywhere() -> None:
    tree, _, _ = make_tree()
    tree.device_set_acl(("Machines", "m"), f"Add={SERVER}&Get={SERVER}+{OTHER}&Replace={SERVER}")
    tree.device_set_acl((), f"Add={SERVER}")
    tree.forget_server(SERVER)
    assert own_acl_of(tree, ("Machines", "m")) == f"Get={OTHER}"
    assert own_acl_of(tree, ()) == "Add=*&Get=*"


def own_acl_of(tree: ManagementTree, path: tuple[str, ...]) -> str:
    node = tree.node(path)
    assert node is not None
    return node.acl


def test_who_looked_before_a_node_was_there_does_not_change_its_acl() -> None:
    """7.4: an ACL is in force from the moment that the node has it, also for children added in the same command."""
    tree, _, _ = make_tree()
    tree.device_set_acl((), "Add=*&Get=*")
    with pytest.raises(DMError):
        tree.copy("A", "./Machines/m/Ext/new", "./Machines/m/Ext/other")
    with pytest.raises(DMError):
        tree.get("A", "./Machines/m/Ext/new")
    tree.add("A", "./Machines/m/Ext/new/below", ItemValue(format=Format.NODE))
    assert own_acl(tree, "./Machines/m/Ext/new") == "Add=A&Delete=A&Get=*&Replace=A"
    assert own_acl(tree, "./Machines/m/Ext/new/below") == "", "it inherits what gives its owner everything"
    tree.delete("A", "./Machines/m/Ext/new")
