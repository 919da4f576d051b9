"""What VMs hold of the machine, what was set for it, and what they use of it now: plain data for people and programs.

Bytes, seconds, percent and bits a second are numbers. What cannot be read of a VM is ``None``, never guessed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dom0_agent.hypervisor.interface import DomainInfo, Hypervisor, HypervisorError
from dom0_agent.resources.picture import Resource
from dom0_agent.resources.plan import vendor_of
from dom0_agent.resources.sharing import Sharing
from dom0_agent.store.vms import StoredVm, VmTable
from dom0_agent.vm.model import VmState

logger = logging.getLogger(__name__)

BLOCK = 512


class Usage:
    """Looks at all VMs, now."""

    def __init__(self, vms: VmTable, hypervisor: Hypervisor, sharing: Sharing) -> None:
        self._vms = vms
        self._hypervisor = hypervisor
        self._sharing = sharing

    def device(self) -> dict[str, Any]:
        """What there is to share out. :class:`HypervisorError` when Xen does not answer."""
        host, device = self._hypervisor.host(), self._sharing.admission.device()
        return {
            "cpus": host.cpus,
            "scheduler": host.scheduler,
            "ram": device.ram,
            "storage": device.storage,
            "free_memory": host.free_memory,
        }

    def vms(self) -> list[dict[str, Any]]:
        """One row for each VM: ``configured``, ``effective`` and ``used``; the last two empty when it does not run."""
        domains = {domain.uuid: domain for domain in self._hypervisor.domains()}
        rows = []
        for row in self._vms.list():
            record, allocation = row.record, row.record.allocation
            domain = domains.get(record.vmid) if record.state is VmState.RUNNING else None
            rows.append(
                {
                    "vmid": str(record.vmid),
                    "state": record.state.name,
                    "configured": {
                        "ram": allocation.ram,
                        "storage": allocation.storage,
                        "cpu": allocation.cpu,
                        "network": allocation.network,
                        **dict(allocation.vendor),
                    },
                    "effective": {} if domain is None else self._effective(row),
                    "used": self._used(row, domain),
                }
            )
        return rows

    def _effective(self, row: StoredVm) -> dict[str, Any]:
        resources, vmid = self._hypervisor.resources, row.vmid
        found: dict[str, Any] = {}

        def weight_and_cap() -> None:
            scheduling = resources.scheduling(vmid)
            found.update(weight=scheduling.weight, cap=scheduling.cap)

        def vcpus() -> None:
            found["vcpus"], found["max_vcpus"] = resources.vcpus(vmid)

        def memory() -> None:
            limits = resources.memory(vmid)
            found.update(memory_target=limits.target, memory_maximum=limits.maximum)

        def devices() -> None:
            found["devices"] = sorted(resources.attached(vmid))

        for look in (weight_and_cap, vcpus, memory, devices):
            _tolerant(look, vmid)
        return found

    def _used(self, row: StoredVm, domain: DomainInfo | None) -> dict[str, Any]:
        disks = [Path(disk.path) for disk in row.disks]
        used: dict[str, Any] = {"disk": sum(path.stat().st_blocks * BLOCK for path in disks if path.exists())}
        if domain is None:
            return used
        used |= {"cpu_seconds": domain.cpu_seconds, "memory": domain.memory, "vcpus": domain.vcpus}
        allocation = row.record.allocation
        if allocation.network or vendor_of(Resource.NETWORK, allocation):

            def traffic() -> None:
                seen = self._sharing.shaper.traffic(row.vmid)
                if seen is not None:
                    used.update(
                        rate=seen.up.ceil,
                        bytes_up=seen.up.sent,
                        bytes_down=seen.down.sent,
                        dropped_up=seen.up.dropped,
                        dropped_down=seen.down.dropped,
                    )

            _tolerant(traffic, row.vmid)
        return used


def _tolerant(look: Callable[[], None], vmid: object) -> None:
    """One look; a domain that ends meanwhile, or a tool that fails, costs its own columns only."""
    try:
        look()
    except HypervisorError as error:
        logger.info("usage_unknown vmid=%s error=%s", vmid, error)
