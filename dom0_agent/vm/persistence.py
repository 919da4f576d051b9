"""What the VM engine needs to have on disk before it dares the next step; implemented by ``store`` (SQLite).

Knows no SQL and no hypervisor. Every method returns only when its change is durable. Thread-safe: each VM's worker
calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from dom0_agent.operation import OperationResult, Origin
from dom0_agent.vm.model import VmRecord


@dataclass(frozen=True, slots=True)
class StoredVm:
    """A VM's row: the record (its ``running_step`` is of the moment and need not be kept) and how to build its domain."""

    record: VmRecord
    definition: str | None = None  #: JSON of ``vm.definition.VmDefinition``; opaque to the store; None in NotCreated


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """An operation that was begun. ``action`` and ``arguments`` are enough to build its list of steps again."""

    entry_id: int
    vmid: UUID
    action: str  #: a ``Primitive`` value or an action of the engine itself ("Restart")
    arguments: Mapping[str, str] = field(default_factory=dict)
    origin: Origin | None = None
    steps_begun: int = 0  #: how many steps were begun: the last one of them may be half done
    steps_done: int = 0  #: how many of them were finished
    result: OperationResult | None = None  #: set: it ended, and only its report may be outstanding


class VmPersistence(Protocol):
    """The VM table and the operation journal, in one database, so that a commit covers both."""

    def load_vms(self) -> tuple[StoredVm, ...]:
        """All VMs."""

    def put_vm(self, vm: StoredVm) -> None:
        """Insert or replace a VM (key: ``record.vmid``)."""

    def remove_vm(self, vmid: UUID) -> None:
        """Drop a VM; no error when it is not there."""

    def begin(self, vmid: UUID, action: str, arguments: Mapping[str, str], origin: Origin | None) -> int:
        """Write the intent of an operation; returns its entry id."""

    def step_begun(self, entry_id: int, steps_begun: int) -> None:
        """Step number ``steps_begun`` (from 1) is about to be done (or, when undoing, this many may need an undo)."""

    def step_done(self, entry_id: int, steps_done: int) -> None:
        """Step number ``steps_done`` (from 1) is finished."""

    def finish(self, entry_id: int, vm: StoredVm | None, result: OperationResult) -> None:
        """In one transaction: the operation has ended with ``result``; its VM's row becomes ``vm`` (None: is removed)."""

    def reported(self, entry_id: int) -> None:
        """The end of the operation reached its listener or waiter: drop the entry."""

    def open_entries(self) -> tuple[JournalEntry, ...]:
        """Entries not yet reported, oldest first: unfinished operations, and finished ones whose report is due."""

    def get_meta(self, key: str) -> str | None:
        """A fact of the engine's own (``host_boot_id``: which boot of dom0 the table was last valid for)."""

    def put_meta(self, key: str, value: str) -> None:
        """Set such a fact."""
