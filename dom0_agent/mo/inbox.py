"""Inbox: where bootstrap leaves management objects, to be moved to their places by MOID (StdObj; digest 9 and 11).

Nobody reads the Inbox, and servers add to it only if the device's owner trusts them to: what lies here may become an
account, and with it another master of the device.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from dom0_agent.mo.dmacc import DeviceTree, account_path, grant_account, read_account
from dom0_agent.mo.dmacc_nodes import MOID as DMACC_MOID
from dom0_agent.omadm.mo import Change, ExecOutcome, ExecRequest, Path, Undo
from dom0_agent.omadm.node import Command, Format, NodeDef, Scope, Value
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree_access import AtomicAccess
from dom0_agent.omadm.uri import format_path

logger = logging.getLogger(__name__)

MOID = "urn:oma:mo:oma-dm-inbox:1.0"
MOUNT: Path = ("Inbox",)
#: The identity under which a bootstrap message that was accepted is executed. No account can have it: it has a space.
BOOTSTRAP = "device bootstrap"
#: Octets of one value in the Inbox: certificates fit, images do not belong here.
MAX_VALUE = 65536

DEFINITION = NodeDef(
    "Inbox",
    Format.NODE,
    frozenset({Command.ADD}),
    scope=Scope.PERMANENT,
    types=(MOID,),
    title="Inbox",
    description="Management objects put here are moved to their places by their Type.",
    max_size=MAX_VALUE,
    open=True,
)


class InboxTree(DeviceTree, Protocol):
    """What is needed of the tree."""

    def device_delete(self, path: Path) -> None:
        """Delete a node with all below it."""

    def atomic(self) -> AbstractContextManager[AtomicAccess]:
        """Open an Atomic."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """An object that was moved from the Inbox to its place."""

    moid: str
    path: Path


class Inbox:
    """ManagementObject for ``./Inbox``. ``trusts`` says who may add to it; by default only an accepted bootstrap."""

    moid = MOID
    mount = MOUNT

    def __init__(self, trusts: Callable[[str], bool] = lambda server_id: server_id == BOOTSTRAP) -> None:
        self._trusts = trusts

    @property
    def definition(self) -> NodeDef:
        """One open node that only takes."""
        return DEFINITION

    def read(self, path: Path) -> Value | None:
        """No leaf is live."""

    def initial(self, path: Path) -> Value | None:
        """There are no automatic children."""

    def prepare(self, change: Change) -> Undo | None:
        """Servers that are not trusted get 425."""
        if change.server_id is not None and not self._trusts(change.server_id):
            raise DMError(Status.PERMISSION_DENIED, f"{change.server_id} may not add to ./Inbox")
        return None

    def committed(self, changes: Sequence[Change]) -> None:
        """What was added waits for :func:`deliver`."""

    def execute(self, request: ExecRequest) -> ExecOutcome:
        """Nothing can be executed."""
        raise DMError(Status.NOT_ALLOWED, f"{request.uri} is not an operation")


def deliver(tree: InboxTree) -> tuple[Delivered, ...]:
    """Move every object in the Inbox to its place and empty the Inbox, all or nothing.

    Objects of unknown Type are dropped (digest 11). References between the moved objects (``./Inbox/<node>…``) are
    rewritten. An account takes the place of the one with the same ServerID. Raises :class:`DMError` when an object
    does not fit its definition; the Inbox is emptied all the same, so that nothing half-understood stays.
    """
    try:
        with tree.atomic() as atomic:
            delivered = _deliver(tree)
            _empty(tree)
            atomic.commit()
    except DMError:
        _empty(tree)
        raise
    return delivered


def _deliver(tree: InboxTree) -> tuple[Delivered, ...]:
    moves: dict[Path, Path] = {}
    for name in tree.children(MOUNT):
        source = (*MOUNT, name)
        node = tree.node(source)
        moid = "" if node is None else node.type
        destination = _account_destination(tree, source) if moid == DMACC_MOID else None
        if destination is None:
            logger.warning("inbox.dropped uri=%s moid=%s: no such object here", format_path(source), moid or "none")
        else:
            moves[source] = destination
    renames = {format_path(source): format_path(destination) for source, destination in moves.items()}
    for source, destination in moves.items():
        if tree.exists(destination):
            tree.device_delete(destination)
        _move(tree, source, destination, renames)
        grant_account(tree, destination)
    return tuple(Delivered(DMACC_MOID, destination) for destination in moves.values())


def _account_destination(tree: InboxTree, source: Path) -> Path:
    account = read_account(tree, source)
    if account is None:
        raise DMError(Status.INCOMPLETE, f"the account at {format_path(source)} lacks its ServerID or address")
    return account_path(account.server_id)


def _move(tree: InboxTree, source: Path, destination: Path, renames: dict[str, str]) -> None:
    root = tree.node(source)
    tree.device_add(destination, acl="" if root is None else root.acl)
    for path in _below(tree, source):
        target = (*destination, *path[len(source) :])
        node = tree.node(path)
        if node is None:
            continue
        if node.is_interior:
            if not tree.exists(target):
                _tolerant(tree.device_add, target)
        else:
            data = "" if node.data is None else node.data
            data = _rewritten(data, renames) if isinstance(data, str) else data
            _tolerant(tree.device_set, target, Value(data, node.format, node.type))
        if node.acl and tree.exists(target):
            tree.device_set_acl(target, node.acl)


def _tolerant(action: Callable[..., None], path: Path, *arguments: object) -> None:
    """Nodes that this device's object does not have may be ignored; anything else is an error."""
    try:
        action(path, *arguments)
    except DMError as error:
        if error.status not in (Status.NOT_ALLOWED, Status.NOT_FOUND):
            raise
        logger.info("inbox.ignored uri=%s: %s", format_path(path), error)


def _rewritten(text: str, renames: dict[str, str]) -> str:
    for old, new in renames.items():
        if text == old or text.startswith(f"{old}/"):
            return new + text[len(old) :]
    return text


def _below(tree: InboxTree, path: Path) -> Iterator[Path]:
    for name in tree.children(path):
        yield (*path, name)
        yield from _below(tree, (*path, name))


def _empty(tree: InboxTree) -> None:
    for name in tree.children(MOUNT):
        tree.device_delete((*MOUNT, name))
