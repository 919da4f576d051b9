"""Makes the sharing out of resources trustworthy: each setter of a toolstack is followed by a look at what then holds.

Like :mod:`.readback`, for :class:`~dom0_agent.hypervisor.resources.DomainResources`. Knows domains, not tools and not
VMs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Protocol
from uuid import UUID

from dom0_agent.hypervisor.broker import MIB, MemoryBroker
from dom0_agent.hypervisor.interface import Device, DomainInfo, Fixture, HypervisorError, HypervisorTimeout, NotCapable
from dom0_agent.hypervisor.resources import DOM0, BeyondMaximum, MemoryLimits, Progress, Scheduling, device_name

logger = logging.getLogger(__name__)

#: Bytes by which a domain's memory may differ from its target: toolstacks keep a page here and a MiB there.
TOLERANCE = 4 * MIB
#: Times ``settle`` in which a balloon has to move at all; a guest without a balloon driver never does.
STALL = 3
_POLL = 0.2


class RawResources(Protocol):
    """The raw calls of a backend. Each may fail with a :class:`HypervisorError`; none checks its own success."""

    def scheduling(self, domid: int) -> Scheduling: ...
    def set_scheduling(self, domid: int, scheduling: Scheduling) -> None: ...
    def vcpus(self, domain: DomainInfo) -> tuple[int, int]: ...
    def set_vcpus(self, domain: DomainInfo, count: int) -> None: ...
    def memory(self, domain: DomainInfo) -> MemoryLimits: ...
    def set_memory_target(self, domain: DomainInfo, size: int) -> None: ...
    def set_memory_maximum(self, domain: DomainInfo, size: int) -> None: ...
    def disk_size(self, domain: DomainInfo, device: str) -> int: ...
    def resize_disk(self, domain: DomainInfo, device: str) -> None: ...
    def attached(self, domain: DomainInfo) -> frozenset[str]: ...
    def present(self, device: Device) -> bool: ...
    def attach(self, domain: DomainInfo, device: Device) -> None: ...
    def detach(self, domain: DomainInfo, device: Device, *, force: bool) -> None: ...
    def interfaces(self, domain: DomainInfo) -> tuple[str, ...]: ...


class ReadBackResources:
    """The :class:`~dom0_agent.hypervisor.resources.DomainResources` over :class:`RawResources`."""

    def __init__(
        self, raw: RawResources, get: Callable[[UUID, str], DomainInfo], broker: MemoryBroker, settle: float
    ) -> None:
        """``get`` looks a domain up, or raises ``NoSuchDomain`` naming the call; ``settle`` as in ``readback``."""
        self._raw = raw
        self._get = get
        self._broker = broker
        self._settle = settle

    # -- processors -------------------------------------------------------------------------------------------------

    def scheduling(self, uuid: UUID) -> Scheduling:
        """Weight and cap as they are now."""
        return self._raw.scheduling(self._domid(uuid, "scheduling"))

    def set_scheduling(self, uuid: UUID, scheduling: Scheduling) -> None:
        """Set both. A cap beyond what the domain's vCPUs could use is an error on each scheduler, as on credit2."""
        if scheduling.cap > 100:
            self._check_cap(uuid, scheduling.cap)
        domid = self._domid(uuid, "scheduling")
        self._raw.set_scheduling(domid, scheduling)
        found = self._raw.scheduling(domid)
        if found != scheduling:
            raise HypervisorError(f"scheduling of domain {uuid}: {scheduling} was set, but Xen says {found}")

    def _check_cap(self, uuid: UUID, cap: int) -> None:
        most = self.vcpus(uuid)[1]
        if cap > 100 * most:
            raise HypervisorError(f"domain {uuid} was built with {most} vCPUs: it cannot have a cap of {cap} % of one")

    def vcpus(self, uuid: UUID) -> tuple[int, int]:
        """(allowed online, built with)."""
        return self._raw.vcpus(self._get(uuid, "vcpus"))

    def set_vcpus(self, uuid: UUID, count: int) -> None:
        """Allow ``count`` vCPUs to be online."""
        domain = self._get(uuid, "vcpus")
        allowed, most = self._raw.vcpus(domain)
        if not 1 <= count <= most:
            raise HypervisorError(f"domain {uuid} was built with {most} vCPUs: {count} cannot be online")
        if allowed != count:
            self._raw.set_vcpus(domain, count)
            found = self._raw.vcpus(domain)[0]
            if found != count:
                raise HypervisorError(f"domain {uuid}: {count} vCPUs were allowed, but XenStore says {found}")

    # -- memory -----------------------------------------------------------------------------------------------------

    def memory(self, uuid: UUID) -> MemoryLimits:
        """Target and maximum as they are now."""
        return self._raw.memory(self._get(uuid, "memory"))

    def set_memory(self, uuid: UUID, size: int, deadline: float, progress: Progress) -> None:
        """Have the guest shrink or grow to ``size``; the target is as before when it does not."""
        domain = self._get(uuid, "memory")
        before = self._raw.memory(domain)
        growth = max(0, size - domain.memory)
        grant = self._broker.granted(growth, f"domain {uuid}, which is to grow,") if growth else nullcontext()
        with grant:
            try:
                if size > before.maximum:
                    self._raw.set_memory_maximum(domain, size)
                self._raw.set_memory_target(domain, size)
                self._follow_balloon(uuid, size, deadline, progress, beyond=size > before.maximum)
            except HypervisorError:
                self._restore_memory(uuid, before)
                raise

    def _follow_balloon(self, uuid: UUID, size: int, deadline: float, progress: Progress, *, beyond: bool) -> None:
        now = time.monotonic()
        end, moved, last = now + deadline, now, -1
        while True:
            domain = self._get(uuid, "memory")
            now = time.monotonic()
            if domain.memory != last:
                last, moved = domain.memory, now
                progress(domain.memory, size)
            if abs(domain.memory - size) <= TOLERANCE:
                return
            if now >= end or now - moved >= STALL * self._settle:
                where = f"it stays at {domain.memory // MIB} MiB and does not reach {size // MIB} MiB"
                if beyond:
                    raise BeyondMaximum(
                        f"domain {uuid} was built for less and its guest cannot add memory ({where}): "
                        "power the VM off, apply, and power it on"
                    )
                raise HypervisorTimeout(f"memory of domain {uuid}: {where}; has its guest a balloon driver?")
            time.sleep(_POLL)

    def _restore_memory(self, uuid: UUID, before: MemoryLimits) -> None:
        """Back to the limits before. A failure here is logged: the caller's error says what matters."""
        try:
            domain = self._get(uuid, "memory")
            if self._raw.memory(domain).target != before.target:
                self._raw.set_memory_target(domain, before.target)
            if self._raw.memory(domain).maximum != before.maximum:
                self._raw.set_memory_maximum(domain, before.maximum)
        except HypervisorError as error:
            logger.error("memory_limits_stay uuid=%s error=%s", uuid, error)

    # -- disks and devices ------------------------------------------------------------------------------------------

    def disk_size(self, uuid: UUID, device: str) -> int:
        """Bytes of a disk as the backend offers it."""
        return self._raw.disk_size(self._get(uuid, "disk size"), device)

    def resize_disk(self, uuid: UUID, device: str, size: int) -> None:
        """Have the backend take the new size of the file behind ``device``."""
        domain = self._get(uuid, "resize")
        self._raw.resize_disk(domain, device)
        found = self._raw.disk_size(domain, device)
        if found != size:
            raise HypervisorError(f"disk {device} of domain {uuid}: it should have {size} bytes, but has {found}")

    def attached(self, uuid: UUID) -> frozenset[str]:
        """What is attached now."""
        return self._raw.attached(self._get(uuid, "devices"))

    def present(self, device: Device) -> bool:
        """Whether dom0 has it to give."""
        return self._raw.present(device)

    def attach(self, uuid: UUID, device: Device) -> None:
        """Add a device."""
        domain, name = self._get(uuid, "attach"), device_name(device)
        if name not in self._raw.attached(domain):
            _need_plug(domain, device)
            self._raw.attach(domain, device)
            self._await_device(domain, name, there=True)

    def detach(self, uuid: UUID, device: Device) -> None:
        """Take a device away, by force when the guest does not let go."""
        domain, name = self._get(uuid, "detach"), device_name(device)
        if name not in self._raw.attached(domain):
            return
        _need_plug(domain, device)
        try:
            self._raw.detach(domain, device, force=False)
            self._await_device(domain, name, there=False)
        except HypervisorError as error:
            if name in self._raw.attached(domain):
                logger.warning("guest_does_not_release uuid=%s device=%s error=%s", uuid, name, error)
                self._raw.detach(domain, device, force=True)
                self._await_device(domain, name, there=False)

    def interfaces(self, uuid: UUID) -> tuple[str, ...]:
        """dom0's names of the domain's interfaces that are there now."""
        return self._raw.interfaces(self._get(uuid, "interfaces"))

    def _await_device(self, domain: DomainInfo, name: str, *, there: bool) -> None:
        end = time.monotonic() + self._settle
        while (name in self._raw.attached(domain)) is not there:
            if time.monotonic() >= end:
                state = "not there" if there else "still there"
                raise HypervisorError(f"{name} of domain {domain.uuid}: the tool reported success, but it is {state}")
            time.sleep(_POLL)

    def _domid(self, uuid: UUID, call: str) -> int:
        return 0 if uuid == DOM0 else self._get(uuid, call).domid


def _need_plug(domain: DomainInfo, device: Device) -> None:
    if isinstance(device, Fixture):
        raise NotCapable(f"{device.kind} of domain {domain.uuid}: it comes and goes with the domain only")
