"""Generic Alerts (1226) that a server has not yet acknowledged.

An alert is written here in the transaction that makes its reason true, and removed only after the server's 200 or 202,
so it survives loss of the session, of the agent and of dom0 (A-33, OMA-TS-DM 8.7). Knows no session.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dom0_agent.store.database import Database


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """One Generic Alert to send. ``id`` grows with time and is never used twice."""

    id: int
    server_id: str
    alert_type: str  #: Meta/Type
    format: str  #: Meta/Format
    source_uri: str  #: Item/Source/LocURI, "./…"
    data: str  #: may be empty; the element is sent all the same (A-29)
    mark: str | None
    correlator: str | None  #: identical to the Exec's
    created: float  #: seconds since the epoch
    attempts: int  #: how often it was put into a message


class Outbox:
    """The alerts in the database. Thread-safe; each call is one durable transaction, or part of the caller's."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def add(
        self,
        server_id: str,
        alert_type: str,
        *,
        source_uri: str,
        format: str = "chr",  # noqa: A002 - the specification's word
        data: str = "",
        mark: str | None = None,
        correlator: str | None = None,
    ) -> int:
        """Queue an alert for ``server_id``; returns its id."""
        with self._database.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO outbox (server_id, alert_type, format, mark, source_uri, correlator, data, created, "
                "attempts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
                (server_id, alert_type, format, mark, source_uri, correlator, data, self._clock()),
            )
            return int(cursor.lastrowid or 0)

    def list(self, server_id: str | None = None) -> tuple[PendingAlert, ...]:
        """The alerts for one server, or for all, oldest first."""
        if server_id is None:
            rows = self._database.query("SELECT * FROM outbox ORDER BY id")
        else:
            rows = self._database.query("SELECT * FROM outbox WHERE server_id = ? ORDER BY id", (server_id,))
        return tuple(_from_row(row) for row in rows)

    def sent(self, alert_ids: Iterable[int]) -> None:
        """These alerts were put into a message; they stay until acknowledged."""
        with self._database.transaction(durable=False) as connection:
            connection.executemany(
                "UPDATE outbox SET attempts = attempts + 1 WHERE id = ?", [(alert_id,) for alert_id in alert_ids]
            )

    def remove(self, alert_ids: Iterable[int]) -> None:
        """The server acknowledged these alerts (200 or 202); unknown ids are ignored, an acknowledgement can repeat."""
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM outbox WHERE id = ?", [(alert_id,) for alert_id in alert_ids])

    def remove_server(self, server_id: str) -> None:
        """The account is gone: nobody is left to tell."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM outbox WHERE server_id = ?", (server_id,))


def _from_row(row: sqlite3.Row) -> PendingAlert:
    return PendingAlert(**{name: row[name] for name in row.keys()})  # noqa: SIM118 - a Row iterates over its values
