"""DMAcc: the accounts of DM servers, as nodes and as :class:`~dom0_agent.omadm.auth.Account`.

The tree is where accounts live; configuration and bootstrap put them there, sessions read them from there. Changes that
a server makes count from the next session on. Knows no session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from dom0_agent.mo.dmacc_nodes import DEFINITION, MOID
from dom0_agent.omadm.acl import Acl, is_server_id
from dom0_agent.omadm.auth import Account, AuthScheme, Credentials, NonceRole
from dom0_agent.omadm.mo import Change, ExecOutcome, ExecRequest, Path, Undo
from dom0_agent.omadm.node import Command, Format, NodeDef, Value
from dom0_agent.omadm.nodestore import StoredNode
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.uri import DEFAULT_LIMITS, UriLimits, check_name

MOUNT: Path = ("DMAcc",)

#: AAuthType as DMAcc writes it
_TYPES = {
    AuthScheme.NONE: "TRANSPORT",
    AuthScheme.BASIC: "BASIC",
    AuthScheme.MD5: "DIGEST",
    AuthScheme.HMAC: "HMAC",
}
_SCHEMES = {name: scheme for scheme, name in _TYPES.items()}
#: AAuthLevel, which direction an AppAuth entry is for
_LEVELS = {NonceRole.CLIENT: "CLCRED", NonceRole.SERVER: "SRVCRED"}


class DeviceTree(Protocol):
    """What is needed of the tree's device side."""

    def exists(self, path: Path) -> bool:
        """Whether there is such a node."""

    def value(self, path: Path) -> str | None:
        """A leaf's text."""

    def node(self, path: Path) -> StoredNode | None:
        """A node with its properties."""

    def children(self, path: Path) -> tuple[str, ...]:
        """Names of the children."""

    def device_add(self, path: Path, value: Value | None = None, *, type_: str = "", acl: str = "") -> None:
        """Add a node."""

    def device_set(self, path: Path, value: Value) -> None:
        """Set a leaf, making it if need be."""

    def device_set_acl(self, path: Path, acl: str) -> None:
        """Set a node's own ACL."""


class DMAcc:
    """ManagementObject for ``./DMAcc``. ``changed`` is called when accounts are durably different."""

    moid = MOID
    mount = MOUNT

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    @property
    def definition(self) -> NodeDef:
        """The node table."""
        return DEFINITION

    def read(self, path: Path) -> Value | None:
        """No leaf is live."""

    def initial(self, path: Path) -> Value | None:
        """The definition's defaults do."""

    def prepare(self, change: Change) -> Undo | None:
        """Everything that the definition allows is fine."""

    def committed(self, changes: Sequence[Change]) -> None:
        """Accounts are different now."""
        self._changed()

    def execute(self, request: ExecRequest) -> ExecOutcome:
        """Nothing can be executed."""
        raise DMError(Status.NOT_ALLOWED, f"{request.uri} is not an operation")


def account_path(server_id: str, limits: UriLimits = DEFAULT_LIMITS) -> Path:
    """Where the account of ``server_id`` is when this device names it.

    :class:`DMError` 405 or 414 when it cannot be the name of a node, 405 when no ACL could name it.
    """
    if not is_server_id(server_id):
        raise DMError(Status.NOT_ALLOWED, f"{server_id!r} cannot be a ServerID: no ACL could name it")
    return (*MOUNT, check_name(server_id, limits))


def write_account(tree: DeviceTree, account: Account, path: Path | None = None) -> Path:
    """Put ``account`` into the tree, new or in place of what is at ``path``; returns where it is.

    Its server gets Get, Replace and Delete there (digest 9), nobody else anything.
    """
    usual = account_path(account.server_id)
    where = path or usual
    if not tree.exists(where):
        tree.device_add(where)
    tree.device_set((*where, "ServerID"), Value(account.server_id))
    grant_account(tree, where)
    tree.device_set((*where, "AppAddr", "1", "Addr"), Value(account.address))
    if account.client.scheme is not AuthScheme.NONE:
        tree.device_set((*where, "AAuthPref"), Value(_TYPES[account.client.scheme]))
    for role, credentials in ((NonceRole.CLIENT, account.client), (NonceRole.SERVER, account.server)):
        entry = (*where, "AppAuth", _LEVELS[role])
        tree.device_set((*entry, "AAuthLevel"), Value(_LEVELS[role]))
        tree.device_set((*entry, "AAuthType"), Value(_TYPES[credentials.scheme]))
        tree.device_set((*entry, "AAuthName"), Value(credentials.name))
        tree.device_set((*entry, "AAuthSecret"), Value(credentials.secret))
    return where


def grant_account(tree: DeviceTree, account: Path) -> None:
    """Give the account's server Get, Replace and Delete on it, unless it has an ACL of its own already."""
    node, server_id = tree.node(account), tree.value((*account, "ServerID"))
    if node is not None and server_id and not node.acl:
        server = frozenset({server_id})
        tree.device_set_acl(account, str(Acl(dict.fromkeys((Command.GET, Command.REPLACE, Command.DELETE), server))))


def write_nonce(tree: DeviceTree, account: Path, role: NonceRole, nonce: bytes) -> None:
    """Put the first nonce of one direction (AAuthData) into an account."""
    tree.device_set((*account, "AppAuth", _LEVELS[role], "AAuthData"), Value(nonce, Format.BIN))


def read_account(tree: DeviceTree, path: Path) -> Account | None:
    """The account at ``path``, ``None`` when it lacks a ServerID or an address."""
    server_id = tree.value((*path, "ServerID"))
    address = _address(tree, path)
    if not server_id or not address:
        return None
    return Account(
        server_id,
        address,
        client=_credentials(tree, path, NonceRole.CLIENT),
        server=_credentials(tree, path, NonceRole.SERVER),
    )


def read_accounts(tree: DeviceTree) -> tuple[Account, ...]:
    """All usable accounts."""
    found = (read_account(tree, (*MOUNT, name)) for name in tree.children(MOUNT))
    return tuple(account for account in found if account is not None)


def read_nonce(tree: DeviceTree, account: Path, role: NonceRole) -> bytes | None:
    """AAuthData of one direction: the nonce to begin with when no session has brought another one."""
    entry = _auth_entry(tree, account, role)
    node = None if entry is None else tree.node((*entry, "AAuthData"))
    return node.data if node is not None and isinstance(node.data, bytes) and node.data else None


def _address(tree: DeviceTree, account: Path) -> str | None:
    for name in tree.children((*account, "AppAddr")):
        address = tree.value((*account, "AppAddr", name, "Addr"))
        if address:
            return address
    return None


def _auth_entry(tree: DeviceTree, account: Path, role: NonceRole) -> Path | None:
    for name in tree.children((*account, "AppAuth")):
        entry = (*account, "AppAuth", name)
        if tree.value((*entry, "AAuthLevel")) == _LEVELS[role]:
            return entry
    return None


def _credentials(tree: DeviceTree, account: Path, role: NonceRole) -> Credentials:
    entry = _auth_entry(tree, account, role)
    if entry is None:
        return Credentials()
    scheme = _SCHEMES.get(tree.value((*entry, "AAuthType")) or "", AuthScheme.NONE)
    name, secret = tree.value((*entry, "AAuthName")), tree.value((*entry, "AAuthSecret"))
    return Credentials(scheme, name or "", secret or "")
