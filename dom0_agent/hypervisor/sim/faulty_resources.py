"""The faults of :mod:`.faults`, for the calls that share the machine out. Asks are never hit, only what changes."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from dom0_agent.hypervisor.interface import Device, DomainInfo
from dom0_agent.hypervisor.readback_resources import RawResources
from dom0_agent.hypervisor.resources import DOM0, Scheduling

#: Does a call under the name that the table knows it by, for the domain with this UUID.
Do = Callable[[str, UUID, Callable[[], None]], None]


class FaultyResources:
    """``inner`` with the faults that ``do`` finds in the table."""

    def __init__(self, inner: RawResources, do: Do, uuid_of: Callable[[int], UUID | None]) -> None:
        self._inner = inner
        self._do = do
        self._uuid_of = uuid_of
        self.scheduling = inner.scheduling
        self.vcpus = inner.vcpus
        self.memory = inner.memory
        self.disk_size = inner.disk_size
        self.attached = inner.attached
        self.present = inner.present
        self.interfaces = inner.interfaces

    def set_scheduling(self, domid: int, scheduling: Scheduling) -> None:
        """See :class:`RawResources`."""
        uuid = self._uuid_of(domid) or DOM0
        self._do("set_scheduling", uuid, lambda: self._inner.set_scheduling(domid, scheduling))

    def set_vcpus(self, domain: DomainInfo, count: int) -> None:
        """See :class:`RawResources`."""
        self._do("set_vcpus", domain.uuid, lambda: self._inner.set_vcpus(domain, count))

    def set_memory_target(self, domain: DomainInfo, size: int) -> None:
        """See :class:`RawResources`."""
        self._do("set_memory_target", domain.uuid, lambda: self._inner.set_memory_target(domain, size))

    def set_memory_maximum(self, domain: DomainInfo, size: int) -> None:
        """See :class:`RawResources`."""
        self._do("set_memory_maximum", domain.uuid, lambda: self._inner.set_memory_maximum(domain, size))

    def resize_disk(self, domain: DomainInfo, device: str) -> None:
        """See :class:`RawResources`."""
        self._do("resize_disk", domain.uuid, lambda: self._inner.resize_disk(domain, device))

    def attach(self, domain: DomainInfo, device: Device) -> None:
        """See :class:`RawResources`."""
        self._do("attach", domain.uuid, lambda: self._inner.attach(domain, device))

    def detach(self, domain: DomainInfo, device: Device, *, force: bool) -> None:
        """See :class:`RawResources`."""
        self._do("detach", domain.uuid, lambda: self._inner.detach(domain, device, force=force))
