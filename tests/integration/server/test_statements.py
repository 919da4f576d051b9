"""Statements that run for every message do the same for one row and for many, on both databases."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, Enum, Integer, LargeBinary, String, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column

from tests.integration.server.conftest import POSTGRESQL, SQLITE
from virmo_server.database import Database, UtcDateTime
from virmo_server.statements import Prepared, write_all

WHEN = datetime(2026, 11, 26, 10, 0, 0, 123456, tzinfo=UTC)


class Base(DeclarativeBase):
    """This test's tables."""


class Colour(enum.StrEnum):
    """As orders have states."""

    RED = "red"
    BLUE = "blue"


class Line(Base):
    """A column of each type that is in use."""

    __tablename__ = "line"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(8), unique=True)
    colour: Mapped[Colour] = mapped_column(Enum(Colour, native_enum=False, values_callable=list))
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    is_done: Mapped[bool]
    at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    data: Mapped[dict[str, Any]] = mapped_column(JSON)


COLUMNS = ("name", "colour", "body", "is_done", "at", "data")
OTHER = aliased(Line)
KEEP = Prepared(insert(Line).inline(), COLUMNS)
CHANGE = Prepared(update(Line).where(Line.name == bindparam("key")), ("body", "at"))
NEWEST = (
    select(OTHER.name)
    .where(OTHER.colour == bindparam("colour"))
    .order_by(OTHER.id.desc())
    .limit(bindparam("kept", type_=Integer))
)
DROP = Prepared(delete(Line).where(Line.colour == bindparam("colour"), Line.name.not_in(NEWEST)))
IS_COLOURED = or_(*(Line.colour == colour for colour in Colour))
FIND = Prepared(
    select(Line.id, *(getattr(Line, name) for name in COLUMNS)).where(Line.name == bindparam("wanted"), IS_COLOURED)
)
LOCK = Prepared(
    select(Line.id).where(Line.name == bindparam("wanted")).with_for_update(key_share=True, skip_locked=True)
)


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """With an empty table."""
    if request.param == POSTGRESQL:
        url = request.getfixturevalue("postgresql").create_database(tmp_path.name)
    else:
        url = f"sqlite:///{tmp_path}/lines.db"
    made = Database(url)
    with made.exclusive() as connection:
        Base.metadata.create_all(connection)
    yield made
    made.close()


def row(number: int, **changed: object) -> dict[str, object]:
    """A row of all types; every other one has NULLs."""
    is_odd = bool(number % 2)
    return {
        "name": f"line-{number}",
        "colour": Colour.RED if is_odd else Colour.BLUE,
        "body": bytes(range(number)) if is_odd else None,
        "is_done": is_odd,
        "at": WHEN if is_odd else None,
        "data": {"number": number, "text": 'ü "{,}"\\'},
        **changed,
    }


def keep(database: Database, *rows: dict[str, object]) -> None:
    with database.write() as session:
        write_all(session.connection(), [(KEEP, rows)])


def find(database: Database, *names: str) -> list[tuple[Any, ...] | None]:
    with database.read() as session:
        return FIND.first_of_each(session.connection(), [{"wanted": name} for name in names])


@pytest.mark.parametrize("count", [1, 2, 20])
def test_what_is_written_is_found(database: Database, count: int) -> None:
    """In the order asked for, with nothing for what is not there; numbers are given in the order of the rows."""
    rows = [row(number) for number in range(count)]
    keep(database, *rows)
    names = [str(given["name"]) for given in reversed(rows)]
    found = find(database, "nobody", *names, "x" * 9)
    assert found[0] is None
    assert found[-1] is None
    assert [entry[1:] for entry in found[1:-1] if entry is not None] == [
        tuple(given[name] for name in COLUMNS) for given in reversed(rows)
    ]
    assert [entry[0] for entry in found[1:-1] if entry is not None] == list(range(count, 0, -1))


def test_one_name_asked_for_twice(database: Database) -> None:
    keep(database, row(1), row(2))
    first, second, other = find(database, "line-1", "line-1", "line-2")
    assert first == second != other


@pytest.mark.parametrize("count", [1, 3])
def test_each_row_is_changed_by_its_own_values(database: Database, count: int) -> None:
    """Also where they take a value away."""
    keep(database, *(row(number) for number in range(4)))
    changes = [{"key": f"line-{number}", "body": None if number else b"new", "at": WHEN} for number in range(count)]
    with database.write() as session:
        write_all(session.connection(), [(CHANGE, [change]) for change in changes])
    bodies = [entry and (entry[3], entry[5]) for entry in find(database, *(f"line-{number}" for number in range(4)))]
    was = [(row(number)["body"], row(number)["at"]) for number in range(4)]
    assert bodies == [*((change["body"], WHEN) for change in changes), *was[count:]]


def test_writes_of_one_statement_run_together(database: Database) -> None:
    """What one message drops and keeps is as if it were alone: first all drop, then all keep."""
    keep(database, *(row(number) for number in range(8)))
    with database.write() as session:
        one = [(DROP, [{"colour": Colour.BLUE, "kept": 1}]), (KEEP, [row(100)])]
        other = [(DROP, [{"colour": Colour.RED, "kept": 2}]), (KEEP, [row(101)])]
        write_all(session.connection(), [*one, *other])
    with database.read() as session:
        names = session.scalars(select(Line.name).order_by(Line.id)).all()
    assert names == ["line-5", "line-6", "line-7", "line-100", "line-101"]


def test_what_somebody_else_has_locked_is_left_out(database: Database) -> None:
    if not database.is_postgresql:
        return  # its one writer has everything
    keep(database, *(row(number) for number in range(4)))
    wanted = [{"wanted": f"line-{number}"} for number in range(4)]
    with database.write() as one, database.write() as other:
        mine = LOCK.first_of_each(one.connection(), wanted[1:3])
        assert None not in mine
        theirs = LOCK.first_of_each(other.connection(), wanted)
        assert [entry is not None for entry in theirs] == [True, False, False, True]


@pytest.mark.parametrize("others", [0, 2])
def test_what_does_not_fit_is_refused_whole(database: Database, others: int) -> None:
    """Nothing is cut off to make it fit, and nothing else of the transaction stays."""
    rows = [row(number) for number in range(others)]
    with pytest.raises(IntegrityError):
        keep(database, *rows, row(5), row(5))
    if database.is_postgresql:
        with pytest.raises(DBAPIError, match="too long"):
            keep(database, *rows, row(6, name="123456789"))
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Line)) == 0
