"""A download that is not complete: its bytes, their running SHA-256, and what is needed to go on after a crash.

The bytes are in ``<name>.part``, what they are in ``<name>.json``. The note is written only after the bytes it
speaks of are on the disk, so that a power cut can lose bytes but never mix right ones with wrong ones. Knows no HTTP
beyond the strong ETag that says of which representation the bytes are.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from dom0_agent.images.errors import Cancelled

#: seconds of download that a power cut may cost; a checkpoint waits for the disk
CHECKPOINT = 5.0
_REREAD = 1024 * 1024
_MAX_NOTE = 64 * 1024


class Partial:
    """One download's file. Not thread-safe: it belongs to the thread that downloads."""

    def __init__(self, folder: Path, name: str = "body", clock: Callable[[], float] = time.monotonic) -> None:
        self.path = folder / f"{name}.part"
        self._note = folder / f"{name}.json"
        self._clock = clock
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._written = clock()
        self.uri = ""  #: what the bytes are of
        self.via = ""  #: the DownloadURI whose download descriptor led to ``uri``
        self.size = 0  #: bytes there
        self.etag: str | None = None  #: strong validator of the representation they belong to
        self.total: int | None = None  #: bytes of the whole, when known
        self.pieces = 0  #: responses the bytes came from

    def load(self) -> None:
        """Read what is known from an earlier run; an unusable note means that there is nothing."""
        self._reset()
        try:
            note = json.loads(self._note.read_bytes()[:_MAX_NOTE])
            size = min(int(note["durable"]), self.path.stat().st_size)
            self.uri, self.via, self.etag = str(note["uri"]), str(note["via"]), str(note["etag"])
            self.total = None if note["total"] is None else int(note["total"])
            self.size = size
        except (OSError, ValueError, TypeError, KeyError):
            self._reset()

    def open(self, uri: str, cancel: threading.Event, via: str = "") -> None:
        """Open for writing; bytes of ``uri`` that can be continued stay, others go.

        :raises Cancelled: while re-reading what is there
        """
        self.load()
        if self.uri != uri or self.etag is None:
            self._reset()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("r+b" if self.path.exists() else "w+b", buffering=0)
        self._file.truncate(self.size)
        self.uri, self.via = uri, via
        left = self.size
        while left:
            if cancel.is_set():
                raise Cancelled("the download was cancelled")
            data = self._file.read(min(_REREAD, left))
            self._hash.update(data)
            left -= len(data)
        self.pieces = 1 if self.size else 0

    def begin(self, etag: str | None, total: int | None) -> None:
        """A complete representation begins: what was there is gone."""
        uri, via = self.uri, self.via
        self._note.unlink(missing_ok=True)
        self._reset()
        self.uri, self.via, self.etag, self.total, self.pieces = uri, via, etag, total, 1
        file = self._opened()
        file.seek(0)
        file.truncate(0)

    def extend(self, total: int | None) -> None:
        """The rest of the representation begins at :attr:`size`."""
        self.total = total if self.total is None else self.total
        self.pieces += 1

    def write(self, data: memoryview) -> None:
        """Append ``data``."""
        file = self._opened()
        self._hash.update(data)
        done = 0
        while done < len(data):
            done += file.write(data[done:])
        self.size += len(data)
        if self._clock() - self._written > CHECKPOINT:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Make what is there survive a power cut. Without a validator it could not be continued: nothing to note.

        Also after :meth:`close`, if the file is still there.
        """
        if self.etag is not None and self.path.exists():
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            note = {"uri": self.uri, "via": self.via, "etag": self.etag, "total": self.total, "durable": self.size}
            fresh = self._note.with_suffix(".new")
            fresh.write_text(json.dumps(note), encoding="utf-8")
            fresh.replace(self._note)
        self._written = self._clock()

    def sha256(self) -> str:
        """Of the bytes there, lower-case hexadecimal."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Close the file, leaving what is there."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def discard(self) -> None:
        """Close and remove everything."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self._reset()

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("Partial is not open")
        return self._file

    def _reset(self) -> None:
        self._hash = hashlib.sha256()
        self.uri = self.via = ""
        self.size = self.pieces = 0
        self.etag = self.total = None
