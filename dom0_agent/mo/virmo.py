"""The Virtualisation MO (OMA-ER-VirMO 8) as an adapter between ``./VirMO`` and the VM engine.

Holds no state: the tree keeps what the server sets, the engine keeps the VMs, and ``VMID`` ties a sub-tree to a VM.
Must not know domains, images' content, or how a session works.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from dom0_agent.mo.entries import DEPTH, Entries
from dom0_agent.mo.key_value import format_allocation, format_pairs, parse_create_params
from dom0_agent.mo.virmo_nodes import DEVICE_RESOURCES, DMTREE, MOID, OPERATIONS, virmo_definition
from dom0_agent.omadm.mo import Change, ExecOutcome, ExecRequest, Path, Undo
from dom0_agent.omadm.node import Command, Format, NodeDef, Value
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.operation import OperationHandle, OperationRefused, Origin
from dom0_agent.vm.model import Primitive, VmRecord, VmService, VmState

MOUNT: Path = ("VirMO",)  #: A-26

#: Operations/<name> → primitive; Create is decided by CreateParams
PRIMITIVES = {
    "Suspend": Primitive.SUSPEND,
    "Resume": Primitive.RESUME,
    "PowerOn": Primitive.POWER_ON,
    "PowerOff": Primitive.POWER_OFF,
    "Delete": Primitive.DELETE,
}

#: carries out UI/Command for the VM of the record (R-155)
Interact = Callable[[VmRecord, ExecRequest], ExecOutcome]
StoredValue = Callable[[Path], str | None]  #: the stored value of a leaf, as the tree's device side gives it


class VirMO:
    """ManagementObject for ``./VirMO``.

    ``answer_limit`` is how many seconds an Exec may hold the DM session before it is answered 202.
    ``device_resources`` gives (RAM, Storage) in bytes that VMs can have (R-064 to R-066).
    ``interact`` asks a VM's user; ``apply_changes`` executes that node, on a device that shares resources out.
    """

    moid = MOID
    mount = MOUNT

    def __init__(
        self,
        vms: VmService,
        stored: StoredValue,
        device_resources: Callable[[], tuple[int, int]],
        answer_limit: float,
        interact: Interact | None = None,
        *,
        apply_changes: Callable[[ExecRequest], ExecOutcome] | None = None,
    ) -> None:
        self._vms = vms
        self._stored = stored
        self._device_resources = device_resources
        self._answer_limit = answer_limit
        self._interact = interact
        self._apply_changes = apply_changes
        self._entries: Entries[UUID] = Entries(vms.add, vms.forget)

    @property
    def definition(self) -> NodeDef:
        """The node table of clause 8."""
        return virmo_definition()

    def read(self, path: Path) -> Value | None:
        """State, CurrentConfig, DeviceResources and the vendor nodes, as they are now."""
        if path == (*MOUNT, DEVICE_RESOURCES):
            ram, storage = self._device_resources()
            return Value(format_pairs((("RAM", ram), ("Storage", storage))))
        record = self._record(path[1])
        if record is None:
            return None
        reader = _LIVE_LEAVES.get(path[2:])
        return None if reader is None else reader(record)

    def initial(self, path: Path) -> Value | None:
        """VMID: assigned by the client when the sub-tree is made (R-032, VirMO-C-001)."""
        if path[2:] == ("VMID",):
            return Value(str(self._entries.new_id(path[1])))
        return None

    def prepare(self, change: Change) -> Undo | None:
        """A new ``<x>`` gets a VM entry; ``<x>`` goes only in NotCreated (A-07), and not while a Create runs, or after
        a crash is finished: nobody could manage its VM. DMTree is filled after it (A-40)."""
        if change.command is Command.ADD and change.path[2:3] == (DMTREE,) and change.path[3:]:
            self._refuse_before_creation(change)
        if len(change.path) != DEPTH or change.path[1] in (OPERATIONS, DEVICE_RESOURCES):
            return None
        name = change.path[1]
        if change.command is Command.ADD:
            return self._entries.add(name)
        record = self._record(name) if change.command is Command.DELETE else None
        if record is None:
            return None
        if record.state is not VmState.NOT_CREATED:
            raise DMError(
                Status.NOT_ALLOWED,
                f"./VirMO/{name} is {record.state.name}: delete the VM with Exec ./VirMO/{name}/Operations/Delete",
            )
        try:
            self._vms.require_idle(record.vmid)
        except OperationRefused as refusal:
            raise DMError(refusal.status, f"./VirMO/{name}: {refusal}") from refusal
        return self._entries.delete(name, record.vmid)

    def committed(self, changes: Sequence[Change]) -> None:
        """The engine forgets an entry only when its sub-tree is durably gone."""
        self._entries.committed(changes)

    def execute(self, request: ExecRequest) -> ExecOutcome:
        """Run a primitive; waits up to the answer limit, then 202 (R-121, A-27)."""
        if request.path == (*MOUNT, OPERATIONS, "ApplyChanges"):
            if self._apply_changes is None:
                raise DMError(Status.NOT_SUPPORTED, "ApplyChanges is not available on this device")
            return self._apply_changes(request)
        name, operation = request.path[1], request.path[-1]
        vmid = self._vmid(name)
        if vmid is None:
            raise DMError(Status.COMMAND_FAILED, f"{request.uri}: the VM of this sub-tree is unknown to the device")
        if operation == "ExecUICmd":
            record = self._vms.get(vmid)
            if self._interact is None or record is None:
                raise DMError(Status.NOT_SUPPORTED, f"{request.uri} is not available on this device")
            return self._interact(record, request)
        handle = self._submit(vmid, name, operation, Origin(request.server_id, request.uri, request.correlator))
        result = handle.wait(self._answer_limit)
        if result is None:
            return ExecOutcome(Status.ACCEPTED)
        if not result.ok:
            raise DMError(result.status, result.message)
        removed = [(*MOUNT, name)] if operation == "Delete" else []
        return ExecOutcome(result.status, removed)

    def _refuse_before_creation(self, change: Change) -> None:
        record = self._record(change.path[1])
        if change.server_id is not None and (record is None or record.state is VmState.NOT_CREATED):
            raise DMError(
                Status.NOT_ALLOWED, f"./VirMO/{change.path[1]} is not created yet: add objects below DMTree after that"
            )

    def _submit(self, vmid: UUID, name: str, operation: str, origin: Origin) -> OperationHandle:
        try:
            if operation != "Create":
                return self._vms.submit(vmid, PRIMITIVES[operation], origin=origin)
            node = (*MOUNT, name, "CreateParams")
            params = parse_create_params(self._stored(node) or "", "/".join((".", *node)))
            primitive = Primitive.CREATE if params.running else Primitive.CREATE_AND_POWER_OFF
            return self._vms.submit(vmid, primitive, img_id=params.img_id, vendor=params.vendor, origin=origin)
        except OperationRefused as refusal:
            raise DMError(refusal.status, str(refusal)) from refusal

    def _vmid(self, name: str) -> UUID | None:
        text = self._stored((*MOUNT, name, "VMID"))
        return UUID(text) if text else None

    def _record(self, name: str) -> VmRecord | None:
        vmid = self._vmid(name)
        return None if vmid is None else self._vms.get(vmid)


def _text(value: str | None) -> Value | None:
    return None if value is None else Value(value)


def _number(value: int | None) -> Value | None:
    return None if value is None else Value(str(value), Format.INT)


def _domain_uuid(record: VmRecord) -> Value | None:
    return None if record.state is VmState.NOT_CREATED else Value(str(record.vmid))


_LIVE_LEAVES: dict[Path, Callable[[VmRecord], Value | None]] = {
    ("State",): lambda record: Value(str(int(record.state)), Format.INT),
    ("Resources", "CurrentConfig"): lambda record: Value(format_allocation(record.allocation)),
    ("Ext", "DomainUUID"): _domain_uuid,
    ("Ext", "SuspendKind"): lambda record: _text(None if record.suspend_kind is None else record.suspend_kind.value),
    ("Ext", "Progress"): lambda record: _number(record.progress),
    ("Ext", "RunningStep"): lambda record: _text(record.running_step),
    ("Ext", "LastError"): lambda record: _text(record.last_error),
}
