"""Accounts of the configuration reach the tree once, and follow the file afterwards."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from dom0_agent.accounts import provision
from dom0_agent.config import AccountConfig, CredentialConfig
from dom0_agent.mo.dmacc import DMAcc, account_path, read_account, read_accounts, read_nonce
from dom0_agent.omadm.auth import NonceRole
from dom0_agent.omadm.node import Value
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.tree import ManagementTree


class Remembered:
    """Stands for nonces and alerts: remembers whose were dropped."""

    def __init__(self) -> None:
        self.dropped: list[str] = []

    def delete(self, account: str) -> None:
        self.dropped.append(account)

    def remove_server(self, server_id: str) -> None:
        self.dropped.append(server_id)


class Board:
    def __init__(self, folder: Path) -> None:
        self.tree = ManagementTree(MemoryNodeStore(), lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self.tree.mount(DMAcc(lambda: None))
        self.nonces, self.alerts = Remembered(), Remembered()
        self.ledger = folder / "accounts.json"

    def provision(self, *accounts: AccountConfig) -> None:
        provision(accounts, self.tree, self.nonces, self.alerts, self.ledger)

    def servers(self) -> list[str]:
        return sorted(account.server_id for account in read_accounts(self.tree))

    def secret(self, server_id: str) -> str:
        account = read_account(self.tree, account_path(server_id))
        assert account is not None
        return account.server.secret


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def account(server_id: str = "srv", secret: str = "t") -> AccountConfig:
    return AccountConfig(
        server_id,
        "https://10.0.2.2/dm",
        CredentialConfig("board-1", "s", nonce="Tm9uY2U="),
        CredentialConfig(server_id, secret),
    )


def test_a_new_account_is_provisioned_with_its_nonce(board: Board) -> None:
    board.provision(account())
    assert board.servers() == ["srv"]
    assert read_nonce(board.tree, account_path("srv"), NonceRole.CLIENT) == b"Nonce"
    assert read_nonce(board.tree, account_path("srv"), NonceRole.SERVER) is None


def test_what_the_server_changed_stays(board: Board) -> None:
    board.provision(account())
    board.tree.device_set((*account_path("srv"), "AppAuth", "SRVCRED", "AAuthSecret"), Value("new"))
    board.provision(account())
    assert board.secret("srv") == "new"


def test_what_changed_in_the_file_wins_and_starts_with_its_own_nonces(board: Board) -> None:
    board.provision(account())
    board.nonces.dropped.clear()
    board.provision(account(secret="u"))
    assert board.secret("srv") == "u"
    assert board.nonces.dropped == ["srv"]


def test_an_account_taken_out_of_the_file_is_gone_with_all_that_waits(board: Board) -> None:
    board.provision(account("a"), account("b"))
    board.tree.device_set_acl((), "Add=*&Get=*&Replace=a+b")
    board.provision(account("b"))
    assert board.servers() == ["b"]
    assert board.alerts.dropped == ["a"]
    root = board.tree.node(())
    assert root is not None
    assert "a+b" not in root.acl


@pytest.mark.parametrize("damage", ["", "[1]", "nonsense"])
def test_a_damaged_ledger_only_provisions_again(board: Board, damage: str) -> None:
    board.provision(account())
    board.ledger.write_text(damage)
    board.provision(account())
    assert board.servers() == ["srv"]


def test_the_ledger_holds_no_secret(board: Board) -> None:
    board.provision(account(secret="very-secret"))
    assert "very-secret" not in board.ledger.read_text()
    assert board.ledger.stat().st_mode & 0o077 == 0
