"""Backup and restore: tables, image files and the key of device secrets as one archive, from a running server.

The tables are written as JSON lines, not as a database's own files, so that an archive of SQLite may be restored into
PostgreSQL, and one of an older server into a newer. All tables are of one moment; image files never change.
"""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, Table, func, insert, select, text

from virmo_server.config import ServerConfig
from virmo_server.database import Database, DatabaseError
from virmo_server.migrate import migrate, newest_version
from virmo_server.vault import KEY_NAME
from virmo_server.version import VERSION

MANIFEST = "manifest.json"
FORMAT = 1
#: What is of the running processes only.
LEFT_OUT = frozenset({"alembic_version", "lease"})
_ROWS_AT_ONCE = 500


def back_up(config: ServerConfig, database: Database, target: Path, *, images: bool = True) -> None:
    """Write the archive; it holds secrets, so it is readable by its owner only. Replaces ``target`` when complete."""
    partial = target.with_name(f".{target.name}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as archive:
            manifest = {"format": FORMAT, "server": VERSION, "tables": newest_version(), "images": images}
            _add_text(archive, MANIFEST, json.dumps(manifest))
            archive.add(config.state_dir / KEY_NAME, KEY_NAME)
            with _snapshot(database) as connection:
                tables = _tables(connection)
                for table in tables:
                    _add_table(archive, connection, table)
                names = [row[0] for row in connection.execute(text("SELECT id FROM image"))] if images else []
            for name in names:
                path = config.image_dir / name
                if path.exists():  # it may have been deleted since
                    archive.add(path, f"images/{name}")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def restore(config: ServerConfig, database: Database, source: Path) -> None:
    """Fill an empty installation; :class:`DatabaseError` when it is not, or the archive is none of ours."""
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (config.state_dir / KEY_NAME).exists() or not _is_empty(database):
        raise DatabaseError(
            f"there is an installation already ({config.state_dir}, or its database):"
            " restore where there is none, or remove that first"
        )
    with tarfile.open(source, "r:gz") as archive:
        manifest = _manifest(archive, source)
        migrate(database, manifest["tables"])
        with database.exclusive() as connection:
            for table in _tables(connection):
                connection.execute(table.delete())  # what the migrations put there
                _read_table(archive, connection, table)
            if database.is_postgresql:
                _reset_sequences(connection)
        config.image_dir.mkdir(mode=0o700, exist_ok=True)
        for member in archive.getmembers():
            folder, _, name = member.name.rpartition("/")
            if folder == "images" and name.isalnum():
                _extract(archive, member, config.image_dir / name)
        _extract(archive, archive.getmember(KEY_NAME), config.state_dir / KEY_NAME)
    migrate(database)


@contextmanager
def _snapshot(database: Database) -> Iterator[Connection]:
    """A transaction in which nothing changes. SQLite's are so by themselves."""
    engine = database.engine
    if database.is_postgresql:
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.connect() as connection:
        yield connection


def _tables(connection: Connection) -> list[Table]:
    """As they are in the database, those that are referred to first."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name not in LEFT_OUT]


def _is_empty(database: Database) -> bool:
    with database.engine.connect() as connection:
        return not any(
            connection.execute(select(func.count()).select_from(table)).scalar_one() for table in _tables(connection)
        )


def _add_text(archive: tarfile.TarFile, name: str, content: str) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content.encode()), 0o600, int(datetime.now(UTC).timestamp())
    archive.addfile(info, io.BytesIO(content.encode()))


def _add_table(archive: tarfile.TarFile, connection: Connection, table: Table) -> None:
    with tempfile.TemporaryFile() as file:
        rows = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(
            select(table).order_by(*table.primary_key.columns)
        )
        for row in rows.mappings():
            file.write(json.dumps({key: _to_json(value) for key, value in row.items()}).encode() + b"\n")
        info = tarfile.TarInfo(f"tables/{table.name}.jsonl")
        info.size, info.mode = file.tell(), 0o600
        file.seek(0)
        archive.addfile(info, file)


def _read_table(archive: tarfile.TarFile, connection: Connection, table: Table) -> None:
    try:
        file = archive.extractfile(f"tables/{table.name}.jsonl")
    except KeyError:
        return
    if file is None:
        return
    batch: list[dict[str, Any]] = []
    for line in file:
        batch.append({key: _from_json(value) for key, value in json.loads(line).items()})
        if len(batch) == _ROWS_AT_ONCE:
            connection.execute(insert(table), batch)
            batch = []
    if batch:
        connection.execute(insert(table), batch)


def _to_json(value: Any) -> Any:
    match value:
        case bytes():
            return {"octets": base64.b64encode(value).decode()}
        case datetime():
            return {"time": value.isoformat()}
        case dict() | list():
            return {"json": value}
        case _:
            return value


def _from_json(value: Any) -> Any:
    match value:
        case {"octets": text_}:
            return base64.b64decode(text_)
        case {"time": text_}:
            return datetime.fromisoformat(text_)
        case {"json": content}:
            return content
        case _:
            return value


def _reset_sequences(connection: Connection) -> None:
    """PostgreSQL numbers by counters that inserted numbers do not move."""
    for table in _tables(connection):
        number = table.columns.get("id")
        if number is not None and number.server_default is not None:
            quoted = f'"{table.name}"'
            connection.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('{quoted}', 'id'), max(id)) FROM {quoted}"  # noqa: S608 - ours
            )


def _manifest(archive: tarfile.TarFile, source: Path) -> dict[str, Any]:
    try:
        file = archive.extractfile(MANIFEST)
        manifest = json.loads(b"" if file is None else file.read(65536))
    except (KeyError, ValueError) as error:
        raise DatabaseError(f"{source} is no backup of a VirMO Server") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DatabaseError(f"{source} has a format that this server does not know")
    return manifest


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = archive.extractfile(member)
    if source is None:
        raise DatabaseError(f"{member.name} of the backup is no file")
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while block := source.read(1 << 20):
            file.write(block)
