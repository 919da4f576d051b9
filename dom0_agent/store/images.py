"""Images as they are persisted: the public record and the book-keeping that lets a download resume after a restart."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dom0_agent.images.model import ImageRecord, ImageState
from dom0_agent.operation import Origin
from dom0_agent.store.database import Database
from dom0_agent.store.origins import dump_origin, load_origin


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One row. ``record`` is what the others see; the rest is the image service's own."""

    record: ImageRecord
    uri: str = ""  #: the DownloadURI of the last Exec Download
    media_type: str = ""
    etag: str | None = None  #: strong validator of the partial data, for If-Range
    received: int = 0  #: bytes of the partial download that are safely on disk
    total: int | None = None  #: bytes the whole download has, once known
    sha256: str | None = None  #: of the complete download, lower-case hex
    origin: Origin | None = None  #: the Exec Download that began the running download
    #: the verified manifest and whatever else the service needs to hand the image out again; JSON values
    manifest: Mapping[str, object] = field(default_factory=dict)

    @property
    def img_id(self) -> str:
        """The ImgID."""
        return self.record.img_id


class ImageTable:
    """The images in the database. Each call is one transaction, or part of the caller's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, img_id: str) -> StoredImage | None:
        """The image, or ``None``."""
        rows = self._database.query("SELECT * FROM image WHERE img_id = ?", (img_id,))
        return _from_row(rows[0]) if rows else None

    def list(self) -> tuple[StoredImage, ...]:
        """All images, in the order of their making."""
        return tuple(_from_row(row) for row in self._database.query("SELECT * FROM image ORDER BY rowid"))

    def put(self, image: StoredImage) -> None:
        """Insert the image, or replace the row with its ImgID; durable when it returns."""
        record = image.record
        values = {
            "img_id": record.img_id,
            "state": int(record.state),
            "location": None if record.location is None else str(record.location),
            "progress": record.progress,
            "size": record.size,
            "last_error": record.last_error,
            "uri": image.uri,
            "media_type": image.media_type,
            "etag": image.etag,
            "received": image.received,
            "total": image.total,
            "sha256": image.sha256,
            "origin": dump_origin(image.origin),
            "manifest": json.dumps(dict(image.manifest)),
        }
        with self._database.transaction() as connection:
            connection.execute(_PUT, values)

    def note_progress(self, img_id: str, *, progress: int, received: int) -> None:
        """Move the counters of a running download. Not fsynced: losing the last ones costs only traffic."""
        with self._database.transaction(durable=False) as connection:
            connection.execute(
                "UPDATE image SET progress = ?, received = ? WHERE img_id = ?", (progress, received, img_id)
            )

    def delete(self, img_id: str) -> bool:
        """Forget the image; whether there was one."""
        with self._database.transaction() as connection:
            return connection.execute("DELETE FROM image WHERE img_id = ?", (img_id,)).rowcount > 0


_COLUMNS = (
    "img_id",
    "state",
    "location",
    "progress",
    "size",
    "last_error",
    "uri",
    "media_type",
    "etag",
    "received",
    "total",
    "sha256",
    "origin",
    "manifest",
)
_PUT = (
    f"INSERT INTO image ({', '.join(_COLUMNS)}) VALUES ({', '.join(':' + c for c in _COLUMNS)}) "  # noqa: S608 - constants
    f"ON CONFLICT (img_id) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in _COLUMNS[1:])}"
)


def _from_row(row: sqlite3.Row) -> StoredImage:
    return StoredImage(
        record=ImageRecord(
            img_id=row["img_id"],
            state=ImageState(row["state"]),
            location=None if row["location"] is None else Path(row["location"]),
            progress=row["progress"],
            size=row["size"],
            last_error=row["last_error"],
        ),
        uri=row["uri"],
        media_type=row["media_type"],
        etag=row["etag"],
        received=row["received"],
        total=row["total"],
        sha256=row["sha256"],
        origin=load_origin(row["origin"]),
        manifest=json.loads(row["manifest"]),
    )
