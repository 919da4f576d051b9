"""Steps that give a domain its shares of the machine, and leave none behind.

What a share is, and how it is set, is ``dom0_agent.resources``'; these only say when.
"""

from __future__ import annotations

from dom0_agent.vm.steps.base import Step, Work


class GiveShares(Step):
    """Between the building of a domain and its guest's first instruction."""

    name = "giving the guest its shares"
    ends_with_boot = True

    def do(self, work: Work) -> None:
        """See :meth:`Enforcer.started`."""
        work.services.enforcer.started(work.vm)

    def undo(self, work: Work) -> None:
        """The domain goes, and with it what Xen keeps of it; dom0's network does not follow by itself."""
        work.services.enforcer.ended(work.vm.vmid)


class GiveSharesAgain(GiveShares):
    """Likewise for a domain that is built in place of one that ended."""

    redo_after_crash = True


class TakeShares(Step):
    """After the end of a domain: nothing of the VM stays on dom0's network."""

    name = "giving up the guest's shares"
    redo_after_crash = True
    ends_with_boot = True

    def do(self, work: Work) -> None:
        """See :meth:`Enforcer.ended`."""
        work.services.enforcer.ended(work.vm.vmid)
