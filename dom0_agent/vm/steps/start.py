"""Steps that bring a domain to life: build it paused, then let it run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from dom0_agent.hypervisor.interface import DomainExists, DomainState, HypervisorError, NoSuchDomain
from dom0_agent.vm.steps.base import Step, Work

logger = logging.getLogger(__name__)

#: A start that nobody asked for, whose failure nobody would answer: how often to try, and seconds between. What lets it
#: fail may pass, such as a machine that is too busy for the toolstack because all its VMs start.
START_ATTEMPTS = 3
START_PAUSE = 5.0


def persist(start: Callable[[], None], vmid: UUID, pause: Callable[[float], object]) -> None:
    """Call ``start`` until it succeeds, at most :data:`START_ATTEMPTS` times; raises what the last one raised."""
    for left in reversed(range(START_ATTEMPTS)):
        try:
            start()
        except HypervisorError as error:
            if not left:
                raise
            logger.warning("domain_not_started vmid=%s left=%d error=%s", vmid, left, error)
            pause(START_PAUSE)
        else:
            return


class StartPaused(Step):
    """Build the domain; its vCPUs do not run yet."""

    name = "building the domain"
    ends_with_boot = True

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
        config = services.domain_config(work.vm)
        services.hypervisor.create(config)
        work.vm = replace(work.vm, built_ram=config.max_memory, built_display=config.display)

    def undo(self, work: Work) -> None:
        """Destroy the domain."""
        work.services.hypervisor.destroy(work.vm.vmid)


class StartAgain(StartPaused):
    """Build the domain in place of one that has ended but is still there."""

    name = "restarting the domain"
    redo_after_crash = True

    def do(self, work: Work) -> None:
        """Destroy, then create: the other way round, the old one's memory would be missing."""

        def start() -> None:
            work.check()
            work.services.hypervisor.destroy(work.vm.vmid)
            self.build(work)

        persist(start, work.vm.vmid, work.cancelled.wait)


class LetRun(Step):
    """Unpause a domain that may still be thrown away, because nothing else depends on what it did meanwhile."""

    name = "starting the guest"
    ends_with_boot = True

    def do(self, work: Work) -> None:
        """See :meth:`Hypervisor.unpause`."""
        work.services.hypervisor.unpause(work.vm.vmid)


class LetGoOn(LetRun):
    """Unpause a domain that has a past. Once it may have run, its saved state is stale: there is no way back."""

    name = "letting the guest go on"
    redo_after_crash = True
    no_return = True
    ends_with_boot = False  # what it writes to its disks stays

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
