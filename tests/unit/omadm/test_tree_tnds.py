"""Whole sub-trees in one command: Add, Replace and Get of TNDS documents on the tree (6.2, 8)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

import pytest

from dom0_agent.omadm.mo import Change
from dom0_agent.omadm.node import Command, Format, Value
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tnds import WBXML_TYPE, XML_TYPE, TndsNode, decode_tnds, encode_tnds
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from tests.unit.omadm.ddf_rules import violations
from tests.unit.omadm.tree_objects import OTHER, SERVER, make_tree, snapshot

M = "./Machines/m"


def tnds(*nodes: TndsNode) -> ItemValue:
    return ItemValue(encode_tnds(nodes), Format.XML, XML_TYPE)


def node(name: str, *children: TndsNode, acl: str = "", title: str = "", path: tuple[str, ...] = ()) -> TndsNode:
    return TndsNode(name, Format.NODE, acl=acl, title=title, path=path, children=children)


def leaf(name: str, value: str | bytes, format_: Format = Format.CHR, type_: str = "text/plain") -> TndsNode:
    return TndsNode(name, format_, type_, value)


def refused(action: Callable[..., object], *arguments: object) -> int:
    with pytest.raises(DMError) as caught:
        action(*arguments)
    return int(caught.value.status)


def text(tree: ManagementTree, *path: str) -> str | None:
    return tree.value(("Machines", *path))


# -- Add ---------------------------------------------------------------------------------------------------------------


def test_add_makes_the_whole_subtree_with_its_values() -> None:
    """A-23: values of client-owned leaves are ignored."""
    tree, machines, _ = make_tree()
    document = tnds(
        node(
            "n",
            leaf("Id", "chosen by the server"),
            leaf("Label", "mine"),
            leaf("Price", "12", Format.INT),
            leaf("Stock", "99", Format.INT),
            leaf("Fault", "none"),
            leaf("Note", "new", type_="text/html"),
            leaf("Secret", b"\x00\xff", Format.BIN, "a/b"),
            node("Slots", leaf("a", "1"), leaf("b", "2")),
            node("Ext", node("deep", leaf("x", "true", Format.BOOL, "t/x"))),
            title="the new one",
        )
    )
    tree.add(SERVER, "./Machines", document)
    assert tree.children(("Machines", "n")) == (
        "Ext",
        "Id",
        "Label",
        "Note",
        "Price",
        "Run",
        "Secret",
        "Slots",
        "Stock",
    )
    assert [text(tree, "n", name) for name in ("Id", "Label", "Price", "Stock", "Note")] == [
        "id-of-n",
        "mine",
        "12",
        "0",
        "new",
    ]
    secret, deep, machine = (tree.node(("Machines", "n", *path)) for path in (("Secret",), ("Ext", "deep", "x"), ()))
    assert secret is not None
    assert secret.data == b"\x00\xff"
    assert deep is not None
    assert (deep.data, deep.format, deep.type) == ("true", Format.BOOL, "t/x")
    assert machine is not None
    assert machine.title == "the new one"
    assert machines.prepared[0] == Change(Command.ADD, ("Machines", "n"), None, SERVER)
    assert Change(Command.ADD, ("Machines", "n", "Label"), Value("mine"), SERVER) in machines.prepared
    assert machines.told == [machines.prepared]
    assert refused(tree.add, SERVER, f"{M[:-1]}n/Label", ItemValue("x")) == Status.ALREADY_EXISTS


def test_add_with_path_and_several_tops_and_implicit_parents() -> None:
    tree, _, _ = make_tree()
    tree.add(SERVER, "./Machines/new", tnds(leaf("Note", "x"), TndsNode("y", Format.CHR, "", "1", path=("Ext", "in"))))
    assert text(tree, "new", "Note") == "x"
    assert text(tree, "new", "Ext", "in", "y") == "1"


def test_add_as_wbxml() -> None:
    tree, _, _ = make_tree()
    octets = (
        b"\x02\x00\x00\x6a\x1b-//OMA//DTD-DM-DDF 1.2//EN\x00\x00\x02\x60\x77\x031.2\x00\x01"
        b"\x64\x66\x03Note\x00\x01\x6f\x5c\x0b\x01\x75\x61\x03text/plain\x00\x01\x01\x01\x76\x03hello\x00\x01\x01\x01"
    )
    tree.add(SERVER, M, ItemValue(octets, Format.BIN, WBXML_TYPE))
    assert text(tree, "m", "Note") == "hello"
    tree.delete(SERVER, f"{M}/Note")
    tree.add(SERVER, M, ItemValue(b64encode(octets).decode(), Format.B64, WBXML_TYPE))
    assert text(tree, "m", "Note") == "hello"


@pytest.mark.parametrize(
    ("document", "status"),
    [
        (tnds(node("m")), Status.ALREADY_EXISTS),
        (tnds(node("ok"), node("m")), Status.ALREADY_EXISTS),
        (tnds(node("Operations")), Status.ALREADY_EXISTS),
        (tnds(node("n", leaf("Unknown", "x"))), Status.NOT_ALLOWED),
        (tnds(node("n", leaf("Price", "x", Format.INT))), Status.UNSUPPORTED_FORMAT),
        (tnds(node("n", node("Price"))), Status.UNSUPPORTED_FORMAT),
        (tnds(node("n", leaf("Slots", "x"))), Status.UNSUPPORTED_FORMAT),
        (tnds(node("n", leaf("Label", "x" * 101))), Status.TOO_LARGE),
        (tnds(node("n", acl="nonsense")), Status.COMMAND_FAILED),
        (tnds(node("n", title="x" * 256)), Status.TOO_LARGE),
        (tnds(node("a/b")), Status.NOT_ALLOWED),
        (tnds(node("x" * 200)), Status.URI_TOO_LONG),
        (tnds(node("n", node("Slots", *(leaf(str(i), "x") for i in range(4))))), Status.DEVICE_FULL),
        (ItemValue("<nonsense", Format.XML, XML_TYPE), Status.UNSUPPORTED_FORMAT),
        (ItemValue("", Format.XML, XML_TYPE), Status.UNSUPPORTED_FORMAT),
        (ItemValue("!", Format.B64, WBXML_TYPE), Status.UNSUPPORTED_FORMAT),
    ],
)
def test_first_failure_fails_all(document: ItemValue, status: int) -> None:
    tree, machines, _ = make_tree()
    before = snapshot(tree)
    assert refused(tree.add, SERVER, "./Machines", document) == status
    assert snapshot(tree) == before
    assert machines.undone == machines.prepared[::-1]


def test_add_needs_add_on_the_parent_only() -> None:
    tree, _, _ = make_tree()
    tree.device_set_acl(("Machines",), f"Add={SERVER}&Get=*")
    document = tnds(node("n", leaf("Label", "mine"), node("Slots", leaf("a", "1"))))
    assert refused(tree.add, OTHER, "./Machines", document) == Status.PERMISSION_DENIED
    tree.add(SERVER, "./Machines", document)
    assert text(tree, "n", "Slots", "a") == "1"


def test_acls_of_the_document_count_after_it_is_added() -> None:
    tree, _, _ = make_tree()
    tree.add(SERVER, "./Machines", tnds(node("n", leaf("Label", "mine"), acl=f"Get={OTHER}")))
    assert refused(tree.get, SERVER, "./Machines/n/Label") == Status.PERMISSION_DENIED
    (result,) = tree.get(OTHER, "./Machines/n?prop=ACL")
    assert result.value.data == f"Get={OTHER}"


# -- Get ---------------------------------------------------------------------------------------------------------------


def test_get_is_one_valid_document() -> None:
    tree, machines, _ = make_tree()
    machines.stock["m"] = 3
    tree.add(SERVER, f"{M}/Slots/a", ItemValue("<&>\n"))
    tree.replace(SERVER, f"{M}?prop=ACL", ItemValue("Get=*&Replace=*&Delete=*&Add=*"))
    (result,) = tree.get(SERVER, f"{M}?list=TNDS")
    assert (result.uri, result.value.format, result.value.type) == (M, Format.XML, XML_TYPE)
    assert isinstance(result.value.data, str)
    assert violations(result.value.data) == []
    (top,) = decode_tnds(result.value.data)
    assert (top.name, top.acl, top.path) == ("m", "Get=*&Replace=*&Delete=*&Add=*", ())
    assert [child.name for child in top.children] == ["Ext", "Id", "Label", "Price", "Slots", "Stock"]
    assert top.children[4].children == (leaf("a", "<&>\n"),)
    assert top.children[5] == leaf("Stock", "3", Format.INT)


def test_get_of_chosen_properties() -> None:
    tree, _, _ = make_tree()
    (result,) = tree.get(SERVER, f"{M}/Price?list=TNDS+Value")
    assert isinstance(result.value.data, str)
    assert "<Format>" not in result.value.data
    assert "<TStamp>" not in result.value.data
    assert "<Value>0</Value>" in result.value.data
    (result,) = tree.get(SERVER, f"{M}/Price?list=TNDS-Value-TStamp")
    assert isinstance(result.value.data, str)
    assert "<Value>" not in result.value.data
    assert "<VerNo>0</VerNo>" in result.value.data
    assert refused(tree.get, SERVER, f"{M}?list=TNDS+Value-ACL") == Status.NOT_SUPPORTED
    assert refused(tree.get, SERVER, f"{M}?list=TNDS+Size") == Status.NOT_SUPPORTED


def test_get_leaves_out_what_may_not_be_read() -> None:
    tree, _, _ = make_tree()
    tree.add(SERVER, f"{M}/Secret", ItemValue(b"x", Format.BIN))
    tree.device_set_acl(("Machines", "m", "Slots"), f"Get={OTHER}")
    (result,) = tree.get(SERVER, f"{M}?list=TNDS")
    (top,) = decode_tnds(result.value.data)
    assert [child.name for child in top.children] == ["Ext", "Id", "Label", "Price", "Stock"]


def test_get_of_the_root() -> None:
    tree, _, _ = make_tree()
    (result,) = tree.get(SERVER, ".?list=TNDS")
    (top,) = decode_tnds(result.value.data)
    assert (top.name, [child.name for child in top.children]) == (".", ["Machines"])


# -- Replace -----------------------------------------------------------------------------------------------------------


def test_replace_makes_the_subtree_equal_to_the_document() -> None:
    tree, machines, _ = make_tree()
    for name in "abc":
        tree.add(SERVER, f"{M}/Slots/{name}", ItemValue(name))
    tree.add(SERVER, f"{M}/Note", ItemValue("old"))
    machines.prepared.clear()
    tree.replace(
        SERVER,
        M,
        tnds(
            node(
                "m",
                leaf("Id", "other"),
                leaf("Label", "new"),
                leaf("Price", "0", Format.INT),
                node("Slots", leaf("b", "b"), leaf("c", "changed"), leaf("d", "added")),
                node("Ext"),
                title="t",
            )
        ),
    )
    assert text(tree, "m", "Id") == "id-of-m"
    assert text(tree, "m", "Label") == "new"
    assert tree.children(("Machines", "m", "Slots")) == ("b", "c", "d")
    assert [text(tree, "m", "Slots", name) for name in "bcd"] == ["b", "changed", "added"]
    assert not tree.exists(("Machines", "m", "Note"))
    assert [(change.command.value, change.path[2:]) for change in machines.prepared] == [
        ("Delete", ("Note",)),
        ("Replace", ("Label",)),
        ("Delete", ("Slots", "a")),
        ("Replace", ("Slots", "c")),
        ("Add", ("Slots", "d")),
    ]
    assert len(machines.told[-1]) == 5


def test_what_was_read_can_be_written_back() -> None:
    tree, machines, _ = make_tree()
    tree.add(SERVER, f"{M}/Slots/a", ItemValue("1"))
    (result,) = tree.get(SERVER, f"{M}?list=TNDS")
    before = snapshot(tree)
    machines.prepared.clear()
    tree.replace(SERVER, M, result.value)
    assert machines.prepared == []
    assert snapshot(tree) == before
    tree.delete(SERVER, M)
    tree.add(SERVER, "./Machines", result.value)
    assert text(tree, "m", "Slots", "a") == "1"


def test_replace_of_a_leaf() -> None:
    tree, _, _ = make_tree()
    tree.replace(SERVER, f"{M}/Price", tnds(leaf("Price", "5", Format.INT)))
    assert text(tree, "m", "Price") == "5"
    tree.replace(SERVER, f"{M}/Price", tnds(leaf("", "6", Format.INT)))
    assert text(tree, "m", "Price") == "6"


@pytest.mark.parametrize(
    ("uri", "document", "status"),
    [
        ("./Machines/none", tnds(node("none")), Status.NOT_FOUND),
        (M, tnds(node("other")), Status.UNSUPPORTED_FORMAT),
        (M, tnds(node("m"), node("n")), Status.UNSUPPORTED_FORMAT),
        (M, tnds(leaf("m", "x")), Status.UNSUPPORTED_FORMAT),
        (f"{M}/Price", tnds(node("Price")), Status.UNSUPPORTED_FORMAT),
        (M, tnds(node("m", leaf("Label", "new"), leaf("Unknown", "x"))), Status.NOT_ALLOWED),
        (M, tnds(node("m", leaf("Label", "new"), leaf("Price", "x", Format.INT))), Status.UNSUPPORTED_FORMAT),
        (M, ItemValue("<x/>", Format.XML, XML_TYPE), Status.UNSUPPORTED_FORMAT),
    ],
)
def test_replace_refused_changes_nothing(uri: str, document: ItemValue, status: int) -> None:
    tree, _, _ = make_tree()
    before = snapshot(tree)
    assert refused(tree.replace, SERVER, uri, document) == status
    assert snapshot(tree) == before


def test_replace_needs_the_rights_for_what_it_does() -> None:
    tree, _, _ = make_tree()
    tree.add(SERVER, f"{M}/Note", ItemValue("old"))
    tree.add(SERVER, f"{M}/Slots/a", ItemValue("x"))
    before = snapshot(tree)
    whole = node("m", leaf("Note", "old"), node("Slots", leaf("a", "x")), node("Ext"))
    without_note = tnds(node("m", *whole.children[1:]))
    for acl, document, status in (
        ("Get=*", tnds(whole), Status.PERMISSION_DENIED),
        ("Get=*&Replace=*", tnds(whole), Status.OK),
        ("Get=*&Replace=*", without_note, Status.PERMISSION_DENIED),
        ("Get=*&Replace=*", tnds(node("m", *whole.children, leaf("Secret", b"", Format.BIN))), 425),
    ):
        tree.device_set_acl(("Machines", "m"), acl)
        held = snapshot(tree)
        if status == Status.OK:
            tree.replace(SERVER, M, document)
        else:
            assert refused(tree.replace, SERVER, M, document) == status
        assert snapshot(tree) == held
    assert set(snapshot(tree)) == set(before)


def test_atomic_undoes_documents_too() -> None:
    tree, machines, _ = make_tree()
    before = snapshot(tree)
    with tree.atomic() as atomic:
        tree.add(SERVER, "./Machines", tnds(node("n", leaf("Label", "x"))))
        tree.replace(SERVER, M, tnds(node("m", leaf("Label", "x"), node("Slots", leaf("a", "1")))))
        assert atomic.rollback() == [True, True]
    assert snapshot(tree) == before
    assert machines.undone == machines.prepared[::-1]
