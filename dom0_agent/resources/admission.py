"""What a new VM gets, and what the device has for all: the bookkeeping between Create and ApplyChanges.

The durable truth is the table of VMs. Between a decision and its commit lies a promise, held here under one lock, so
that two Creates, or a Create and an ApplyChanges, never give away the same share.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from uuid import UUID

from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationRefused
from dom0_agent.resources.peripheral_names import is_exclusive, passed_device
from dom0_agent.resources.picture import Device, Holding
from dom0_agent.store.vms import StoredVm, VmTable
from dom0_agent.vm.model import Allocation, VmState


class Admission:
    """Promises to VMs that are being created or changed. ``device`` asks what there is to share out."""

    def __init__(self, vms: VmTable, device: Callable[[], Device]) -> None:
        self._vms = vms
        self._device = device
        self._lock = threading.RLock()
        self._promised: dict[UUID, Allocation] = {}
        self._claimed: dict[UUID, frozenset[str]] = {}

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """Hold it from the look at the picture to the promise."""
        return self._lock

    def device(self) -> Device:
        """What there is, now."""
        return self._device()

    def holdings(self) -> tuple[Holding, ...]:
        """All VMs as they are, with what was promised to those in the making."""
        return tuple(self._holding(row) for row in self._vms.list())

    def initial(self, vmid: UUID, reserved: Allocation | None, default: Allocation) -> Allocation:
        """What a VM that is being created gets (A-12): what was reserved for it, or the default, whose shares of CPU
        and network are cut to what others leave. Promised until :meth:`dismiss` or the VM's commit."""
        with self._lock:
            others = [h.held for h in self.holdings() if h.vmid != vmid and h.held is not None]
            allocation = reserved or replace(
                default,
                cpu=min(default.cpu, max(0, 100 - sum(a.cpu for a in others))),
                network=min(default.network, max(0, 100 - sum(a.network for a in others))),
            )
            self._promised[vmid] = allocation
            return allocation

    def claim(self, vmid: UUID, devices: Iterable[str]) -> tuple[str, ...]:
        """Devices of the board for a VM that is being created, by key; its own until :meth:`dismiss` or its end.

        :class:`OperationRefused` 420 when one that only one VM can have is another's.
        """
        wanted = tuple(devices)
        exclusive = {key for key in wanted if (device := passed_device(key)) is not None and is_exclusive(device)}
        with self._lock:
            for row in self._vms.list():
                held = row.build.get("devices")
                taken = exclusive & {*(held if isinstance(held, list) else ()), *self._claimed.get(row.vmid, ())}
                if taken and row.vmid != vmid:
                    raise OperationRefused(Status.DEVICE_FULL, f"{', '.join(sorted(taken))}: VM {row.vmid} has it")
            self._claimed[vmid] = frozenset(exclusive)
        return wanted

    def promise(self, allocations: Iterable[tuple[UUID, Allocation]]) -> None:
        """While these VMs change they count with the larger of what they have and what they are to get."""
        with self._lock:
            self._promised |= dict(allocations)

    def dismiss(self, vmids: Iterable[UUID]) -> None:
        """The decision was committed, or nothing came of it."""
        with self._lock:
            for vmid in vmids:
                self._promised.pop(vmid, None)
                self._claimed.pop(vmid, None)

    def _holding(self, row: StoredVm) -> Holding:
        record, promised = row.record, self._promised.get(row.vmid)
        current = record.allocation
        if promised is not None and record.state is not VmState.NOT_CREATED:
            current = _larger(current, promised)
        saved = row.build.get("saved_ram") or current.ram
        suspended = record.state is VmState.SUSPENDED
        return Holding(
            row.vmid, record.state, current, row.reserved, int(str(saved)) if suspended else None, promised=promised
        )


def _larger(one: Allocation, other: Allocation) -> Allocation:
    return replace(
        one,
        ram=max(one.ram, other.ram),
        storage=max(one.storage, other.storage),
        cpu=max(one.cpu, other.cpu),
        network=max(one.network, other.network),
    )
