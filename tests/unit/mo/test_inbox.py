"""The Inbox: takes from the trusted, shows nothing, hands accounts to their places (digest 9 and 11)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from dom0_agent.mo.dmacc import DMAcc, read_accounts, read_nonce, write_account
from dom0_agent.mo.inbox import BOOTSTRAP, Delivered, Inbox, deliver
from dom0_agent.omadm import commands as c
from dom0_agent.omadm.auth import Account, AuthScheme, Credentials, NonceRole
from dom0_agent.omadm.bootstrap import Profile, ProfileCheck, Security, apply_profile, mac_of
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tnds import XML_TYPE
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.omadm.wbxml import WbxmlCodec

DMACC = "urn:oma:mo:oma-dm-dmacc:1.0"
TRUSTED, OTHER = "trusted", "other"


def node(name: str, *inside: str, type_: str = "", acl: str = "") -> str:
    acl = f"<ACL>{acl}</ACL>" if acl else ""
    return (
        f"<Node><NodeName>{name}</NodeName><RTProperties>{acl}<Format><node/></Format>"
        f"<Type><DDFName>{type_}</DDFName></Type></RTProperties>{''.join(inside)}</Node>"
    )


def leaf(name: str, value: str, format_: str = "chr") -> str:
    return (
        f"<Node><NodeName>{name}</NodeName><RTProperties><Format><{format_}/></Format>"
        f"<Type><MIME>text/plain</MIME></Type></RTProperties><Value>{value}</Value></Node>"
    )


def account(name: str, server_id: str, *more: str, acl: str = "") -> str:
    return node(
        name,
        leaf("AppID", "w7"),
        leaf("ServerID", server_id),
        node("AppAddr", node("1", leaf("Addr", f"https://{server_id}/"))),
        node(
            "AppAuth",
            node(
                "1",
                leaf("AAuthLevel", "CLCRED"),
                leaf("AAuthType", "DIGEST"),
                leaf("AAuthName", "me"),
                leaf("AAuthSecret", "secret"),
                leaf("AAuthData", "AQID", "bin"),
            ),
        ),
        *more,
        type_=DMACC,
        acl=acl,
    )


def document(*nodes: str) -> ItemValue:
    return ItemValue(f"<MgmtTree><VerDTD>1.2</VerDTD>{''.join(nodes)}</MgmtTree>", Format.XML, XML_TYPE)


@pytest.fixture
def tree() -> ManagementTree:
    tree = ManagementTree(MemoryNodeStore(), lambda: datetime(2026, 8, 1, tzinfo=UTC))
    tree.mount(DMAcc(lambda: None))
    tree.mount(Inbox(lambda server_id: server_id == TRUSTED))
    tree.device_set_acl((), "Add=*&Delete=*&Exec=*&Get=*&Replace=*")
    return tree


def test_only_trusted_servers_add(tree: ManagementTree) -> None:
    with pytest.raises(DMError) as caught:
        tree.add(OTHER, "./Inbox", document(account("a", "srv")))
    assert caught.value.status == Status.PERMISSION_DENIED
    tree.add(TRUSTED, "./Inbox", document(account("a", "srv")))
    assert tree.children(("Inbox",)) == ("a",)


def test_bootstrap_from_the_message_to_the_account() -> None:
    """A DM profile message with a MAC, executed under the identity of the bootstrap, makes an account."""
    tree = ManagementTree(MemoryNodeStore(), lambda: datetime(2026, 8, 1, tzinfo=UTC))
    changes: list[None] = []
    tree.mount(DMAcc(lambda: changes.append(None)))
    tree.mount(Inbox())
    value = document(account("new", "srv"))
    item = c.Item("./Inbox", meta=c.Meta("xml", XML_TYPE), data=value.data)
    header = c.SyncHdr("1", 1, "device", "bootstrap.example")
    body = WbxmlCodec().encode(c.Message(header, (c.Add("1", (item,)),)))
    profile = Profile(body, Security.USERPIN, mac_of(body, Security.USERPIN, pin="1234"))
    assert ProfileCheck(profile).accepts(pin="1234")
    assert apply_profile(profile, tree, BOOTSTRAP).ok
    assert deliver(tree) == (Delivered(DMACC, ("DMAcc", "srv")),)
    assert [known.server_id for known in read_accounts(tree)] == ["srv"]
    assert len(changes) == 1
    stored = tree.node(("DMAcc", "srv", "AppAddr"))
    assert stored is not None
    assert stored.acl == ""


def test_by_default_no_server_is_trusted() -> None:
    tree = ManagementTree(MemoryNodeStore(), lambda: datetime(2026, 8, 1, tzinfo=UTC))
    tree.mount(Inbox())
    with pytest.raises(DMError) as caught:
        tree.add(TRUSTED, "./Inbox/x", ItemValue("1"))
    assert caught.value.status == Status.PERMISSION_DENIED


@pytest.mark.parametrize("uri", ["./Inbox", "./Inbox/a", "./Inbox/a/AppAuth/1/AAuthSecret", "./Inbox?list=TNDS"])
def test_nothing_in_the_inbox_can_be_read_or_changed(tree: ManagementTree, uri: str) -> None:
    tree.add(TRUSTED, "./Inbox", document(account("a", "srv")))
    actions: list[Callable[[], object]] = [lambda: tree.get(TRUSTED, uri)]
    if "?" not in uri:
        actions += [lambda: tree.delete(TRUSTED, uri), lambda: tree.execute(TRUSTED, uri)]
    for action in actions:
        with pytest.raises(DMError) as caught:
            action()
        assert caught.value.status == Status.NOT_ALLOWED


def test_delivered_account_is_in_its_place(tree: ManagementTree) -> None:
    tree.device_add_tnds(("Inbox",), document(account("x", "srv")))
    assert deliver(tree) == (Delivered(DMACC, ("DMAcc", "srv")),)
    assert tree.children(("Inbox",)) == ()
    assert read_accounts(tree) == (
        Account("srv", "https://srv/", Credentials(AuthScheme.MD5, "me", "secret"), Credentials()),
    )
    assert read_nonce(tree, ("DMAcc", "srv"), NonceRole.CLIENT) == b"\x01\x02\x03"
    stored = tree.node(("DMAcc", "srv"))
    assert stored is not None
    assert (stored.acl, stored.type) == ("Delete=srv&Get=srv&Replace=srv", DMACC)


def test_unnamed_objects_and_references_between_them(tree: ManagementTree) -> None:
    """The client names what the document does not; ./Inbox/… in values is rewritten."""
    reference = node("ToConRef", node("1", leaf("ConRef", "./Inbox/other/AppAddr/1")))
    tree.device_add_tnds(
        ("Inbox",),
        document(account("", "one", reference, acl="Get=one"), account("other", "two"), node("unknown", type_="urn:x")),
    )
    assert {delivered.path for delivered in deliver(tree)} == {("DMAcc", "one"), ("DMAcc", "two")}
    assert tree.value(("DMAcc", "one", "ToConRef", "1", "ConRef")) == "./DMAcc/two/AppAddr/1"
    stored = tree.node(("DMAcc", "one"))
    assert stored is not None
    assert stored.acl == "Get=one"
    assert tree.children(("Inbox",)) == ()


def test_account_takes_the_place_of_the_one_before(tree: ManagementTree) -> None:
    write_account(tree, Account("srv", "https://old/", Credentials(AuthScheme.BASIC, "old", "old"), Credentials()))
    tree.device_add_tnds(("Inbox",), document(account("x", "srv")))
    deliver(tree)
    (only,) = read_accounts(tree)
    assert (only.address, only.client.name) == ("https://srv/", "me")


def test_nodes_that_the_account_does_not_have_are_ignored(tree: ManagementTree) -> None:
    extra = [leaf("Vendor", "x"), node("VendorNode", leaf("y", "1")), node("Ext", leaf("kept", "1"))]
    tree.device_add_tnds(("Inbox",), document(account("x", "srv", *extra)))
    deliver(tree)
    assert not tree.exists(("DMAcc", "srv", "Vendor"))
    assert tree.value(("DMAcc", "srv", "Ext", "kept")) == "1"


@pytest.mark.parametrize(
    "bad",
    [
        node("bad", leaf("ServerID", "x"), type_=DMACC),
        account("bad", "").replace("https:///", "https://x/"),
        account("bad", "x").replace("<bin/>", "<chr/>"),
        account("bad", "a/b"),
        account("bad", "a b"),
        account("bad", "a+b"),
    ],
)
def test_what_does_not_fit_changes_nothing_but_empties_the_inbox(tree: ManagementTree, bad: str) -> None:
    tree.device_add_tnds(("Inbox",), document(account("good", "srv"), bad))
    with pytest.raises(DMError):
        deliver(tree)
    assert read_accounts(tree) == ()
    assert tree.children(("Inbox",)) == ()
    assert tree.children(("DMAcc",)) == ()
