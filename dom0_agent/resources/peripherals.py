"""A VM's peripherals: what there is, what is allowed, and taking it away in dom0 (HLF-06).

A guest cannot be trusted to restrict itself: a disabled interface or disk is detached, and is not there when its VM
starts again. What is allowed is the VM's and durable before the machine follows; what follows is looked at again and
again. Must not know the management tree.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from uuid import UUID

from dom0_agent.hypervisor.interface import Disk, DomainConfig, Hypervisor, HypervisorError, NoSuchDomain, Vif
from dom0_agent.hypervisor.readback_resources import device_name
from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationRefused
from dom0_agent.resources.peripheral_names import PeripheralName
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
    device: Disk | Vif


def peripherals_of(vm: Vm, bridge: str, names: Sequence[PeripheralName] = ()) -> tuple[Peripheral, ...]:
    """The devices of a VM that can be taken away: each interface, and the data disk."""
    called = {name.device: name for name in names}
    found: list[tuple[str, str, str, Disk | Vif]] = []
    if bridge:
        for number, mac in enumerate(vm.macs):
            found.append((f"vif{number}", "Connectivity", f"network interface {mac}", Vif(mac, bridge)))
    for disk in vm.disks:
        if disk.role == DATA:
            device = Disk(Path(disk.path), disk.device, disk.format, disk.read_only)
            found.append((disk.device, "Hardware", "data disk", device))
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


def without_disabled(vm: Vm, config: DomainConfig) -> DomainConfig:
    """What to build the domain from: what is disabled is not there at its first instruction."""
    macs = {mac.lower() for number, mac in enumerate(vm.macs) if f"vif{number}" in vm.disabled}
    return replace(
        config,
        vifs=tuple(vif for vif in config.vifs if vif.mac.lower() not in macs),
        disks=tuple(disk for disk in config.disks if disk.device not in vm.disabled),
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """A peripheral as it stands: allowed by the server, and there in the domain."""

    peripheral: Peripheral
    enabled: bool
    attached: bool


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
            Standing(found, found.key not in vm.disabled, device_name(found.device) in attached)
            for found in peripherals_of(vm, self._bridge, self._names)
        )

    def switch(self, vmid: UUID, name: str, *, enabled: bool) -> None:
        """Allow or take away; ``name`` is the peripheral's. Durable, and so in the domain, when this returns.

        :class:`OperationRefused` 404 for none such, 417 while an operation runs on the VM. :class:`HypervisorError`
        when the domain does not follow; then all is as before.
        """
        before = self._holds.take((vmid,))[vmid]
        after = before
        try:
            found = self._named(before, name)
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
            return self._hypervisor.resources.attached(vm.vmid)
        except NoSuchDomain:
            return frozenset()


def differ(hypervisor: Hypervisor, vm: Vm, found: Iterable[Peripheral]) -> bool:
    """Whether a running domain has a device that is disabled, or lacks one that is not."""
    attached = hypervisor.resources.attached(vm.vmid)
    return any((device_name(one.device) in attached) is (one.key in vm.disabled) for one in found)


def follow(hypervisor: Hypervisor, vm: Vm, found: Iterable[Peripheral]) -> None:
    """Make a domain have what it is allowed; one that does not run gets it at its next start."""
    if vm.record.state is not VmState.RUNNING:
        return
    for one in found:
        if one.key in vm.disabled:
            hypervisor.resources.detach(vm.vmid, one.device)
        else:
            hypervisor.resources.attach(vm.vmid, one.device)
