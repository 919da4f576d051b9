"""Compares VMs with domains. Level-triggered: an event only says "look again", and everything is looked at regularly.

:func:`judge` is a pure table of what a difference means; what is done about it is the engine's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from enum import Enum
from functools import partial
from uuid import UUID

from dom0_agent.hypervisor.interface import DomainInfo, DomainState, HypervisorError
from dom0_agent.hypervisor.readback import discard_saved
from dom0_agent.store.database import StoreError
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.model import SuspendKind, VmState
from dom0_agent.vm.slots import Slot
from dom0_agent.vm.steps import Services
from dom0_agent.vm.worker import Worker

logger = logging.getLogger(__name__)


class Finding(Enum):
    """What the difference between a VM and its domain means."""

    FINE = "as it should be"
    GONE = "its domain was destroyed by somebody else"
    ENDED = "its guest powered off"
    REBOOT = "its guest asked for a reboot"
    CRASHED = "its guest crashed"
    HOST_REBOOTED = "dom0 was restarted"
    RUNS = "its domain was started by somebody else"
    PAUSED = "its domain was paused by somebody else"
    LEFTOVER = "a domain is left from an operation that failed"


#: Seconds for which these must be so before anything is done about them. Between the halves of a reboot that somebody
#: else drives a domain is missing for a moment; one that somebody builds by hand is paused until it is complete, and
#: tools pause one for a moment.
PERSISTENCE = {Finding.GONE: 0.7, Finding.LEFTOVER: 3.0, Finding.PAUSED: 3.0}

_OF_ENDED = {"reboot": Finding.REBOOT, "crash": Finding.CRASHED}
#: Whether Suspend paused it, and what it is → what somebody else did.
_OF_PAUSE = {(True, DomainState.RUNNING): Finding.RUNS, (False, DomainState.PAUSED): Finding.PAUSED}


def judge(vm: Vm, domain: DomainInfo | None, host_boot_id: str) -> Finding:
    """What the hypervisor's truth means for a VM on which no operation runs."""
    state = vm.record.state
    paused_by_us = state is VmState.SUSPENDED and vm.record.suspend_kind is SuspendKind.PAUSE
    if state is VmState.RUNNING or paused_by_us:
        if domain is None:
            return Finding.GONE if vm.host_boot_id == host_boot_id else Finding.HOST_REBOOTED
        if domain.state in (DomainState.SHUTDOWN, DomainState.CRASHED):
            # "suspend" with nobody saving it is a guest that a broken save left dead
            return _OF_ENDED.get(domain.shutdown_reason or "", Finding.ENDED)
        return _OF_PAUSE.get((paused_by_us, domain.state), Finding.FINE)
    if domain is None:
        return Finding.FINE
    if domain.state is DomainState.RUNNING and state in (VmState.POWERED_OFF, VmState.SUSPENDED):
        return Finding.RUNS
    return Finding.LEFTOVER


