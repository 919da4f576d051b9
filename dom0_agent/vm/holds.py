"""Lets something that spans several VMs have them to itself for a while: ApplyChanges, and looks at their resources.

Works on the engine's table, under its lock. Knows slots; must not know what is done with the VMs meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from uuid import UUID

from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationHandle, OperationRefused
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.model import VmEvent, VmState
from dom0_agent.vm.slots import Request, Slot

#: The action of a VM's request that only keeps others away.
HOLD = "ApplyChanges"


class Holds:
    """``tell`` makes a VM's change known, ``begin`` begins what was accepted meanwhile; ``lock`` guards ``slots``."""

    def __init__(
        self,
        lock: threading.RLock,
        slots: Mapping[UUID, Slot],
        tell: Callable[[VmEvent], None],
        begin: Callable[[Slot, Request], None],
    ) -> None:
        self._lock = lock
        self._slots = slots
        self._tell = tell
        self._begin = begin

    def take(self, vmids: Iterable[UUID]) -> dict[UUID, Vm]:
        """Have these VMs, all or none. :class:`OperationRefused` 417 when an operation runs on one, 404 without it."""
        with self._lock:
            slots = {}
            for vmid in vmids:
                slot = self._slots.get(vmid)
                if slot is None:
                    raise OperationRefused(Status.NOT_FOUND, f"there is no VM {vmid}")
                if slot.requests:
                    running = slot.requests[0].action
                    raise OperationRefused(
                        Status.RETRY_LATER, f"VM {vmid}: {HOLD} has to wait, {running} is running; try again later"
                    )
                slots[vmid] = slot
            for slot in slots.values():
                slot.requests.append(Request(HOLD, OperationHandle()))
            return {vmid: slot.vm for vmid, slot in slots.items()}

    def release(self, vmids: Iterable[UUID], changed: Mapping[UUID, Vm]) -> None:
        """Give them back; ``changed`` are those that were committed with a new allocation.

        A Delete or PowerOff that came meanwhile begins now: they are always accepted.
        """
        vmids = tuple(vmids)
        with self._lock:
            for vmid in vmids:
                slot = self._slots[vmid]
                slot.requests = [request for request in slot.requests if request.action != HOLD]
                slot.vm = changed.get(vmid, slot.vm)
                for request in slot.requests:
                    self._begin(slot, request)
        for vmid, vm in changed.items():
            self._tell(VmEvent(vmid, vm.record))

    def running(self) -> tuple[Vm, ...]:
        """The VMs that run, as they are known."""
        with self._lock:
            return tuple(s.vm for s in self._slots.values() if s.vm.record.state is VmState.RUNNING)

    def known(self) -> frozenset[UUID]:
        """VMs of which a domain may be there: they run, are suspended, or something is done with them."""
        quiet = (VmState.NOT_CREATED, VmState.POWERED_OFF)
        with self._lock:
            return frozenset(v for v, s in self._slots.items() if s.requests or s.vm.record.state not in quiet)

    def attend(self, vmid: UUID, task: Callable[[Vm], None]) -> None:
        """Do ``task`` with the VM in its own queue, if no operation runs on it then."""
        with self._lock:
            slot = self._slots.get(vmid)
            if slot is not None and not slot.requests:
                slot.worker.put(partial(self._attend, slot, task))

    def _attend(self, slot: Slot, task: Callable[[Vm], None]) -> None:
        with self._lock:
            if slot.requests or slot.vm.vmid not in self._slots:
                return
            vm = slot.vm
        task(vm)
