"""Properties through ?prop= and the rename that hides in one of them (7.2)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from dom0_agent.omadm.mo import Change
from dom0_agent.omadm.node import Command, Format, Value
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.omadm.uri import UriLimits
from tests.unit.omadm.tree_objects import MOID, OTHER, SERVER, make_tree

M = "./Machines/m"
NODE = ItemValue(format=Format.NODE)


def prop(tree: ManagementTree, uri: str, name: str) -> str | bytes:
    (result,) = tree.get(SERVER, f"{uri}?prop={name}")
    assert result.uri == f"{uri}?prop={name}"
    assert (result.value.format, result.value.type) == (None, None)
    return result.value.data


def refused(action: Callable[..., object], *arguments: object) -> int:
    with pytest.raises(DMError) as caught:
        action(*arguments)
    return int(caught.value.status)


def test_every_property_of_a_leaf() -> None:
    tree, _, _ = make_tree()
    tree.replace(SERVER, f"{M}/Label", ItemValue("zwölf"))
    names = ("ACL", "Format", "Name", "Size", "Title", "TStamp", "Type", "VerNo")
    assert [prop(tree, f"{M}/Label", name) for name in names] == [
        "",
        "chr",
        "Label",
        "6",
        "",
        "20260801T120000Z",
        "text/plain",
        "1",
    ]


def test_every_property_of_an_interior_node() -> None:
    """7.5: the Type of an object's root is its MOID."""
    tree, _, _ = make_tree()
    assert prop(tree, "./Machines", "Type") == MOID
    assert prop(tree, "./Machines", "Format") == "node"
    assert prop(tree, "./Machines", "Title") == "Machines"
    assert prop(tree, M, "Type") == ""
    assert prop(tree, ".", "Name") == "."
    assert refused(tree.get, SERVER, f"{M}?prop=Size") == Status.NOT_SUPPORTED


def test_properties_of_a_live_leaf() -> None:
    tree, machines, clock = make_tree()
    machines.stock["m"] = 123
    assert prop(tree, f"{M}/Stock", "Format") == "int"
    assert prop(tree, f"{M}/Stock", "Size") == "3"
    tree.replace(SERVER, f"{M}/Stock?prop=Title", ItemValue("what is left"))
    assert prop(tree, f"{M}/Stock", "Title") == "what is left"
    clock.now += timedelta(seconds=1)
    tree.device_changed(("Machines", "m", "Stock"))
    assert prop(tree, f"{M}/Stock", "TStamp") == "20260801T120001Z"
    assert prop(tree, f"{M}/Stock", "VerNo") == "2"
    machines.faults["m"] = "jam"
    tree.replace(SERVER, f"{M}/Fault?prop=Title", ItemValue("t"))
    del machines.faults["m"]
    assert refused(tree.get, SERVER, f"{M}/Fault?prop=Title") == Status.NOT_FOUND
    assert "Fault" not in tree.children(("Machines", "m"))


def test_unknown_property_is_406_before_existence() -> None:
    tree, _, _ = make_tree()
    for uri in (M, "./none"):
        assert refused(tree.get, SERVER, f"{uri}?prop=Color") == Status.NOT_SUPPORTED
        assert refused(tree.replace, SERVER, f"{uri}?prop=Color", ItemValue("x")) == Status.NOT_SUPPORTED


def test_properties_of_a_node_that_cannot_be_read() -> None:
    """AccessType is about the value; a property tells about the node."""
    tree, _, _ = make_tree()
    assert prop(tree, f"{M}/Run", "Format") == "null"
    assert refused(tree.get, SERVER, f"{M}/Run?prop=Size") == Status.NOT_ALLOWED


def test_properties_need_the_acl() -> None:
    tree, _, _ = make_tree()
    tree.device_set_acl(("Machines", "m"), f"Get={OTHER}")
    assert refused(tree.get, SERVER, f"{M}/Price?prop=Format") == Status.PERMISSION_DENIED
    assert refused(tree.replace, SERVER, f"{M}/Price?prop=Title", ItemValue("x")) == Status.PERMISSION_DENIED
    assert refused(tree.replace, SERVER, f"{M}?prop=Name", ItemValue("x")) == Status.PERMISSION_DENIED


@pytest.mark.parametrize("name", ["Format", "Size", "TStamp", "Type", "VerNo"])
def test_read_only_properties(name: str) -> None:
    tree, _, _ = make_tree()
    assert refused(tree.replace, SERVER, f"{M}/Price?prop={name}", ItemValue("x")) == Status.NOT_ALLOWED


def test_properties_take_get_and_replace_only() -> None:
    tree, _, _ = make_tree()
    uri = f"{M}/Price?prop=Title"
    assert refused(tree.add, SERVER, uri, ItemValue("x")) == Status.NOT_ALLOWED
    assert refused(tree.delete, SERVER, uri) == Status.NOT_ALLOWED
    assert refused(tree.execute, SERVER, uri) == Status.NOT_ALLOWED
    assert refused(tree.copy, SERVER, uri, f"{M}/Label") == Status.NOT_ALLOWED
    assert refused(tree.copy, SERVER, f"{M}/Label", uri) == Status.NOT_ALLOWED


