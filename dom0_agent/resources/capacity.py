"""What of this device can be shared out among VMs (R-064 to R-066): what is free, and what they have already."""

from __future__ import annotations

import shutil
from pathlib import Path

from dom0_agent.hypervisor.interface import Hypervisor
from dom0_agent.resources.picture import Device
from dom0_agent.store.vms import VmTable

BLOCK = 512  #: what st_blocks counts in, whatever the file system's block size is


class Capacity:
    """Asked anew each time: ``reserve`` bytes of the file system of ``state_dir`` are not for VMs."""

    def __init__(self, hypervisor: Hypervisor, vms: VmTable, state_dir: Path, reserve: int) -> None:
        self._hypervisor = hypervisor
        self._vms = vms
        self._state_dir = state_dir
        self._reserve = reserve

    def __call__(self) -> Device:
        """RAM and storage, in bytes. :class:`HypervisorError` when Xen does not answer."""
        rows = self._vms.list()
        ours = {row.vmid for row in rows}
        given = sum(domain.memory for domain in self._hypervisor.domains() if domain.uuid in ours)
        ram = self._hypervisor.host().free_memory + given
        disks = [Path(disk.path) for row in rows for disk in row.disks if disk.role == "data"]
        held = sum(path.stat().st_blocks * BLOCK for path in disks if path.exists())
        free = shutil.disk_usage(self._state_dir).free
        return Device(ram, max(0, free + held - self._reserve))
