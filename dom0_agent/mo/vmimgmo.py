"""The VM Image MO (OMA-ER-VirMO 9) as an adapter between ``./VMImgMO`` and the image store.

Holds no state: the tree keeps what the server sets, the store keeps the images, ``ImgID`` ties a sub-tree to an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dom0_agent.images.model import ImageRecord, ImageService, ImageState
from dom0_agent.mo.entries import DEPTH, Entries
from dom0_agent.mo.vmimgmo_nodes import MOID, vmimgmo_definition
from dom0_agent.omadm.mo import Change, ExecOutcome, ExecRequest, Path, Undo
from dom0_agent.omadm.node import Command, Format, NodeDef, Value
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.operation import OperationRefused, Origin

MOUNT: Path = ("VMImgMO",)  #: A-26

StoredValue = Callable[[Path], str | None]


class VMImgMO:
    """ManagementObject for ``./VMImgMO``. ``answer_limit``: seconds an Exec Download may hold the DM session."""

    moid = MOID
    mount = MOUNT

    def __init__(self, images: ImageService, stored: StoredValue, answer_limit: float) -> None:
        self._images = images
        self._stored = stored
        self._answer_limit = answer_limit
        self._entries: Entries[str] = Entries(images.add, images.delete)

    @property
    def definition(self) -> NodeDef:
        """The node table of clause 9."""
        return vmimgmo_definition()

    def read(self, path: Path) -> Value | None:
        """State, DownloadedLocation (only in Downloaded, A-37) and the vendor nodes, as they are now."""
        reader = _LIVE_LEAVES.get(path[2:])
        record = self._record(path[1])
        return None if reader is None or record is None else reader(record)

    def initial(self, path: Path) -> Value | None:
        """ImgID: assigned by the client when the sub-tree is made (R-081, R-102)."""
        if path[2:] == ("ImgID",):
            return Value(self._entries.new_id(path[1]))
        return None

    def prepare(self, change: Change) -> Undo | None:
        """Sub-trees come and go with their image; what is being downloaded cannot be redirected (A-35)."""
        name = change.path[1] if len(change.path) >= DEPTH else ""
        if len(change.path) == DEPTH and change.command is Command.ADD:
            return self._entries.add(name)
        record = self._record(name) if name else None
        if len(change.path) == DEPTH and change.command is Command.DELETE and record is not None:
            return self._entries.delete(name, record.img_id)
        downloading = record is not None and record.state is ImageState.DOWNLOADING
        if downloading and change.path[DEPTH:] in _FIXED_WHILE_DOWNLOADING:
            raise DMError(Status.FORBIDDEN, f"./VMImgMO/{name} is being downloaded; delete it or wait")
        return None

    def committed(self, changes: Sequence[Change]) -> None:
        """Data of an image are removed only when its sub-tree is durably gone (R-094, A-36)."""
        self._entries.committed(changes)

    def execute(self, request: ExecRequest) -> ExecOutcome:
        """Operations/Download and Operations/Delete."""
        return _OPERATIONS[request.path[-1]](self, request)

    def _download(self, request: ExecRequest) -> ExecOutcome:
        base = request.path[:2]
        uri = self._stored((*base, "DownloadURI")) or ""
        media_type = self._stored((*base, "MediaType")) or ""
        origin = Origin(request.server_id, request.uri, request.correlator)
        try:
            handle = self._images.download(self._img_id(request), uri, media_type, origin)
        except OperationRefused as refusal:
            raise DMError(refusal.status, str(refusal)) from refusal
        result = handle.wait(self._answer_limit)
        if result is None:
            return ExecOutcome(Status.ACCEPTED)
        if not result.ok:
            raise DMError(result.status, result.message)
        return ExecOutcome(result.status)

    def _delete(self, request: ExecRequest) -> ExecOutcome:
        self._images.delete(self._img_id(request))
        return ExecOutcome(Status.OK, [request.path[:2]])

    def _img_id(self, request: ExecRequest) -> str:
        img_id = self._stored((*request.path[:2], "ImgID"))
        if not img_id:
            raise DMError(Status.COMMAND_FAILED, f"{request.uri}: the image of this sub-tree is unknown to the device")
        return img_id

    def _record(self, name: str) -> ImageRecord | None:
        img_id = self._stored((*MOUNT, name, "ImgID"))
        return None if not img_id else self._images.get(img_id)


_FIXED_WHILE_DOWNLOADING = frozenset({("DownloadURI",), ("MediaType",)})

_OPERATIONS: dict[str, Callable[[VMImgMO, ExecRequest], ExecOutcome]] = {
    "Download": VMImgMO._download,
    "Delete": VMImgMO._delete,
}


def _location(record: ImageRecord) -> Value | None:
    if record.state is not ImageState.DOWNLOADED or record.location is None:
        return None
    return Value(str(record.location))


_LIVE_LEAVES: dict[Path, Callable[[ImageRecord], Value | None]] = {
    ("State",): lambda record: Value(str(int(record.state)), Format.INT),
    ("DownloadedLocation",): _location,
    ("Ext", "Progress"): lambda record: Value(str(record.progress), Format.INT),
    ("Ext", "LastError"): lambda record: None if record.last_error is None else Value(record.last_error),
}
