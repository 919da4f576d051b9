"""The engine's table of VMs: what it holds of each, and of what was asked of it. Plain data, guarded by the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dom0_agent.operation import OperationHandle
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.model import VmRecord
from dom0_agent.vm.runner import Operation
from dom0_agent.vm.steps import Step
from dom0_agent.vm.worker import Worker


@dataclass(eq=False)
class Request:
    """A primitive that was accepted: waiting in its VM's queue, or running."""

    action: str
    handle: OperationHandle
    arguments: dict[str, str] = field(default_factory=dict)
    vendor: Mapping[str, str] = field(default_factory=dict)
    cancelled: bool = False
    operation: Operation | None = None  #: set while it runs

    def cancel(self) -> None:
        """Give it up at its next point where that is possible."""
        self.cancelled = True
        if self.operation is not None:
            self.operation.work.cancelled.set()


@dataclass(eq=False)
class Slot:
    """A VM in the table."""

    vm: Vm
    worker: Worker
    requests: list[Request] = field(default_factory=list)  #: accepted and not ended; the first may be running
    look_queued: bool = False
    doing: tuple[Operation, Step] | None = None

    def shown(self) -> VmRecord:
        """The record as others see it: the State before, while an operation runs, and what that is doing."""
        if self.doing is None:
            return self.vm.record
        operation, step = self.doing
        state = step.shows or self.vm.record.state
        return replace(self.vm.record, state=state, running_step=step.name, progress=operation.progress(step))
