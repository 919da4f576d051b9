"""The agent's one SQLite file: opening, checking, migrating it, and transactions.

Everything that must outlive the agent is in here: nodes, VMs, operation journal, images, alert outbox, nonces. This
module knows no table. WAL lets readers go on beside the one writer; ``synchronous=FULL`` makes a committed
transaction survive a power cut, which the journal and every status 200 that a server was told depend on.

Each thread has its own connection. Transactions are short: nobody may wait for another thread inside of one.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dom0_agent.store.migrations import MIGRATIONS

#: Seconds a writer waits for another thread's transaction. They take milliseconds; a board with a tired SD card can
#: stall for seconds in one fsync, and failing an operation because of that would be worse than waiting.
BUSY_TIMEOUT = 20.0
#: A board has little memory: keep SQLite's page cache small (KiB, negative as SQLite wants it).
CACHE_KIB = -512
#: Bytes the write-ahead log may keep on disk after a checkpoint; images of dom0 are small.
JOURNAL_SIZE_LIMIT = 1 << 20
#: The file holds account secrets and nonces: nobody but the agent's user reads it.
FILE_MODE = 0o600


class StoreError(Exception):
    """The store cannot do it. The message names the file and says what to do."""


class StoreCorruptError(StoreError):
    """The database file is damaged; the agent must not run on it."""


class StoreTooNewError(StoreError):
    """A newer agent wrote this database."""


class Database:
    """The open database. Thread-safe: each thread transparently gets its own connection."""

    def __init__(self, path: Path, *, busy_timeout: float = BUSY_TIMEOUT) -> None:
        """Open ``path``, made with mode 0600 if absent, check its integrity and bring it to the current schema.

        Raises :class:`StoreCorruptError`, :class:`StoreTooNewError`, or :class:`StoreError` when the file cannot be
        used at all.
        """
        self.path = path
        self._busy_timeout = busy_timeout
        self._local = threading.local()
        self._connections: dict[threading.Thread, sqlite3.Connection] = {}
        self._guard = threading.Lock()
        self._closed = False
        try:
            path.touch(mode=FILE_MODE, exist_ok=True)
            path.chmod(FILE_MODE)
        except OSError as error:
            raise StoreError(f"cannot use {path} as the agent's database: {error}") from error
        try:
            self._check()
            self._migrate()
        except sqlite3.DatabaseError as error:
            self.close()
            raise StoreCorruptError(_corrupt(path, str(error))) from error
        except StoreError:
            self.close()
            raise

    @property
    def connection(self) -> sqlite3.Connection:
        """The calling thread's connection, in autocommit mode; good for reads. Writes go through ``transaction``."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        return connection if connection is not None else self._connect()

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """All writes of the block, or none. Inside another transaction of the same thread it becomes part of that
        one: an exception undoes the inner block alone, and only the end of the outermost block makes anything durable.

        ``durable=False`` leaves out the fsync, for what is only progress: such a commit survives a kill of the agent,
        a power cut may lose it (never more than whole transactions from the end).
        """
        connection = self.connection
        if _in_transaction(connection):
            with _savepoint(connection):
                yield connection
            return
        if not durable:
            connection.execute("PRAGMA synchronous=NORMAL")
        try:
            self._begin(connection)
            try:
                yield connection
            except BaseException:
                _roll_back(connection)
                raise
            self._commit(connection)
        finally:
            if not durable:
                connection.execute("PRAGMA synchronous=FULL")

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        """All rows of a SELECT."""
        rows: list[sqlite3.Row] = self.connection.execute(sql, tuple(parameters)).fetchall()
        return rows

    def close(self) -> None:
        """Close every thread's connection; to be called when no other thread uses the database any more."""
        with self._guard:
            self._closed = True
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()
        self._local = threading.local()

    def _begin(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"no write access to {self.path} within {self._busy_timeout:g} s: {error}; does another agent run?"
            ) from error

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            _roll_back(connection)
            raise StoreError(f"cannot write {self.path}: {error}; is the storage full or broken?") from error

    def _connect(self) -> sqlite3.Connection:
        with self._guard:
            if self._closed:
                raise StoreError(f"{self.path} is closed")
            for thread in [thread for thread in self._connections if not thread.is_alive()]:
                self._connections.pop(thread).close()
        connection = sqlite3.connect(
            self.path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        try:
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                "foreign_keys=ON",
                f"cache_size={CACHE_KIB}",
                f"journal_size_limit={JOURNAL_SIZE_LIMIT}",
            ):
                connection.execute(f"PRAGMA {pragma}").fetchall()
        except sqlite3.Error:
            connection.close()
            raise
        with self._guard:
            self._connections[threading.current_thread()] = connection
        self._local.connection = connection
        return connection

    def _check(self) -> None:
        findings = [str(row[0]) for row in self.query("PRAGMA integrity_check(3)")]
        if findings != ["ok"]:
            raise StoreCorruptError(_corrupt(self.path, "; ".join(findings)))

    def _migrate(self) -> None:
        version = self._version()
        if version > len(MIGRATIONS):
            raise StoreTooNewError(
                f"{self.path} has schema version {version}, this agent knows up to {len(MIGRATIONS)}: "
                "install the agent that wrote it, or restore a backup made before the upgrade"
            )
        while (version := self._version()) < len(MIGRATIONS):
            with self.transaction() as connection:
                if self._version() != version:  # another process was faster
                    continue
                for statement in MIGRATIONS[version]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={version + 1}")

    def _version(self) -> int:
        return int(self.query("PRAGMA user_version")[0][0])


def _in_transaction(connection: sqlite3.Connection) -> bool:
    return connection.in_transaction


def _roll_back(connection: sqlite3.Connection) -> None:
    if _in_transaction(connection):  # a full disk, for one, has made SQLite roll back by itself already
        connection.execute("ROLLBACK")


@contextmanager
def _savepoint(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("SAVEPOINT inner_block")
    try:
        yield
    except BaseException:
        if _in_transaction(connection):
            connection.execute("ROLLBACK TO inner_block")
            connection.execute("RELEASE inner_block")
        raise
    connection.execute("RELEASE inner_block")


def _corrupt(path: Path, finding: str) -> str:
    return (
        f"the agent's database {path} is damaged ({finding}): stop the agent, keep the file for analysis, and restore "
        "a backup or start with an empty one (running VMs are adopted again, accounts need a new bootstrap)"
    )
