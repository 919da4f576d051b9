"""The state machine of 7.1.4, as a table. An illegal transition is an exception that already knows its DM status.

Everything that decides whether a primitive is allowed lives here; what it does lives in ``plans``.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationRefused
from dom0_agent.vm.model import Primitive, VmState


@dataclass(frozen=True, slots=True)
class Transition:
    """From which states a primitive may begin, and the state it ends in."""

    sources: frozenset[VmState]
    target: VmState
    preempts: bool = False  #: accepted while another operation runs on the VM, and ends that one first


#: The textual primitive table of 7.1.4; Delete starts from any Created state (R-057).
TRANSITIONS: dict[Primitive, Transition] = {
    Primitive.CREATE: Transition(frozenset({VmState.NOT_CREATED}), VmState.RUNNING),
    Primitive.CREATE_AND_POWER_OFF: Transition(frozenset({VmState.NOT_CREATED}), VmState.POWERED_OFF),
    Primitive.SUSPEND: Transition(frozenset({VmState.RUNNING}), VmState.SUSPENDED),
    Primitive.RESUME: Transition(frozenset({VmState.SUSPENDED}), VmState.RUNNING),
    Primitive.POWER_ON: Transition(frozenset({VmState.POWERED_OFF}), VmState.RUNNING),
    Primitive.POWER_OFF: Transition(frozenset({VmState.RUNNING}), VmState.POWERED_OFF, preempts=True),
    Primitive.DELETE: Transition(
        frozenset({VmState.POWERED_OFF, VmState.RUNNING, VmState.SUSPENDED}), VmState.DELETED, preempts=True
    ),
}

#: What states are called in messages.
STATE_NAMES = {
    VmState.NOT_CREATED: "NotCreated",
    VmState.POWERED_OFF: "PoweredOff",
    VmState.RUNNING: "Running",
    VmState.SUSPENDED: "Suspended",
    VmState.DELETED: "Deleted",
}


class IllegalTransition(OperationRefused):
    """The primitive is not allowed in this state (A-08: 405, nothing changes)."""

    def __init__(self, vmid: UUID, primitive: Primitive, state: VmState) -> None:
        sources = " or ".join(STATE_NAMES[s] for s in sorted(TRANSITIONS[primitive].sources))
        super().__init__(
            Status.NOT_ALLOWED, f"VM {vmid}: {primitive.value} needs State {sources}, but it is {STATE_NAMES[state]}"
        )


class OperationRunning(OperationRefused):
    """Another operation runs on this VM (A-08: 417)."""

    def __init__(self, vmid: UUID, primitive: Primitive, running: str) -> None:
        super().__init__(
            Status.RETRY_LATER, f"VM {vmid}: {primitive.value} has to wait, {running} is running; try again later"
        )


def require(vmid: UUID, primitive: Primitive, state: VmState) -> VmState:
    """The state that ``primitive`` leads to from ``state``; :class:`IllegalTransition` when it may not begin there."""
    transition = TRANSITIONS[primitive]
    if state not in transition.sources:
        raise IllegalTransition(vmid, primitive, state)
    return transition.target
