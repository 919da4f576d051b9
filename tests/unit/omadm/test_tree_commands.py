"""Get, Add, Replace, Delete, Copy and Exec on the tree: their status codes in the order of the checks (4.1, 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dom0_agent.omadm.mo import Change, ExecOutcome
from dom0_agent.omadm.node import Command, Format, Value
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.omadm.tree_writes import TreeLimits
from dom0_agent.omadm.uri import UriLimits
from tests.unit.omadm.tree_objects import FULL_ACL, OTHER, SERVER, Clock, Machines, make_tree

M = "./Machines/m"
NODE = ItemValue(format=Format.NODE)


def refused(action: Callable[..., object], *arguments: object) -> int:
    with pytest.raises(DMError) as caught:
        action(*arguments)
    assert str(caught.value)
    return int(caught.value.status)


def text(tree: ManagementTree, uri: str) -> str | bytes:
    (result,) = tree.get(SERVER, uri)
    assert result.uri == uri
    return result.value.data


# -- Get ---------------------------------------------------------------------------------------------------------------


def test_get_a_leaf() -> None:
    tree, _, _ = make_tree()
    (result,) = tree.get(SERVER, f"{M}/Price")
    assert (result.uri, result.value, result.has_data) == (
        f"{M}/Price",
        ItemValue("0", Format.INT, "text/plain"),
        True,
    )
    assert text(tree, "Machines/m/Price") == "0"


def test_get_an_interior_node_lists_names_encoded() -> None:
    tree, machines, _ = make_tree()
    tree.add(SERVER, "./Machines/a%20b", NODE)
    (result,) = tree.get(SERVER, "./Machines")
    assert result.value == ItemValue("Operations/a%20b/m", Format.NODE, "text/plain")
    assert text(tree, f"{M}/Slots") == ""
    assert text(tree, ".") == "Machines"
    machines.faults["m"] = "jam"
    assert text(tree, M) == "Ext/Fault/Id/Label/Price/Run/Slots/Stock"


def test_live_leaves_exist_when_they_have_a_value() -> None:
    tree, machines, _ = make_tree()
    assert text(tree, f"{M}/Stock") == "0"
    machines.stock["m"] = 5
    assert text(tree, f"{M}/Stock") == "5"
    assert refused(tree.get, SERVER, f"{M}/Fault") == Status.NOT_FOUND
    machines.faults["m"] = "jam"
    assert text(tree, f"{M}/Fault") == "jam"
    assert refused(tree.get, SERVER, "./Machines/none/Stock") == Status.NOT_FOUND


def test_get_of_an_operation() -> None:
    """A-04: Exec-only null nodes 405, with Get an empty value."""
    tree, _, _ = make_tree()
    assert refused(tree.get, SERVER, f"{M}/Run") == Status.NOT_ALLOWED
    (result,) = tree.get(SERVER, "./Machines/Operations/Reset")
    assert result.value == ItemValue("", Format.NULL, "text/plain")


def test_get_what_is_not_there() -> None:
    tree, _, _ = make_tree()
    for uri in ("./Nothing", f"{M}/Nothing", f"{M}/Price/below", "./Machines/n", f"{M}/Note"):
        assert refused(tree.get, SERVER, uri) == Status.NOT_FOUND


# -- Add ---------------------------------------------------------------------------------------------------------------


def test_add_interior_makes_its_automatic_children() -> None:
    """R-101, R-102, A-23: children with occurrence One and stored values, with defaults or the object's values."""
    tree, machines, _ = make_tree()
    tree.add(SERVER, "./Machines/new", NODE)
    assert text(tree, "./Machines/new") == "Ext/Id/Label/Price/Run/Slots/Stock"
    assert text(tree, "./Machines/new/Id") == "id-of-new"
    assert text(tree, "./Machines/new/Label") == "none"
    assert machines.prepared == [Change(Command.ADD, ("Machines", "new"), None, SERVER)]
    assert machines.told == [machines.prepared]


