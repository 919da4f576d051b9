"""The data disk of a VM: a file whose blocks are really reserved. It grows while its guest runs, and never shrinks.

(Taking a growth back is not shrinking: that undoes what an ApplyChanges did a moment ago, before anybody was told.)
Knows files and one disk of one domain; must not know shares.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from dom0_agent.hypervisor.interface import Disk, Hypervisor, HypervisorError
from dom0_agent.store.vms import StoredDisk
from dom0_agent.vm.definition import Vm, data_device
from dom0_agent.vm.files import VmFiles

ROLE = "data"


def data_disk(vm: Vm, files: VmFiles) -> StoredDisk:
    """The VM's data disk, or what it would be."""
    for disk in vm.disks:
        if disk.role == ROLE:
            return disk
    device = data_device(disk.device for disk in vm.disks)
    return StoredDisk(str(files.directory(vm.vmid) / f"{device}.raw"), device, role=ROLE)


def with_data_disk(vm: Vm, files: VmFiles) -> Vm:
    """The VM as it is to be kept when its data disk's file is there or not."""
    disk = data_disk(vm, files)
    others = tuple(other for other in vm.disks if other.role != ROLE)
    return replace(vm, disks=(*others, disk) if Path(disk.path).exists() else others)


class DataDisks:
    """Resizes data disks."""

    def __init__(self, hypervisor: Hypervisor, files: VmFiles) -> None:
        self._hypervisor = hypervisor
        self._files = files

    def resize(self, vm: Vm, size: int, *, live: bool) -> None:
        """Make the disk ``size`` bytes, making or removing it where it is 0; a running guest sees it at once.

        ``NoSpace`` when the file system has no room; then it is as before.
        """
        disk = data_disk(vm, self._files)
        path, name = Path(disk.path), disk.device
        held = path.stat().st_size if path.exists() else 0
        if size == 0:
            self._remove(vm.vmid, path, name, live=live)
            return
        if size != held:
            self._files.set_size(path, size)
        if not live:
            return
        if name not in self._hypervisor.resources.attached(vm.vmid):
            self._hypervisor.resources.attach(vm.vmid, Disk(path, name))
        elif self._hypervisor.resources.disk_size(vm.vmid, name) != size:
            self._hypervisor.resources.resize_disk(vm.vmid, name, size)

    def _remove(self, vmid: UUID, path: Path, name: str, *, live: bool) -> None:
        if live:
            self._hypervisor.resources.detach(vmid, Disk(path, name))
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise HypervisorError(f"cannot remove {path}: {os.strerror(error.errno or 0)}") from error
