"""Brings the tables to this server's version with Alembic: at each start, and by ``virmo-server migrate``.

Several processes may start at once, so the work is done under the database's lock; when there is none to do, nothing is
locked. A database of a newer server is refused, never guessed at.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from virmo_server.database import Database, DatabaseError

MIGRATIONS = Path(__file__).parent / "migrations"
#: The version of tables that were made before versions were written into the database.
FIRST = "0001"
_FIRST_TABLE = "dm_session"


def migrate(database: Database, target: str = "head") -> str | None:
    """Bring the tables to ``target``; the version that they had, ``None`` for an empty database.

    Raises :class:`DatabaseError` for tables of a newer server.
    """
    script = ScriptDirectory.from_config(_config())
    wanted = script.get_current_head() if target == "head" else target
    with database.engine.connect() as connection:
        found = _version(connection)
    if found == wanted:
        return found
    with database.exclusive() as connection:
        found = _version(connection)
        if found is not None and found not in {revision.revision for revision in script.walk_revisions()}:
            raise DatabaseError(
                f"the database's tables have version {found}, which this server does not know (it needs {wanted}):"
                " use the server that made them, or a newer one"
            )
        config = _config()
        config.attributes["connection"] = connection
        if found == FIRST and not inspect(connection).has_table("alembic_version"):
            command.stamp(config, FIRST)
        command.upgrade(config, target)
    return found


def newest_version() -> str:
    """The version of tables that this server works with."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def _version(connection: Connection) -> str | None:
    version = MigrationContext.configure(connection).get_current_revision()
    if version is None and inspect(connection).has_table(_FIRST_TABLE):
        return FIRST
    return version


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