@pytest.mark.parametrize("value", [NODE, ItemValue(), ItemValue(type="text/plain"), ItemValue(format=Format.NODE)])
def test_add_interior_with_or_without_meta(value: ItemValue) -> None:
    tree, _, _ = make_tree()
    tree.add(SERVER, "./Machines/new", value)
    assert text(tree, "./Machines/new?prop=Format") == "node"


def test_add_on_an_untouched_default_sets_it_once() -> None:
    """A-23: the first Add of a server-settable automatic child is a set, later ones 418."""
    tree, machines, _ = make_tree()
    tree.add(SERVER, f"{M}/Label", ItemValue("mine"))
    assert text(tree, f"{M}/Label") == "mine"
    assert machines.prepared == [Change(Command.ADD, ("Machines", "m", "Label"), Value("mine"), SERVER)]
    assert refused(tree.add, SERVER, f"{M}/Label", ItemValue("again")) == Status.ALREADY_EXISTS


def test_add_after_replace_of_a_default_is_418() -> None:
    tree, _, _ = make_tree()
    tree.replace(SERVER, f"{M}/Label", ItemValue("mine"))
    assert refused(tree.add, SERVER, f"{M}/Label", ItemValue("again")) == Status.ALREADY_EXISTS


def test_add_on_other_existing_nodes_is_418() -> None:
    tree, machines, _ = make_tree()
    machines.faults["m"] = "jam"
    for uri in (M, f"{M}/Price", f"{M}/Id", f"{M}/Stock", f"{M}/Fault", "."):
        assert refused(tree.add, SERVER, uri, ItemValue("1")) == Status.ALREADY_EXISTS


def test_reserved_names_are_418_even_for_nobody() -> None:
    """A-24."""
    tree, _, _ = make_tree()
    assert refused(tree.add, SERVER, "./Machines/Operations", NODE) == Status.ALREADY_EXISTS


def test_add_where_no_node_is_defined() -> None:
    tree, _, _ = make_tree()
    assert refused(tree.add, SERVER, f"{M}/Unknown", ItemValue("1")) == Status.NOT_ALLOWED
    assert refused(tree.add, SERVER, "./Elsewhere", NODE) == Status.NOT_ALLOWED
    assert refused(tree.add, SERVER, f"{M}/Unknown/deeper", ItemValue("1")) == Status.NOT_FOUND
    assert refused(tree.add, SERVER, f"{M}/Price/below", ItemValue("1")) == Status.NOT_ALLOWED


def test_add_of_nodes_that_only_the_device_makes() -> None:
    tree, machines, _ = make_tree()
    machines.mount = ("Other",)
    assert refused(tree.add, SERVER, f"{M}/Fault", ItemValue("x")) == Status.NOT_ALLOWED


def test_implicit_add_makes_interior_parents() -> None:
    tree, machines, _ = make_tree()
    tree.add(SERVER, "./Machines/n/Owners/first", ItemValue("Ann"))
    assert text(tree, "./Machines/n/Owners") == "first"
    assert text(tree, "./Machines/n/Id") == "id-of-n"
    assert [change.path for change in machines.prepared] == [
        ("Machines", "n"),
        ("Machines", "n", "Owners"),
        ("Machines", "n", "Owners", "first"),
    ]


def test_implicit_add_of_an_automatic_child_sets_it() -> None:
    """Whether the child was made by itself a moment before, in the same command, makes no difference."""
    tree, _, _ = make_tree()
    tree.add(SERVER, "./Machines/n/Price", ItemValue("7"))
    assert text(tree, "./Machines/n/Price") == "7"
    tree.add(SERVER, "./Machines/o/Slots/a", ItemValue("x"))
    assert text(tree, "./Machines/o/Slots") == "a"
    assert refused(tree.add, SERVER, "./Machines/p/Id", ItemValue("x")) == Status.NOT_ALLOWED
    assert refused(tree.add, SERVER, "./Machines/p/Ext", ItemValue("x")) == Status.UNSUPPORTED_FORMAT


