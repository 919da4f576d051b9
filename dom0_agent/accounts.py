"""Server accounts from the configuration, put into the management tree (DMAcc), where sessions read them.

The configuration provisions: an account goes into the tree when it is new in the file or has changed there, so that
what a server changed in its own account afterwards stays. A small ledger beside the database remembers what the file
said last. Knows no session.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Protocol

from dom0_agent.config import AccountConfig, CredentialConfig
from dom0_agent.mo.dmacc import DeviceTree, account_path, write_account, write_nonce
from dom0_agent.omadm.auth import Account, AuthScheme, Credentials, NonceRole
from dom0_agent.omadm.mo import Path as NodePath

log = logging.getLogger(__name__)


class AccountTree(DeviceTree, Protocol):
    """The tree's device side, as far as accounts come and go."""

    def device_delete(self, path: NodePath) -> None:
        """Remove a node with all below it."""

    def forget_server(self, server_id: str) -> None:
        """Take a ServerID out of all ACLs."""


class Nonces(Protocol):
    """Where nonces of former sessions are."""

    def delete(self, account: str) -> None:
        """Forget both nonces of an account."""


class Alerts(Protocol):
    """Where alerts wait for servers."""

    def remove_server(self, server_id: str) -> None:
        """Forget what waits for a server."""


def provision(
    configured: tuple[AccountConfig, ...], tree: AccountTree, nonces: Nonces, alerts: Alerts, ledger_file: Path
) -> None:
    """Make the tree's accounts follow the configuration's; idempotent."""
    ledger = _read(ledger_file)
    wanted = {account.server_id: account for account in configured}
    for server_id in ledger.keys() - wanted.keys():
        if tree.exists(account_path(server_id)):
            tree.device_delete(account_path(server_id))
        tree.forget_server(server_id)
        nonces.delete(server_id)
        alerts.remove_server(server_id)
        log.info("event=account_removed server=%s", server_id)
    for server_id, account in wanted.items():
        fingerprint = _fingerprint(account)
        if ledger.get(server_id) == fingerprint and tree.exists(account_path(server_id)):
            continue
        where = write_account(tree, _account(account))
        for role, credential in ((NonceRole.CLIENT, account.client), (NonceRole.SERVER, account.server)):
            write_nonce(tree, where, role, credential.nonce_octets)
        nonces.delete(server_id)
        log.info("event=account_provisioned server=%s address=%s", server_id, account.address)
    _write(ledger_file, {server_id: _fingerprint(account) for server_id, account in wanted.items()})


def _account(account: AccountConfig) -> Account:
    return Account(account.server_id, account.address, _credentials(account.client), _credentials(account.server))


def _credentials(config: CredentialConfig) -> Credentials:
    return Credentials(AuthScheme(config.auth), config.name, config.secret)


def _fingerprint(account: AccountConfig) -> str:
    parts = (account.server_id, account.address, *(_parts(c) for c in (account.client, account.server)))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _parts(credential: CredentialConfig) -> tuple[str, ...]:
    return (credential.auth, credential.name, credential.secret, credential.nonce)


def _read(file: Path) -> dict[str, str]:
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        # Ours, but damaged: provisioning everything again is safe, trusting half a file is not.
        log.warning("event=account_ledger_damaged file=%s", file)
        return {}
    return read if isinstance(read, dict) else {}


def _write(file: Path, ledger: dict[str, str]) -> None:
    new = file.with_suffix(".new")
    with new.open("w", encoding="utf-8") as stream:
        new.chmod(0o600)
        json.dump(ledger, stream)
        stream.flush()
        os.fsync(stream.fileno())
    new.rename(file)
