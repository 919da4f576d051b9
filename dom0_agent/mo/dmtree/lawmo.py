"""LAWMO of a VM (HLF-12, HLF-13): the guest locks and wipes itself; dom0 makes its disks anew, and may hold the lock.

With ``lawmo.enforce: hypervisor`` a FullyLock ends with the domain paused, and UnLock begins with letting it go on. The
VM's State stays Running: it was not suspended, it is locked. A guest that was started anew is paused again as soon as
its shim is there and says that it is fully locked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from dom0_agent.guest.interface import GuestError, GuestRequest
from dom0_agent.hypervisor.interface import DomainInfo, DomainState, HypervisorError
from dom0_agent.mo.dmtree.forwarded import OPERATION_DEADLINE, READ_DEADLINE, ForwardedObject, Surroundings
from dom0_agent.mo.dmtree.lawmo_nodes import (
    FACTORY_RESET,
    FULLY_LOCK,
    FULLY_LOCKED,
    LAWMO,
    PARTIALLY_LOCK,
    PARTIALLY_LOCKED,
    SUCCESS,
    UNLOCK,
    UNLOCK_FAILED,
    UNLOCKED,
)
from dom0_agent.mo.dmtree.nodes import GuestObject
from dom0_agent.mo.dmtree.work import Ended
from dom0_agent.omadm.mo import ExecRequest, Path
from dom0_agent.omadm.node import Format, Value
from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationHandle, OperationRefused, Origin
from dom0_agent.vm.model import Rebuild, VmRecord

log = logging.getLogger(__name__)

#: State → the operation that leads to it
RELOCK = {str(FULLY_LOCKED): FULLY_LOCK, str(PARTIALLY_LOCKED): PARTIALLY_LOCK}


class Domains(Protocol):
    """What is needed of the hypervisor."""

    def find(self, uuid: UUID) -> DomainInfo | None:
        """The domain."""

    def pause(self, uuid: UUID) -> None:
        """Stop its vCPUs."""

    def unpause(self, uuid: UUID) -> None:
        """Let them run."""


class Lawmo(ForwardedObject):
    """ManagementObject for the LAWMO of one VM. ``holder`` pauses locked domains; ``None``: only the guest locks."""

    def __init__(self, kind: GuestObject, mount: Path, surroundings: Surroundings, holder: Domains | None) -> None:
        super().__init__(kind, mount, surroundings)
        self._holder = holder
        self._releases = 0  #: how often it was unlocked; only the tree's thread counts

    def refresh(self) -> None:
        """A paused guest cannot be asked."""
        record = self.record()
        if record is not None and not self._is_held(record.vmid):
            super().refresh()

    def begin(self, record: VmRecord, path: Path, request: ExecRequest, origin: Origin) -> OperationHandle:
        """FactoryReset is dom0's; UnLock first lets a held domain go on; the rest is the guest's."""
        if path == FACTORY_RESET:
            return self._reset(record, origin)
        if path == UNLOCK and self._is_held(record.vmid):
            return self.run(record.vmid, origin, lambda: self._unlock_held(record.vmid))
        return super().begin(record, path, request, origin)

    def connected(self) -> None:
        """A guest that came up less locked than it was is locked again: a lock outlives whatever a guest forgets."""
        record, state = self.record(), self.around.tree.stored_value((*self.mount, "State"))
        node = RELOCK.get(state or "")
        if record is not None and node is not None and self.around.mirror.served(record.vmid, self.kind):
            vmid, known, releases = record.vmid, str(state), self._releases
            self.around.work.put(vmid, self.moid, lambda: self._compare(vmid, known, node, releases))
        super().connected()

    def _compare(self, vmid: UUID, known: str, node: Path, releases: int) -> None:
        """In a worker: does the guest remember its lock?"""
        try:
            untrusted = self.around.mirror.ask(vmid, self.kind, READ_DEADLINE)
        except GuestError as error:
            log.error("event=lock_unknown vm=%s reason=%r", vmid, str(error))
            return
        if untrusted is not None and untrusted.get("State") != known:
            self.around.tasks.post(lambda: self._relock(vmid, known, node, releases))

    def _relock(self, vmid: UUID, known: str, node: Path, releases: int) -> None:
        """In the tree's thread: lock it again, unless it was unlocked since it was compared."""
        if releases == self._releases and self.around.tree.exists(self.mount):
            self.around.work.put(vmid, self.moid, lambda: self._lock_again(vmid, known, node))

    def _lock_again(self, vmid: UUID, known: str, node: Path) -> None:
        question = GuestRequest("exec", {"moid": self.moid, "node": "/".join(node)})
        try:
            answer = self.around.guests.request(vmid, question, deadline=OPERATION_DEADLINE)
        except GuestError as error:
            log.error("event=not_locked_again vm=%s reason=%r", vmid, str(error))
            return
        log.warning("event=locked_again vm=%s state=%s code=%d", vmid, known, answer.status)
        self.look(vmid)

    def _note_release(self) -> None:
        self._releases += 1

    def forward(self, vmid: UUID, question: GuestRequest, failed: int) -> Ended:
        """As for all; then the hypervisor holds what was fully locked."""
        result = super().forward(vmid, question, failed)
        if result.ok and question.fields["node"] == "/".join(UNLOCK):
            self.around.tasks.post(self._note_release)
        if result.ok and question.fields["node"] == "/".join(FULLY_LOCK):
            return self._hold(vmid, failed) or result
        return result

    def look(self, vmid: UUID) -> None:
        """As for all; a guest that came up fully locked is held again."""
        super().look(vmid)
        self.around.tasks.post(lambda: self._hold_again(vmid))

    def _hold_again(self, vmid: UUID) -> None:
        locked = self.around.tree.stored_value((*self.mount, "State")) == str(FULLY_LOCKED)
        if self._holder is not None and locked and not self.around.work.is_running(vmid, self.moid):
            self.around.work.put(vmid, self.moid, lambda: self._hold_quietly(vmid))

    def _hold_quietly(self, vmid: UUID) -> None:
        failure = self._hold(vmid, LAWMO.client_error)
        if failure is not None:
            log.error("event=not_held vm=%s reason=%r", vmid, failure.message)

    def _hold(self, vmid: UUID, failed: int) -> Ended | None:
        """Pause the domain; how that failed, if it did."""
        if self._holder is None:
            return None
        try:
            self._holder.pause(vmid)
            domain = self._holder.find(vmid)
        except HypervisorError as error:
            return Ended(failed, f"the guest is locked, but the hypervisor does not hold it: {error}")
        if domain is None or domain.state is not DomainState.PAUSED:
            return Ended(failed, f"the guest is locked, but its domain of VM {vmid} is not paused")
        log.info("event=domain_held vm=%s", vmid)
        return None

    def _is_held(self, vmid: UUID) -> bool:
        if self._holder is None:
            return False
        try:
            domain = self._holder.find(vmid)
        except HypervisorError as error:
            log.warning("event=domain_unknown vm=%s reason=%r", vmid, str(error))
            return False
        return domain is not None and domain.state is DomainState.PAUSED

    def _unlock_held(self, vmid: UUID) -> Ended:
        """Let the domain go on, wait for its shim, which may have been given up meanwhile, and have it unlock."""
        assert self._holder is not None
        try:
            self._holder.unpause(vmid)
        except HypervisorError as error:
            return Ended(UNLOCK_FAILED, f"the hypervisor does not let the domain go on: {error}")
        end = time.monotonic() + WAKE
        while not self.around.mirror.served(vmid, self.kind):
            if time.monotonic() > end:
                return Ended(UNLOCK_FAILED, f"the guest goes on, but its shim did not come back within {WAKE:g} s")
            time.sleep(LOOK)
        question = GuestRequest("exec", {"moid": self.moid, "node": "/".join(UNLOCK)})
        return self.forward(vmid, question, UNLOCK_FAILED)

    def _reset(self, record: VmRecord, origin: Origin) -> OperationHandle:
        """Make the disks anew from the VM's image, in the VM's own queue of operations."""
        if record.img_id is None:
            raise OperationRefused(Status.NOT_ALLOWED, f"{origin.uri}: the VM was not created from an image")
        rebuilding = self.around.vms.rebuild(record.vmid, Rebuild.FACTORY_RESET, record.img_id)

        def wait() -> Ended:
            result = rebuilding.wait(RESET_DEADLINE)
            if result is None:
                return Ended(self.kind.client_error, f"the reset did not end within {RESET_DEADLINE:g} s")
            if result.ok:
                self.around.tasks.post(self._forget_lock)
            return Ended(SUCCESS if result.ok else self.kind.client_error, result.message)

        return self.run(record.vmid, origin, wait)

    def _forget_lock(self) -> None:
        """A VM as from the factory is not locked."""
        self._note_release()
        if self.around.tree.exists(self.mount):
            self.around.tree.device_set((*self.mount, "State"), Value(str(UNLOCKED), Format.INT))


#: seconds that the shim of a guest that was paused has to come back, and between looks for it
WAKE, LOOK = 90.0, 0.2
#: seconds for copying an image and starting from it
RESET_DEADLINE = 3600.0


def lawmo(holder: Domains | None) -> Callable[[GuestObject, Path, Surroundings], Lawmo]:
    """Makes the LAWMOs of VMs."""
    return lambda kind, mount, surroundings: Lawmo(kind, mount, surroundings, holder)