def test_failing_implicit_add_leaves_nothing() -> None:
    tree, machines, _ = make_tree()
    assert refused(tree.add, SERVER, "./Machines/n/Price", ItemValue("x")) == Status.UNSUPPORTED_FORMAT
    assert not tree.exists(("Machines", "n"))
    machines.veto["Machines", "n", "Note"] = DMError(Status.FORBIDDEN, "no")
    assert refused(tree.add, SERVER, "./Machines/n/Note", ItemValue("x")) == Status.FORBIDDEN
    assert not tree.exists(("Machines", "n"))
    assert [change.path for change in machines.undone] == [("Machines", "n"), ("Machines", "n")]
    assert machines.told == []


@pytest.mark.parametrize(
    ("leaf", "value", "status"),
    [
        ("Note", ItemValue("x", Format.INT), Status.UNSUPPORTED_FORMAT),
        ("Note", ItemValue("", Format.NODE), Status.UNSUPPORTED_FORMAT),
        ("Note", ItemValue("x", Format.CHR, "image/png"), Status.UNSUPPORTED_FORMAT),
        ("Note", ItemValue(b"x", Format.BIN), Status.UNSUPPORTED_FORMAT),
        ("Note", ItemValue("x" * 65537), Status.TOO_LARGE),
        ("Secret", ItemValue("no base64!", Format.B64), Status.UNSUPPORTED_FORMAT),
        ("Owners", ItemValue("x", Format.CHR), Status.UNSUPPORTED_FORMAT),
        ("Owners", ItemValue("x", Format.NODE), Status.UNSUPPORTED_FORMAT),
        ("Owners", ItemValue("", Format.NODE, "urn:other"), Status.UNSUPPORTED_FORMAT),
    ],
)
def test_add_with_a_wrong_value(leaf: str, value: ItemValue, status: int) -> None:
    tree, machines, _ = make_tree()
    assert refused(tree.add, SERVER, f"{M}/{leaf}", value) == status
    assert machines.prepared == []
    assert not tree.exists(("Machines", "m", leaf))


def test_type_is_kept_and_compared_without_case_and_parameters() -> None:
    tree, _, _ = make_tree()
    tree.add(SERVER, f"{M}/Note", ItemValue("<p/>", Format.CHR, "Text/HTML; charset=utf-8"))
    assert text(tree, f"{M}/Note?prop=Type") == "Text/HTML; charset=utf-8"


def test_bin_comes_as_octets_or_base64_and_is_kept_as_octets() -> None:
    tree, _, _ = make_tree()
    tree.add(SERVER, f"{M}/Secret", ItemValue("AP8=", Format.B64))
    assert tree.node(("Machines", "m", "Secret")) is not None
    node = tree.node(("Machines", "m", "Secret"))
    assert node is not None
    assert node.data == b"\x00\xff"
    tree.replace(SERVER, f"{M}/Secret", ItemValue(b"\x01", Format.BIN))
    node = tree.node(("Machines", "m", "Secret"))
    assert node is not None
    assert node.data == b"\x01"


def test_occurrence_limits() -> None:
    tree, _, _ = make_tree()
    for name in "abc":
        tree.add(SERVER, f"{M}/Slots/{name}", ItemValue("x"))
    assert refused(tree.add, SERVER, f"{M}/Slots/d", ItemValue("x")) == Status.DEVICE_FULL
    tree.delete(SERVER, f"{M}/Slots/a")
    tree.add(SERVER, f"{M}/Slots/d", ItemValue("x"))


