"""The image service: records, states, the workers that download, and who is told about it.

Implements :class:`dom0_agent.images.model.ImageService`. All state is changed under one lock; events are published
outside of it. Persistence is a table of :class:`StoredImage`; what is in it survives a restart, what ran when the agent
stopped is State 3 at the next start (A-56), its partial data kept so that the next Exec Download goes on.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from dom0_agent.images.config import ImagesConfig
from dom0_agent.images.delivery import Delivered, Delivery, Tools
from dom0_agent.images.download import Downloader
from dom0_agent.images.errors import Cancelled, ImageError, Interrupted, StoreFailure, disk_failure
from dom0_agent.images.model import ImageEvent, ImageRecord, ImageState, VerifiedImage
from dom0_agent.images.signature import signature_rule
from dom0_agent.images.space import SpaceLedger
from dom0_agent.images.store import ContentStore
from dom0_agent.images.unpack import Rules
from dom0_agent.images.urls import BadUrl, parse_url
from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationHandle, OperationRefused, OperationResult, Origin
from dom0_agent.store.images import StoredImage

logger = logging.getLogger(__name__)

#: seconds that :meth:`LocalImageService.close` waits for its workers: a step of theirs looks at the cancel event
_CLOSE = 10.0


class ImageRows(Protocol):
    """Where images are persisted: :class:`dom0_agent.store.images.ImageTable`, or a dictionary in tests."""

    def list(self) -> tuple[StoredImage, ...]:
        """All rows."""

    def put(self, image: StoredImage) -> None:
        """Insert or replace; durable when it returns."""

    def delete(self, img_id: str) -> bool:
        """Remove; whether it was there."""


class _Job:
    """A download that is waiting or running."""

    def __init__(self, image: StoredImage) -> None:
        self.img_id = image.img_id
        self.uri = image.uri
        self.media_type = image.media_type
        self.origin = image.origin
        self.handle = OperationHandle(image.origin)
        self.cancel = threading.Event()


class LocalImageService:
    """Images on this device's disk. Call :meth:`subscribe`, then :meth:`start`; :meth:`close` at the end."""

    def __init__(
        self,
        config: ImagesConfig,
        rows: ImageRows,
        *,
        downloader: Downloader | None = None,
        ledger: SpaceLedger | None = None,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._config = config
        self._rows = rows
        self._new_id = new_id
        self._store = ContentStore(config.dir)
        self._tools = Tools(
            config=config,
            downloader=downloader or Downloader(config),
            store=self._store,
            ledger=ledger or SpaceLedger(config.dir, config.reserve),
            rules=Rules(config.guest_arch, config.max_size, config.disk_memory, signature_rule(config)),
        )
        self._lock = threading.RLock()
        self._images: dict[str, StoredImage] = {}
        self._jobs: dict[str, _Job] = {}
        self._queue: deque[_Job] = deque()
        self._workers: set[threading.Thread] = set()
        self._listeners: tuple[Callable[[ImageEvent], None], ...] = ()
        self._closing = False

    # Life -------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Load the records, settle what the last run left, remove orphans. :raises OSError: the store is unusable"""
        self._store.prepare()
        with self._lock:
            self._images = {image.img_id: image for image in self._rows.list()}
            images = tuple(self._images.values())
        locations = [image.record.location for image in images if image.record.location is not None]
        unfinished = [image.img_id for image in images if image.record.state is not ImageState.DOWNLOADED]
        for path in self._store.clean(unfinished, locations):
            logger.info("orphan removed path=%s", path)
        for image in images:
            record = image.record
            if record.state is ImageState.DOWNLOADING:
                job = self._job(image)
                job.handle.wait(0)  # whoever ordered it is not here any more: its end is to be reported
                if self._config.resume_at_start:
                    self._enqueue(job)
                else:
                    self._settle(job, _interrupted())
            else:
                self._check_lost(record)
                self._report_again(image)

    def close(self) -> None:
        """Stop the workers; running downloads stay State 1 in the table, for the next start to settle."""
        with self._lock:
            self._closing = True
            self._queue.clear()
            for job in self._jobs.values():
                job.cancel.set()
            workers = tuple(self._workers)
        for worker in workers:
            worker.join(_CLOSE)

    def subscribe(self, listener: Callable[[ImageEvent], None]) -> None:
        """See :class:`dom0_agent.images.model.ImageService`."""
        self._listeners = (*self._listeners, listener)

    # Questions --------------------------------------------------------------------------------------------------------

    def get(self, img_id: str) -> ImageRecord | None:
        """The record, or ``None``."""
        with self._lock:
            image = self._images.get(img_id)
            return None if image is None else image.record

    def list(self) -> tuple[ImageRecord, ...]:
        """All records, in the order of their making."""
        with self._lock:
            return tuple(image.record for image in self._images.values())

    def verified(self, img_id: str) -> VerifiedImage:
        """The content. :class:`OperationRefused` 404 unknown, 405 not DOWNLOADED (A-20), 510 lost by the disk."""
        record = self._known(img_id).record
        if record.state is not ImageState.DOWNLOADED or record.location is None:
            raise OperationRefused(Status.NOT_ALLOWED, f"image {img_id} is not downloaded (State {record.state.value})")
        try:
            return self._store.verified(img_id, record.location)
        except ImageError as error:
            raise OperationRefused(StoreFailure.status, str(error)) from error

    # Orders -----------------------------------------------------------------------------------------------------------

    def add(self) -> str:
        """A new entry in NOT_DOWNLOADED with a fresh ImgID (R-081, R-082, R-103)."""
        image = StoredImage(ImageRecord(self._new_id(), ImageState.NOT_DOWNLOADED))
        with self._lock:
            if image.img_id in self._images:
                raise ValueError(f"ImgID {image.img_id} is in use")
            self._rows.put(image)
            self._images[image.img_id] = image
        self._publish(ImageEvent(image.img_id, image.record))
        return image.img_id

    def download(self, img_id: str, uri: str, media_type: str, origin: Origin | None = None) -> OperationHandle:
        """Begin the download (R-107); the end is the handle's result and an event.

        :class:`OperationRefused`: 404 unknown, 417 in DOWNLOADING, 405 in DOWNLOADED (A-34), 412 empty or not http(s)
        URI (A-39), 503 the agent is stopping.
        """
        try:
            parse_url(uri)
        except BadUrl as error:
            raise OperationRefused(Status.INCOMPLETE, f"DownloadURI of image {img_id}: {error}") from error
        with self._lock:
            image = self._known(img_id)
            state = image.record.state
            if self._closing:
                raise OperationRefused(Status.SERVICE_UNAVAILABLE, "the agent is stopping")
            if img_id in self._jobs or state is ImageState.DOWNLOADING:
                raise OperationRefused(Status.RETRY_LATER, f"image {img_id} is being downloaded")
            if state is ImageState.DOWNLOADED:
                raise OperationRefused(Status.NOT_ALLOWED, f"image {img_id} is downloaded already")
            record = ImageRecord(img_id, ImageState.DOWNLOADING, size=image.record.size)
            image = replace(image, record=record, uri=uri, media_type=media_type, origin=origin)
            self._rows.put(image)
            self._images[img_id] = image
            job = self._job(image)
        self._publish(ImageEvent(img_id, record, origin))
        self._enqueue(job)
        return job.handle

    def delete(self, img_id: str) -> None:
        """Abort a download, remove data and entry (R-094, R-095). :class:`OperationRefused` 404 unknown."""
        with self._lock:
            image = self._known(img_id)
            self._rows.delete(img_id)
            del self._images[img_id]
            retired = self._retire(image.record.location)
            job = self._jobs.get(img_id)
            waiting = job is not None and job in self._queue
            if job is not None:
                job.cancel.set()
                if waiting:
                    self._queue.remove(job)
        self._publish(ImageEvent(img_id, None))
        if retired is not None:
            self._store.discard(retired)
        if job is None:
            self._store.drop_download(img_id)
        elif waiting:
            self._settle(job, Cancelled("the image was deleted"))
        logger.info("image deleted img_id=%s", img_id)

    # Workers ----------------------------------------------------------------------------------------------------------

    def _job(self, image: StoredImage) -> _Job:
        with self._lock:
            job = self._jobs[image.img_id] = _Job(image)
        return job

    def _enqueue(self, job: _Job) -> None:
        with self._lock:
            if self._jobs.get(job.img_id) is not job or job.cancel.is_set():
                return self._settle(job, Cancelled("the image was deleted"))
            self._queue.append(job)
            self._hire()
        return None

    def _hire(self) -> None:
        """A worker for what waits, if there may be one more. Under the lock."""
        if self._queue and len(self._workers) < self._config.parallel_downloads:
            worker = threading.Thread(target=self._work, name="image-download", daemon=True)
            self._workers.add(worker)
            worker.start()

    def _work(self) -> None:
        """Take waiting jobs until there are none."""
        try:
            while True:
                with self._lock:
                    if not self._queue:
                        self._workers.discard(threading.current_thread())
                        return
                    job = self._queue.popleft()
                self._run(job)
        finally:
            with self._lock:
                self._workers.discard(threading.current_thread())
                self._hire()  # only finds work when this worker died of a defect

    def _run(self, job: _Job) -> None:
        outcome: Delivered | ImageError = ImageError("the agent has a defect; see its log")
        logger.info("download begins img_id=%s url=%s", job.img_id, parse_url(job.uri))
        try:
            outcome = Delivery(
                self._tools,
                job.img_id,
                job.uri,
                job.media_type,
                cancel=job.cancel,
                progress=lambda percent: self._note_progress(job.img_id, percent),
                stopping=lambda: self._closing,
            ).run()
        except ImageError as error:
            outcome = error
        finally:
            self._settle(job, outcome)

    def _settle(self, job: _Job, outcome: Delivered | ImageError) -> None:
        """The end of a download: record, files, the one who waits, and the event."""
        with self._lock:
            if self._closing and isinstance(outcome, Cancelled):
                return  # the next start settles it
            image = self._images.get(job.img_id)
            if image is None:
                outcome = Cancelled("the image was deleted")
            record = None
            if isinstance(outcome, Delivered) and image is not None:
                try:
                    record = self._accept(image, outcome)
                except OSError as error:
                    outcome = disk_failure(self._config.dir, error)
            if isinstance(outcome, ImageError) and image is not None:
                record = self._reject(image, outcome)
            self._jobs.pop(job.img_id, None)
        self._store.drop_staging(job.img_id)
        if record is None or record.state is ImageState.DOWNLOADED:
            self._store.drop_download(job.img_id)
        result = OperationResult(Status.OK)
        if isinstance(outcome, ImageError):
            result = OperationResult(outcome.status, str(outcome))
            logger.warning("download failed img_id=%s status=%d reason=%s", job.img_id, result.status, outcome)
        awaited = not job.handle.finish(result)
        self._publish(ImageEvent(job.img_id, record, job.origin, result, awaited))
        self._forget_origin(job.img_id)

    def _accept(self, image: StoredImage, delivered: Delivered) -> ImageRecord:
        location = self._store.put(delivered.staging, delivered.content)
        record = ImageRecord(image.img_id, ImageState.DOWNLOADED, location, 100, delivered.content.size)
        image = replace(image, record=record, sha256=delivered.sha256)
        self._rows.put(image)
        self._images[image.img_id] = image
        logger.info("image ready img_id=%s location=%s size=%d", image.img_id, location, record.size)
        return record

    def _reject(self, image: StoredImage, error: ImageError) -> ImageRecord:
        if not error.keep_partial:
            self._store.drop_download(image.img_id)
        record = ImageRecord(
            image.img_id,
            ImageState.DOWNLOAD_FAILED,
            progress=image.record.progress,
            size=self._store.download_size(image.img_id),
            last_error=str(error),
        )
        image = replace(image, record=record)
        self._rows.put(image)
        self._images[image.img_id] = image
        return record

    # Details ----------------------------------------------------------------------------------------------------------

    def _known(self, img_id: str) -> StoredImage:
        with self._lock:
            image = self._images.get(img_id)
        if image is None:
            raise OperationRefused(Status.NOT_FOUND, f"there is no image {img_id}")
        return image

    def _retire(self, location: Path | None) -> Path | None:
        """Take content out that no record refers to any more. Under the lock."""
        if location is None or any(image.record.location == location for image in self._images.values()):
            return None
        return self._store.retire(location)

    def _note_progress(self, img_id: str, percent: int) -> None:
        """In memory only: after a restart the progress is what the partial file says."""
        with self._lock:
            image = self._images.get(img_id)
            if image is None or image.record.progress == percent:
                return
            record = replace(image.record, progress=percent)
            self._images[img_id] = replace(image, record=record)
        self._publish(ImageEvent(img_id, record))

    def _forget_origin(self, img_id: str) -> None:
        """The end has been told to the listeners, who persist what they owe to servers. Not before: see below."""
        with self._lock:
            image = self._images.get(img_id)
            if image is not None and img_id not in self._jobs and image.origin is not None:
                self._images[img_id] = image = replace(image, origin=None)
                self._rows.put(image)

    def _report_again(self, image: StoredImage) -> None:
        """The agent died between the end of a download and its report: told once too often is better than never."""
        record = self._images[image.img_id].record
        if image.origin is None or record.state is ImageState.NOT_DOWNLOADED:
            return
        ready = record.state is ImageState.DOWNLOADED
        result = OperationResult(Status.OK if ready else Status.COMMAND_FAILED, record.last_error or "")
        self._publish(ImageEvent(image.img_id, record, image.origin, result))
        self._forget_origin(image.img_id)

    def _check_lost(self, record: ImageRecord) -> None:
        """DOWNLOADED is only shown when the content is there (R-086)."""
        if record.state is not ImageState.DOWNLOADED or (record.location is not None and record.location.is_dir()):
            return
        error = "its content is gone from the disk; download it again"
        record = ImageRecord(record.img_id, ImageState.DOWNLOAD_FAILED, last_error=error)
        with self._lock:
            self._images[record.img_id] = image = replace(self._images[record.img_id], record=record)
            self._rows.put(image)
        logger.warning("image lost img_id=%s", record.img_id)
        self._publish(ImageEvent(record.img_id, record))

    def _publish(self, event: ImageEvent) -> None:
        for listener in self._listeners:
            listener(event)


def _interrupted() -> Interrupted:
    return Interrupted("the agent stopped during the download; Exec Download again goes on where it stopped")
