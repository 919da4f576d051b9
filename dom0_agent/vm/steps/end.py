"""Steps that end a guest: it is asked first, then its domain goes."""

from __future__ import annotations

import logging
import time

from dom0_agent.hypervisor.interface import DomainState, HypervisorError, HypervisorTimeout, NoSuchDomain
from dom0_agent.vm.steps.base import Step, Work

logger = logging.getLogger(__name__)

#: Seconds between looks at a domain that was asked to shut down, when no hint comes (a lost event, a dead xenstored).
SHUTDOWN_POLL = 5.0


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