def test_title() -> None:
    tree, _, _ = make_tree()
    tree.replace(SERVER, f"{M}?prop=Title", ItemValue("ü" * 127))
    assert prop(tree, M, "Title") == "ü" * 127
    assert refused(tree.replace, SERVER, f"{M}?prop=Title", ItemValue("ü" * 128)) == Status.TOO_LARGE
    assert refused(tree.replace, SERVER, f"{M}?prop=Title", ItemValue(b"x", Format.BIN)) == Status.UNSUPPORTED_FORMAT


def test_tstamp_and_verno_follow_every_change() -> None:
    """A-53: also what the device changes counts; a new or lost child changes its parent."""
    tree, _, clock = make_tree()

    def version(uri: str) -> tuple[str | bytes, str | bytes]:
        return prop(tree, uri, "TStamp"), prop(tree, uri, "VerNo")

    assert version(f"{M}/Price") == ("20260801T120000Z", "0")
    clock.now += timedelta(seconds=1)
    tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
    assert version(f"{M}/Price") == ("20260801T120001Z", "1")
    clock.now += timedelta(seconds=1)
    tree.device_set(("Machines", "m", "Price"), Value("2", Format.INT))
    assert version(f"{M}/Price") == ("20260801T120002Z", "2")
    clock.now += timedelta(seconds=1)
    tree.replace(SERVER, f"{M}/Price?prop=Title", ItemValue("t"))
    assert version(f"{M}/Price") == ("20260801T120003Z", "3")
    assert version(f"{M}/Slots") == ("20260801T120000Z", "0")
    tree.add(SERVER, f"{M}/Slots/a", ItemValue("x"))
    assert version(f"{M}/Slots") == ("20260801T120003Z", "1")
    tree.delete(SERVER, f"{M}/Slots/a")
    assert version(f"{M}/Slots") == ("20260801T120003Z", "2")


def test_verno_wraps_at_16_bits() -> None:
    store = MemoryNodeStore()
    tree, _, _ = make_tree(store)
    node = store.get(("Machines", "m", "Price"))
    assert node is not None
    store.put(node._replace(verno=0xFFFE))
    tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
    assert prop(tree, f"{M}/Price", "VerNo") == "65535"
    tree.replace(SERVER, f"{M}/Price", ItemValue("1"))
    assert prop(tree, f"{M}/Price", "VerNo") == "0"


# -- rename ------------------------------------------------------------------------------------------------------------


def test_rename_moves_the_subtree() -> None:
    tree, machines, _ = make_tree()
    tree.replace(SERVER, f"{M}/Label", ItemValue("mine"))
    tree.replace(SERVER, f"{M}?prop=ACL", ItemValue("Get=*&Replace=*"))
    machines.prepared.clear()
    tree.replace(SERVER, f"{M}?prop=Name", ItemValue("new name"))
    assert machines.prepared == [Change(Command.REPLACE, ("Machines", "m"), None, SERVER, "new name")]
    (result,) = tree.get(SERVER, "./Machines/new%20name/Label")
    assert result.value.data == "mine"
    assert prop(tree, "./Machines/new%20name", "Name") == "new name"
    assert prop(tree, "./Machines/new%20name", "ACL") == "Get=*&Replace=*"
    assert refused(tree.get, SERVER, f"{M}/Label") == Status.NOT_FOUND
    assert tree.children(("Machines",)) == ("Operations", "new name")


@pytest.mark.parametrize(
    ("uri", "name", "status"),
    [
        (M, "other", Status.ALREADY_EXISTS),
        (M, "m", Status.ALREADY_EXISTS),
        (M, "Operations", Status.ALREADY_EXISTS),
        (M, "a/b", Status.NOT_ALLOWED),
        (M, "", Status.NOT_ALLOWED),
        (M, "..", Status.NOT_ALLOWED),
        (M, "x" * 21, Status.URI_TOO_LONG),
        (f"{M}/Price", "Cost", Status.NOT_ALLOWED),
        ("./Machines", "Devices", Status.NOT_ALLOWED),
        (".", "root", Status.NOT_ALLOWED),
        ("./none", "x", Status.NOT_FOUND),
    ],
)
def test_rename_refused(uri: str, name: str, status: int) -> None:
    tree, _, _ = make_tree(limits=UriLimits(max_segment_length=20))
    tree.add(SERVER, "./Machines/other", NODE)
    assert refused(tree.replace, SERVER, f"{uri}?prop=Name", ItemValue(name)) == status
    assert tree.exists(("Machines", "m", "Price"))


def test_vetoed_rename_changes_nothing() -> None:
    tree, machines, _ = make_tree()
    machines.veto["Machines", "m"] = DMError(Status.FORBIDDEN, "in use")
    assert refused(tree.replace, SERVER, f"{M}?prop=Name", ItemValue("n")) == Status.FORBIDDEN
    assert tree.exists(("Machines", "m"))


def test_a_type_has_an_end() -> None:
    """Types are remembered with each answer that carries them: 415 above 255 characters."""
    tree, _, _ = make_tree()
    tree.add(SERVER, f"{M}/Ext/a", ItemValue("1", type="t/" + "x" * 253))
    assert refused(tree.add, SERVER, f"{M}/Ext/b", ItemValue("1", type="t/" + "x" * 254)) == Status.UNSUPPORTED_FORMAT
    node = ItemValue(format=Format.NODE, type="t/" + "x" * 254)
    assert refused(tree.add, SERVER, f"{M}/Ext/c", node) == Status.UNSUPPORTED_FORMAT
