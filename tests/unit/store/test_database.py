"""The database file: modes, migrations, transactions, damage."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from dom0_agent.store import migrations
from dom0_agent.store.database import Database, StoreCorruptError, StoreError, StoreTooNewError


def test_file_is_private_and_wal(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    path.touch(mode=0o644)
    database = Database(path)
    with database.transaction() as connection:
        connection.execute("INSERT INTO nonce VALUES ('a', 'CLCRED', x'00')")
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "agent.db-wal").stat().st_mode & 0o777 == 0o600
    assert database.query("PRAGMA journal_mode")[0][0] == "wal"
    assert database.query("PRAGMA synchronous")[0][0] == 2
    database.close()


def test_migrates_to_the_current_version_once(tmp_path: Path) -> None:
    for _ in range(2):
        database = Database(tmp_path / "agent.db")
        assert database.query("PRAGMA user_version")[0][0] == len(migrations.MIGRATIONS)
        database.close()


def test_failed_migration_leaves_the_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Database(tmp_path / "agent.db").close()
    broken = (*migrations.MIGRATIONS, ("CREATE TABLE fresh (a)", "SELECT nonsense FROM nowhere"))
    monkeypatch.setattr("dom0_agent.store.database.MIGRATIONS", broken)
    with pytest.raises(StoreError):
        Database(tmp_path / "agent.db")
    monkeypatch.undo()
    database = Database(tmp_path / "agent.db")
    assert not database.query("SELECT 1 FROM sqlite_schema WHERE name = 'fresh'")
    database.close()


def test_newer_schema_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreTooNewError, match="schema version 99"):
        Database(path)


@pytest.mark.parametrize("offset", [0, 100, 4096, -4096])
def test_damage_is_reported_not_used(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "agent.db"
    database = Database(path)
    with database.transaction() as connection:
        connection.executemany("INSERT INTO nonce VALUES (?, 'CLCRED', x'00')", [(f"a{i}",) for i in range(500)])
    database.close()
    data = bytearray(path.read_bytes())
    start = offset % len(data)
    data[start : start + 60] = b"\xa5" * 60
    path.write_bytes(data)
    with pytest.raises(StoreCorruptError, match=r"agent\.db is damaged"):
        Database(path)


def test_unusable_path_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing"):
        Database(tmp_path / "missing" / "agent.db")


def test_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "agent.db")
    with pytest.raises(RuntimeError), database.transaction() as connection:
        connection.execute("INSERT INTO nonce VALUES ('a', 'CLCRED', x'00')")
        raise RuntimeError
    assert database.query("SELECT * FROM nonce") == []
    database.close()


def test_inner_transaction_fails_alone(tmp_path: Path) -> None:
    database = Database(tmp_path / "agent.db")
    with database.transaction() as connection:
        connection.execute("INSERT INTO nonce VALUES ('outer', 'CLCRED', x'00')")
        with pytest.raises(RuntimeError), database.transaction() as inner:
            inner.execute("INSERT INTO nonce VALUES ('inner', 'CLCRED', x'00')")
            raise RuntimeError
        with database.transaction(durable=False) as inner:
            inner.execute("INSERT INTO nonce VALUES ('third', 'CLCRED', x'00')")
    assert [row["account"] for row in database.query("SELECT account FROM nonce ORDER BY account")] == [
        "outer",
        "third",
    ]
    database.close()


def test_progress_transactions_leave_the_next_one_durable(tmp_path: Path) -> None:
    database = Database(tmp_path / "agent.db")
    with database.transaction(durable=False) as connection:
        connection.execute("INSERT INTO nonce VALUES ('a', 'CLCRED', x'00')")
    assert database.query("PRAGMA synchronous")[0][0] == 2
    database.close()


def test_threads_write_side_by_side_and_their_connections_are_closed(tmp_path: Path) -> None:
    database = Database(tmp_path / "agent.db")

    def write(name: str) -> None:
        for i in range(20):
            with database.transaction(durable=False) as connection:
                connection.execute("INSERT INTO nonce VALUES (?, 'CLCRED', x'00')", (f"{name}{i}",))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.query("SELECT count(*) FROM nonce")[0][0] == 80
    late = threading.Thread(target=write, args=("e",))
    late.start()
    late.join()
    assert len(database._connections) == 2  # this thread's and the last one's: dead threads' were closed
    database.close()


def test_a_second_writer_gives_up_with_a_clear_error(tmp_path: Path) -> None:
    first = Database(tmp_path / "agent.db")
    second = Database(tmp_path / "agent.db", busy_timeout=0.05)
    with (
        first.transaction(),
        pytest.raises(StoreError, match="does another agent run"),
        second.transaction(),
    ):
        raise AssertionError("the second writer must not get in")
    first.close()
    second.close()


def test_closed_database_says_so(tmp_path: Path) -> None:
    database = Database(tmp_path / "agent.db")
    database.close()
    with pytest.raises(StoreError, match="closed"):
        database.query("SELECT 1")
