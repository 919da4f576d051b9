"""The tables that the migrations make are the tables that the code uses, from whatever version they come."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from virmo_server import model, model_running
from virmo_server.database import Base, Database, DatabaseError
from virmo_server.migrate import FIRST, migrate, newest_version


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'virmo.db'}"


def differences(database: Database) -> list[object]:
    with database.engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))


def test_an_empty_database_gets_all_tables(url: str) -> None:
    database = Database(url)
    assert migrate(database) is None
    assert differences(database) == []
    assert {model.Device.__tablename__, model_running.Event.__tablename__} <= Base.metadata.tables.keys()
    assert migrate(database) == newest_version()
    database.close()


def test_tables_without_a_version_are_the_first(url: str) -> None:
    """Servers before migrations wrote no version; what is in their tables stays."""
    database = Database(url)
    migrate(database, FIRST)
    with database.exclusive() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
        connection.exec_driver_sql(
            "INSERT INTO token (name, role, sha256, created_at) VALUES ('old', 'admin', 'x', '2026-01-01 00:00:00')"
        )
    assert migrate(database) == FIRST
    assert differences(database) == []
    with database.read() as session:
        assert session.get_one(model.Token, 1).name == "old"
    database.close()


def test_a_database_of_a_newer_server_is_refused(url: str) -> None:
    database = Database(url)
    migrate(database)
    with database.exclusive() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseError, match="version 9999, which this server does not know"):
        migrate(database)
    database.close()


def test_a_process_that_starts_beside_the_first_writer_waits(tmp_path: Path) -> None:
    """SQLite refuses to change to the write-ahead log at once, without its time-out, while somebody begins to write."""
    file = tmp_path / "virmo.db"
    first = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    first.execute("CREATE TABLE t (x)")
    first.execute("BEGIN IMMEDIATE")
    first.execute("SELECT * FROM t").fetchall()
    timer = threading.Timer(0.3, lambda: first.execute("COMMIT"))
    timer.start()
    database = Database(f"sqlite:///{file}")
    with database.read() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
    timer.join()
    first.close()
    database.close()


def test_processes_that_start_at_once_migrate_once(url: str) -> None:
    databases = [Database(url) for _ in range(4)]
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda d=d: found.append(migrate(d))) for d in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert differences(databases[0]) == []
    for database in databases:
        database.close()
