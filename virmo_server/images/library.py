"""Files of the image library on disk and in the database. Knows no HTTP.

A file is written under a random id, hashed while it arrives, and enters the database only when it is complete; names
given by operators never become names on disk.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from virmo_server.clock import Clock
from virmo_server.config import Signatures
from virmo_server.credentials import new_serial
from virmo_server.database import Database
from virmo_server.images.signature import judge
from virmo_server.model import OPEN_STATES, DeliveredImage, Image, Order
from virmo_server.problem import Problem, conflict, not_found

#: What must stay free on the file system: the database shares it.
RESERVE_BYTES = 256 << 20
#: An upload that has not written for so long has broken off.
UNTOUCHED_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What the operator says of a file. ``sha256``: refuse the upload when the content differs."""

    name: str
    file_name: str
    media_type: str
    size: int | None = None
    sha256: str | None = None
    signature: bytes | None = None  #: one that is not in the file: CMS, detached, DER


NO_SIGNATURES = Signatures()


class ImageLibrary:
    """The library below ``folder``. ``free_bytes`` is replaceable for tests."""

    def __init__(
        self,
        folder: Path,
        database: Database,
        clock: Clock,
        *,
        max_bytes: int,
        signatures: Signatures = NO_SIGNATURES,
        free_bytes: Callable[[Path], int] | None = None,
    ) -> None:
        self._folder = folder
        self._database = database
        self._clock = clock
        self._max_bytes = max_bytes
        self._signatures = signatures
        self._free_bytes = free_bytes or (lambda path: shutil.disk_usage(path).free)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, image_id: str) -> Path:
        """Where the content of an image is; ``image_id`` must come from the database."""
        return self._folder / image_id

    def begin(self, spec: ImageSpec) -> Upload:
        """Start an upload; :class:`Problem` 413 or 507 when it cannot fit."""
        self.check_size(spec.size or 0)
        return Upload(self, spec)

    def check_size(self, size: int) -> None:
        """Refuse what is over the limit or would fill the disk."""
        if size > self._max_bytes:
            raise Problem(413, "too-large", f"the file is larger than this server takes ({self._max_bytes} bytes)")
        free = self._free_bytes(self._folder)
        if size + RESERVE_BYTES > free:
            raise Problem(
                507,
                "disk-full",
                f"the server has {free} bytes free and keeps {RESERVE_BYTES} of them: the file of {size} bytes does"
                " not fit, delete images that are not needed any more",
            )

    def store(self, spec: ImageSpec, temporary: Path, sha256: str, size: int) -> Image:
        """Take over a complete file; :class:`Problem` 422 when its signature is not good enough."""
        verdict = judge(temporary, spec.signature, self._signatures)
        image = Image(
            id=new_serial(),
            name=spec.name,
            file_name=spec.file_name,
            media_type=spec.media_type,
            sha256=sha256,
            size=size,
            created_at=self._clock(),
            signature_state=verdict.state,
            signed_by=verdict.signed_by,
            signature=spec.signature,
        )
        temporary.rename(self.path(image.id))
        with self._database.write() as session:
            session.add(image)
        return image

    def temporary(self) -> Path:
        """A fresh name for a file that is still arriving."""
        return self._folder / f".{new_serial()}.part"

    def delete(self, image_id: str) -> None:
        """Remove an image; 409 while an open order or a device's entry refers to it."""
        with self._database.write() as session:
            image = find_image(session, image_id)
            users = [order.id for order in _open_orders_of(session, image_id)]
            if users:
                raise conflict(f"image {image_id} is needed by open orders {users}: cancel them or wait for them")
            for entry in session.scalars(select(DeliveredImage).where(DeliveredImage.image_id == image_id)):
                entry.image_id = None
            session.delete(image)
        self.path(image_id).unlink(missing_ok=True)

    def sweep(self) -> list[str]:
        """Remove what uploads that broke off left, and files that the database does not know; their names.

        What was written to lately is left alone: another process may be at it.
        """
        with self._database.read() as session:
            known = set(session.scalars(select(Image.id)))
        newest = self._clock().timestamp() - UNTOUCHED_SECONDS
        removed = []
        for path in sorted(self._folder.iterdir()):
            if path.name not in known and _touched_at(path) < newest:
                path.unlink(missing_ok=True)
                removed.append(path.name)
        return removed


class Upload:
    """A file that is arriving. Leaving the context without :meth:`finish` removes what has arrived."""

    def __init__(self, library: ImageLibrary, spec: ImageSpec) -> None:
        self._library = library
        self._spec = spec
        self._path = library.temporary()
        self._digest = hashlib.sha256()
        self._size = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, untrusted_chunk: bytes) -> None:
        """Append; :class:`Problem` when the limit or the disk is reached."""
        if self._file is None:
            raise ValueError("upload is not open")
        self._size += len(untrusted_chunk)
        self._library.check_size(self._size)
        self._digest.update(untrusted_chunk)
        self._file.write(untrusted_chunk)

    def finish(self) -> Image:
        """Check and take over; :class:`Problem` 422 when it is not the file that was announced."""
        if self._file is None:
            raise ValueError("upload is not open")
        if self._size == 0:
            raise Problem(422, "empty", "the upload was empty: no image")
        sha256 = self._digest.hexdigest()
        if self._spec.size is not None and self._size != self._spec.size:
            raise Problem(
                422, "incomplete", f"{self._size} bytes arrived, {self._spec.size} were announced: upload again"
            )
        if self._spec.sha256 is not None and sha256 != self._spec.sha256.lower():
            raise Problem(422, "corrupt", f"what arrived has SHA-256 {sha256}, not {self._spec.sha256}: upload again")
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._library.store(self._spec, self._path, sha256, self._size)


def _touched_at(path: Path) -> float:
    """When it was last written to; never, if it has gone meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def find_image(session: Session, image_id: str) -> Image:
    """The image with this id, or a :class:`Problem` 404."""
    image = session.get(Image, image_id)
    if image is None:
        raise not_found("image", image_id, "see 'virmo image list'")
    return image


def _open_orders_of(session: Session, image_id: str) -> list[Order]:
    orders = session.scalars(select(Order).where(Order.state.in_(OPEN_STATES), Order.kind == "deliver-image"))
    return [order for order in orders if order.params.get("image_id") == image_id]
