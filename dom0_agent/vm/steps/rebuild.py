"""Steps that give a VM another system: from an image anew (FactoryReset), or from another image with its data (FUMO).

The new system lies beside the old one until the operation is committed, and the old one stays until the next time:
going back is starting it again. Nothing of the old system is written to.
"""

from __future__ import annotations

import logging
import shutil
import time
import uuid as uuids
from dataclasses import replace
from functools import partial
from pathlib import Path

from dom0_agent.hypervisor.interface import DomainState
from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationRefused
from dom0_agent.store.vms import StoredDisk
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.files import SHARED
from dom0_agent.vm.model import VmState
from dom0_agent.vm.steps.base import Step, Work
from dom0_agent.vm.steps.end import AskToShutDown
from dom0_agent.vm.steps.files import take_system
from dom0_agent.vm.steps.start import persist

logger = logging.getLogger(__name__)

#: Directories of systems in a VM's directory; the first system lies in the VM's directory itself.
SYSTEM = "system-"
DATA_ROLE = "data"
#: Seconds between looks at a guest that is to come up.
LOOK = 0.5


class MakeSystem(Step):
    """Copy kernel, ramdisk and disks of an image beside the VM's present system."""

    name = "copying the new system"

    def __init__(self, *, keep_data: bool) -> None:
        self._keep_data = keep_data

    def do(self, work: Work) -> None:
        """The VM as it is to be; nothing of the present one is touched."""
        services, vm = work.services, work.vm
        image = services.images.verified(work.arguments["img_id"])
        home = services.files.directory(vm.vmid)
        remove_unused_systems(home, vm)
        directory = home / f"{SYSTEM}{uuids.uuid4().hex[:12]}"
        sources = [image.kernel, image.ramdisk, *(disk.path for disk in image.disks)]
        needed = sum(path.stat().st_blocks * 512 for path in sources if path is not None)
        services.files.require_space(needed, f"the new system of VM {vm.vmid}")
        kept = [disk for disk in vm.disks if disk.role == DATA_ROLE]
        taken = {disk.device for disk in image.disks} & {disk.device for disk in kept}
        if taken:
            raise OperationRefused(
                Status.NOT_ALLOWED, f"the image has a disk {', '.join(taken)}, where VM {vm.vmid} has its data"
            )
        directory.mkdir(mode=0o700)
        definition, disks = take_system(work, image, directory)
        disks += [self._data(work, disk, directory) for disk in kept]
        services.files.make_durable(directory)
        services.files.make_durable(home)
        work.vm = replace(vm, definition=definition, disks=tuple(disks))

    def undo(self, work: Work) -> None:
        """Remove it."""
        remove_unused_systems(work.services.files.directory(work.before.vmid), work.before)

    def _data(self, work: Work, disk: StoredDisk, directory: Path) -> StoredDisk:
        if self._keep_data:
            return disk
        target = directory / f"{disk.device}.raw"
        work.services.files.set_size(target, work.before.record.allocation.storage)
        return replace(disk, path=str(target))


class EndOldSystem(Step):
    """Ask the guest to power off, and end its domain. The way back is to start it again."""

    name = "ending the old system"

    def do(self, work: Work) -> None:
        """As PowerOff does; a VM that is PoweredOff has nothing to end."""
        if work.before.record.state is VmState.RUNNING:
            AskToShutDown().do(work)
        work.services.end_domain(work.before.vmid)

    def undo(self, work: Work) -> None:
        """Start the old system, which must come back."""
        if work.before.record.state is VmState.RUNNING:
            persist(partial(self._start, work), work.before.vmid, time.sleep)

    def _start(self, work: Work) -> None:
        services, before = work.services, work.before
        domain = services.hypervisor.find(before.vmid)
        if domain is None:
            services.hypervisor.create(services.domain_config(before))
        elif domain.state is not DomainState.PAUSED:  # where we were cut off after create, it still is
            return
        services.enforcer.started(before)
        services.hypervisor.unpause(before.vmid)


class AwaitShim(Step):
    """The new system is good when its shim comes up in time; else the operation fails, and the old one comes back."""

    name = "waiting for the new system's shim"

    def do(self, work: Work) -> None:
        """Returns when it did. :class:`OperationRefused` 500 when the guest ends, or the time is over."""
        hypervisor, vmid = work.services.hypervisor, work.before.vmid
        seconds = float(work.arguments["health_timeout"])
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            work.check()
            if hypervisor.guest_facts(vmid).boot_id is not None:
                return
            domain = hypervisor.find(vmid)
            if domain is None or domain.state in (DomainState.SHUTDOWN, DomainState.CRASHED):
                why = "is gone" if domain is None else f"ended ({domain.shutdown_reason or domain.state.value})"
                raise OperationRefused(Status.COMMAND_FAILED, f"the new system {why} before its shim came up")
            time.sleep(LOOK)
        raise OperationRefused(
            Status.COMMAND_FAILED, f"the new system's shim did not come up within {seconds:g} s (fumo.health_timeout)"
        )


def remove_unused_systems(home: Path, vm: Vm) -> None:
    """Remove systems below ``home`` that ``vm`` does not use; the first one lies in ``home`` itself."""
    definition = vm.definition
    used = {Path(disk.path) for disk in vm.disks}
    if definition is not None:
        used |= {path for path in (definition.kernel, definition.ramdisk) if path is not None}
    parents = {path.parent for path in used}
    for path in sorted(home.iterdir()):
        if path.is_dir() and path.name.startswith(SYSTEM) and path not in parents:
            logger.info("old_system_removed path=%s", path)
            shutil.rmtree(path)
        elif path.is_file() and path not in used and (path.name in SHARED or path.stem.startswith("xvd")):
            logger.info("old_system_removed path=%s", path)
            path.unlink()