@pytest.mark.parametrize("capacity", [TreeLimits(nodes=20), TreeLimits(octets=100)])
def test_the_tree_has_a_size_limit(capacity: TreeLimits) -> None:
    """420, and what was deleted makes room again."""
    store = MemoryNodeStore()
    tree = ManagementTree(store, Clock(), capacity=capacity)
    tree.mount(Machines())
    tree.device_set_acl((), FULL_ACL)
    tree.add(SERVER, "./Machines/m", NODE)
    with pytest.raises(DMError) as caught:
        for number in range(30):
            tree.add(SERVER, f"{M}/Ext/{number}", ItemValue("1234567890"))
    assert caught.value.status == Status.DEVICE_FULL
    assert len(store) <= capacity.nodes
    assert store.octets <= capacity.octets
    tree.delete(SERVER, f"{M}/Ext/1")
    tree.add(SERVER, f"{M}/Ext/new", ItemValue("1234567890"))
    if capacity.octets == 100:
        assert refused(tree.replace, SERVER, f"{M}/Label", ItemValue("x" * 90)) == Status.DEVICE_FULL


# -- Replace -----------------------------------------------------------------------------------------------------------


def test_replace() -> None:
    tree, machines, _ = make_tree()
    tree.replace(SERVER, f"{M}/Price", ItemValue("12"))
    assert text(tree, f"{M}/Price") == "12"
    assert machines.prepared == [Change(Command.REPLACE, ("Machines", "m", "Price"), Value("12", Format.INT), SERVER)]
    assert machines.told == [machines.prepared]


@pytest.mark.parametrize(
    ("uri", "value", "status"),
    [
        (f"{M}/Note", ItemValue("x"), Status.NOT_FOUND),
        (M, ItemValue("x"), Status.NOT_ALLOWED),
        (".", ItemValue("x"), Status.NOT_ALLOWED),
        (f"{M}/Id", ItemValue("x"), Status.NOT_ALLOWED),
        (f"{M}/Stock", ItemValue("1"), Status.NOT_ALLOWED),
        (f"{M}/Run", ItemValue(""), Status.NOT_ALLOWED),
        (f"{M}/Price", ItemValue("x"), Status.UNSUPPORTED_FORMAT),
        (f"{M}/Price", ItemValue("1", Format.CHR), Status.UNSUPPORTED_FORMAT),
        (f"{M}/Label", ItemValue("x" * 101), Status.TOO_LARGE),
        (f"{M}/Label", ItemValue("ü" * 51), Status.TOO_LARGE),
        (f"{M}/Label?list=Struct", ItemValue("x"), Status.NOT_ALLOWED),
    ],
)
def test_replace_refused(uri: str, value: ItemValue, status: int) -> None:
    tree, machines, _ = make_tree()
    assert refused(tree.replace, SERVER, uri, value) == status
    assert machines.prepared == []


def test_veto_of_the_object_is_the_status_and_changes_nothing() -> None:
    tree, machines, _ = make_tree()
    machines.veto["Machines", "m", "Price"] = DMError(Status.FORBIDDEN, "the price is fixed today")
    assert refused(tree.replace, SERVER, f"{M}/Price", ItemValue("12")) == Status.FORBIDDEN
    assert text(tree, f"{M}/Price") == "0"


def test_replace_of_a_live_leaf_is_the_objects() -> None:
    tree, machines, _ = make_tree()
    machines.lights["m"] = "false"
    tree.replace(SERVER, f"{M}/Light", ItemValue("true"))
    assert machines.lights == {"m": "true"}
    assert text(tree, f"{M}/Light") == "true"


# -- Delete ------------------------------------------------------------------------------------------------------------


