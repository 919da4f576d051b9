"""Nonces of the server accounts, one per account and role (OMA-TS-DM-Security 5.3).

Only nonces of an authenticated peer belong here; the session keeps the others to itself.
"""

from __future__ import annotations

from dom0_agent.omadm.auth import NonceRole
from dom0_agent.store.database import Database


class NonceTable:
    """A :class:`~dom0_agent.omadm.auth.NonceStore` in the database; each call is one durable transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, account: str, role: NonceRole) -> bytes | None:
        """The raw nonce octets to use next, or ``None`` when none was ever stored."""
        rows = self._database.query("SELECT nonce FROM nonce WHERE account = ? AND role = ?", (account, role.value))
        return bytes(rows[0]["nonce"]) if rows else None

    def put(self, account: str, role: NonceRole, nonce: bytes) -> None:
        """Keep ``nonce``, in place of the one before."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO nonce VALUES (?, ?, ?) ON CONFLICT (account, role) DO UPDATE SET nonce = excluded.nonce",
                (account, role.value, nonce),
            )

    def delete(self, account: str) -> None:
        """Forget both nonces of an account that was removed."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM nonce WHERE account = ?", (account,))
