"""Makes the machine give each VM what it is to have: at its start, when ApplyChanges says so, and again whenever
somebody else has changed it.

One VM at a time; which VM gets what is decided elsewhere. Must not know OMA DM.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from dom0_agent.hypervisor.interface import DomainConfig, Hypervisor, HypervisorError, NoSuchDomain
from dom0_agent.hypervisor.resources import DOM0, Progress, Scheduling
from dom0_agent.resources.bandwidth import rate_for
from dom0_agent.resources.config import ResourcesConfig
from dom0_agent.resources.cpu import CpuShare, cpu_share
from dom0_agent.resources.network import Rate, Shaper
from dom0_agent.resources.peripheral_names import devices_named
from dom0_agent.resources.peripherals import Peripheral, differ, follow, peripherals_of, with_devices
from dom0_agent.resources.picture import Resource
from dom0_agent.resources.plan import vendor_of
from dom0_agent.resources.storage import ROLE, DataDisks
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.model import Allocation, VmState

logger = logging.getLogger(__name__)

#: Bytes by which a balloon's target may differ from the allocation: toolstacks count in MiB, and keep some.
SLACK = 16 << 20


class Enforcer:
    """Sets and looks, through the hypervisor and tc."""

    def __init__(
        self, hypervisor: Hypervisor, shaper: Shaper, disks: DataDisks, config: ResourcesConfig, bridge: str
    ) -> None:
        self._hypervisor = hypervisor
        self._shaper = shaper
        self._disks = disks
        self._config = config
        self._bridge = bridge

    # -- a VM's start -----------------------------------------------------------------------------------------------

    def sized(self, vm: Vm, config: DomainConfig) -> DomainConfig:
        """What to build the domain from: with room for all the vCPUs that its share may ever need."""
        share = self.cpu_share(vm, vm.record.allocation)
        ram = vm.saved_ram or config.memory
        most = max(ram, vm.built_ram or 0) if vm.record.state is VmState.SUSPENDED else ram
        config = with_devices(vm, config, self._hypervisor.resources.present)
        return replace(config, vcpus=share.vcpus, max_vcpus=share.max_vcpus, memory=ram, max_memory=most)

    def devices_named(self, vendor: Mapping[str, str]) -> tuple[str, ...]:
        """See :func:`~dom0_agent.resources.peripheral_names.devices_named`."""
        return devices_named(vendor, self._config.peripherals)

    def started(self, vm: Vm) -> None:
        """Give a domain that was built, and does not run yet, its shares."""
        self.hold_dom0()
        self._set_cpu(vm, vm.record.allocation)
        self._shape(vm, vm.record.allocation)

    def ended(self, vmid: UUID) -> None:
        """Its domain is gone: leave nothing of it on dom0's network."""
        if self._shaper.knows(vmid):
            self._shaper.remove(vmid)

    # -- ApplyChanges -----------------------------------------------------------------------------------------------

    def apply(self, resource: Resource, vm: Vm, allocation: Allocation, *, live: bool, progress: Progress) -> None:
        """Make one resource of one VM what ``allocation`` says, read back. Not ``live``: only what needs no domain."""
        if resource is Resource.STORAGE:
            there = live and not any(disk.device in vm.disabled for disk in vm.disks if disk.role == ROLE)
            self._disks.resize(vm, allocation.storage, live=there)
        elif live and resource is Resource.CPU:
            self._set_cpu(vm, allocation)
        elif live and resource is Resource.NETWORK:
            self._shape(vm, allocation)
        elif live:
            deadline = self._config.memory.deadline
            self._hypervisor.resources.set_memory(vm.vmid, allocation.ram, deadline, progress)

    def apply_ahead(self, resource: Resource, vms: Sequence[tuple[Vm, Allocation]]) -> None:
        """Do for several VMs at once, in this order, what :meth:`apply` is about to be called for, one after another.

        Only spares time: what it could not do is done there.
        """
        if resource is not Resource.NETWORK or len(vms) < 2:
            return
        wanted = {}
        for vm, allocation in vms:
            rate = self.rate(allocation)
            if rate is not None:
                wanted[vm.vmid] = (self._hypervisor.resources.interfaces(vm.vmid), rate)
        self._shaper.shape_ahead(wanted)

    def undo(self, resource: Resource, vm: Vm, allocation: Allocation, *, live: bool) -> None:
        """Make it what it was. A domain that is gone needs nothing: its VM's next start gives it what it is to have."""
        try:
            self.apply(resource, vm, allocation, live=live, progress=ignore_progress)
        except NoSuchDomain:
            self.apply(resource, vm, allocation, live=False, progress=ignore_progress)

    def rate(self, allocation: Allocation) -> Rate | None:
        """What an allocation means in bits a second. :class:`OperationRefused` when that cannot be known."""
        vendor = vendor_of(Resource.NETWORK, allocation)
        return rate_for(allocation.network, vendor, self._config.network, self._bridge)

    def cpu_share(self, vm: Vm, allocation: Allocation) -> CpuShare:
        """What an allocation means to the scheduler of this machine."""
        host = self._hypervisor.host()
        return cpu_share(
            allocation.cpu,
            vendor_of(Resource.CPU, allocation),
            image_vcpus=1 if vm.definition is None else vm.definition.vcpus,
            cpus=host.cpus,
            work_conserving=self._config.cpu.work_conserving,
            scheduler=host.scheduler,
        )

    # -- again and again --------------------------------------------------------------------------------------------

    def hold_dom0(self) -> None:
        """dom0's own weight: guests that burn at its weight would starve it."""
        resources = self._hypervisor.resources
        wanted = Scheduling(self._config.cpu.dom0_weight, 0)
        if resources.scheduling(DOM0) != wanted:
            resources.set_scheduling(DOM0, wanted)
            logger.info("dom0_weight_set weight=%d", wanted.weight)

    def mend(self, vm: Vm) -> list[str]:
        """Look at a running VM and set again what somebody else has changed; returns what that was."""
        checks: tuple[tuple[str, Callable[[Vm], bool], Callable[[], None]], ...] = (
            ("peripherals", self._devices_differ, lambda: follow(self._hypervisor, vm, self._devices(vm))),
            ("CPU", self._cpu_differs, lambda: self._set_cpu(vm, vm.record.allocation)),
            ("Network", self._network_differs, lambda: self._shape(vm, vm.record.allocation)),
            ("RAM", self._memory_differs, lambda: self._apply_again(Resource.RAM, vm)),
            ("Storage", self._storage_differs, lambda: self._apply_again(Resource.STORAGE, vm)),
        )
        mended = []
        for name, differs, mend in checks:
            try:
                if differs(vm):
                    mend()
                    mended.append(name)
                    logger.warning("resource_set_again vmid=%s resource=%s", vm.vmid, name)
            except HypervisorError as error:
                logger.error("resource_not_held vmid=%s resource=%s error=%s", vm.vmid, name, error)
        return mended

    def owned(self) -> frozenset[UUID]:
        """VMs that have something on dom0's network."""
        return self._shaper.owned()

    def forget(self, vmid: UUID) -> None:
        """Remove what is left on dom0's network of a VM that does not run."""
        self._shaper.remove(vmid)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _set_cpu(self, vm: Vm, allocation: Allocation) -> None:
        share = self.cpu_share(vm, allocation)
        resources = self._hypervisor.resources
        resources.set_scheduling(vm.vmid, share.scheduling)
        allowed, most = resources.vcpus(vm.vmid)
        wanted = min(share.vcpus, most)
        if allowed != wanted:  # to set them looks at the domain and at all of them once more
            resources.set_vcpus(vm.vmid, wanted)

    def _shape(self, vm: Vm, allocation: Allocation) -> None:
        interfaces = self._hypervisor.resources.interfaces(vm.vmid)
        if interfaces or self._shaper.knows(vm.vmid):
            self._shaper.shape(vm.vmid, interfaces, self.rate(allocation))

    def _apply_again(self, resource: Resource, vm: Vm) -> None:
        self.apply(resource, vm, vm.record.allocation, live=True, progress=ignore_progress)

    def _cpu_differs(self, vm: Vm) -> bool:
        share = self.cpu_share(vm, vm.record.allocation)
        resources = self._hypervisor.resources
        allowed, most = resources.vcpus(vm.vmid)
        return resources.scheduling(vm.vmid) != share.scheduling or allowed != min(share.vcpus, most)

    def _network_differs(self, vm: Vm) -> bool:
        interfaces = self._hypervisor.resources.interfaces(vm.vmid)
        if not interfaces and not self._shaper.knows(vm.vmid):
            return False
        return not self._shaper.holds(vm.vmid, interfaces, self.rate(vm.record.allocation))

    def _devices(self, vm: Vm) -> tuple[Peripheral, ...]:
        return peripherals_of(vm, self._bridge)

    def _devices_differ(self, vm: Vm) -> bool:
        return differ(self._hypervisor, vm, self._devices(vm))

    def _memory_differs(self, vm: Vm) -> bool:
        target = self._hypervisor.resources.memory(vm.vmid).target
        return abs(target - vm.record.allocation.ram) > SLACK

    def _storage_differs(self, vm: Vm) -> bool:
        disk = next((disk for disk in vm.disks if disk.role == ROLE), None)
        resources = self._hypervisor.resources
        if disk is None or disk.device not in resources.attached(vm.vmid):
            return False
        return resources.disk_size(vm.vmid, disk.device) != vm.record.allocation.storage


def ignore_progress(reached: int, wanted: int) -> None:
    """For those who tell nobody how far a balloon is."""
    del reached, wanted
