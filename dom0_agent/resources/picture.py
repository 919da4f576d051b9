"""The target picture: what all VMs would hold of the device after ApplyChanges, and whether that may be (R-063).

Pure values (readings A-02, A-13 to A-17, A-55): no hypervisor, no files, no clock. A violation is an
:class:`OperationRefused` that knows its DM status; then nothing has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal
from uuid import UUID

from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationRefused
from dom0_agent.vm.model import Allocation, VmState

MIB = 1 << 20
#: Less memory than this starts no guest.
LEAST_RAM = 16 * MIB
#: VMs in these states hold what their CurrentConfig says, whether they run or not (A-55).
HOLDING = (VmState.POWERED_OFF, VmState.RUNNING, VmState.SUSPENDED)


class Resource(Enum):
    """What a VM holds, by the key that names it."""

    RAM = "RAM"
    CPU = "CPU"
    NETWORK = "Network"
    STORAGE = "Storage"


@dataclass(frozen=True, slots=True)
class Device:
    """What there is to share out. Bytes; percentages are of themselves (A-54)."""

    ram: int
    storage: int


@dataclass(frozen=True, slots=True)
class Holding:
    """One VM as it is now. ``reserved`` is what ApplyChanges set aside for its Create (A-13)."""

    vmid: UUID
    state: VmState
    current: Allocation
    reserved: Allocation | None = None
    #: a suspended VM's memory is in a file: it cannot become more than what it was saved with
    saved_ram: int | None = None
    #: of a VM that holds nothing yet but is being created
    promised: Allocation | None = None

    @property
    def held(self) -> Allocation | None:
        """What it counts with while nothing is asked for; ``None``: nothing."""
        if self.state in HOLDING:
            return self.current
        return self.promised or self.reserved


@dataclass(frozen=True, slots=True)
class Target:
    """What a VM is to hold. ``before`` is ``None`` where that is set aside for a Create only."""

    vmid: UUID
    state: VmState
    before: Allocation | None
    after: Allocation


def targets(holdings: Sequence[Holding], wanted: Mapping[UUID, Allocation]) -> tuple[Target, ...]:
    """The VMs whose NewConfig asks for something (the others are not touched, R-061), in the order of ``holdings``."""
    return tuple(
        Target(h.vmid, h.state, h.current if h.state in HOLDING else None, wanted[h.vmid])
        for h in holdings
        if h.vmid in wanted
    )


def check(
    holdings: Sequence[Holding], wanted: Mapping[UUID, Allocation], device: Device, cpu_sum: Literal["within", "exact"]
) -> None:
    """Every rule of A-02. :class:`OperationRefused` 403 for what no VM may do, 420 for more than there is."""
    for holding in holdings:
        if holding.vmid in wanted:
            _check_vm(holding, wanted[holding.vmid])
    picture = [wanted.get(h.vmid, h.held) for h in holdings if h.state is not VmState.DELETED]
    check_sums([allocation for allocation in picture if allocation is not None], device)
    total = sum(allocation.cpu for allocation in picture if allocation is not None)
    if cpu_sum == "exact" and wanted and total != 100:
        raise OperationRefused(
            Status.FORBIDDEN, f"the CPU shares of all VMs must sum to 100 % (resources.cpu.sum: exact), not {total} %"
        )


def check_sums(picture: Sequence[Allocation], device: Device) -> None:
    """Σ of each resource within the device's; :class:`OperationRefused` 420 names the first that is not."""
    sums = (
        ("RAM", sum(a.ram for a in picture), device.ram, "bytes"),
        ("Storage", sum(a.storage for a in picture), device.storage, "bytes"),
        ("CPU", sum(a.cpu for a in picture), 100, "%"),
        ("Network", sum(a.network for a in picture), 100, "%"),
    )
    for name, total, limit, unit in sums:
        if total > limit:
            raise OperationRefused(
                Status.DEVICE_FULL, f"all VMs together would hold {total} {unit} of {name}, the device has {limit}"
            )


def _check_vm(holding: Holding, after: Allocation) -> None:
    vmid = holding.vmid
    if holding.state is VmState.DELETED:
        raise OperationRefused(Status.RETRY_LATER, f"VM {vmid} is being deleted")
    if after.ram < LEAST_RAM:
        raise OperationRefused(
            Status.FORBIDDEN, f"VM {vmid}: RAM={after.ram} starts no guest, it must be at least {LEAST_RAM}"
        )
    if holding.state not in HOLDING:
        return
    if after.storage < holding.current.storage:
        raise OperationRefused(
            Status.FORBIDDEN,
            f"VM {vmid}: Storage never shrinks, the guest's data would be lost ({holding.current.storage} bytes now)",
        )
    if holding.saved_ram is not None and after.ram > holding.saved_ram:
        raise OperationRefused(
            Status.FORBIDDEN,
            f"VM {vmid} is Suspended with {holding.saved_ram} bytes of RAM and goes on with no more: resume it first",
        )
