"""Steps on a VM's files: made from its image, hidden and destroyed when it is deleted."""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace
from pathlib import Path

from dom0_agent.hypervisor.interface import DomainType, HypervisorError
from dom0_agent.images.model import VerifiedImage
from dom0_agent.store.vms import StoredDisk
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.definition import Definition, data_device
from dom0_agent.vm.files import FilesError
from dom0_agent.vm.model import Allocation, VmState
from dom0_agent.vm.steps.base import Step, Work

logger = logging.getLogger(__name__)


class MakeFiles(Step):
    """Give the VM all that its image holds, disks of its own among it, and its allocation."""

    name = "copying the image"

    def do(self, work: Work) -> None:
        """Copies the disks; makes the data disk."""
        services = work.services
        image = services.images.verified(work.arguments["img_id"])
        default = initial_allocation(services.config, image)
        allocation = services.admission.initial(work.vm.vmid, work.vm.reserved, default)
        named = services.enforcer.devices_named(work.vm.record.vendor)
        devices = services.admission.claim(work.vm.vmid, named)
        directory = services.files.make(work.vm.vmid)
        work.expected = _needed(image) + allocation.storage
        services.files.require_space(work.expected, f"VM {work.vm.vmid}")
        definition, disks = take_system(work, image, directory)
        if allocation.storage:
            device = data_device(disk.device for disk in disks)
            data = directory / f"{device}.raw"
            services.files.set_size(data, allocation.storage)
            disks.append(StoredDisk(str(data), device, role="data"))
        services.files.make_durable(directory)
        services.files.make_durable(directory.parent)
        record = replace(work.vm.record, allocation=allocation, img_id=image.img_id)
        macs = work.vm.macs or ((_new_mac(),) if services.config.bridge else ())
        work.vm = replace(
            work.vm,
            record=record,
            definition=definition,
            disks=tuple(disks),
            macs=macs,
            reserved=None,
            devices=devices,
        )

    def fraction(self, work: Work) -> float:
        """What is copied of the image's bytes."""
        return work.services.files.size(work.vm.vmid) / work.expected if work.expected else 0.0

    def undo(self, work: Work) -> None:
        """Remove the directory."""
        work.services.admission.dismiss((work.vm.vmid,))
        work.services.files.discard(work.vm.vmid)


class Hide(Step):
    """Put the VM's data out of everybody's reach (R-021: inaccessible to anyone).

    Only after the domain has ended: Xen's block script looks at the disk's path to see which loop device to free.
    """

    name = "removing the VM's data"
    redo_after_crash = True
    shows = VmState.DELETED

    def do(self, work: Work) -> None:
        """See :meth:`VmFiles.hide`."""
        work.services.files.hide(work.vm.vmid)


class EmptyTrash(Step):
    """Destroy the data (R-022). The VM is deleted also when this fails: what stays is removed at the next start."""

    name = "destroying the VM's data"
    redo_after_crash = True
    shows = VmState.DELETED

    def do(self, work: Work) -> None:
        """See :meth:`VmFiles.empty_trash`."""
        try:
            work.services.files.empty_trash(work.vm.vmid)
        except (FilesError, HypervisorError) as error:
            logger.error("trash_stays vmid=%s error=%s", work.vm.vmid, error)


def take_system(work: Work, image: VerifiedImage, directory: Path) -> tuple[Definition, list[StoredDisk]]:
    """Put a system into a VM's ``directory``: the image's kernel and RAM disk, and disks of its own made from the
    image's. Not durable before the directory is. May be given up before each disk."""
    files = work.services.files

    def link(source: Path | None, name: str) -> Path | None:
        if source is None:
            return None
        files.link(source, directory / name)
        return directory / name

    kernel, ramdisk = link(image.kernel, "kernel"), link(image.ramdisk, "ramdisk")
    disks = []
    for disk in image.disks:
        target = directory / f"{disk.device}.raw"
        work.check()
        if disk.format == "raw":
            files.copy(disk.path, target)
        else:
            files.convert(disk.path, target, disk.virtual_size)
        disks.append(StoredDisk(str(target), disk.device))
    return Definition(DomainType(image.type), image.vcpus, image.cmdline, kernel, ramdisk), disks


def initial_allocation(config: VmConfig, image: VerifiedImage) -> Allocation:
    """The device's policy for a new VM (A-12); see :class:`VmConfig`."""
    return Allocation(
        ram=image.memory or config.default_ram,
        storage=config.default_storage,
        cpu=config.default_cpu,
        network=config.default_network,
    )


def _needed(image: VerifiedImage) -> int:
    """Bytes that copies of the image's files take if nothing can be shared with it."""
    paths = (image.kernel, image.ramdisk, *(disk.path for disk in image.disks))
    return sum(path.stat().st_blocks * 512 for path in paths if path is not None)


def _new_mac() -> str:
    """A MAC with Xen's prefix."""
    return ":".join(["00", "16", "3e", *(f"{byte:02x}" for byte in secrets.token_bytes(3))])
