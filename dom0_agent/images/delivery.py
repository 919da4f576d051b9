"""One Exec Download, from the URL to verified content in the staging folder.

Puts the parts in order: download (with space promised first), a descriptor on the way if there is one, what kind of
file it is (as early as its first bytes tell), unpacking and verification, the report to the descriptor's author. Runs
in one worker thread; knows no records, states or listeners.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dom0_agent.images import dlota, mediatypes
from dom0_agent.images.config import ImagesConfig
from dom0_agent.images.dlota import Descriptor
from dom0_agent.images.download import Downloaded, Downloader, Order
from dom0_agent.images.errors import (
    Corrupt,
    ImageError,
    LoaderError,
    NetworkLost,
    SizeMismatch,
    TooLarge,
    Unsupported,
    disk_failure,
)
from dom0_agent.images.mediatypes import Compression, Kind
from dom0_agent.images.partial import Partial
from dom0_agent.images.space import SpaceLedger
from dom0_agent.images.store import ContentStore
from dom0_agent.images.unpack import Content, Identity, Rules, identify_file, unpack_bundle, unpack_disk
from dom0_agent.images.urls import Url
from dom0_agent.images.watch import STEP, DownloadWatch, UnpackWatch

logger = logging.getLogger(__name__)

#: seconds before the second try to deliver a report
_REPORT_PAUSE = 2.0


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


class _Spliced(Corrupt):
    """Damaged, and put together from several answers of the server to ``order``."""

    def __init__(self, message: str, order: Order) -> None:
        super().__init__(message)
        self.order = order


class Delivery:
    """The delivery of one image. ``progress`` is called with percent (0 to 99), from the running thread.

    ``stopping`` is asked when it was cancelled: an agent that stops does not report to a descriptor's author.
    """

    def __init__(
        self,
        tools: Tools,
        img_id: str,
        uri: str,
        media_type: str,
        *,
        cancel: threading.Event,
        progress: Callable[[int], None],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._tools = tools
        self._img_id = img_id
        self._uri = uri
        self._media_type = media_type
        self._cancel = cancel
        self._progress = progress
        self._stopping = stopping
        self._descriptor: Descriptor | None = None
        self._download_space = tools.ledger.reserve("the download")
        self._unpack_space = tools.ledger.reserve("unpacking")

    def run(self) -> Delivered:
        """Do it all. :raises ImageError: it failed; what can be continued is left in the download folder"""
        try:
            with self._download_space, self._unpack_space:
                delivered = self._deliver()
            self._report_success()
        except ImageError as error:
            self._report_failure(error.notify)
            raise
        except OSError as error:
            failure = disk_failure(self._tools.config.dir, error)
            self._report_failure(failure.notify)
            raise failure from error
        return delivered

    def _deliver(self) -> Delivered:
        mediatypes.check_supported(self._media_type)
        body = Partial(self._tools.store.download_folder(self._img_id))
        order = self._ordered(body)
        try:
            return self._once(order, body)
        except _Spliced as error:
            # The pieces did not belong together, whatever the server's ETag said. In one piece they must.
            logger.warning("image damaged, fetching it in one piece img_id=%s reason=%s", self._img_id, error)
            return self._once(replace(error.order, resume=False), body)

    # Download ---------------------------------------------------------------------------------------------------------

    def _ordered(self, body: Partial) -> Order:
        """What to get. When an earlier run was led on by a descriptor, that is read again before the object goes on."""
        body.load()
        if body.via == self._uri:
            slot = Partial(body.path.parent, "descriptor")
            downloaded, _ = self._fetch(Order(self._uri, dlota.MAX_DESCRIPTOR), slot)
            order = self._follow(downloaded, slot)
            if order is not None:
                return order
            slot.discard()
            body.discard()
        return Order(self._uri, self._tools.config.max_size)

    def _once(self, order: Order, body: Partial) -> Delivered:
        try:
            downloaded, watch = self._fetch(order, body)
            followed = self._follow(downloaded, body) if not order.via else None
            if followed is not None:
                order = followed
                downloaded, watch = self._fetch(order, body)
            content = self._unpack(downloaded, watch.identity, body)
        except Corrupt as error:
            spliced = body.pieces > 1
            body.discard()
            if spliced and order.resume:
                raise _Spliced(str(error), order) from error
            raise
        return Delivered(self._tools.store.staging_folder(self._img_id), content, downloaded.sha256)

    def _fetch(self, order: Order, into: Partial) -> tuple[Downloaded, DownloadWatch]:
        watch = DownloadWatch(into.path, self._download_space, self._look, self._progress)
        return self._tools.downloader.fetch(order, into, watch, self._cancel), watch

    def _follow(self, downloaded: Downloaded, slot: Partial) -> Order | None:
        """What a descriptor in ``slot`` orders; ``None`` when it is something else.

        :raises ImageError: the descriptor, or what it promises, cannot be used
        """
        if downloaded.size > dlota.MAX_DESCRIPTOR:
            return None
        untrusted_bytes = slot.path.read_bytes()
        if not dlota.is_descriptor(downloaded.content_type, untrusted_bytes):
            return None
        slot.discard()
        descriptor = self._descriptor = dlota.parse_descriptor(untrusted_bytes, downloaded.url)
        if descriptor.problem is not None:
            raise descriptor.problem
        if not any(mediatypes.is_supported(media_type) for media_type in descriptor.types):
            shown = ", ".join(media_type[:80] for media_type in descriptor.types[:4])
            raise Unsupported(f"the download descriptor offers {shown}, which this device cannot use")
        most = self._tools.config.max_size
        if descriptor.size > most:
            raise TooLarge(f"the download descriptor says {descriptor.size} bytes; at most {most} are taken")
        return Order(descriptor.object_uri, most, descriptor.size, via=self._uri)

    # Content ----------------------------------------------------------------------------------------------------------

    def _look(self, path: Path) -> Identity:
        """What the file is; it is what its types say (A-38), and there is space to unpack it."""
        identity = identify_file(path, self._tools.rules)
        mediatypes.check_content(self._media_type, identity.kind, identity.compression)
        if self._descriptor is not None:
            mediatypes.check_described(self._descriptor.types, identity.kind, identity.compression)
        if identity.manifest is not None:
            self._unpack_space.ensure(identity.manifest.unpacked_size)
        elif identity.compression is not Compression.NONE:
            self._unpack_space.ensure(STEP)
        return identity

    def _unpack(self, downloaded: Downloaded, identity: Identity | None, body: Partial) -> Content:
        """The content. A download that is complete becomes durable beside that: it need not be repeated when something
        after it fails, or the power goes."""
        keeper = threading.Thread(target=self._keep, args=(body,), name=f"keep-{self._img_id}", daemon=True)
        keeper.start()
        try:
            return self._content(downloaded, identity, body)
        finally:
            keeper.join()

    def _keep(self, body: Partial) -> None:
        try:
            body.checkpoint()
        except OSError as error:  # a bare disk that has been moved to its place, or no room for the note
            logger.info("download not kept img_id=%s reason=%s", self._img_id, error)

    def _content(self, downloaded: Downloaded, identity: Identity | None, body: Partial) -> Content:
        tools = self._tools
        identity = identity or self._look(body.path)
        total = identity.manifest.unpacked_size if identity.manifest is not None else None
        watch = UnpackWatch(total, self._unpack_space, self._cancel, self._progress)
        staging = tools.store.begin_staging(self._img_id)
        if identity.kind is Kind.BUNDLE:
            return unpack_bundle(body.path, identity.compression, staging, tools.rules, watch)
        if not downloaded.delimited:
            raise SizeMismatch(f"{downloaded.url}: the server did not say how large the disk image is; is it whole?")
        return unpack_disk(body.path, identity, downloaded.sha256, staging, tools.rules, watch)

    # Report -----------------------------------------------------------------------------------------------------------

    def _report_success(self) -> None:
        """By DLOTA, an object is installed only when that could be reported. :raises ImageError: it could not"""
        if self._descriptor is not None and self._descriptor.notify is not None:
            self._post(self._descriptor.notify, dlota.SUCCESS)

    def _report_failure(self, code: int) -> None:
        """Best effort: the failure stays what it was."""
        if self._descriptor is None or self._descriptor.notify is None or self._stopping():
            return
        try:
            self._post(self._descriptor.notify, code)
        except (NetworkLost, LoaderError) as error:
            logger.warning("download not reported img_id=%s code=%d reason=%s", self._img_id, code, error)

    def _post(self, url: Url, code: int) -> None:
        never = threading.Event()  # a deleted image's download is cancelled, its report is not
        wait = self._tools.downloader.wait
        dlota.post_report(
            self._tools.downloader.network, url, code, lambda number: wait(never, _REPORT_PAUSE * 2.0 ** (number - 1))
        )