class Reconciler:
    """Looks at all domains at each hint and every ``sweep_interval`` seconds; looks closer where a VM differs."""

    def __init__(
        self,
        services: Services,
        lock: threading.RLock,
        slots: Mapping[UUID, Slot],
        gone: Set[UUID],
        *,
        restart: Callable[[Slot], None],
        change: Callable[[Slot, Vm], None],
    ) -> None:
        """``lock`` guards ``slots`` and ``gone``. ``restart`` queues a restart; ``change`` sets a VM that changed by
        itself. ``gone`` are the VMs that this agent has deleted."""
        self._services = services
        self._lock = lock
        self._slots = slots
        self._gone = gone
        self._undertaker = Worker("vm-undertaker")
        self._restart = restart
        self._change = change
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vm-reconciler", daemon=True)
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Subscribe to hints and begin with a look at everything."""
        self._unsubscribe = self._services.hypervisor.subscribe(self._services.hints.hint)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End the thread."""
        self._ending.set()
        self._services.hints.hint()
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._thread.join(seconds)
        self._undertaker.join(seconds)

    def _run(self) -> None:
        hints = self._services.hints
        while not self._ending.is_set():
            seen = hints.count
            try:
                self._compare({domain.uuid: domain for domain in self._services.hypervisor.domains()})
            except HypervisorError as error:  # cannot see is not gone: nothing is concluded from it
                logger.warning("domains_unknown error=%s", error)
            hints.wait(seen, self._services.config.sweep_interval)

    def _compare(self, domains: dict[UUID, DomainInfo]) -> None:
        """Queue a closer look at each VM that differs from its domain."""
        with self._lock:
            for slot in self._slots.values():
                if slot.requests or slot.look_queued:
                    continue
                if self._judge(slot.vm, domains.get(slot.vm.vmid)) is not Finding.FINE:
                    slot.look_queued = True
                    slot.worker.put(partial(self._look, slot))
            ghosts = self._gone & domains.keys()
        for vmid in ghosts:
            self._undertaker.put(partial(self._bury, vmid))

    def _bury(self, vmid: UUID) -> None:
        """A domain of a VM that was deleted: it was not to be seen then, or a tool that was given up made it late."""
        logger.warning("domain_of_deleted_vm vmid=%s", vmid)
        try:
            self._services.hypervisor.destroy(vmid)
        except HypervisorError as error:
            logger.error("domain_of_deleted_vm_stays vmid=%s error=%s", vmid, error)

    def _look(self, slot: Slot) -> None:
        """Look at one VM again, in its own queue, and act on what is found."""
        with self._lock:
            slot.look_queued = False
            if slot.requests or slot.vm.vmid not in self._slots:
                return
        try:
            finding = self._find(slot.vm)
            if finding in PERSISTENCE:
                finding = self._still(slot, finding)
            if finding is not Finding.FINE:
                logger.warning("vm_differs vmid=%s finding=%s", slot.vm.vmid, finding.name)
                self._act(slot, finding)
        except (HypervisorError, StoreError, OSError) as error:
            logger.error("reconcile_failed vmid=%s error=%s", slot.vm.vmid, error)

    def _still(self, slot: Slot, finding: Finding) -> Finding:
        """What is found when the time has passed for which ``finding`` must persist; an operation ends the wait."""
        end = time.monotonic() + PERSISTENCE[finding]
        while time.monotonic() < end:
            if slot.requests:
                return Finding.FINE
            time.sleep(0.05)
        now = self._find(slot.vm)
        if now is not finding and now in PERSISTENCE:
            self._services.hints.hint()  # its own time begins with the next look
            return Finding.FINE
        return now

    def _find(self, vm: Vm) -> Finding:
        return self._judge(vm, self._services.hypervisor.find(vm.vmid))

    def _judge(self, vm: Vm, domain: DomainInfo | None) -> Finding:
        finding = judge(vm, domain, self._services.host_boot_id)
        if finding is Finding.PAUSED and self._services.others_pause:
            return Finding.FINE
        return finding

    def _act(self, slot: Slot, finding: Finding) -> None:
        services, vm = self._services, slot.vm
        if finding is Finding.LEFTOVER:
            services.end_domain(vm.vmid)
        elif finding is Finding.RUNS:
            discard_saved(services.files.saved_state(vm.vmid))  # its disks have moved on
            now = vm.moved(VmState.RUNNING, error=f"VM {vm.vmid}: {finding.value}")
            self._change(slot, replace(now, host_boot_id=services.host_boot_id))
        elif finding is Finding.PAUSED:
            # Its guest does not execute and keeps its memory: that is Suspended, and Resume lets it go on.
            error = f"VM {vm.vmid}: {finding.value}"
            self._change(slot, vm.moved(VmState.SUSPENDED, error=error, suspend_kind=SuspendKind.PAUSE))
        elif self._wanted_again(vm, finding) and (finding is Finding.HOST_REBOOTED or self._noted(slot)):
            self._restart(slot)
        else:
            loop = ", too often in a short time" if len(slot.vm.restarts) > services.config.reboot_limit else ""
            now = vm.moved(VmState.POWERED_OFF, error=f"VM {vm.vmid}: {finding.value}{loop}")
            # The guest has ended: State says so before the toolstack takes its seconds to remove what is left of it.
            # Whatever is asked of this VM meanwhile waits in its queue, and a crash in between leaves a LEFTOVER.
            self._change(slot, replace(now, restarts=()))
            services.end_domain(vm.vmid)
            discard_saved(services.files.saved_state(vm.vmid))  # of a save that was given up, and ended the guest late

    def _wanted_again(self, vm: Vm, finding: Finding) -> bool:
        """Whether a VM that ended so is to run again."""
        config = self._services.config
        wanted = {
            Finding.REBOOT: True,
            Finding.CRASHED: config.restart_after_crash,
            Finding.HOST_REBOOTED: config.start_after_reboot,
        }
        return vm.record.state is VmState.RUNNING and wanted.get(finding, False)

    def _noted(self, slot: Slot) -> bool:
        """Note one more restart of a guest; ``False`` when it has become a loop."""
        config, now = self._services.config, self._services.clock()
        recent = (*(when for when in slot.vm.restarts if now - when < config.reboot_window), now)
        with self._lock:
            slot.vm = replace(slot.vm, restarts=recent)
        return len(recent) <= config.reboot_limit
