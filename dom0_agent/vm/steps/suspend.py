"""Steps around a suspended guest: its memory goes to storage and comes back; where it cannot, its vCPUs stop."""

from __future__ import annotations

import logging

from dom0_agent.hypervisor.interface import NoSuchDomain
from dom0_agent.hypervisor.readback import adopt_saved, discard_saved, saved_size
from dom0_agent.vm.steps.base import Step, Work
from dom0_agent.vm.steps.start import StartPaused

logger = logging.getLogger(__name__)


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

    def fraction(self, work: Work) -> float:
        """What is written of the guest's memory."""
        return saved_size(work.services.files.saved_state(work.vm.vmid)) / max(1, work.vm.record.allocation.ram)

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


class RestorePaused(StartPaused):
    """Build the domain from its saved state; its vCPUs do not run yet."""

    name = "restoring the saved state"

    def build(self, work: Work) -> None:
        """See :meth:`Hypervisor.restore`."""
        services = work.services
        config = services.domain_config(work.vm)
        services.hypervisor.restore(services.files.saved_state(work.vm.vmid), config)


class DropSavedState(Step):
    """A guest that goes on makes its saved state worthless, even dangerous: its disks have moved on."""

    name = "removing the saved state"
    redo_after_crash = True

    def do(self, work: Work) -> None:
        """Remove the file."""
        discard_saved(work.services.files.saved_state(work.vm.vmid))
