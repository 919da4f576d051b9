"""Statements that run for every DM message: compiled once, then given to the driver directly.

SQLAlchemy's way through a statement costs many times what SQLite needs to run it. Here its statements are still
written, and its column types convert, but each execution is one call of the driver. PostgreSQL is asked once for what
several messages need: its driver and the server's own work on a statement cost more than its rows. For statements of
fixed shape without ORM entities only; what the ORM holds unflushed is not seen by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Delete,
    Dialect,
    Insert,
    Select,
    String,
    TableValuedAlias,
    Update,
    bindparam,
    cast,
    func,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import visitors

from virmo_server.database import UtcDateTime

Statement = Select[*tuple[Any, ...]] | Insert | Update | Delete
Convert = Callable[[Any], Any]
Row = Mapping[str, Any]
#: The rows of parameters in a statement for many, and the column that numbers them, from 1.
_GIVEN, _NUMBER = "given", "row_number"
#: Times whose conversion is remembered.
_TIMES = 256


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement as one driver takes it."""

    text: str
    names: tuple[str, ...] | None  #: order of positional parameters; ``None``: by name
    fixed: Row  #: parameters that have their values already, converted
    given: tuple[str, ...]  #: those that have not
    binds: Mapping[str, Convert]  #: of those that are given
    results: tuple[Convert | None, ...]

    def parameters(self, row: Row) -> Sequence[Any] | Row:
        values = {**self.fixed, **row}
        for name, convert in self.binds.items():
            values[name] = convert(values[name])
        return values if self.names is None else [values[name] for name in self.names]

    def arrays(self, rows: Sequence[Row]) -> Row:
        """The parameters of a statement for many: each is an array."""
        values: dict[str, Any] = {**self.fixed, **{name: [row[name] for row in rows] for name in self.given}}
        for name, convert in self.binds.items():
            values[name] = [convert(value) for value in values[name]]
        return values

    def converted(self, row: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(v if to is None else to(v) for to, v in zip(self.results, row, strict=True))


class Prepared:
    """A statement; ``columns`` are those that an INSERT or UPDATE sets beside its own."""

    def __init__(self, statement: Statement, columns: Sequence[str] = ()) -> None:
        if columns and not isinstance(statement, Select | Delete):
            own = statement.table.c
            statement = statement.values({name: bindparam(name, type_=own[name].type) for name in columns})
        self._statement = statement
        self._compiled: dict[tuple[str, bool], _Compiled] = {}

    def first_of_each(self, connection: Connection, asked: Sequence[Row]) -> list[tuple[Any, ...] | None]:
        """The first row that a SELECT finds for each of ``asked``."""
        try:
            if len(asked) > 1 and _takes_many(connection):
                return self._first_of_many(connection, asked)
            compiled = self._for(connection.dialect)
            rows = []
            for values in asked:
                cursor = connection.connection.cursor()
                cursor.execute(compiled.text, compiled.parameters(values))
                rows.append(cursor.fetchone())
                cursor.close()
        except connection.dialect.loaded_dbapi.Error as error:
            raise _translated(connection, error) from error
        return [None if row is None else compiled.converted(row) for row in rows]

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Run what gives nothing back, for each of ``rows``. For :func:`write_all`: errors are the driver's."""
        cursor = connection.connection.cursor()
        if len(rows) > 1 and _takes_many(connection):
            compiled = self._for(connection.dialect, many=True)
            cursor.execute(compiled.text, compiled.arrays(rows))
            return
        compiled = self._for(connection.dialect)
        for row in rows:
            cursor.execute(compiled.text, compiled.parameters(row))

    def _first_of_many(self, connection: Connection, asked: Sequence[Row]) -> list[tuple[Any, ...] | None]:
        compiled = self._for(connection.dialect, many=True)
        found: list[tuple[Any, ...] | None] = [None] * len(asked)
        cursor = connection.connection.cursor()
        cursor.execute(compiled.text, compiled.arrays(asked))
        for number, *row in cursor.fetchall():
            if found[number - 1] is None:
                found[number - 1] = compiled.converted(row)
        cursor.close()
        return found

    def _for(self, dialect: Dialect, *, many: bool = False) -> _Compiled:
        key = dialect.driver, many
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = self._compile(dialect, many)
        return compiled

    def _compile(self, dialect: Dialect, many: bool) -> _Compiled:
        statement = self._statement
        made = (_for_many(statement) if many else statement).compile(dialect=dialect)
        fixed = {name: bind for bind, name in made.bind_names.items() if bind.value is not None}
        given = _given(statement)
        binds = {name: _bind_processor(bind, dialect) for name, bind in given.items()}
        results: list[Convert | None] = []
        if isinstance(statement, Select):
            types = [column.type.dialect_impl(dialect) for column in statement.selected_columns]
            results = [kind.result_processor(dialect, None) for kind in types]
        text = str(made)
        if many:  # arrays in binary: as text the driver escapes each value, which costs more than all the rest
            for name in given:
                text = text.replace(f"%({name})s", f"%({name})b")
        return _Compiled(
            text=text,
            names=None if made.positiontup is None else tuple(made.positiontup),
            fixed={name: _value(bind, dialect) for name, bind in fixed.items()},
            given=tuple(given),
            binds={name: convert for name, convert in binds.items() if convert is not None},
            results=tuple(results),
        )


def _bind_processor(bind: BindParameter[Any], dialect: Dialect) -> Convert | None:
    """What converts a parameter for the driver."""
    if isinstance(bind.type, UtcDateTime):
        return _time_processor(dialect)
    return bind.type.dialect_impl(dialect).bind_processor(dialect)


def _value(bind: BindParameter[Any], dialect: Dialect) -> Any:
    """What a parameter has already, as the driver takes it."""
    convert = _bind_processor(bind, dialect)
    return bind.value if convert is None else convert(bind.value)


@lru_cache
def _time_processor(dialect: Dialect) -> Convert | None:
    """One for all parameters that are times: a message writes the same into several rows."""
    convert = UtcDateTime().dialect_impl(dialect).bind_processor(dialect)
    return None if convert is None else lru_cache(_TIMES)(convert)


def _given(statement: Statement) -> dict[str, BindParameter[Any]]:
    """The parameters that each row has, by name."""
    binds = (element for element in visitors.iterate(statement) if isinstance(element, BindParameter))
    given = {bind.key: bind for bind in binds if bind.required}
    return {name: given[name] for name in sorted(given)}


def _for_many(statement: Statement) -> Statement:
    """The statement for rows of parameters, whose values come in an array for each parameter."""
    # Text without its column's length: a cast would cut off what is too long.
    types = {name: String() if isinstance(bind.type, String) else bind.type for name, bind in _given(statement).items()}
    arrays = [cast(bindparam(name, type_=ARRAY(kind)), ARRAY(kind)) for name, kind in types.items()]
    given = func.unnest(*arrays).table_valued(*types, with_ordinality=_NUMBER).render_derived(name=_GIVEN)

    def from_given(element: Any, **_: Any) -> Any:
        return given.c[element.key] if isinstance(element, BindParameter) and element.required else None

    if isinstance(statement, Insert):
        # Numbers that the database gives are in the order of the rows.
        rows = select(*(given.c[name] for name in types)).order_by(given.c[_NUMBER])
        return statement.table.insert().inline().from_select(list(types), rows, include_defaults=False)
    replaced = visitors.replacement_traverse(statement, {}, from_given)
    if isinstance(replaced, Select):
        return _each(given, replaced)
    assert isinstance(replaced, Update | Delete)
    return replaced


def _each(given: TableValuedAlias, statement: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """What a SELECT finds for each row, under the row's number."""
    found = statement.lateral("found")
    return select(given.c[_NUMBER], *found.c).select_from(given.join(found, true()))


Write = tuple[Prepared, Sequence[Row]]


def write_all(connection: Connection, writes: Iterable[Write]) -> None:
    """Run them, those of one statement together, the statements in the order of their first. PostgreSQL gets them in
    one go and answers once.

    So writes of different statements that touch the same rows are in one order whoever asks for them.
    """
    together: dict[Prepared, list[Row]] = {}
    for prepared, rows in writes:
        together.setdefault(prepared, []).extend(rows)
    try:
        with _pipeline(connection):
            for prepared, all_rows in together.items():
                prepared.run(connection, all_rows)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _translated(connection, error) from error


def _pipeline(connection: Connection) -> AbstractContextManager[Any]:
    if connection.dialect.name != "postgresql":
        return nullcontext()
    pipeline: AbstractContextManager[Any] = connection.connection.dbapi_connection.pipeline()  # type: ignore[union-attr]
    return pipeline


def _takes_many(connection: Connection) -> bool:
    """SQLite is called, not sent to: a statement for each row costs it nothing more."""
    return connection.dialect.name == "postgresql"


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
