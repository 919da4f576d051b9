"""What each operation consists of: a table from actions to steps, and the state that success and failure lead to.

An action is a primitive of 7.1.4, or ``Restart``, which the engine itself begins when a guest reboots or dom0 did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationRefused
from dom0_agent.vm import steps
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.model import Primitive, Rebuild, SuspendKind, VmState

RESTART = "Restart"
REBUILDS = frozenset(rebuild.value for rebuild in Rebuild)


@dataclass(frozen=True, slots=True)
class Plan:
    """An operation's steps, and what becomes of the VM."""

    steps: tuple[steps.Step, ...]
    success: Callable[[Vm, str], Vm | None]  #: (the VM as the steps shaped it, host boot id) → VM; None: it is gone
    failure_state: VmState | None = None  #: None: as it was


def plan_for(action: str, vm: Vm, *, can_save: bool) -> Plan:
    """The plan of an action on a VM. The same arguments give the same plan after a crash."""
    if action == RESTART:
        return Plan((steps.StartAgain(), steps.GiveSharesAgain(), steps.LetGoOn()), _running, VmState.POWERED_OFF)
    if action in REBUILDS:
        return _REBUILDS[Rebuild(action), vm.record.state]
    primitive = Primitive(action)
    if primitive is Primitive.SUSPEND:
        return _SAVE if can_save else _PAUSE
    if primitive is Primitive.RESUME:
        return _RESTORE if vm.record.suspend_kind is not SuspendKind.PAUSE else _UNPAUSE
    return _PLANS[primitive]


def require_rebuild(vm: Vm, rebuild: Rebuild) -> None:
    """:class:`OperationRefused` 405 when ``vm`` is in a State in which that cannot begin."""
    if (rebuild, vm.record.state) not in _REBUILDS:
        states = " or ".join(state.name for known, state in _REBUILDS if known is rebuild)
        raise OperationRefused(
            Status.NOT_ALLOWED, f"VM {vm.vmid}: {rebuild.value} needs {states}, but it is {vm.record.state.name}"
        )


def _running(vm: Vm, host_boot_id: str) -> Vm:
    return replace(vm.moved(VmState.RUNNING), host_boot_id=host_boot_id, saved_ram=None)


def _powered_off(vm: Vm, host_boot_id: str) -> Vm:
    del host_boot_id
    return replace(vm.moved(VmState.POWERED_OFF), restarts=())


def _suspended(kind: SuspendKind) -> Callable[[Vm, str], Vm]:
    return lambda vm, host_boot_id: vm.moved(VmState.SUSPENDED, suspend_kind=kind)


def _gone(vm: Vm, host_boot_id: str) -> None:
    del vm, host_boot_id


_SAVE = Plan((steps.Save(), steps.TakeShares()), _suspended(SuspendKind.SAVE))
_PAUSE = Plan((steps.Pause(),), _suspended(SuspendKind.PAUSE))
_RESTORE = Plan((steps.RestorePaused(), steps.GiveShares(), steps.LetGoOn(), steps.DropSavedState()), _running)
_UNPAUSE = Plan((steps.LetGoOn(),), _running)
_PLANS = {
    Primitive.CREATE: Plan((steps.MakeFiles(), steps.StartPaused(), steps.GiveShares(), steps.LetRun()), _running),
    Primitive.CREATE_AND_POWER_OFF: Plan((steps.MakeFiles(),), _powered_off),
    Primitive.POWER_ON: Plan((steps.StartPaused(), steps.GiveShares(), steps.LetGoOn()), _running),
    Primitive.POWER_OFF: Plan((steps.AskToShutDown(), steps.Destroy(), steps.TakeShares()), _powered_off),
    Primitive.DELETE: Plan((steps.Destroy(), steps.TakeShares(), steps.Hide(), steps.EmptyTrash()), _gone),
}
_RESTART_NEW = (steps.EndOldSystem(), steps.StartPaused(), steps.GiveShares(), steps.LetRun())
#: by the State that the VM is in
_REBUILDS = {
    (Rebuild.FACTORY_RESET, VmState.RUNNING): Plan((steps.MakeSystem(keep_data=False), *_RESTART_NEW), _running),
    (Rebuild.FACTORY_RESET, VmState.POWERED_OFF): Plan((steps.MakeSystem(keep_data=False),), _powered_off),
    (Rebuild.REPLACE_SYSTEM, VmState.RUNNING): Plan(
        (steps.MakeSystem(keep_data=True), *_RESTART_NEW, steps.AwaitShim()), _running
    ),
}
