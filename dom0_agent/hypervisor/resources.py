"""The part of the hypervisor's interface that shares the machine out: processor time, memory, disks, devices.

Kept beside :mod:`.interface` so that both stay readable. Knows domains; must not know shares, VMs or OMA DM: what a
share of 30 % means is decided above. Every setter reads back what it has set, or fails with a
:class:`~dom0_agent.hypervisor.interface.HypervisorError`. Sizes are bytes, times seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from dom0_agent.hypervisor.interface import Device, Disk, Fixture, HypervisorError, Pci, Usb, Vif

#: Xen's UUID of dom0, whose weight can be set like that of any domain.
DOM0 = UUID(int=0)


class BeyondMaximum(HypervisorError):  # noqa: N818 - it is an error, and reads better so
    """The guest cannot grow beyond the memory that it was built for; nothing has changed."""


@dataclass(frozen=True, slots=True)
class Scheduling:
    """A domain's share of the processors, as the credit and credit2 schedulers take it."""

    weight: int  #: 1 to 65535, relative to the other domains that want to run
    #: percent of one physical CPU that it gets at most, up to 100 for each vCPU it was built with; 0: no limit
    cap: int


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """What a domain's memory is to be, and can be."""

    target: int  #: bytes its balloon is asked to leave it
    maximum: int  #: bytes it was built for


#: Told bytes reached so far and bytes wanted while a balloon moves.
Progress = Callable[[int, int], None]


class DomainResources(Protocol):
    """Implemented over ``xl`` and over the simulator; the same contract tests run on both."""

    def scheduling(self, uuid: UUID) -> Scheduling:
        """Weight and cap as they are now; :data:`DOM0` for dom0."""

    def set_scheduling(self, uuid: UUID, scheduling: Scheduling) -> None:
        """Set both. :class:`NotCapable` where the running scheduler has no weights."""

    def vcpus(self, uuid: UUID) -> tuple[int, int]:
        """(vCPUs that the guest is allowed to have online, vCPUs that it was built with)."""

    def set_vcpus(self, uuid: UUID, count: int) -> None:
        """Allow ``count`` vCPUs to be online. The guest's kernel follows, if it can, soon after."""

    def memory(self, uuid: UUID) -> MemoryLimits:
        """Target and maximum as they are now."""

    def set_memory(self, uuid: UUID, size: int, deadline: float, progress: Progress) -> None:
        """Have the guest shrink or grow to ``size``; returns when it has.

        Growth is promised by the memory broker first. :class:`OutOfMemory` when Xen has not enough,
        :class:`BeyondMaximum` when the guest cannot grow that far, :class:`HypervisorTimeout` when it does not get
        there in time; in each case the target is what it was before.
        """

    def disk_size(self, uuid: UUID, device: str) -> int:
        """Bytes of a disk as the domain's backend offers it."""

    def resize_disk(self, uuid: UUID, device: str, size: int) -> None:
        """Have the backend take the new size of the file behind ``device``."""

    def attached(self, uuid: UUID) -> frozenset[str]:
        """What is attached now, by :func:`device_name`. The console is not told: every domain has it."""

    def present(self, device: Device) -> bool:
        """Whether dom0 has it to give: a USB device is plugged in, a PCI device can be assigned."""

    def attach(self, uuid: UUID, device: Device) -> None:
        """Add a device to a domain. No error when it has it already; :class:`NotCapable` for a :class:`Fixture`."""

    def detach(self, uuid: UUID, device: Device) -> None:
        """Take a device away, by force when the guest does not let go. No error when it was not there."""

    def interfaces(self, uuid: UUID) -> tuple[str, ...]:
        """dom0's names of the domain's network interfaces (``vif3.0``) that are there now."""


def device_name(device: Device) -> str:
    """What a device is called in :meth:`DomainResources.attached`."""
    match device:
        case Disk():
            return device.device
        case Vif():
            return device.mac.lower()
        case Pci():
            return f"pci:{device.address}"
        case Usb():
            return f"usb:{device.port}"
        case Fixture():
            return device.kind
