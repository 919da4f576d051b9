"""Statements that run for every DM message: compiled once, then given to the driver directly.

SQLAlchemy's way through a statement costs many times what SQLite needs to run it. Here its statements are still
written, and its column types convert, but each execution is one call of the driver. For statements of fixed shape
without ORM entities only; what the ORM holds unflushed is not seen by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Delete, Dialect, Insert, Select, Update
from sqlalchemy.exc import DBAPIError

Statement = Select[*tuple[Any, ...]] | Insert | Update | Delete
Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement as one driver takes it."""

    text: str
    names: tuple[str, ...] | None  #: order of positional parameters; ``None``: by name
    fixed: Mapping[str, Any]  #: parameters that have their values already
    binds: tuple[tuple[str, Convert], ...]
    results: tuple[Convert | None, ...]

    def parameters(self, given: Mapping[str, Any]) -> Sequence[Any] | Mapping[str, Any]:
        values = {**self.fixed, **given}
        for name, convert in self.binds:
            values[name] = convert(values[name])
        return values if self.names is None else [values[name] for name in self.names]

    def converted(self, row: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(v if to is None else to(v) for to, v in zip(self.results, row, strict=True))


class Prepared:
    """A statement; ``columns`` are those that an INSERT sets."""

    def __init__(self, statement: Statement, columns: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}

    def first_of_each(self, connection: Connection, asked: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...] | None]:
        """The first row that a SELECT finds for each of ``asked``."""
        compiled = self._for(connection.dialect)
        try:
            with _pipeline(connection) if len(asked) > 1 else nullcontext():
                cursors = [
                    connection.connection.cursor().execute(compiled.text, compiled.parameters(values))
                    for values in asked
                ]
                rows = [cursor.fetchone() for cursor in cursors]
            for cursor in cursors:
                cursor.close()
        except connection.dialect.loaded_dbapi.Error as error:
            raise _translated(connection, error) from error
        return [None if row is None else compiled.converted(row) for row in rows]

    def run(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        """Run what gives nothing back, for each of ``rows``. For :func:`write_all`: errors are the driver's."""
        compiled = self._for(connection.dialect)
        cursor = connection.connection.cursor()
        for row in rows:
            cursor.execute(compiled.text, compiled.parameters(row))

    def _for(self, dialect: Dialect) -> _Compiled:
        compiled = self._compiled.get(dialect.driver)
        if compiled is None:
            compiled = self._compiled[dialect.driver] = self._compile(dialect)
        return compiled

    def _compile(self, dialect: Dialect) -> _Compiled:
        made = self._statement.compile(dialect=dialect, column_keys=self._columns)
        named = {name: bind for bind, name in made.bind_names.items()}
        converts = ((name, bind.type.dialect_impl(dialect).bind_processor(dialect)) for name, bind in named.items())
        results: list[Convert | None] = []
        if isinstance(self._statement, Select):
            types = [column.type.dialect_impl(dialect) for column in self._statement.selected_columns]
            results = [kind.result_processor(dialect, None) for kind in types]
        return _Compiled(
            text=str(made),
            names=None if made.positiontup is None else tuple(made.positiontup),
            fixed={name: bind.value for name, bind in named.items() if bind.value is not None},
            binds=tuple((name, convert) for name, convert in converts if convert is not None),
            results=tuple(results),
        )


Write = tuple[Prepared, Sequence[Mapping[str, Any]]]


def write_all(connection: Connection, writes: Iterable[Write]) -> None:
    """Run them in their order. PostgreSQL gets them in one go and answers once."""
    try:
        with _pipeline(connection):
            for prepared, rows in writes:
                prepared.run(connection, rows)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _translated(connection, error) from error


def _pipeline(connection: Connection) -> AbstractContextManager[Any]:
    if connection.dialect.name != "postgresql":
        return nullcontext()
    pipeline: AbstractContextManager[Any] = connection.connection.dbapi_connection.pipeline()  # type: ignore[union-attr]
    return pipeline


def _translated(connection: Connection, error: Exception) -> DBAPIError:
    """A driver's error as SQLAlchemy raises it; a connection that it ended is given up."""
    dialect = connection.dialect
    is_lost = dialect.is_disconnect(error, connection.connection, None)  # type: ignore[arg-type]
    if is_lost:
        connection.invalidate(error)
    made = DBAPIError.instance(
        None, None, error, dialect.loaded_dbapi.Error, connection_invalidated=is_lost, dialect=dialect
    )
    assert isinstance(made, DBAPIError)
    return made
