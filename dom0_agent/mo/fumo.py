"""The device's own firmware update management object, ``./FUMO``: dom0's system on a board with two slots (FUMO 1.0).

An adapter: the tree keeps what the server sets (names, PkgURL), the service does the work. Both operations are answered
202, and their end is told by an alert with FUMO's result code, after the restart if there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dom0_agent.firmware.record import Stage, UpdateRecord
from dom0_agent.firmware.service import FirmwareService
from dom0_agent.mo.dmtree import fumo_nodes as fumo
from dom0_agent.omadm.mo import Change, ExecOutcome, ExecRequest, Path, Undo
from dom0_agent.omadm.node import Command, Format, NodeDef, Scope, Source, Value
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.operation import OperationRefused, OperationResult, Origin

MOUNT: Path = ("FUMO",)

_STATES = {
    Stage.IDLE: fumo.IDLE,
    Stage.DOWNLOADING: fumo.DOWNLOADING,
    Stage.DOWNLOAD_FAILED: fumo.DOWNLOAD_FAILED,
    Stage.READY: fumo.READY,
    Stage.WRITING: fumo.UPDATING,
    Stage.ARMED: fumo.UPDATING,
    Stage.FAILED: fumo.FAILED_WITH_DATA,
    Stage.UPDATED: fumo.UPDATED,
}
#: DM status of a failed download → FUMO's result code; everything else is "download failed, network".
_CODES = {
    403: fumo.VALIDATION_FAILED,
    405: fumo.BAD_URL,
    409: fumo.BAD_URL,
    413: fumo.NO_MEMORY_DOWNLOAD,
    415: fumo.MISMATCH,
    420: fumo.NO_MEMORY_DOWNLOAD,
    424: fumo.CORRUPTED,
    510: fumo.CORRUPTED,
}


class DeviceFumo:
    """ManagementObject for ``./FUMO``."""

    moid = fumo.MOID
    mount = MOUNT

    def __init__(self, firmware: FirmwareService, stored: Callable[[Path], str | None]) -> None:
        self._firmware = firmware
        self._stored = stored

    @property
    def definition(self) -> NodeDef:
        """The node table of FUMO 1.0, with both ways of executing it."""
        return DEFINITION

    def read(self, path: Path) -> Value | None:
        """State and the vendor nodes, as they are now."""
        reader = _LIVE.get(path[1:])
        return None if reader is None else reader(self._firmware)

    def initial(self, path: Path) -> Value | None:
        """Nothing but what is live."""
        return self.read(path)

    def prepare(self, change: Change) -> Undo | None:
        """What is being fetched cannot be redirected."""
        if self._firmware.record.busy:
            raise DMError(Status.FORBIDDEN, "./FUMO: an update is running; wait for its alert")
        return None

    def committed(self, changes: Sequence[Change]) -> None:
        """The tree keeps what was set."""

    def execute(self, request: ExecRequest) -> ExecOutcome:
        """Download, Update and DownloadAndUpdate: begun, answered 202."""
        origin = Origin(request.server_id, request.uri, request.correlator)
        action = request.path[1:]
        try:
            if action == fumo.UPDATE:
                self._firmware.update(origin)
            else:
                url = self._stored((*MOUNT, *action, "PkgURL")) or ""
                self._firmware.download(url, origin, then_update=action == fumo.DOWNLOAD_AND_UPDATE)
        except OperationRefused as refusal:
            raise DMError(refusal.status, str(refusal)) from refusal
        return ExecOutcome(Status.ACCEPTED)


def alert_of(record: UpdateRecord, result: OperationResult) -> tuple[str, int]:
    """Type and result code of the alert that tells the end of an operation."""
    if result.ok:
        code = fumo.SUCCESS
    elif record.stage is Stage.DOWNLOAD_FAILED:
        code = _CODES.get(result.status, fumo.NO_NETWORK)
    else:
        code = fumo.UPDATE_FAILED
    return f"{fumo.ALERTS}{record.action.lower()}", code


def _leaf(name: str, description: str, *, occurrence: str = "One", format_: Format = Format.CHR) -> NodeDef:
    return NodeDef(
        name, format_, occurrence=occurrence, scope=Scope.PERMANENT, source=Source.LIVE, description=description
    )


def _set(name: str, description: str) -> NodeDef:
    access = frozenset({Command.GET, Command.REPLACE})
    return NodeDef(name, Format.CHR, access, scope=Scope.PERMANENT, description=description, max_size=4096)


def _executable(name: str, description: str, *children: NodeDef) -> NodeDef:
    access = frozenset({Command.GET, Command.EXEC})
    return NodeDef(
        name, Format.NODE, access, scope=Scope.PERMANENT, types=(), description=description, children=children
    )


DEFINITION = NodeDef(
    "FUMO",
    Format.NODE,
    frozenset({Command.GET}),
    scope=Scope.PERMANENT,
    types=(fumo.MOID,),
    title="Firmware update",
    description="Replaces dom0's own system, and goes back by itself when the new one is not healthy.",
    children=(
        _set("PkgName", "For people."),
        _set("PkgVersion", "For people."),
        _executable("Download", "Exec gets the package.", _set("PkgURL", "Where the signed bundle is.")),
        _executable("Update", "Exec writes the other slot and restarts dom0."),
        _executable("DownloadAndUpdate", "Exec does both.", _set("PkgURL", "Where the signed bundle is.")),
        _leaf("State", "10 idle, 20 download failed, 30 downloading, 50 ready, 60 updating, 70 failed, 100 updated.",
              format_=Format.INT),
        NodeDef("Ext", Format.NODE, scope=Scope.PERMANENT, types=(), children=(
            _leaf("RunningSlot", "The system slot that dom0 was started from.", occurrence="ZeroOrOne"),
            _leaf("Progress", "Percent of the slot that is written.", format_=Format.INT),
            _leaf("LastError", "Why the last operation failed.", occurrence="ZeroOrOne"),
        )),
    ),
)  # fmt: skip

_LIVE: dict[Path, Callable[[FirmwareService], Value | None]] = {
    ("State",): lambda firmware: Value(str(_STATES[firmware.record.stage]), Format.INT),
    ("Ext", "RunningSlot"): lambda firmware: Value(firmware.running_slot) if firmware.running_slot else None,
    ("Ext", "Progress"): lambda firmware: Value(str(firmware.progress), Format.INT),
    ("Ext", "LastError"): lambda firmware: Value(firmware.record.error) if firmware.record.error else None,
}
