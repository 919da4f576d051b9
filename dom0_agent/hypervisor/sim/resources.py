"""How the simulated machine is shared out: notes in its ledger, as Xen keeps them in its own memory.

A simulated guest always follows its balloon up to the memory it was built for, unless the machine's settings say that
it has no balloon driver; it never grows beyond. The raw calls of
:class:`~dom0_agent.hypervisor.readback_resources.RawResources`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from dom0_agent.hypervisor.interface import (
    Device,
    Disk,
    DomainConfig,
    DomainInfo,
    Fixture,
    HypervisorError,
    NotCapable,
    OutOfMemory,
    Pci,
    Usb,
    Vif,
)
from dom0_agent.hypervisor.resources import MemoryLimits, Scheduling, device_name
from dom0_agent.hypervisor.sim.ledger import Entry, Ledger, read_json, write_json

WEIGHTED = frozenset({"credit", "credit2"})


class SimResources:
    """The raw calls over a :class:`Ledger`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def scheduling(self, domid: int) -> Scheduling:
        """As noted."""
        self._need_weights()
        if domid == 0:
            file = self._ledger.root / "dom0.json"
            noted = read_json(file) if file.exists() else {"weight": 256, "cap": 0}
            return Scheduling(int(noted["weight"]), int(noted["cap"]))
        entry = self._entry(domid)
        return Scheduling(entry.weight, entry.cap)

    def set_scheduling(self, domid: int, scheduling: Scheduling) -> None:
        """Note it."""
        self._need_weights()
        if domid == 0:
            write_json(self._ledger.root / "dom0.json", {"weight": scheduling.weight, "cap": scheduling.cap})
            return
        with self._ledger.locked():
            self._ledger.put(replace(self._entry(domid), weight=scheduling.weight, cap=scheduling.cap))

    def vcpus(self, domain: DomainInfo) -> tuple[int, int]:
        """As noted."""
        entry = self._entry(domain.domid)
        return entry.vcpus, entry.max_vcpus or entry.vcpus

    def set_vcpus(self, domain: DomainInfo, count: int) -> None:
        """Note it; the simulated guest follows at once."""
        with self._ledger.locked():
            self._ledger.put(replace(self._entry(domain.domid), vcpus=count))

    def memory(self, domain: DomainInfo) -> MemoryLimits:
        """As noted."""
        entry = self._entry(domain.domid)
        return MemoryLimits(entry.memory_target or entry.memory, entry.max_memory or entry.memory)

    def set_memory_target(self, domain: DomainInfo, size: int) -> None:
        """Note it, and let the guest follow as far as it can."""
        with self._ledger.locked():
            entry = self._entry(domain.domid)
            reached = min(size, entry.boot_memory or entry.memory) if self._ledger.settings().balloons else entry.memory
            if reached - entry.memory > self._ledger.free_memory():
                raise OutOfMemory(f"memory of domain {domain.uuid}: {self._ledger.free_memory()} bytes are free")
            self._ledger.put(replace(entry, memory_target=size, memory=reached))

    def set_memory_maximum(self, domain: DomainInfo, size: int) -> None:
        """Note it."""
        with self._ledger.locked():
            self._ledger.put(replace(self._entry(domain.domid), max_memory=size))

    def disk_size(self, domain: DomainInfo, device: str) -> int:
        """As noted when the domain was built, or when the disk was resized."""
        sizes = {disk[0]: int(disk[2]) for disk in self._entry(domain.domid).disks}
        if device not in sizes:
            raise HypervisorError(f"domain {domain.uuid} has no disk {device}")
        return sizes[device]

    def resize_disk(self, domain: DomainInfo, device: str) -> None:
        """Look at the file again."""
        with self._ledger.locked():
            entry = self._entry(domain.domid)
            disks = [[d, path, _size(Path(path)) if d == device else size] for d, path, size in entry.disks]
            self._ledger.put(replace(entry, disks=disks))

    def attached(self, domain: DomainInfo) -> frozenset[str]:
        """As noted."""
        entry = self._entry(domain.domid)
        return frozenset([disk[0] for disk in entry.disks] + list(entry.vifs) + entry.passed)

    def present(self, device: Device) -> bool:
        """As the machine's settings say."""
        settings = self._ledger.settings()
        if isinstance(device, Pci):
            return device.address in settings.pci
        return not isinstance(device, Usb) or device.port in settings.usb

    def need_free(self, devices: Iterable[Pci | Usb]) -> None:
        """:class:`HypervisorError` when one is not there, or is another domain's."""
        for device in devices:
            name = device_name(device)
            if not self.present(device):
                raise HypervisorError(f"{name} is not there")
            if any(name in entry.passed for entry in self._ledger.entries()):
                raise HypervisorError(f"{name} is assigned to another domain already")

    def attach(self, domain: DomainInfo, device: Device) -> None:
        """Note it."""
        with self._ledger.locked():
            entry = self._entry(domain.domid)
            if isinstance(device, Pci | Usb):
                self.need_free([device])
                self._ledger.put(replace(entry, passed=[*entry.passed, device_name(device)]))
            elif isinstance(device, Disk):
                disk = [device.device, str(device.path), _size(device.path)]
                self._ledger.put(replace(entry, disks=[*entry.disks, disk]))
            elif isinstance(device, Vif):
                self._ledger.put(replace(entry, vifs=[*entry.vifs, device.mac.lower()]))

    def detach(self, domain: DomainInfo, device: Device, *, force: bool) -> None:
        """Take it from the notes. A simulated guest holds on to nothing: force makes no difference."""
        del force
        with self._ledger.locked():
            entry = self._entry(domain.domid)
            if isinstance(device, Disk):
                self._ledger.put(replace(entry, disks=[disk for disk in entry.disks if disk[0] != device.device]))
            elif isinstance(device, Pci | Usb):
                name = device_name(device)
                self._ledger.put(replace(entry, passed=[other for other in entry.passed if other != name]))
            elif isinstance(device, Vif):
                self._ledger.put(replace(entry, vifs=[mac for mac in entry.vifs if mac != device.mac.lower()]))

    def interfaces(self, domain: DomainInfo) -> tuple[str, ...]:
        """A simulated domain has a channel, but no network: dom0 has no interfaces of it."""
        del domain
        return ()

    def _entry(self, domid: int) -> Entry:
        for entry in self._ledger.entries():
            if entry.domid == domid:
                return entry
        raise HypervisorError(f"there is no domain {domid}")

    def _need_weights(self) -> None:
        scheduler = self._ledger.settings().scheduler
        if scheduler not in WEIGHTED:
            raise NotCapable(f"scheduler {scheduler} has no weights and caps")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise HypervisorError(f"there is no file {path}") from None


def new_entry(config: DomainConfig, domid: int) -> Entry:
    """What is noted of a domain when it is built."""
    devices: list[Device] = [*config.pci, *config.usb, *([Fixture("display")] if config.display else [])]
    return Entry(
        uuid=str(config.uuid),
        domid=domid,
        name=config.name,
        memory=config.memory,
        vcpus=config.vcpus,
        max_vcpus=config.max_vcpus,
        boot_memory=config.max_memory,
        max_memory=config.max_memory,
        disks=[[disk.device, str(disk.path), _size(disk.path)] for disk in config.disks],
        vifs=[vif.mac.lower() for vif in config.vifs],
        passed=[device_name(device) for device in devices],
    )
