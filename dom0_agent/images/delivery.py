"""One Exec Download, from the URL to verified content in the staging folder.

Puts the parts in order: download (with space promised first), what kind of file it is (as early as its first bytes
tell), unpacking and verification. Runs in one worker thread, knows no records, states or listeners.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dom0_agent.images import mediatypes
from dom0_agent.images.config import MIB, ImagesConfig
from dom0_agent.images.download import Downloaded, Downloader, Order
from dom0_agent.images.errors import Cancelled, Corrupt, SizeMismatch, Truncated
from dom0_agent.images.mediatypes import Compression, Kind
from dom0_agent.images.partial import Partial
from dom0_agent.images.space import Reservation, SpaceLedger
from dom0_agent.images.store import ContentStore
from dom0_agent.images.unpack import Content, Identity, Rules, identify_file, unpack_bundle, unpack_disk

logger = logging.getLogger(__name__)

#: after this much of a file, its kind and a bundle's manifest can be read
PEEK = 1 * MIB
#: space is promised in such steps when nobody says how much will come
STEP = 64 * MIB
#: percent of the progress that the download has; the rest is unpacking and verification
DOWNLOAD_SHARE = 90


@dataclass(frozen=True, slots=True)
class Tools:
    """What all deliveries share."""

    config: ImagesConfig
    downloader: Downloader
    store: ContentStore
    ledger: SpaceLedger
    rules: Rules


@dataclass(frozen=True, slots=True)
class Delivered:
    """Verified content, staged. ``sha256`` is of the downloaded file."""

    staging: Path
    content: Content
    sha256: str


class Delivery:
    """The delivery of one image. ``progress`` is called with percent (0 to 99), from the running thread."""

    def __init__(
        self,
        tools: Tools,
        img_id: str,
        uri: str,
        media_type: str,
        *,
        cancel: threading.Event,
        progress: Callable[[int], None],
    ) -> None:
        self._tools = tools
        self._img_id = img_id
        self._uri = uri
        self._media_type = media_type
        self._cancel = cancel
        self._progress = progress

    def run(self) -> Delivered:
        """Do it all.

        :raises ImageError: it failed; what can be continued is left in the download folder
        :raises OSError: the disk failed
        """
        mediatypes.check_supported(self._media_type)
        partial = Partial(self._tools.store.download_folder(self._img_id))
        with (
            self._tools.ledger.reserve("the download") as download_space,
            self._tools.ledger.reserve("unpacking") as unpack_space,
        ):
            order = Order(self._uri, self._tools.config.max_size)
            try:
                return self._once(order, partial, download_space, unpack_space)
            except _Spliced as error:
                # The pieces did not belong together, whatever the server's ETag said. In one piece they must.
                logger.warning("image damaged, fetching it in one piece img_id=%s reason=%s", self._img_id, error)
                order = Order(self._uri, self._tools.config.max_size, resume=False)
                return self._once(order, partial, download_space, unpack_space)

    def _once(
        self, order: Order, partial: Partial, download_space: Reservation, unpack_space: Reservation
    ) -> Delivered:
        watch = _Watch(self._tools, self._media_type, partial.path, download_space, unpack_space, self._progress)
        downloaded = self._tools.downloader.fetch(order, partial, watch, self._cancel)
        try:
            content = self._unpack(downloaded, watch.identity, partial, unpack_space)
        except Corrupt as error:
            partial.discard()
            if downloaded.spliced and order.resume:
                raise _Spliced(str(error)) from error
            raise
        return Delivered(self._tools.store.root / "staging" / self._img_id, content, downloaded.sha256)

    def _unpack(
        self, downloaded: Downloaded, identity: Identity | None, partial: Partial, space: Reservation
    ) -> Content:
        tools = self._tools
        identity = identity or identify_file(partial.path, tools.rules)
        _check(self._media_type, identity, space)
        staging = tools.store.begin_staging(self._img_id)
        observer = _Unpacking(identity, space, self._cancel, self._progress)
        if identity.kind is Kind.BUNDLE:
            return unpack_bundle(partial.path, identity.compression, staging, tools.rules, observer)
        if not downloaded.delimited:
            raise SizeMismatch(f"{downloaded.url}: the server did not say how large the disk image is; is it whole?")
        return unpack_disk(partial.path, identity, downloaded.sha256, staging, tools.rules, observer)


class _Spliced(Corrupt):
    """Damaged, and put together from several answers of the server."""


def _check(media_type: str, identity: Identity, space: Reservation) -> None:
    """The file is what its MediaType says (A-38), and there is space to unpack it."""
    mediatypes.check_content(media_type, identity.kind, identity.compression)
    if identity.manifest is not None:
        space.ensure(identity.manifest.unpacked_size)
    elif identity.compression is not Compression.NONE:
        space.ensure(STEP)


class _Watch:
    """Follows a download: promises space before it is needed, and looks at the file as soon as it tells its kind."""

    def __init__(  # noqa: PLR0917 - private, called once
        self,
        tools: Tools,
        media_type: str,
        body: Path,
        download_space: Reservation,
        unpack_space: Reservation,
        progress: Callable[[int], None],
    ) -> None:
        self._tools = tools
        self._media_type = media_type
        self._body = body
        self._download_space = download_space
        self._unpack_space = unpack_space
        self._progress = progress
        self._next_peek = PEEK
        self.identity: Identity | None = None

    def begins(self, content_type: str, missing: int | None) -> None:
        mediatypes.check_response(content_type)
        self._download_space.ensure(STEP if missing is None else missing)

    def received(self, size: int, total: int | None, fresh: int) -> None:
        self._download_space.consume(fresh)
        if total is None:
            if self._download_space.remaining < STEP // 2:
                self._download_space.ensure(STEP)
        else:
            self._progress(size * DOWNLOAD_SHARE // max(1, total))
        if self.identity is None and size >= self._next_peek:
            self._next_peek *= 2
            self._peek()

    def _peek(self) -> None:
        try:
            identity = identify_file(self._body, self._tools.rules)
        except Truncated:
            return  # not enough yet
        _check(self._media_type, identity, self._unpack_space)
        self.identity = identity


class _Unpacking:
    """Follows the unpacking: uses up the promised space, reports progress, ends it when cancelled."""

    def __init__(
        self, identity: Identity, space: Reservation, cancel: threading.Event, progress: Callable[[int], None]
    ) -> None:
        self._total = identity.manifest.unpacked_size if identity.manifest is not None else None
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
