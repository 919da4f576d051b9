"""Following a download and an unpacking: space is promised before it is needed, progress told, cancelling noticed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from dom0_agent.images import mediatypes
from dom0_agent.images.config import MIB
from dom0_agent.images.dlota import MAX_DESCRIPTOR
from dom0_agent.images.errors import BadDescriptor, Cancelled, Truncated
from dom0_agent.images.mediatypes import DESCRIPTOR, essence
from dom0_agent.images.space import Reservation
from dom0_agent.images.unpack import Identity

#: after this much of a file, its kind and a bundle's manifest can be read
PEEK = 1 * MIB
#: space is promised in such steps when nobody says how much will come
STEP = 64 * MIB
#: percent of the progress that the download has; the rest is unpacking and verification
DOWNLOAD_SHARE = 90


class DownloadWatch:
    """A :class:`dom0_agent.images.download.Watcher`.

    ``look`` says what the file at the path is as soon as enough of it is there, and checks that it may be: an image
    that this device cannot take should not be downloaded to its end.
    """

    def __init__(
        self, body: Path, space: Reservation, look: Callable[[Path], Identity], progress: Callable[[int], None]
    ) -> None:
        self._body = body
        self._space = space
        self._look = look
        self._progress = progress
        self._next_look = PEEK
        self._descriptor = False
        self.identity: Identity | None = None

    def begins(self, content_type: str, missing: int | None) -> None:
        self._descriptor = essence(content_type) == DESCRIPTOR
        mediatypes.check_response(content_type)
        self._space.ensure(STEP if missing is None else missing)

    def received(self, size: int, total: int | None, fresh: int) -> None:
        self._space.consume(fresh)
        if self._descriptor:
            if size > MAX_DESCRIPTOR:
                raise BadDescriptor(f"the download descriptor is larger than {MAX_DESCRIPTOR} bytes")
            return
        if total is not None:
            self._progress(size * DOWNLOAD_SHARE // max(1, total))
        elif self._space.remaining < STEP // 2:
            self._space.ensure(STEP)
        if self.identity is None and size >= self._next_look:
            self._next_look *= 2
            try:
                self.identity = self._look(self._body)
            except Truncated:
                return  # not enough yet


class UnpackWatch:
    """A :data:`dom0_agent.images.unpack.Observer`; ``total`` is ``None`` when nobody says how much it will be."""

    def __init__(
        self, total: int | None, space: Reservation, cancel: threading.Event, progress: Callable[[int], None]
    ) -> None:
        self._total = total
        self._space = space
        self._cancel = cancel
        self._progress = progress
        self._done = 0

    def __call__(self, size: int) -> None:
        if self._cancel.is_set():
            raise Cancelled("the download was cancelled")
        self._done += size
        self._space.consume(size)
        if self._total is not None:
            self._progress(min(99, DOWNLOAD_SHARE + self._done * (100 - DOWNLOAD_SHARE) // self._total))
        elif self._space.remaining < STEP // 2:
            self._space.ensure(STEP)
