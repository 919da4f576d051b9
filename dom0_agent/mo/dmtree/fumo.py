"""FUMO of a VM: a new system from a verified bundle, with the old one kept until the new one has proved itself.

Download gets the bundle as an image of its own, which no VMImgMO shows. Update hands it to the VM engine: the data disk
stays, the new system must bring its shim up in time (``fumo.health_timeout``), else the old one is started again and
the result is 410. A guest whose shim announces an updater is given the package instead. The result is always an alert.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from uuid import UUID

from dom0_agent.guest.interface import GuestError, GuestRequest
from dom0_agent.images.errors import ImageError
from dom0_agent.images.model import ImageService
from dom0_agent.mo.dmtree import fumo_nodes as f
from dom0_agent.mo.dmtree.forwarded import OPERATION_DEADLINE, ForwardedObject, Surroundings, ended
from dom0_agent.mo.dmtree.nodes import GuestObject
from dom0_agent.mo.dmtree.packages import Packages, TransferFailed
from dom0_agent.mo.dmtree.work import Ended, Report
from dom0_agent.omadm.mo import Change, ExecOutcome, ExecRequest, Path, Undo
from dom0_agent.omadm.node import Command, Format, Value
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.uri import format_path
from dom0_agent.operation import OperationHandle, OperationRefused, Origin
from dom0_agent.vm.model import Rebuild, VmRecord, VmState

log = logging.getLogger(__name__)

STATE: Path = ("State",)
IMAGE: Path = ("Ext", "ImgID")
LAST_ERROR: Path = ("Ext", "LastError")
#: in the shim's hello: the guest updates itself
UPDATER = "updater"
#: the package's name among a VM's packages, when the guest updates itself
PACKAGE = "fumo"
#: ImgID of a package that is not an image, but the guest updater's
GUEST_PACKAGE = "guest"
#: seconds for a download with all its retries, and for an update beside ``fumo.health_timeout``
DOWNLOAD_DEADLINE = 7 * 24 * 3600.0
UPDATE_DEADLINE = 3600.0
#: State at the agent's end → State after it: what ran was undone, or may go on
INTERRUPTED = {
    f.DOWNLOADING: f.DOWNLOAD_FAILED,
    f.DOWNLOADED: f.READY,
    f.UPDATING: f.FAILED_WITH_DATA,
}
#: status of an image's download → result code of FUMO
DOWNLOAD_CODES = {
    Status.DEVICE_FULL: f.NO_MEMORY_DOWNLOAD,
    Status.TOO_LARGE: f.NO_MEMORY_DOWNLOAD,
    Status.SIZE_MISMATCH: f.CORRUPTED,
    Status.UNSUPPORTED_FORMAT: f.MISMATCH,
    Status.FORBIDDEN: f.VALIDATION_FAILED,
    Status.INCOMPLETE: f.BAD_URL,
}


class Fumo(ForwardedObject):
    """ManagementObject for the FUMO of one VM."""

    def __init__(
        self,
        kind: GuestObject,
        mount: Path,
        surroundings: Surroundings,
        *,
        images: ImageService,
        packages: Packages,
        health_timeout: float,
    ) -> None:
        super().__init__(kind, mount, surroundings)
        self._images = images
        self._packages = packages
        self._health_timeout = health_timeout

    @property
    def image(self) -> str:
        """ImgID of the downloaded package; empty: there is none."""
        return self.around.tree.stored_value((*self.mount, *IMAGE)) or ""

    def prepare(self, change: Change) -> Undo | None:
        """Nothing about the package changes while something is done with it (403)."""
        state = self._state()
        below = change.path[len(self.mount) :]
        if change.server_id is not None and below[-1:] == ("PkgURL",) and state in (f.DOWNLOADING, f.UPDATING):
            raise DMError(Status.FORBIDDEN, f"{format_path(change.path)} cannot change in State {state}")
        if change.server_id is not None and change.command is Command.DELETE and state in (f.DOWNLOADING, f.UPDATING):
            raise DMError(Status.FORBIDDEN, f"{format_path(self.mount)} cannot go in State {state}")
        return None

    def execute(self, request: ExecRequest) -> ExecOutcome:
        """Always 202: the result is always an alert."""
        path = request.path[len(self.mount) :]
        origin = Origin(request.server_id, request.uri, request.correlator)
        record = self.needed_record(request)
        try:
            self._begin(record, path, request.uri, origin)
        except OperationRefused as refusal:
            raise DMError(refusal.status, str(refusal)) from refusal
        return ExecOutcome(Status.ACCEPTED)

    def recovered(self) -> None:
        """The agent was started: what ran then runs no more. In the tree's thread."""
        after = INTERRUPTED.get(self._state())
        if after is not None:
            self._show(after, "the agent ended while it was running")

    # -- the tree's thread -----------------------------------------------------------------------------------------

    def _begin(self, record: VmRecord, path: Path, uri: str, origin: Origin) -> OperationHandle:
        vmid, state = record.vmid, self._state()
        if path == f.UPDATE:
            if state not in (f.READY, f.FAILED_WITH_DATA) or not self.image:
                raise DMError(Status.NOT_ALLOWED, f"{uri} needs a downloaded package (State 50), but State is {state}")
            self._need_running(record, uri)
            image = self.image
            return self._run(vmid, "update", origin, lambda: self._update(vmid, image))
        url = self.around.tree.stored_value((*self.mount, *path, "PkgURL")) or ""
        if not url.strip():
            raise DMError(Status.INCOMPLETE, f"{uri}: PkgURL is empty: set it first")
        if path == f.DOWNLOAD_AND_UPDATE:
            self._need_running(record, uri)
        old, itself = self.image, self._updates_itself(vmid)

        def download() -> tuple[Ended, str]:
            self._drop(vmid, old)
            return self._get_package(vmid, url) if itself else self._get_image(url)

        def both() -> Ended:
            result, image = download()
            if result.ok and path == f.DOWNLOAD_AND_UPDATE:
                return self._update(vmid, image)
            return result

        kind = "download" if path == f.DOWNLOAD else "downloadandupdate"
        handle = self._run(vmid, kind, origin, both)
        self._show(f.DOWNLOADING, "")  # what the worker posts comes after this
        return handle

    def _run(self, vmid: UUID, alert: str, origin: Origin, job: Callable[[], Ended]) -> OperationHandle:
        report = Report(f.ALERTS + alert, format_path(self.mount), f.CLIENT_ERROR, always=True)
        return self.around.work.begin(vmid, self.moid, origin, report, job)

    def _need_running(self, record: VmRecord, uri: str) -> None:
        if record.state is not VmState.RUNNING:
            raise DMError(Status.FORBIDDEN, f"{uri} needs the VM Running, but it is {record.state.name}")

    def _updates_itself(self, vmid: UUID) -> bool:
        hello = self.around.guests.hello(vmid)
        return hello is not None and UPDATER in hello.capabilities

    def _state(self) -> int:
        return int(self.around.tree.stored_value((*self.mount, *STATE)) or f.IDLE)

    def _show(self, state: int, error: str | None = None, image: str | None = None) -> None:
        tree = self.around.tree
        if not tree.exists(self.mount):
            return
        tree.device_set((*self.mount, *STATE), Value(str(state), Format.INT))
        for path, text in ((LAST_ERROR, error), (IMAGE, image)):
            if text is not None:
                tree.device_set((*self.mount, *path), Value(text[:4000]))

    # -- a worker --------------------------------------------------------------------------------------------------

    def _post(self, state: int, error: str | None = None, image: str | None = None) -> None:
        self.around.tasks.post(lambda: self._show(state, error, image))

    def _get_image(self, url: str) -> tuple[Ended, str]:
        """A bundle or disk for the VM engine; its id."""
        image = self._images.add()
        try:
            result = self._images.download(image, url, "").wait(DOWNLOAD_DEADLINE)
        except OperationRefused as refusal:
            self._images.delete(image)
            return self._failed_download(DOWNLOAD_CODES.get(Status(refusal.status), f.CLIENT_ERROR), str(refusal)), ""
        if result is None or not result.ok:
            code, words = (result.status, result.message) if result else (0, "the download took too long")
            self._images.delete(image)
            known = {int(status): known for status, known in DOWNLOAD_CODES.items()}
            return self._failed_download(known.get(code, f.NO_NETWORK), words), ""
        return self._have(image), image

    def _get_package(self, vmid: UUID, url: str) -> tuple[Ended, str]:
        """What the guest's own updater takes."""
        try:
            self._packages.get(vmid, PACKAGE, url, "")
        except ImageError as error:
            return self._failed_download(DOWNLOAD_CODES.get(error.status, f.NO_NETWORK), str(error)), ""
        return self._have(GUEST_PACKAGE), GUEST_PACKAGE

    def _have(self, image: str) -> Ended:
        self._post(f.DOWNLOADED)
        self._post(f.READY, "", image)
        return Ended(f.SUCCESS)

    def _failed_download(self, code: int, words: str) -> Ended:
        self._post(f.DOWNLOAD_FAILED, words, "")
        return Ended(code, words)

    def _update(self, vmid: UUID, image: str) -> Ended:
        self._post(f.UPDATING, "")
        result = self._update_itself(vmid) if image == GUEST_PACKAGE else self._replace_system(vmid, image)
        if not result.ok:
            self._post(f.FAILED_WITH_DATA, result.message)
            return result
        self._post(f.UPDATED_WITH_DATA, "")
        self._drop(vmid, image)
        self._post(f.UPDATED, "", "")
        return result

    def _replace_system(self, vmid: UUID, image: str) -> Ended:
        try:
            handle = self.around.vms.rebuild(vmid, Rebuild.REPLACE_SYSTEM, image, health_timeout=self._health_timeout)
        except OperationRefused as refusal:
            return Ended(f.NOT_ACCEPTABLE, str(refusal))
        result = handle.wait(UPDATE_DEADLINE + self._health_timeout)
        if result is None:
            return Ended(f.UPDATE_FAILED, "the update did not end in time")
        if result.ok:
            return Ended(f.SUCCESS, result.message)
        return Ended(f.NO_MEMORY_UPDATE if result.status == Status.DEVICE_FULL else f.UPDATE_FAILED, result.message)

    def _update_itself(self, vmid: UUID) -> Ended:
        try:
            identifier = self._packages.bring(vmid, PACKAGE)
            question = GuestRequest("exec", {"moid": self.moid, "node": f.UPDATE[0], "package": identifier})
            answer = self.around.guests.request(vmid, question, deadline=OPERATION_DEADLINE)
        except (GuestError, TransferFailed, OSError) as error:
            return Ended(f.UPDATE_FAILED, str(error))
        return ended(answer, f.UPDATE_FAILED)

    def _drop(self, vmid: UUID, image: str) -> None:
        if image == GUEST_PACKAGE:
            self._packages.drop(vmid, PACKAGE)
        elif image:
            self._images.delete(image)


def fumo(
    images: ImageService, packages: Packages, health_timeout: float
) -> Callable[[GuestObject, Path, Surroundings], Fumo]:
    """Makes the FUMOs of VMs."""
    return lambda kind, mount, around: Fumo(
        kind, mount, around, images=images, packages=packages, health_timeout=health_timeout
    )
