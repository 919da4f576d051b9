"""The steps that operations are made of. Each can be done, and undone from whatever state a crash left it in.

A step knows one thing to do with one VM; the order is ``plans``', the journal and failures are ``runner``'s. ``undo``
must work after ``do`` was done, half done or not done at all, in this process or in one before it; it finds what there
is by the VMID alone.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from dom0_agent.hypervisor.interface import (
    DomainExists,
    DomainState,
    DomainType,
    Hypervisor,
    HypervisorError,
    HypervisorTimeout,
    NoSuchDomain,
)
from dom0_agent.hypervisor.readback import adopt_saved, discard_saved
from dom0_agent.images.model import ImageDisk, ImageService, VerifiedImage
from dom0_agent.store.vms import StoredDisk
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.definition import DATA_DEVICE, Definition, Vm
from dom0_agent.vm.files import FilesError, VmFiles
from dom0_agent.vm.hints import Hints
from dom0_agent.vm.model import Allocation, VmState

logger = logging.getLogger(__name__)

#: Seconds between looks at a domain that was asked to shut down, when no hint comes (a lost event, a dead xenstored).
SHUTDOWN_POLL = 5.0


class Cancelled(Exception):  # noqa: N818 - it names what happened
    """The operation was pre-empted by another one."""


@dataclass(frozen=True, slots=True)
class Services:
    """What steps work with."""

    hypervisor: Hypervisor
    files: VmFiles
    images: ImageService
    config: VmConfig
    hints: Hints
    host_boot_id: str  #: of this boot of dom0
    clock: Callable[[], float] = time.time


class Work:
    """One operation in progress. Steps replace ``vm`` as they shape it; the runner commits the last one."""

    def __init__(self, services: Services, vm: Vm, arguments: dict[str, str]) -> None:
        self.services = services
        self.vm = vm
        self.arguments = arguments
        self.cancelled = threading.Event()

    def check(self) -> None:
        """A point where the operation may be given up. :class:`Cancelled` when it is to be."""
        if self.cancelled.is_set():
            raise Cancelled


class Step:
    """One undoable step."""

    name: ClassVar[str]  #: what is going on, for people
    #: after a crash of the agent, do it (again) instead of undoing the operation
    redo_after_crash: ClassVar[bool] = False
    #: once it is done there is no way back: the operation is neither cancelled nor undone any more
    no_return: ClassVar[bool] = False
    #: the State to show while it is being done; None: the one before the operation (R-012)
    shows: ClassVar[VmState | None] = None

    def do(self, work: Work) -> None:
        """Take effect, durably."""
        raise NotImplementedError

    def undo(self, work: Work) -> None:
        """Restore what was; no error when there is nothing to undo."""

    def happened(self, work: Work) -> bool:
        """After ``do`` failed, or the agent died in it: did it take effect all the same, beyond undoing?"""
        del work
        return False


class MakeFiles(Step):
    """Give the VM its own copy of all that its image holds, and its allocation."""

    name = "copying the image"

    def do(self, work: Work) -> None:
        """Copies kernel, ramdisk and disks; makes the data disk."""
        services = work.services
        image = services.images.verified(work.arguments["img_id"])
        allocation = work.vm.reserved or initial_allocation(services.config, image)
        directory = services.files.make(work.vm.vmid)
        services.files.require_space(_needed(image), f"VM {work.vm.vmid}")
        kernel, ramdisk = (
            self._copy(work, source, directory / name)
            for source, name in ((image.kernel, "kernel"), (image.ramdisk, "ramdisk"))
        )
        disks = [self._disk(work, disk, directory) for disk in image.disks]
        if allocation.storage:
            data = directory / f"{DATA_DEVICE}.raw"
            services.files.make_sparse(data, allocation.storage)
            disks.append(StoredDisk(str(data), DATA_DEVICE, role="data"))
        services.files.make_durable(directory)
        services.files.make_durable(directory.parent)
        definition = Definition(DomainType(image.type), image.vcpus, image.cmdline, kernel, ramdisk)
        record = replace(work.vm.record, allocation=allocation, img_id=image.img_id)
        macs = work.vm.macs or ((_new_mac(),) if services.config.bridge else ())
        work.vm = replace(work.vm, record=record, definition=definition, disks=tuple(disks), macs=macs, reserved=None)

    def undo(self, work: Work) -> None:
        """Remove the directory."""
        work.services.files.discard(work.vm.vmid)

    def _copy(self, work: Work, source: Path | None, target: Path) -> Path | None:
        if source is None:
            return None
        work.check()
        work.services.files.copy(source, target)
        return target

    def _disk(self, work: Work, disk: ImageDisk, directory: Path) -> StoredDisk:
        target = directory / f"{disk.device}.{disk.format}"
        self._copy(work, disk.path, target)
        return StoredDisk(str(target), disk.device, disk.format)


class StartPaused(Step):
    """Build the domain; its vCPUs do not run yet."""

    name = "building the domain"

    def do(self, work: Work) -> None:
        """See :meth:`Hypervisor.create`. A domain that is left from something that failed makes way."""
        try:
            self.build(work)
        except DomainExists:
            logger.warning("leftover_domain_makes_way vmid=%s", work.vm.vmid)
            work.services.hypervisor.destroy(work.vm.vmid)
            self.build(work)

    def build(self, work: Work) -> None:
        """Build it anew."""
        services = work.services
        services.hypervisor.create(work.vm.domain_config(services.config.bridge))

    def undo(self, work: Work) -> None:
        """Destroy the domain."""
        work.services.hypervisor.destroy(work.vm.vmid)


class StartAgain(StartPaused):
    """Build the domain in place of one that has ended but is still there."""

    name = "restarting the domain"
    redo_after_crash = True

    def do(self, work: Work) -> None:
        """Destroy, then create: the other way round, the old one's memory would be missing."""
        work.services.hypervisor.destroy(work.vm.vmid)
        self.build(work)


