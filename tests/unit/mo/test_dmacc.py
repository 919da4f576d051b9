"""DM accounts in the tree: the 1.2 layout, secrets that nobody reads, rights of the account's server (digest 9)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dom0_agent.mo.dmacc import (
    DMAcc,
    account_path,
    read_account,
    read_accounts,
    read_nonce,
    write_account,
    write_nonce,
)
from dom0_agent.omadm.auth import Account, AuthScheme, Credentials, NonceRole
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue

ACCOUNT = Account(
    "com.example.srv",
    "https://dm.example.com/dm",
    Credentials(AuthScheme.MD5, "device", "dsecret"),
    Credentials(AuthScheme.HMAC, "server", "ssecret"),
)
HERE = "./DMAcc/com.example.srv"


class Fixture:
    def __init__(self) -> None:
        self.changes = 0
        self.tree = ManagementTree(MemoryNodeStore(), lambda: datetime(2026, 8, 1, tzinfo=UTC))
        self.tree.mount(DMAcc(self.count))
        self.path = write_account(self.tree, ACCOUNT)
        self.changes = 0

    def count(self) -> None:
        self.changes += 1

    def refused(self, action: str, server_id: str, *arguments: object) -> int:
        with pytest.raises(DMError) as caught:
            getattr(self.tree, action)(server_id, *arguments)
        return int(caught.value.status)


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def test_written_account_is_read_back(fixture: Fixture) -> None:
    assert fixture.path == account_path("com.example.srv")
    assert read_account(fixture.tree, fixture.path) == ACCOUNT
    assert read_accounts(fixture.tree) == (ACCOUNT,)
    changed = replace(ACCOUNT, address="https://other", client=Credentials())
    write_account(fixture.tree, changed)
    assert read_accounts(fixture.tree)[0].address == "https://other"
    assert read_accounts(fixture.tree)[0].client.scheme is AuthScheme.NONE


def test_layout_of_1_2(fixture: Fixture) -> None:
    results = fixture.tree.get("com.example.srv", f"{HERE}?list=StructData")
    assert {result.uri[len(HERE) :]: result.value.data for result in results if result.has_data} == {
        "/AAuthPref": "DIGEST",
        "/AppAddr/1/Addr": "https://dm.example.com/dm",
        "/AppAddr/1/AddrType": "URI",
        "/AppAuth/CLCRED/AAuthLevel": "CLCRED",
        "/AppAuth/CLCRED/AAuthName": "device",
        "/AppAuth/CLCRED/AAuthType": "DIGEST",
        "/AppAuth/SRVCRED/AAuthLevel": "SRVCRED",
        "/AppAuth/SRVCRED/AAuthName": "server",
        "/AppAuth/SRVCRED/AAuthType": "HMAC",
        "/AppID": "w7",
        "/ServerID": "com.example.srv",
    }
    (type_,) = fixture.tree.get("com.example.srv", f"{HERE}?prop=Type")
    assert type_.value.data == "urn:oma:mo:oma-dm-dmacc:1.0"


@pytest.mark.parametrize("leaf", ["AAuthSecret", "AAuthData"])
def test_secrets_are_never_readable(fixture: Fixture, leaf: str) -> None:
    """Get, Copy, Size and the list forms: 405 or left out, even for the account's own server."""
    write_nonce(fixture.tree, fixture.path, NonceRole.CLIENT, b"nonce")
    uri = f"{HERE}/AppAuth/CLCRED/{leaf}"
    assert fixture.refused("get", "com.example.srv", uri) == Status.NOT_ALLOWED
    assert fixture.refused("get", "com.example.srv", f"{uri}?list=StructData") == Status.NOT_ALLOWED
    assert fixture.refused("get", "com.example.srv", f"{uri}?prop=Size") == Status.NOT_ALLOWED
    assert fixture.refused("copy", "com.example.srv", uri, f"{HERE}/Name") == Status.NOT_ALLOWED


def test_nonces_are_octets(fixture: Fixture) -> None:
    assert read_nonce(fixture.tree, fixture.path, NonceRole.SERVER) is None
    write_nonce(fixture.tree, fixture.path, NonceRole.SERVER, b"\x00\xff")
    assert read_nonce(fixture.tree, fixture.path, NonceRole.SERVER) == b"\x00\xff"
    value = ItemValue("AQI=", Format.B64)
    fixture.tree.replace("com.example.srv", f"{HERE}/AppAuth/SRVCRED/AAuthData", value)
    assert read_nonce(fixture.tree, fixture.path, NonceRole.SERVER) == b"\x01\x02"


def test_server_rotates_its_secret(fixture: Fixture) -> None:
    fixture.tree.replace("com.example.srv", f"{HERE}/AppAuth/CLCRED/AAuthSecret", ItemValue("new"))
    account = read_account(fixture.tree, fixture.path)
    assert account is not None
    assert account.client.secret == "new"
    assert fixture.changes == 1


def test_others_have_no_rights_in_the_account(fixture: Fixture) -> None:
    assert fixture.refused("get", "other", HERE) == Status.PERMISSION_DENIED
    assert fixture.refused("delete", "other", HERE) == Status.PERMISSION_DENIED
    assert fixture.refused("replace", "other", f"{HERE}/AppAddr/1/Addr", ItemValue("http://evil")) == (
        Status.PERMISSION_DENIED
    )


def test_nobody_adds_an_account_through_dm(fixture: Fixture) -> None:
    fixture.tree.device_set_acl((), "Add=*&Delete=*&Get=*&Replace=*")
    assert fixture.refused("add", "com.example.srv", "./DMAcc/evil", ItemValue(format=Format.NODE)) == (
        Status.NOT_ALLOWED
    )


def test_the_last_account_stays(fixture: Fixture) -> None:
    assert fixture.refused("delete", "com.example.srv", HERE) == Status.NOT_ALLOWED
    write_account(fixture.tree, replace(ACCOUNT, server_id="second"))
    fixture.tree.delete("com.example.srv", HERE)
    assert [account.server_id for account in read_accounts(fixture.tree)] == ["second"]


def test_identity_cannot_be_changed(fixture: Fixture) -> None:
    assert fixture.refused("replace", "com.example.srv", f"{HERE}/ServerID", ItemValue("x")) == Status.NOT_ALLOWED
    assert fixture.refused("execute", "com.example.srv", HERE, "", None) == Status.PERMISSION_DENIED


def test_incomplete_accounts_are_not_used(fixture: Fixture) -> None:
    fixture.tree.device_add(("DMAcc", "empty"))
    assert read_account(fixture.tree, ("DMAcc", "empty")) is None
    assert read_accounts(fixture.tree) == (ACCOUNT,)
