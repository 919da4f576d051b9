"""How a VM's domain is built: taken from its image once, kept with the VM, independent of the image afterwards (A-22).

Plain data. Knows neither files nor the hypervisor's calls; turns into a :class:`DomainConfig` and to and from the
``build`` mapping of the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from dom0_agent.hypervisor.interface import Disk, DomainConfig, DomainType, Vif
from dom0_agent.store.vms import StoredDisk, StoredVm
from dom0_agent.vm.model import Allocation, SuspendKind, VmRecord, VmState

#: Domains of ours are named so; the name serves people at dom0's console, nothing is looked up by it.
NAME_PREFIX = "virmo-"
#: What the data disk may be in the guest: the first of these that the image's own disks leave free.
DATA_DEVICES = tuple(f"xvd{letter}" for letter in "bcdefghijklmnopqrstuvwxyz")


def data_device(taken: Iterable[str]) -> str:
    """The device of a VM's data disk beside disks with these. :class:`ValueError` when there is none left."""
    devices = set(taken)
    for device in DATA_DEVICES:
        if device not in devices:
            return device
    raise ValueError("the image's disks leave no device for the data disk")


@dataclass(frozen=True, slots=True)
class Definition:
    """What a domain needs beside its disks, memory and network. Paths are absolute, in the VM's own directory."""

    type: DomainType
    vcpus: int
    cmdline: str = ""
    kernel: Path | None = None
    ramdisk: Path | None = None

    def dump(self) -> dict[str, object]:
        """JSON values for the store."""
        return {
            "type": self.type.value,
            "vcpus": self.vcpus,
            "cmdline": self.cmdline,
            "kernel": None if self.kernel is None else str(self.kernel),
            "ramdisk": None if self.ramdisk is None else str(self.ramdisk),
        }

    @classmethod
    def load(cls, build: Mapping[str, object]) -> Definition:
        """What :meth:`dump` gave."""
        kernel, ramdisk = build["kernel"], build["ramdisk"]
        return cls(
            type=DomainType(build["type"]),
            vcpus=int(str(build["vcpus"])),
            cmdline=str(build["cmdline"]),
            kernel=None if kernel is None else Path(str(kernel)),
            ramdisk=None if ramdisk is None else Path(str(ramdisk)),
        )


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM as the engine holds it: the record that others see, and what is needed to drive its domain."""

    record: VmRecord
    definition: Definition | None = None  #: None in NotCreated
    disks: tuple[StoredDisk, ...] = ()
    macs: tuple[str, ...] = ()
    reserved: Allocation | None = None
    #: the boot of dom0 in which it began to run: in another boot its domain is gone for that reason
    host_boot_id: str | None = None
    #: when its guest rebooted or crashed lately (seconds since the epoch), to see a loop
    restarts: tuple[float, ...] = ()
    disabled: tuple[str, ...] = ()  #: peripherals that its domain must not have
    devices: tuple[str, ...] = ()  #: of the board, that it was given: keys such as usb:3-1.4
    built_display: bool = False  #: whether its domain was built with one
    built_ram: int | None = None  #: bytes that its domain was built for: a guest grows no further while it lives
    #: bytes it was saved with, when ApplyChanges has changed its allocation since
    saved_ram: int | None = None

    @property
    def vmid(self) -> UUID:
        """The VMID."""
        return self.record.vmid

    def moved(self, state: VmState, *, error: str | None = None, suspend_kind: SuspendKind | None = None) -> Vm:
        """The VM in another state."""
        record = replace(self.record, state=state, last_error=error, suspend_kind=suspend_kind, running_step=None)
        return replace(self, record=record)

    def domain_config(self, bridge: str) -> DomainConfig:
        """What to build its domain from."""
        if self.definition is None:
            raise ValueError(f"VM {self.vmid} has not been created and has no definition")
        return DomainConfig(
            uuid=self.vmid,
            name=f"{NAME_PREFIX}{self.vmid}",
            type=self.definition.type,
            memory=self.record.allocation.ram,
            max_memory=self.record.allocation.ram,
            vcpus=self.definition.vcpus,
            max_vcpus=self.definition.vcpus,
            kernel=self.definition.kernel,
            ramdisk=self.definition.ramdisk,
            cmdline=self.definition.cmdline,
            disks=tuple(Disk(Path(d.path), d.device, d.format, d.read_only) for d in self.disks),
            vifs=tuple(Vif(mac, bridge) for mac in self.macs) if bridge else (),
        )

    def dump(self) -> StoredVm:
        """The row for the store. What an operation is doing right now is not part of it."""
        kind = self.record.suspend_kind
        build: dict[str, object] = {
            "definition": None if self.definition is None else self.definition.dump(),
            "suspend_kind": None if kind is None else kind.value,
            "host_boot_id": self.host_boot_id,
            "restarts": list(self.restarts),
            "disabled": list(self.disabled),
            "devices": list(self.devices),
            "built_display": self.built_display,
            "built_ram": self.built_ram,
            "saved_ram": self.saved_ram,
        }
        record = replace(self.record, running_step=None, progress=None)
        return StoredVm(record, self.reserved, self.macs, self.disks, build)

    @classmethod
    def load(cls, row: StoredVm) -> Vm:
        """What :meth:`dump` gave."""
        build = row.build
        definition, kind, restarts = build.get("definition"), build.get("suspend_kind"), build.get("restarts", [])
        boot_id = build.get("host_boot_id")
        return cls(
            record=replace(row.record, suspend_kind=None if kind is None else SuspendKind(kind)),
            definition=Definition.load(definition) if isinstance(definition, Mapping) else None,
            disks=row.disks,
            macs=row.macs,
            reserved=row.reserved,
            host_boot_id=None if boot_id is None else str(boot_id),
            restarts=tuple(float(when) for when in restarts) if isinstance(restarts, list) else (),
            disabled=_names(build.get("disabled")),
            devices=_names(build.get("devices")),
            built_display=bool(build.get("built_display")),
            built_ram=_bytes(build.get("built_ram")),
            saved_ram=_bytes(build.get("saved_ram")),
        )


def _names(value: object) -> tuple[str, ...]:
    return tuple(str(name) for name in value) if isinstance(value, list) else ()


def _bytes(value: object) -> int | None:
    return None if value is None else int(str(value))
