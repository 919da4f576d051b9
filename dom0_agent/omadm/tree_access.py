"""What a client session asks of the management tree; the tree implements it, sessions and tests use it.

Every method takes the ServerID of the authenticated account, does all checks of OMA-TS-DM-TND in the order of
``oma-dm`` section 4.1 (syntax and limits, property, existence, ACL, AccessType, format, device) and raises
:class:`~dom0_agent.omadm.status.DMError` with the status that the server is to see. Outside ``atomic`` each call is
one durable transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from dom0_agent.omadm.frozen import frozen
from dom0_agent.omadm.node import Format


@frozen
class ItemValue:
    """A value as a command carries it: Meta that was not given is ``None``. ``data`` is ``bytes`` for Format bin."""

    data: str | bytes = ""
    format: Format | None = None
    type: str | None = None


@frozen
class NodeResult:
    """One Item of Results. ``value.data`` is meaningless when ``has_data`` is false (``?list=Struct``)."""

    uri: str
    value: ItemValue
    has_data: bool = True


class AtomicAccess(Protocol):
    """An open Atomic. Members run through the tree as usual; the end is one of these two."""

    def commit(self) -> None:
        """Make all writes durable; :class:`CommitFailed` when that was not possible and all has been rolled back."""

    def rollback(self) -> Sequence[bool]:
        """Undo all writes, last first; per executed write, in execution order, whether its undo worked (216 or 516)."""


class TreeAccess(Protocol):
    """The management tree, as one authenticated server may use it."""

    def get(self, server_id: str, uri: str) -> Sequence[NodeResult]:
        """Get, also with ``?prop=`` and ``?list=``; one result but for the list forms."""

    def add(self, server_id: str, uri: str, value: ItemValue) -> None:
        """Add a leaf or (Format node) an interior node, or a TNDS document (Type dmtnds)."""

    def replace(self, server_id: str, uri: str, value: ItemValue) -> None:
        """Replace a leaf's value, a property, or a sub-tree by TNDS."""

    def delete(self, server_id: str, uri: str) -> None:
        """Delete a node with all below it."""

    def copy(self, server_id: str, source: str, target: str) -> None:
        """Copy a leaf."""

    def execute(self, server_id: str, uri: str, data: str | bytes, correlator: str | None) -> int:
        """Exec; the final status, or 202 when a Generic Alert will follow."""

    def atomic(self) -> AbstractContextManager[AtomicAccess]:
        """Open an Atomic; leaving the context without commit rolls back."""
