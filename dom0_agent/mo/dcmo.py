"""DCMO of a VM (HLF-06): dom0 tells what devices there are, and attaches and detaches them itself.

Nothing is asked of the guest, which cannot be trusted to restrict itself; its shim is told what it has, so that it can
tell its user. Enable and Disable work in each Created state: what a VM may have is applied before the first instruction
of its next start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from dom0_agent.hypervisor.interface import HypervisorError
from dom0_agent.hypervisor.resources import device_name
from dom0_agent.mo.dcmo_nodes import AT_NEXT_START, DISABLE_FAILED, ENABLE_FAILED, SUCCESS
from dom0_agent.mo.dmtree.forwarded import ForwardedObject, Surroundings
from dom0_agent.mo.dmtree.nodes import GuestObject
from dom0_agent.mo.dmtree.work import Ended
from dom0_agent.omadm.mo import ExecRequest, Path
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.operation import OperationHandle, OperationRefused, Origin
from dom0_agent.resources.peripherals import Standing
from dom0_agent.vm.model import VmRecord

FAILED = {"Enable": ENABLE_FAILED, "Disable": DISABLE_FAILED}


class Devices(Protocol):
    """What is needed of the peripherals."""

    def standing(self, vmid: UUID) -> tuple[Standing, ...]: ...
    def switch(self, vmid: UUID, name: str, *, enabled: bool) -> bool: ...


class Dcmo(ForwardedObject):
    """ManagementObject for the DCMO of one VM."""

    def __init__(self, kind: GuestObject, mount: Path, surroundings: Surroundings, devices: Devices) -> None:
        super().__init__(kind, mount, surroundings)
        self._devices = devices

    def refresh(self) -> None:
        """The server is about to read: show what is so now."""
        record = self.record()
        if record is None:
            return
        try:
            standing = self._devices.standing(record.vmid)
        except HypervisorError as error:
            raise DMError(Status.COMMAND_FAILED, f"the hypervisor does not answer: {error}") from error
        self.around.mirror.apply(self.kind, self.mount, nodes(standing))

    def connected(self) -> None:
        """The nodes are there as soon as the object is; a shim that said hello is told of them."""
        self.refresh()
        self.push()

    def begin(self, record: VmRecord, path: Path, request: ExecRequest, origin: Origin) -> OperationHandle:
        """Enable or Disable."""
        name, operation = path[0], path[-1]

        def switch() -> Ended:
            try:
                done = self._devices.switch(record.vmid, name, enabled=operation == "Enable")
            except (HypervisorError, OperationRefused) as error:
                return Ended(FAILED[operation], f"{operation} of {name}: {error}")
            self.around.tasks.post(self.connected)
            return Ended(SUCCESS) if done else Ended(AT_NEXT_START, f"{operation} of {name}: at the VM's next start")

        return self.run(record.vmid, origin, switch, lost_code=FAILED[operation])


def nodes(standing: tuple[Standing, ...]) -> dict[str, str]:
    """The live nodes, path below the root → value."""
    found: dict[str, str] = {}
    for one in standing:
        leaves = {
            "Property": one.peripheral.key,
            "Group": one.peripheral.group,
            "Description": one.peripheral.description,
            "Attached": _boolean(one.attached),
            "Enabled": _boolean(one.enabled),
            "Ext/AttachedDevice": device_name(one.peripheral.device) if one.attached else "",
            "Ext/AtNextStart": _boolean(one.at_next_start),
        }
        found |= {f"{one.peripheral.name}/{leaf}": text for leaf, text in leaves.items()}
    return found


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def dcmo(devices: Devices) -> Callable[[GuestObject, Path, Surroundings], Dcmo]:
    """Makes the DCMOs of VMs."""
    return lambda kind, mount, surroundings: Dcmo(kind, mount, surroundings, devices)
