"""Get with ?list=Struct and ?list=StructData (6.2)."""

from __future__ import annotations

import pytest

from dom0_agent.omadm.node import Format
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree_access import ItemValue, NodeResult
from tests.unit.omadm.tree_objects import MOID, OTHER, SERVER, make_tree

M = "./Machines/m"


def test_struct_is_the_whole_subtree_without_data() -> None:
    tree, machines, _ = make_tree()
    machines.stock["m"] = 2
    tree.add(SERVER, f"{M}/Slots/a%20b", ItemValue("x"))
    results = tree.get(SERVER, "./Machines?list=Struct")
    assert results[0] == NodeResult("./Machines", ItemValue("", Format.NODE, MOID), has_data=False)
    assert [result.uri for result in results] == [
        "./Machines",
        "./Machines/Operations",
        "./Machines/Operations/Reset",
        "./Machines/m",
        "./Machines/m/Ext",
        "./Machines/m/Id",
        "./Machines/m/Label",
        "./Machines/m/Price",
        "./Machines/m/Slots",
        "./Machines/m/Slots/a%20b",
        "./Machines/m/Stock",
    ]
    assert {result.has_data for result in results} == {False}
    assert results[7].value == ItemValue("", Format.INT, "text/plain")


def test_struct_data_has_the_leaves_values() -> None:
    tree, machines, _ = make_tree()
    machines.stock["m"] = 2
    results = {result.uri: result for result in tree.get(SERVER, "Machines/m?list=StructData")}
    assert results["Machines/m/Stock"] == NodeResult("Machines/m/Stock", ItemValue("2", Format.INT, "text/plain"))
    assert not results["Machines/m"].has_data
    assert not results["Machines/m/Slots"].has_data


def test_list_of_a_leaf_is_the_leaf() -> None:
    tree, _, _ = make_tree()
    assert tree.get(SERVER, f"{M}/Price?list=StructData") == (
        NodeResult(f"{M}/Price", ItemValue("0", Format.INT, "text/plain")),
    )


def test_nodes_that_may_not_be_read_are_left_out() -> None:
    """By ACL or by AccessType (the secret, the Exec-only node), with no error; what is below may still be there."""
    tree, _, _ = make_tree()
    tree.add(SERVER, f"{M}/Secret", ItemValue(b"x", Format.BIN))
    tree.add(SERVER, f"{M}/Slots/a", ItemValue("x"))
    tree.device_set_acl(("Machines", "m", "Label"), f"Get={OTHER}")
    tree.device_set_acl(("Machines", "m", "Slots"), f"Get={OTHER}")
    tree.device_set_acl(("Machines", "m", "Slots", "a"), f"Get={SERVER}")
    assert [result.uri.rpartition("/")[2] for result in tree.get(SERVER, f"{M}?list=Struct")] == [
        "m",
        "Ext",
        "Id",
        "Price",
        "a",
        "Stock",
    ]


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        (f"{M}?list=Nonsense", Status.NOT_SUPPORTED),
        ("./none?list=Nonsense", Status.NOT_SUPPORTED),
        ("./none?list=Struct", Status.NOT_FOUND),
        (f"{M}/Run?list=Struct", Status.NOT_ALLOWED),
    ],
)
def test_list_refused(uri: str, status: int) -> None:
    tree, _, _ = make_tree()
    with pytest.raises(DMError) as caught:
        tree.get(SERVER, uri)
    assert caught.value.status == status


def test_list_needs_get_on_the_addressed_node() -> None:
    tree, _, _ = make_tree()
    tree.device_set_acl(("Machines", "m"), f"Get={OTHER}")
    with pytest.raises(DMError) as caught:
        tree.get(SERVER, f"{M}?list=Struct")
    assert caught.value.status == Status.PERMISSION_DENIED
