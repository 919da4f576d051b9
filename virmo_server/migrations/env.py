"""Alembic runs this; the connection, with its lock and its transaction, is given by ``virmo_server.migrate``."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
