"""The contract between the tree and a management object (MO).

The tree does every check that does not need to know the device: URI syntax and limits, existence, ACL, AccessType,
Scope, occurrence, Format, Type, size. A management object is an adapter of about a hundred lines that it asks after
those checks. URIs given to an MO are absolute segment tuples, ``("VirMO", "vm1", "State")``.

Writes are two-phased so that Atomic can roll back: ``prepare`` may veto (raise :class:`DMError`) and may act at once,
in which case it returns how to undo that; ``committed`` is told when the whole transaction is durable.
All calls come from the one thread that owns the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from dom0_agent.omadm.frozen import frozen
from dom0_agent.omadm.node import Command, NodeDef, Value

Path = tuple[str, ...]  #: absolute, decoded segments without the leading "."; the root is ()


@frozen
class Change:
    """One write to the tree: ``ADD``, ``REPLACE`` or ``DELETE`` of the node at ``path``; a Copy arrives as one of them.

    ``value`` is ``None`` for interior nodes and for ``DELETE``. ``server_id`` is ``None`` when the device writes.
    For a rename ``command`` is ``REPLACE``, ``value`` is ``None`` and ``new_name`` is set.
    """

    command: Command
    path: Path
    value: Value | None = None
    server_id: str | None = None
    new_name: str | None = None


@frozen
class ExecRequest:
    """An Exec that passed all checks of the tree. ``uri`` is as the server wrote it, for alerts about this Exec."""

    path: Path
    uri: str
    server_id: str
    data: str | bytes = ""
    correlator: str | None = None


@dataclass(frozen=True, slots=True)
class ExecOutcome:
    """How an Exec ended: a final status, or 202 when a Generic Alert with the final code will follow."""

    status: int
    #: sub-trees that went away with this Exec (VirMO Delete, image Delete); the tree removes them at once
    removed: Sequence[Path] = ()


Undo = Callable[[], None]


class ManagementObject(Protocol):
    """An MO instance mounted at ``mount``; ``definition`` describes it from its root node downwards."""

    @property
    def moid(self) -> str:
        """Type property of the MO's root (``urn:oma:mo:…``)."""

    @property
    def mount(self) -> Path:
        """Where the MO's root node is."""

    @property
    def definition(self) -> NodeDef:
        """The root's :class:`NodeDef`, with all descendants."""

    def read(self, path: Path) -> Value | None:
        """Value of a leaf whose source is ``LIVE``; ``None`` when the node does not exist at present."""

    def initial(self, path: Path) -> Value | None:
        """Value of a stored leaf that the tree is making by itself (an automatic child); ``None``: its default.

        Called after ``prepare`` of the ADD of its parent, in the same transaction: a client-assigned id is made in
        ``prepare`` and handed out here.
        """

    def prepare(self, change: Change) -> Undo | None:
        """Veto by raising :class:`DMError`, or act and return the undo. The store has not changed yet."""

    def committed(self, changes: Sequence[Change]) -> None:
        """These changes, all below ``mount``, are durable now."""

    def execute(self, request: ExecRequest) -> ExecOutcome:
        """Run the operation; raises :class:`DMError` when it is refused or failed (State unchanged)."""


@runtime_checkable
class Refreshable(Protocol):
    """An MO whose stored nodes mirror something that changes by itself, as the objects of VMs below DMTree do."""

    def refresh(self) -> None:
        """A server is about to read nodes of this MO: bring them up to date, through the tree's device side.

        Must not raise, nor wait long; what cannot be read now stays as it was last known (A-41).
        """