class RestorePaused(StartPaused):
    """Build the domain from its saved state; its vCPUs do not run yet."""

    name = "restoring the saved state"

    def build(self, work: Work) -> None:
        """See :meth:`Hypervisor.restore`."""
        services = work.services
        config = work.vm.domain_config(services.config.bridge)
        services.hypervisor.restore(services.files.saved_state(work.vm.vmid), config)


class LetRun(Step):
    """Unpause a domain that may still be thrown away, because nothing else depends on what it did meanwhile."""

    name = "starting the guest"

    def do(self, work: Work) -> None:
        """See :meth:`Hypervisor.unpause`."""
        work.services.hypervisor.unpause(work.vm.vmid)


class LetGoOn(LetRun):
    """Unpause a domain that has a past. Once it may have run, its saved state is stale: there is no way back."""

    name = "letting the guest go on"
    redo_after_crash = True
    no_return = True

    def do(self, work: Work) -> None:
        """Unpause. A domain that is gone after a crash of ours is not brought back: that is reconciliation's."""
        try:
            super().do(work)
        except NoSuchDomain:
            logger.warning("domain_gone_while_resuming vmid=%s", work.vm.vmid)

    def happened(self, work: Work) -> bool:
        """Only a domain that is visibly still paused has certainly not run."""
        domain = work.services.hypervisor.find(work.vm.vmid)
        return domain is None or domain.state is not DomainState.PAUSED


class DropSavedState(Step):
    """A guest that goes on makes its saved state worthless, even dangerous: its disks have moved on."""

    name = "removing the saved state"
    redo_after_crash = True

    def do(self, work: Work) -> None:
        """Remove the file."""
        discard_saved(work.services.files.saved_state(work.vm.vmid))


class Save(Step):
    """Write the guest's memory and state to storage, and free its memory."""

    name = "saving the guest"
    no_return = True

    def do(self, work: Work) -> None:
        """See :meth:`Hypervisor.save`. Needs room for the guest's whole memory."""
        services, vmid = work.services, work.vm.vmid
        services.files.require_space(work.vm.record.allocation.ram, f"saving VM {vmid}")
        path = services.files.saved_state(vmid)
        discard_saved(path)
        services.hypervisor.save(vmid, path)

    def undo(self, work: Work) -> None:
        """The guest runs on; what was written of it is of no use."""
        discard_saved(work.services.files.saved_state(work.vm.vmid))

    def happened(self, work: Work) -> bool:
        """The toolstack ends the domain only after the file is complete. A reboot of dom0 ends it without that."""
        vmid = work.vm.vmid
        if work.vm.host_boot_id != work.services.host_boot_id or work.services.hypervisor.find(vmid) is not None:
            return False
        return adopt_saved(work.services.files.saved_state(vmid))


class Pause(Step):
    """Stop the vCPUs: all that Suspend can be where nothing can be saved."""

    name = "pausing the guest"

    def do(self, work: Work) -> None:
        """See :meth:`Hypervisor.pause`."""
        work.services.hypervisor.pause(work.vm.vmid)

    def undo(self, work: Work) -> None:
        """Let it go on."""
        try:
            work.services.hypervisor.unpause(work.vm.vmid)
        except NoSuchDomain:
            logger.warning("domain_gone_while_pausing vmid=%s", work.vm.vmid)


class AskToShutDown(Step):
    """Ask the guest to power off and give it time. Not to answer is its right: the next step ends it."""

    name = "waiting for the guest to power off"
    redo_after_crash = True

    def do(self, work: Work) -> None:
        """Returns when the guest has ended, or ``shutdown_wait`` is over, or it could not be asked."""
        services, vmid = work.services, work.vm.vmid
        end = time.monotonic() + services.config.shutdown_wait
        try:
            services.hypervisor.request_shutdown(vmid)
        except NoSuchDomain:
            return
        except HypervisorTimeout as error:
            logger.warning("shutdown_request_timeout vmid=%s error=%s", vmid, error)
        except HypervisorError as error:
            logger.warning("guest_cannot_be_asked vmid=%s error=%s", vmid, error)
            return
        while (remaining := end - time.monotonic()) > 0:
            work.check()
            seen = services.hints.count
            domain = services.hypervisor.find(vmid)
            if domain is None or domain.state in (DomainState.SHUTDOWN, DomainState.CRASHED):
                return
            services.hints.wait(seen, min(remaining, SHUTDOWN_POLL))
        logger.warning("guest_did_not_power_off vmid=%s seconds=%g", vmid, services.config.shutdown_wait)


class Destroy(Step):
    """End the domain."""

    name = "ending the domain"
    redo_after_crash = True
    no_return = True

    def do(self, work: Work) -> None:
        """See :meth:`Hypervisor.destroy`."""
        work.services.hypervisor.destroy(work.vm.vmid)

    def happened(self, work: Work) -> bool:
        """Whether it is gone."""
        return work.services.hypervisor.find(work.vm.vmid) is None


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