def test_delete_takes_the_whole_subtree() -> None:
    tree, machines, _ = make_tree()
    tree.add(SERVER, f"{M}/Slots/a", ItemValue("x"))
    machines.prepared.clear()
    tree.delete(SERVER, M)
    assert text(tree, "./Machines") == "Operations"
    assert refused(tree.get, SERVER, f"{M}/Slots/a") == Status.NOT_FOUND
    assert machines.prepared == [Change(Command.DELETE, ("Machines", "m"), None, SERVER)]
    tree.add(SERVER, M, NODE)
    assert text(tree, f"{M}/Slots") == ""


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        (".", Status.NOT_ALLOWED),
        ("./Machines", Status.NOT_ALLOWED),
        ("./Machines/Operations", Status.NOT_ALLOWED),
        (f"{M}/Id", Status.NOT_ALLOWED),
        (f"{M}/Note", Status.NOT_FOUND),
        (f"{M}/Stock", Status.NOT_ALLOWED),
        (f"{M}/Price?prop=Title", Status.NOT_ALLOWED),
        (f"{M}/Price?prop=Nonsense", Status.NOT_SUPPORTED),
    ],
)
def test_delete_refused(uri: str, status: int) -> None:
    tree, _, _ = make_tree()
    assert refused(tree.delete, SERVER, uri) == status


def test_the_last_of_one_or_more_stays() -> None:
    tree, _, _ = make_tree()
    tree.add(SERVER, f"{M}/Owners/a", ItemValue("x"))
    assert refused(tree.delete, SERVER, f"{M}/Owners/a") == Status.NOT_ALLOWED
    tree.add(SERVER, f"{M}/Owners/b", ItemValue("x"))
    tree.delete(SERVER, f"{M}/Owners/a")


# -- Copy --------------------------------------------------------------------------------------------------------------


def test_copy_to_a_new_and_to_an_existing_leaf() -> None:
    tree, _, _ = make_tree()
    tree.replace(SERVER, f"{M}/Label", ItemValue("text"))
    tree.copy(SERVER, f"{M}/Label", f"{M}/Slots/a")
    assert text(tree, f"{M}/Slots/a") == "text"
    tree.replace(SERVER, f"{M}/Label", ItemValue("other"))
    tree.copy(SERVER, f"{M}/Label", f"{M}/Slots/a")
    assert text(tree, f"{M}/Slots/a") == "other"


@pytest.mark.parametrize(
    ("source", "target", "status"),
    [
        (f"{M}/Note", f"{M}/Label", Status.NOT_FOUND),
        (M, f"{M}/Label", Status.NOT_ALLOWED),
        (f"{M}/Label", f"{M}/Slots", Status.NOT_ALLOWED),
        (f"{M}/Run", f"{M}/Ext/x", Status.NOT_ALLOWED),
        (f"{M}/Label", f"{M}/Price", Status.UNSUPPORTED_FORMAT),
        (f"{M}/Label", f"{M}/Id", Status.NOT_ALLOWED),
        (f"{M}/Label?prop=Title", f"{M}/Note", Status.NOT_ALLOWED),
    ],
)
def test_copy_refused(source: str, target: str, status: int) -> None:
    tree, _, _ = make_tree()
    assert refused(tree.copy, SERVER, source, target) == status


def test_copy_needs_get_on_the_source_and_add_or_replace_on_the_target() -> None:
    tree, _, _ = make_tree()
    tree.device_set_acl(("Machines", "m", "Label"), f"Get={OTHER}")
    assert refused(tree.copy, SERVER, f"{M}/Label", f"{M}/Slots/a") == Status.PERMISSION_DENIED
    tree.device_set_acl(("Machines", "m", "Label"), f"Get={SERVER}")
    tree.device_set_acl(("Machines", "m", "Slots"), "Get=*&Replace=*")
    assert refused(tree.copy, SERVER, f"{M}/Label", f"{M}/Slots/a") == Status.PERMISSION_DENIED
    tree.device_set_acl(("Machines", "m", "Slots"), "Add=*")
    tree.copy(SERVER, f"{M}/Label", f"{M}/Slots/a")
    assert refused(tree.copy, SERVER, f"{M}/Label", f"{M}/Slots/a") == Status.PERMISSION_DENIED


# -- Exec --------------------------------------------------------------------------------------------------------------


