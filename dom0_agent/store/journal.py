"""The operation journal: what an operation is about to do and has done, written down before and after each step.

After a crash of the agent or of dom0, :meth:`Journal.unfinished` tells the VM engine what to finish or undo, so that a
transition is atomic also then (R-010 to R-012, R-023). The journal knows neither VMs nor what a step does.

The life of an operation::

    begin → intend(0) → done(0) → intend(1) → done(1) → … → finish
                           └─ failure at k: turn_back → undone(k) → undone(k-1) → … → finish

``finish`` removes the entry. Put it into one transaction with the record's new state
(``with database.transaction(): vms.put(…); journal.finish(…)``), so that no crash can separate the two.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

from dom0_agent.operation import Origin
from dom0_agent.store.database import Database, StoreError
from dom0_agent.store.origins import dump_origin, load_origin


class StepState(Enum):
    """How far a step got, as far as the disk knows."""

    PLANNED = "planned"  #: not begun
    INTENDED = "intended"  #: begun; whether it took effect is unknown, the undo must cope with both
    DONE = "done"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class JournalStep:
    """One step. ``detail`` is what its undo needs to know (JSON values), as given to ``intend`` and ``done``."""

    position: int
    name: str
    state: StepState
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One operation that has not been finished."""

    operation_id: str
    vmid: UUID | None  #: None: an operation over several VMs (ApplyChanges)
    primitive: str
    origin: Origin | None
    params: Mapping[str, object]
    steps: tuple[JournalStep, ...]
    undoing: bool  #: it failed, and was being undone
    reason: str | None  #: why it is being undone, for people
    started: float  #: seconds since the epoch


class Journal:
    """The journal in the database. Every call is durable when it returns (or when the caller's transaction ends)."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def begin(
        self,
        primitive: str,
        steps: Sequence[str],
        *,
        vmid: UUID | None = None,
        origin: Origin | None = None,
        params: Mapping[str, object] | None = None,
        details: Sequence[Mapping[str, object]] | None = None,
    ) -> str:
        """Write down a new operation with the names of all its steps; returns its operation id.

        ``details``: what each step's undo needs to know, where that is known before it begins.
        """
        operation_id = uuid.uuid4().hex
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO operation VALUES (?, ?, ?, ?, ?, 0, NULL, ?)",
                (
                    operation_id,
                    None if vmid is None else str(vmid),
                    primitive,
                    dump_origin(origin),
                    json.dumps(dict(params or {})),
                    self._clock(),
                ),
            )
            connection.executemany(
                "INSERT INTO operation_step VALUES (?, ?, ?, ?, ?)",
                [
                    (operation_id, i, name, StepState.PLANNED.value, json.dumps(dict(detail)))
                    for i, (name, detail) in enumerate(zip(steps, details or [{}] * len(steps), strict=True))
                ],
            )
        return operation_id

    def intend(self, operation_id: str, position: int, detail: Mapping[str, object] | None = None) -> None:
        """Step ``position`` is about to begin. ``detail`` (added to what is there) is what undoing it needs."""
        self._step(operation_id, position, StepState.INTENDED, detail)

    def done(self, operation_id: str, position: int, detail: Mapping[str, object] | None = None) -> None:
        """Step ``position`` took effect."""
        self._step(operation_id, position, StepState.DONE, detail)

    def turn_back(self, operation_id: str, reason: str) -> None:
        """From here on the operation is undone; a restart must go on undoing, never forward."""
        with self._database.transaction() as connection:
            changed = connection.execute(
                "UPDATE operation SET undoing = 1, reason = ? WHERE operation_id = ?", (reason, operation_id)
            )
            if changed.rowcount != 1:
                raise StoreError(f"the journal has no operation {operation_id}")

    def undone(self, operation_id: str, position: int) -> None:
        """Step ``position`` was undone (or never took effect)."""
        self._step(operation_id, position, StepState.UNDONE, None)

    def finish(self, operation_id: str) -> None:
        """The operation is over, with or without success: forget it."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM operation WHERE operation_id = ?", (operation_id,))

    def get(self, operation_id: str) -> JournalEntry | None:
        """The entry, or ``None`` when it was finished."""
        rows = self._database.query("SELECT * FROM operation WHERE operation_id = ?", (operation_id,))
        return self._load(rows[0]) if rows else None

    def unfinished(self) -> tuple[JournalEntry, ...]:
        """All operations not finished, oldest first. At start-up: those that a crash interrupted."""
        return tuple(self._load(row) for row in self._database.query("SELECT * FROM operation ORDER BY rowid"))

    def _step(self, operation_id: str, position: int, state: StepState, detail: Mapping[str, object] | None) -> None:
        key = (operation_id, position)
        with self._database.transaction() as connection:
            changed = connection.execute(
                "UPDATE operation_step SET state = ? WHERE operation_id = ? AND position = ?", (state.value, *key)
            )
            if changed.rowcount != 1:
                raise StoreError(f"the journal has no step {position} of operation {operation_id}")
            if detail:
                found = connection.execute(
                    "SELECT detail FROM operation_step WHERE operation_id = ? AND position = ?", key
                ).fetchone()
                merged = json.dumps({**json.loads(found["detail"]), **detail})
                connection.execute(
                    "UPDATE operation_step SET detail = ? WHERE operation_id = ? AND position = ?", (merged, *key)
                )

    def _load(self, row: sqlite3.Row) -> JournalEntry:
        steps = self._database.query(
            "SELECT * FROM operation_step WHERE operation_id = ? ORDER BY position", (row["operation_id"],)
        )
        return JournalEntry(
            operation_id=row["operation_id"],
            vmid=None if row["vmid"] is None else UUID(row["vmid"]),
            primitive=row["primitive"],
            origin=load_origin(row["origin"]),
            params=json.loads(row["params"]),
            steps=tuple(
                JournalStep(step["position"], step["name"], StepState(step["state"]), json.loads(step["detail"]))
                for step in steps
            ),
            undoing=bool(row["undoing"]),
            reason=row["reason"],
            started=row["started"],
        )
