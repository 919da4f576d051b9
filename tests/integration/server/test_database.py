"""Connections to PostgreSQL that it ends while nobody uses them."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import text

from tests.integration.server.postgresql import Cluster
from virmo_server import database
from virmo_server.database import Database


def test_a_connection_that_was_ended_while_it_rested_is_not_used(
    postgresql: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PING_AFTER_SECONDS", 0.0)
    url = postgresql.create_database("rested")
    opened = Database(url)
    try:
        first = backend(opened)
        assert backend(opened) == first, "it is kept"
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 10000)", (first,))
        assert backend(opened) != first
    finally:
        opened.close()


def backend(opened: Database) -> int:
    """The process that serves the connection."""
    with opened.read() as session:
        return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())
