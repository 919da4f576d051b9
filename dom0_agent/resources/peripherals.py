"""A VM's peripherals: what there is, what is allowed, and taking it away in dom0 (HLF-06).

A guest cannot be trusted to restrict itself: a disabled device is detached, and is not there when its VM starts again.
What is allowed is the VM's and durable before the machine follows; what follows is looked at again and again. What no
tool can take from a running domain goes at its next start; what none can take at all is told so. Must not know the
management tree.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from uuid import UUID

from dom0_agent.hypervisor.interface import (
    Device,
    Disk,
    DomainConfig,
    Fixture,
    Hypervisor,
    HypervisorError,
    NoSuchDomain,
    Pci,
    Usb,
    Vif,
)
from dom0_agent.hypervisor.resources import device_name
from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationRefused
from dom0_agent.resources.peripheral_names import PeripheralName, passed_device
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.model import VmState

logger = logging.getLogger(__name__)

DATA = "data"


@dataclass(frozen=True, slots=True)
class Peripheral:
    """One device of a VM. ``key`` is what it is kept by, ``name`` what it is called."""

    key: str
    name: str
    group: str
    description: str
    device: Device

    @property
    def comes_and_goes(self) -> bool:
        """Whether it can be attached and detached while the VM runs."""
        return not isinstance(self.device, Fixture)


#: What every domain has, and Xen knows no way to build one without.
CONSOLE = "console"


def peripherals_of(vm: Vm, bridge: str, names: Sequence[PeripheralName] = ()) -> tuple[Peripheral, ...]:
    """The devices of a VM: each interface, the data disk, what of the board it was given, and its console."""
    called = {name.device: name for name in names}
    found: list[tuple[str, str, str, Device]] = []
    if bridge:
        for number, mac in enumerate(vm.macs):
            found.append((f"vif{number}", "Connectivity", f"network interface {mac}", Vif(mac, bridge)))
    for disk in vm.disks:
        if disk.role == DATA:
            device = Disk(Path(disk.path), disk.device, disk.format, disk.read_only)
            found.append((disk.device, "Hardware", "data disk", device))
    for key in vm.devices:
        passed = passed_device(key)
        if passed is not None:
            found.append((key, *_ABOUT[type(passed)], passed))
    if vm.definition is not None:
        about = "the domain's console; Xen gives one to every domain, and it cannot be taken away"
        found.append((CONSOLE, "Input/Output", about, Fixture("console")))
    return tuple(
        Peripheral(
            key,
            called[key].name if key in called else key,
            called[key].group if key in called else group,
            description,
            device,
        )
        for key, group, description, device in found
    )


_ABOUT: dict[type[Device], tuple[str, str]] = {
    Pci: ("Hardware", "PCI device of the board"),
    Usb: ("Hardware", "USB device of the board"),
    Fixture: ("Input/Output", "virtual framebuffer with keyboard and pointer; it comes and goes with the next start"),
}


def with_devices(vm: Vm, config: DomainConfig, present: Callable[[Device], bool]) -> DomainConfig:
    """What to build the domain from: what is disabled is not there at its first instruction.

    Nor is what is ``present`` nowhere: a USB device that is not plugged in keeps no VM from starting. What was saved
    with a display goes on with it, and without it what was saved without.
    """
    macs = {mac.lower() for number, mac in enumerate(vm.macs) if f"vif{number}" in vm.disabled}
    asleep = vm.record.state is VmState.SUSPENDED
    passed = {key: device for key in vm.devices if (device := passed_device(key)) is not None}
    given = [device for key, device in passed.items() if key not in vm.disabled and present(device)]
    return replace(
        config,
        vifs=tuple(vif for vif in config.vifs if vif.mac.lower() not in macs),
        disks=tuple(disk for disk in config.disks if disk.device not in vm.disabled),
        pci=tuple(device for device in given if isinstance(device, Pci)),
        usb=tuple(device for device in given if isinstance(device, Usb)),
        display=vm.built_display if asleep else any(isinstance(device, Fixture) for device in given),
        later_pci=any(isinstance(device, Pci) for device in passed.values()),
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """A peripheral as it stands: allowed by the server, and there in the domain."""

    peripheral: Peripheral
    enabled: bool
    attached: bool
    at_next_start: bool = False  #: it is not yet as it is to be, and will be when the VM starts next


class Holds(Protocol):
    """What is needed of the engine: to have a VM alone for a while."""

    def take(self, vmids: Iterable[UUID]) -> dict[UUID, Vm]: ...
    def release(self, vmids: Iterable[UUID], changed: Mapping[UUID, Vm]) -> None: ...


class Peripherals:
    """Looks at them, and switches them."""

    def __init__(
        self, vms: VmTable, hypervisor: Hypervisor, bridge: str, names: Sequence[PeripheralName], holds: Holds
    ) -> None:
        self._vms = vms
        self._hypervisor = hypervisor
        self._bridge = bridge
        self._names = names
        self._holds = holds

    def standing(self, vmid: UUID) -> tuple[Standing, ...]:
        """All of a VM's, as they are now; nothing is attached to one that does not run."""
        row = self._vms.get(vmid)
        if row is None:
            return ()
        vm = Vm.load(row)
        attached = self._attached(vm)
        return tuple(
            self._standing(vm, found, device_name(found.device) in attached)
            for found in peripherals_of(vm, self._bridge, self._names)
        )

    def _standing(self, vm: Vm, found: Peripheral, attached: bool) -> Standing:
        enabled = found.key not in vm.disabled
        has_domain = vm.record.state in (VmState.RUNNING, VmState.SUSPENDED)
        if vm.record.state is VmState.SUSPENDED and found.device == Fixture("display"):
            attached = vm.built_display
        waits = has_domain and not found.comes_and_goes and attached is not enabled
        return Standing(found, enabled, attached and vm.record.state is VmState.RUNNING, waits)

    def switch(self, vmid: UUID, name: str, *, enabled: bool) -> bool:
        """Allow or take away; ``name`` is the peripheral's. Durable, and so in the domain, when this returns.

        ``False``: it is so from the VM's next start on. :class:`OperationRefused` 404 for none such, 406 for what
        cannot be taken away, 417 while an operation runs on the VM. :class:`HypervisorError` when the domain does not
        follow; then all is as before.
        """
        before = self._holds.take((vmid,))[vmid]
        after = before
        try:
            found = self._named(before, name)
            if found.key == CONSOLE and not enabled:
                raise OperationRefused(Status.NOT_SUPPORTED, f"VM {vmid}: {name} is {found.description}")
            disabled = (set(before.disabled) - {found.key}) | (set() if enabled else {found.key})
            wanted = replace(before, disabled=tuple(sorted(disabled)))
            self._vms.put(wanted.dump())
            try:
                follow(self._hypervisor, wanted, (found,))
            except HypervisorError:
                self._vms.put(before.dump())
                self._restore(before, found)
                raise
            after = wanted
            logger.info("peripheral_switched vmid=%s peripheral=%s enabled=%s", vmid, found.key, enabled)
            there = device_name(found.device) in self._attached(wanted)
            return not self._standing(wanted, found, there).at_next_start
        finally:
            self._holds.release((vmid,), {vmid: after} if after is not before else {})

    def _restore(self, vm: Vm, found: Peripheral) -> None:
        try:
            follow(self._hypervisor, vm, (found,))
        except HypervisorError as error:  # each look at the VM goes on trying
            logger.error("peripheral_not_restored vmid=%s peripheral=%s error=%s", vm.vmid, found.key, error)

    def _named(self, vm: Vm, name: str) -> Peripheral:
        for found in peripherals_of(vm, self._bridge, self._names):
            if found.name == name:
                return found
        raise OperationRefused(Status.NOT_FOUND, f"VM {vm.vmid} has no peripheral {name!r}")

    def _attached(self, vm: Vm) -> frozenset[str]:
        if vm.record.state is not VmState.RUNNING:
            return frozenset()
        try:
            return self._hypervisor.resources.attached(vm.vmid) | {CONSOLE}
        except NoSuchDomain:
            return frozenset()


def differ(hypervisor: Hypervisor, vm: Vm, found: Iterable[Peripheral]) -> bool:
    """Whether a running domain has a device that is disabled, or lacks one that is not and could be there."""
    resources = hypervisor.resources
    attached = resources.attached(vm.vmid)
    return any(
        (device_name(one.device) in attached) is (one.key in vm.disabled)
        and (one.key in vm.disabled or resources.present(one.device))
        for one in found
        if one.comes_and_goes
    )


def follow(hypervisor: Hypervisor, vm: Vm, found: Iterable[Peripheral]) -> None:
    """Make a domain have what it is allowed; one that does not run gets it at its next start."""
    if vm.record.state is not VmState.RUNNING:
        return
    resources = hypervisor.resources
    for one in found:
        if not one.comes_and_goes:
            continue
        if one.key in vm.disabled:
            resources.detach(vm.vmid, one.device)
        elif resources.present(one.device):
            resources.attach(vm.vmid, one.device)
