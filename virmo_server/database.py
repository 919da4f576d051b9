"""Opens the database and hands out transactions. Knows SQLAlchemy and the ways of SQLite and PostgreSQL; knows no
table's meaning.

Two kinds of transaction, because SQLite locks the whole file: ``read`` (snapshot) and ``write``, which takes the
write lock at its begin, so that two writers queue up instead of failing half-way when both want to upgrade. PostgreSQL
lets writers work side by side: who changes what belongs to a device locks the device first (``devices.registry``).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, DateTime, Dialect, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.types import TypeDecorator

from virmo_server.writers import WriterQueue

#: A writer waits this long for the lock; transactions here last milliseconds, so this is an overloaded disk.
LOCK_TIMEOUT_SECONDS = 30
_RETRY_SECONDS = 0.02
#: Connections to PostgreSQL that a process keeps; at its busiest it has twice as many.
POOL = 20
#: A connection that nobody used for so long may have been ended, and is asked before it is used.
PING_AFTER_SECONDS = 1.0
_RESTS_SINCE = "virmo_rests_since"
_WRITES = "virmo_writes"
#: Any number that other users of the same PostgreSQL database do not lock.
_EXCLUSIVE_KEY = 0x7669726D6F


class DatabaseError(Exception):
    """The database cannot be used; the message says what to do."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; stored without zone because SQLite has none."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to naive UTC; a naive value is a programming error."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime given to the database")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back an aware time."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Parent of all tables."""


class Database:
    """The database at ``url`` (SQLAlchemy URL). Thread-safe; one per process. Sessions carry ``info`` about."""

    def __init__(self, url: str, info: Mapping[str, Any] | None = None) -> None:
        self._engine = create_engine(_with_driver(url), **_engine_options(url))
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        else:
            event.listen(self._engine, "checkin", _note_rest)
            event.listen(self._engine, "checkout", partial(_ping_rested, self._engine.dialect))
        file = self._engine.url.database if self._engine.dialect.name == "sqlite" else None
        self._queue = WriterQueue(Path(f"{file}.writers")) if file not in {None, "", ":memory:"} else None
        self._info = dict(info or {})
        self._readers = sessionmaker(self._engine, expire_on_commit=False, info=self._info)
        writing = self._engine.execution_options(**{_WRITES: True})
        self.writers = sessionmaker(writing, expire_on_commit=False, info=self._info)

    @contextmanager
    def exclusive(self) -> Iterator[Connection]:
        """A write transaction that only one process at a time is in; for changes of the tables."""
        with self._turn(), self._engine.execution_options(**{_WRITES: True}).begin() as connection:
            if self.is_postgresql:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_EXCLUSIVE_KEY})")
            yield connection

    @property
    def is_postgresql(self) -> bool:
        """Whether rows have to be locked one by one; SQLite's writers have the whole file."""
        return self._engine.dialect.name == "postgresql"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A read transaction; what is read stays usable after it, changes are thrown away."""
        with self._readers() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A write transaction: committed at the end of the block, rolled back when an exception leaves it.

        One at a time in a thread: with SQLite it would wait for itself.
        """
        with self._turn(), self.writers.begin() as session:
            yield session

    @property
    def engine(self) -> Engine:
        """For maintenance and tests."""
        return self._engine

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
        if self._queue is not None:
            self._queue.close()

    def _turn(self) -> AbstractContextManager[None]:
        return nullcontext() if self._queue is None else self._queue.turn()


def _with_driver(url: str) -> str:
    """``postgresql://`` as operators write it means our driver."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1) if url.startswith("postgresql://") else url


def _engine_options(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": LOCK_TIMEOUT_SECONDS}}
    timeout = f"-c lock_timeout={LOCK_TIMEOUT_SECONDS}s -c timezone=UTC"
    return {"connect_args": {"options": timeout}, "pool_size": POOL, "max_overflow": POOL}


def _prepare_sqlite(dbapi_connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """Write-ahead log: readers never wait for a writer. We issue BEGIN ourselves, so the driver must not."""
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    _use_write_ahead_log(cursor)
    for pragma in ("synchronous = NORMAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _use_write_ahead_log(cursor: DBAPICursor) -> None:
    """Only the first connection to a new file changes anything. While another one begins to write there SQLite refuses
    that at once, whatever the time-out."""
    end = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        time.sleep(_RETRY_SECONDS)


def _note_rest(_dbapi_connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
    entry.info[_RESTS_SINCE] = time.monotonic()


def _ping_rested(
    dialect: Dialect, dbapi_connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection
) -> None:
    """A connection that PostgreSQL ended while nobody used it is not given out. To ask each time costs as much as one
    of the few statements that a DM message needs."""
    if time.monotonic() - entry.info.get(_RESTS_SINCE, time.monotonic()) < PING_AFTER_SECONDS:
        return
    try:
        dialect.do_ping(dbapi_connection)
    except dialect.loaded_dbapi.Error as error:
        raise DisconnectionError from error  # the pool makes another


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