def test_exec_reaches_the_object() -> None:
    tree, machines, _ = make_tree()
    machines.outcome = ExecOutcome(1200)
    assert tree.execute(SERVER, f"{M}/Run", "args", "corr") == 1200
    (request,) = machines.executed
    assert (request.path, request.uri, request.server_id, request.data, request.correlator) == (
        ("Machines", "m", "Run"),
        f"{M}/Run",
        SERVER,
        "args",
        "corr",
    )


def test_exec_names_the_node_with_the_leading_dot() -> None:
    """A-32: alerts about it carry the URI in this form, however the server wrote it."""
    tree, machines, _ = make_tree()
    tree.execute(SERVER, "Machines/m/Run")
    assert machines.executed[0].uri == "./Machines/m/Run"


def test_exec_may_remove_its_subtree() -> None:
    """A-36: 200 although the executed node disappears."""
    tree, machines, _ = make_tree()
    machines.outcome = ExecOutcome(Status.OK, [("Machines", "m")])
    assert tree.execute(SERVER, f"{M}/Run") == Status.OK
    assert not tree.exists(("Machines", "m"))
    assert machines.prepared == []


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        (f"{M}/Price", Status.NOT_ALLOWED),
        (M, Status.NOT_ALLOWED),
        (".", Status.NOT_ALLOWED),
        (f"{M}/None", Status.NOT_FOUND),
        (f"{M}/Run?prop=Name", Status.NOT_ALLOWED),
    ],
)
def test_exec_refused(uri: str, status: int) -> None:
    tree, machines, _ = make_tree()
    assert refused(tree.execute, SERVER, uri) == status
    assert machines.executed == []


# -- the order of checks -----------------------------------------------------------------------------------------------


def test_order_of_checks() -> None:
    """4.1: syntax and limits, property, existence, ACL, access, value, device; each step hides the later ones."""
    tree, machines, _ = make_tree(limits=UriLimits(max_segment_length=20))
    tree.device_set_acl(("Machines", "m"), f"Add={OTHER}")
    price = ("Machines", "m", "Price")
    machines.veto[price] = DMError(Status.DEVICE_FULL, "the device")
    wrong = ItemValue("x", Format.CHR)
    assert refused(tree.replace, SERVER, f"./{'x' * 21}?prop=Nonsense", wrong) == Status.URI_TOO_LONG
    assert refused(tree.replace, SERVER, "./none?prop=Nonsense", wrong) == Status.NOT_SUPPORTED
    assert refused(tree.replace, SERVER, "./none", wrong) == Status.NOT_FOUND
    assert refused(tree.replace, SERVER, f"{M}/Id", wrong) == Status.PERMISSION_DENIED
    tree.device_set_acl(("Machines", "m"), "Add=*&Replace=*")
    assert refused(tree.replace, SERVER, f"{M}/Id", wrong) == Status.NOT_ALLOWED
    assert refused(tree.replace, SERVER, f"{M}/Price", wrong) == Status.UNSUPPORTED_FORMAT
    assert refused(tree.replace, SERVER, f"{M}/Price", replace(wrong, data="1", format=None)) == Status.DEVICE_FULL


def test_order_of_checks_for_add() -> None:
    tree, _, _ = make_tree()
    tree.device_set_acl(("Machines", "m"), f"Add={OTHER}")
    assert refused(tree.add, SERVER, f"{M}/Price", ItemValue("x")) == Status.ALREADY_EXISTS
    assert refused(tree.add, SERVER, f"{M}/Unknown", ItemValue("x")) == Status.PERMISSION_DENIED
    assert refused(tree.add, SERVER, f"{M}/Price/below", ItemValue("x")) == Status.PERMISSION_DENIED
    assert refused(tree.add, OTHER, f"{M}/Unknown", ItemValue("x")) == Status.NOT_ALLOWED
    assert refused(tree.add, OTHER, f"{M}/Price/below", ItemValue("x")) == Status.NOT_ALLOWED
