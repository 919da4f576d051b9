"""Looks at the shares of all running VMs again and again, and sets what somebody else has changed: a scheduler or
cpupool that was switched, an interface that was plugged again, a person at dom0's console. Level-triggered.

Also removes what is left on dom0's network of VMs that do not run. Each VM is looked at in its own queue, never while
an operation runs on it.
"""

from __future__ import annotations

import logging
import threading

from dom0_agent.hypervisor.interface import HypervisorError
from dom0_agent.resources.enforcer import Enforcer
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.hints import Hints
from dom0_agent.vm.holds import Holds

logger = logging.getLogger(__name__)

#: Seconds between a hint and the look: one replugged interface makes many of them.
SETTLE = 0.2


class Sweep:
    """``hints`` make it look before ``interval`` seconds are over."""

    def __init__(self, enforcer: Enforcer, holds: Holds, hints: Hints, interval: float) -> None:
        self._enforcer = enforcer
        self._holds = holds
        self._hints = hints
        self._interval = interval
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resource-sweep", daemon=True)

    def start(self) -> None:
        """Begin with a look at everything."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End the thread."""
        self._ending.set()
        self._hints.hint()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def look(self) -> None:
        """One look at everything; what is found is set again in the VMs' queues."""
        try:
            self._enforcer.hold_dom0()
        except HypervisorError as error:
            logger.error("dom0_weight_not_held error=%s", error)
        for vm in self._holds.running():
            self._holds.attend(vm.vmid, self._mend)
        try:
            for vmid in self._enforcer.owned() - self._holds.known():
                logger.warning("leftover_shaping_removed vmid=%s", vmid)
                self._enforcer.forget(vmid)
        except HypervisorError as error:
            logger.error("shaping_unknown error=%s", error)

    def _mend(self, vm: Vm) -> None:
        self._enforcer.mend(vm)

    def _run(self) -> None:
        while not self._ending.is_set():
            seen = self._hints.count
            self.look()
            self._hints.wait(seen, self._interval)
            self._ending.wait(SETTLE)
