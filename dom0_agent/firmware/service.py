"""An update of dom0's own system: download, verify, write the other slot, restart, hear what became of it.

The Management VM's system travels as every VM's does: as a signed bundle, whose one disk is the system slot. So the
image service does the fetching and all the checking, with a store, a table and a signing authority of its own. Every
stage is recorded before it begins; a start after a power cut goes on from the record. Knows no DM: the listener does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dom0_agent.firmware.record import Stage, UpdateRecord, load, save
from dom0_agent.firmware.slots import NAMES, SlotError, Slots
from dom0_agent.images.model import ImageService
from dom0_agent.operation import OperationRefused, OperationResult, Origin

log = logging.getLogger(__name__)

#: What a bundle must call itself to be taken for dom0's system: another VM's image is never written to a slot.
NAME = "virmo-dom0"
MEDIA_TYPE = "application/vnd.virmo.bundle+tar"
#: How a squashfs begins.
MAGIC = b"hsqs"
#: Seconds that the health check has, with some to spare (`firmware.health`).
VERDICT = 900.0
_POLL = 2.0
_NOT_ALLOWED = 405


#: What may go wrong with a board's own parts; each ends the update, and is told.
_FAULTS = (SlotError, OperationRefused, OSError)


class RestartFailed(Exception):  # noqa: N818 - it names what is the matter
    """dom0 could not be asked to restart; the message says why."""


class FirmwareService:
    """One update at a time. ``subscribe``, then ``start``; ``close`` at the end."""

    def __init__(
        self,
        images: ImageService,
        slots: Slots,
        file: Path,
        *,
        tries: int,
        boot_id: str,
        restart: Callable[[], None],
        verdict: float = VERDICT,
    ) -> None:
        """``file`` is the record's; ``restart`` begins a restart of dom0 and returns, or raises RestartFailed."""
        self._images = images
        self._slots = slots
        self._file = file
        self._tries = tries
        self._boot_id = boot_id
        self._restart = restart
        self._verdict = verdict
        self._lock = threading.RLock()
        self._record = load(file)
        self._progress = 0
        self._closing = threading.Event()
        self._worker: threading.Thread | None = None
        self._listener: Callable[[UpdateRecord, OperationResult], None] = lambda _record, _result: None

    def subscribe(self, listener: Callable[[UpdateRecord, OperationResult], None]) -> None:
        """``listener`` hears of each operation's end, with a DM status; in the worker's thread."""
        self._listener = listener

    def start(self) -> None:
        """Go on with what the last run left."""
        todo = {
            Stage.DOWNLOADING: self._download,
            Stage.WRITING: self._write,
            Stage.ARMED: self._judge,
        }.get(self._record.stage)
        if todo is not None:
            log.info("event=firmware_goes_on stage=%s slot=%s", self._record.stage.value, self._record.slot)
            self._begin(todo)

    def close(self) -> None:
        """Stop; the record says where to go on."""
        self._closing.set()
        if self._worker is not None:
            self._worker.join(10.0)

    @property
    def record(self) -> UpdateRecord:
        """The update as it stands."""
        return self._record

    @property
    def progress(self) -> int:
        """Percent of what is being written."""
        return self._progress

    @property
    def running_slot(self) -> str:
        """The slot that this system was started from; empty when it was not from one."""
        try:
            return self._slots.running()
        except SlotError:
            return ""

    def download(self, url: str, origin: Origin, *, then_update: bool) -> None:
        """Begin a download, and the update after it. :raises OperationRefused: not now, or not from there"""
        if not url:
            raise OperationRefused(_NOT_ALLOWED, "PkgURL is empty: set it first")
        with self._lock:
            self._refuse_busy()
            self._forget_package()
            action = "DownloadAndUpdate" if then_update else "Download"
            self._set(UpdateRecord(Stage.DOWNLOADING, action, url, self._images.add(), origin=origin))
            self._begin(self._download)

    def update(self, origin: Origin) -> None:
        """Begin the update with the package that is there. :raises OperationRefused: there is none, or not now"""
        with self._lock:
            self._refuse_busy()
            if self._record.stage not in (Stage.READY, Stage.FAILED) or not self._record.img_id:
                raise OperationRefused(_NOT_ALLOWED, "there is no package: Exec Download first")
            self._set(replace(self._record, action="Update", origin=origin, error=""))
            self._begin(self._write)

    # -- in the worker's thread ----------------------------------------------------------------------------------------

    def _download(self) -> None:
        record = self._record
        try:
            handle = self._images.download(record.img_id, record.url, MEDIA_TYPE)
        except OperationRefused as refusal:
            self._end(Stage.DOWNLOAD_FAILED, OperationResult(refusal.status, str(refusal)))
            return
        while (result := handle.wait(_POLL)) is None:
            if self._closing.is_set():
                return
        if result.ok:
            try:
                result = self._look(record.img_id)
            except (OperationRefused, OSError) as error:
                result = OperationResult(510, f"the package cannot be read: {error}")
        if not result.ok:
            self._end(Stage.DOWNLOAD_FAILED, result)
        elif record.action == "Download":
            self._end(Stage.READY, result)
        else:
            self._write()

    def _look(self, img_id: str) -> OperationResult:
        """Whether the verified bundle is a system of dom0."""
        image = self._images.verified(img_id)
        if image.name != NAME or len(image.disks) != 1 or image.disks[0].format != "raw":
            return OperationResult(415, f"{image.name!r} is no system of dom0: the bundle must be named {NAME}")
        with image.disks[0].path.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                return OperationResult(415, "the system in the bundle is no squashfs")
        return OperationResult(200)

    def _write(self) -> None:
        """Nothing may start from a slot that is incomplete: first the boot loader forgets it, at last it is told."""
        try:
            running = self._slots.running()
            slot = next(name for name in NAMES if name != running)
            self._slots.disarm()
            self._set(replace(self._record, stage=Stage.WRITING, slot=slot))
            system = self._images.verified(self._record.img_id).disks[0].path
            self._slots.write(slot, system, self._note_progress)
            self._set(replace(self._record, stage=Stage.ARMED, boot_id=self._boot_id))
            self._slots.arm(slot, self._tries)
        except _FAULTS as error:
            self._end(Stage.FAILED, OperationResult(500, str(error)))
            return
        log.info("event=firmware_written slot=%s", slot)
        self._leave()

    def _judge(self) -> None:
        """After the restart: the new system is judged by the health check, or the old one is back."""
        record = self._record
        try:
            trial = self._slots.trial()
            if record.boot_id == self._boot_id:
                # the agent ended between the last two steps of _write, or was restarted before dom0 was
                if trial is None:
                    self._slots.arm(record.slot, self._tries)
                self._leave()
                return
            if self._slots.running() != record.slot:
                if trial is None and record.boot_id and self._slots.good() != record.slot:
                    reason = (
                        f"the system in slot {record.slot} did not become healthy; slot {self._slots.good()} is back"
                    )
                    self._end(Stage.FAILED, OperationResult(500, reason))
                else:
                    self._slots.disarm()
                    self._end(Stage.FAILED, OperationResult(500, f"slot {record.slot} was not started"))
                return
            if not self._await_verdict(record.slot):
                return
        except _FAULTS as error:
            self._end(Stage.FAILED, OperationResult(500, str(error)))
            return
        self._forget_package()
        self._end(Stage.UPDATED, OperationResult(200))

    def _leave(self) -> None:
        """Into the new system. If the restart cannot even begin, nothing is left that a later one would start."""
        try:
            self._restart()
        except RestartFailed as error:
            reason = f"dom0 does not restart: {error}"
            try:
                self._slots.disarm()
            except SlotError as second:
                reason = f"{reason}; and {second}"
            self._end(Stage.FAILED, OperationResult(500, reason))

    def _await_verdict(self, slot: str) -> bool:
        """Whether the health check has made this slot the good one. If it does not, it restarts the board itself."""
        for _ in range(int(self._verdict / _POLL)):
            if self._slots.good() == slot:
                return True
            if self._closing.wait(_POLL):
                return False
        log.warning("event=firmware_not_judged slot=%s", slot)
        return False

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _begin(self, work: Callable[[], None]) -> None:
        self._worker = threading.Thread(target=work, name="firmware", daemon=True)
        self._worker.start()

    def _refuse_busy(self) -> None:
        if self._record.busy:
            raise OperationRefused(417, f"an update is {self._record.stage.value}; wait for its alert")

    def _set(self, record: UpdateRecord) -> None:
        with self._lock:
            save(self._file, record)
            self._record = record

    def _end(self, stage: Stage, result: OperationResult) -> None:
        if not result.ok:
            log.warning("event=firmware_failed stage=%s reason=%r", stage.value, result.message)
        self._set(replace(self._record, stage=stage, error=result.message))
        self._listener(self._record, result)

    def _forget_package(self) -> None:
        if self._record.img_id:
            self._images.delete(self._record.img_id)
            self._set(replace(self._record, img_id=""))

    def _note_progress(self, percent: int) -> None:
        self._progress = percent
