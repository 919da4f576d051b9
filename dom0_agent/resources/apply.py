"""ApplyChanges: the resources of any number of VMs become what their NewConfigs say, all or nothing (R-060, A-16).

check → journal → apply → read back → commit, and after a failure at step k the undo of k…1: the machine and every VM
are as before. Killed at any moment, the next agent undoes what was begun, or finishes the report of what was committed.
Knows VMs and plans; must not know the management tree.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from uuid import UUID

from dom0_agent.hypervisor.interface import HypervisorError, OutOfMemory
from dom0_agent.hypervisor.resources import BeyondMaximum
from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationHandle, OperationRefused, OperationResult, Origin
from dom0_agent.resources.picture import Target, check, targets
from dom0_agent.resources.plan import PlanStep, load_step, make_plan
from dom0_agent.resources.sharing import Sharing
from dom0_agent.resources.storage import with_data_disk
from dom0_agent.store.database import Database, StoreError
from dom0_agent.store.journal import Journal, JournalEntry, StepState
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.files import FilesError, NoSpace
from dom0_agent.vm.holds import HOLD, Holds
from dom0_agent.vm.model import Allocation, VmState
from dom0_agent.vm.worker import Worker

logger = logging.getLogger(__name__)

REPORT = "report"
#: What a step may fail with. Anything else is a bug, and goes up the stack after the undo.
FAILURES = (HypervisorError, FilesError, OperationRefused, StoreError, OSError)


@dataclass(frozen=True, slots=True)
class Applied:
    """The end of an ApplyChanges. ``nodes`` maps NewConfig nodes to the texts that were applied: they are still to go.

    :meth:`ApplyChanges.reported` is to be called when tree and server know of it.
    """

    result: OperationResult
    origin: Origin | None  #: set when nobody waits for the result any more
    nodes: Mapping[str, str]
    changed: tuple[UUID, ...]
    entry_id: str | None


@dataclass(frozen=True, slots=True)
class Wish:
    """What an Exec asks for: allocations by VM, and the nodes that they come from, with their texts."""

    allocations: Mapping[UUID, Allocation]
    nodes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Change:
    """One that runs. ``vms`` are held."""

    entry_id: str
    vms: Mapping[UUID, Vm]
    targets: tuple[Target, ...]
    steps: tuple[PlanStep, ...]
    nodes: Mapping[str, str]
    handle: OperationHandle


class ApplyChanges:
    """One at a time, in a thread of its own. ``listener`` is told of each end; it must only queue."""

    def __init__(self, database: Database, holds: Holds, sharing: Sharing, listener: Callable[[Applied], None]) -> None:
        self._database = database
        self._vms = VmTable(database)
        self._journal = Journal(database)
        self._holds = holds
        self._sharing = sharing
        self._listener = listener
        self._worker = Worker("apply-changes")
        self.running_step: str | None = None  #: for people

    def start(self) -> None:
        """Undo or report what a crash interrupted. Before anything else is done with VMs."""
        for entry in self._journal.unfinished():
            if entry.primitive == HOLD and entry.vmid is None:
                steps = [load_step(dict(step.detail)) for step in entry.steps[:-1] if step.detail]
                known = {row.vmid for row in self._vms.list()}
                vmids = tuple(dict.fromkeys(step.vmid for step in steps if step.vmid in known))
                vms = self._holds.take(vmids)
                self._worker.put(lambda entry=entry, vms=vms: self._recover(entry, vms))  # type: ignore[misc]

    def stop(self, seconds: float) -> bool:
        """Wait for one that runs."""
        return self._worker.join(seconds)

    def plan(self, wish: Wish) -> tuple[tuple[Target, ...], tuple[PlanStep, ...]]:
        """What :meth:`submit` would do now. :class:`OperationRefused` when it would be refused."""
        admission = self._sharing.admission
        with admission.lock:
            holdings = admission.holdings()
            check(holdings, wish.allocations, admission.device(), self._sharing.config.cpu.sum)
            found = targets(holdings, wish.allocations)
        for target in found:
            self._sharing.enforcer.rate(target.after)  # refuses a share of an unknown bandwidth
        return found, make_plan(found)

    def submit(self, wish: Wish, origin: Origin | None) -> OperationHandle:
        """Begin. :class:`OperationRefused` 403, 420 from the check, 417 when an operation runs on one of the VMs."""
        handle = OperationHandle(origin)
        if not wish.allocations and not wish.nodes:
            handle.finish(OperationResult(Status.OK, "no VM has a NewConfig: nothing was changed"))
            return handle
        admission = self._sharing.admission
        with admission.lock:
            vms = self._holds.take(wish.allocations)
            try:
                found, steps = self.plan(wish)
                entry_id = self._begin(steps, origin)
                admission.promise((target.vmid, target.after) for target in found)
            except BaseException:
                self._holds.release(vms, {})
                raise
        change = _Change(entry_id, vms, found, steps, wish.nodes, handle)
        self._worker.put(lambda: self._run(change))
        return handle

    def reported(self, applied: Applied) -> None:
        """Tree and server know: drop the journal's entry."""
        if applied.entry_id is None:
            return
        try:
            with self._database.transaction(durable=False):
                self._journal.finish(applied.entry_id)
        except StoreError as error:  # it is reported once more at the next start
            logger.error("journal_entry_stays id=%s error=%s", applied.entry_id, error)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _begin(self, steps: tuple[PlanStep, ...], origin: Origin | None) -> str:
        names, details = [step.name for step in steps], [step.dump() for step in steps]
        return self._journal.begin(HOLD, [*names, REPORT], origin=origin, details=[*details, {}])

    def _run(self, change: _Change) -> None:
        after: dict[UUID, Vm] = {}
        result = OperationResult(Status.COMMAND_FAILED, f"{HOLD}: an internal error; the agent's log tells more")
        begun, ended = 0, False
        try:
            for _, group in groupby(enumerate(change.steps), lambda item: (item[1].resource, item[1].live)):
                together = list(group)
                begun = together[-1][0] + 1  # what is done ahead is to be undone, too
                self._ahead(change, [step for _, step in together])
                for position, step in together:
                    self._step(change.entry_id, position, step, change.vms[step.vmid])
            done = {target.vmid: self._after(change.vms[target.vmid], target) for target in change.targets}
            sentence = f"{HOLD} done: {len(change.steps)} changes on {len(change.targets)} VMs"
            self._commit(change, OperationResult(Status.OK, sentence), done)
            after, result, ended = done, OperationResult(Status.OK, sentence), True
        except FAILURES as error:
            result = OperationResult(_status_of(error), f"{HOLD} failed, nothing was changed: {error}")
        finally:
            if not ended:
                self._undo(change.entry_id, change.steps[:begun], change.vms, result.message)
            self._conclude(change, after, result)

    def _ahead(self, change: _Change, steps: Sequence[PlanStep]) -> None:
        if steps[0].live:
            vms = [(change.vms[step.vmid], step.after) for step in steps]
            self._sharing.enforcer.apply_ahead(steps[0].resource, vms)

    def _step(self, entry_id: str, position: int, step: PlanStep, vm: Vm) -> None:
        with self._database.transaction(durable=False):  # the plan is durable, and its undo needs no more than that
            if position:
                self._journal.done(entry_id, position - 1)
            self._journal.intend(entry_id, position)
        self._say(step.name)

        def progress(reached: int, wanted: int) -> None:
            self._say(f"{step.name}, {reached} of {wanted} bytes reached")

        self._sharing.enforcer.apply(step.resource, vm, step.after, live=step.live, progress=progress)

    def _after(self, vm: Vm, target: Target) -> Vm:
        """The VM as it is committed."""
        if target.before is None:
            return replace(vm, reserved=target.after)
        suspended = vm.record.state is VmState.SUSPENDED and target.after.ram != vm.record.allocation.ram
        saved_ram = vm.saved_ram or vm.record.allocation.ram if suspended else vm.saved_ram
        kept = replace(vm, record=replace(vm.record, allocation=target.after), saved_ram=saved_ram)
        return with_data_disk(kept, self._sharing.files)

    def _commit(self, change: _Change, result: OperationResult, after: Mapping[UUID, Vm]) -> None:
        report = {"status": int(result.status), "message": result.message, "nodes": dict(change.nodes)}
        with self._database.transaction():
            for vm in after.values():
                self._vms.put(vm.dump())
            if change.steps:
                self._journal.done(change.entry_id, len(change.steps) - 1)
            self._journal.intend(change.entry_id, len(change.steps), report)

    def _undo(self, entry_id: str, steps: tuple[PlanStep, ...], vms: Mapping[UUID, Vm], reason: str) -> None:
        """Last first. One that cannot be undone does not stop the others; the sweep goes on trying."""
        self._write(lambda: self._journal.turn_back(entry_id, reason))
        for position, step in reversed(list(enumerate(steps))):
            vm = vms.get(step.vmid)
            if vm is None:  # deleted since
                continue
            try:
                self._sharing.enforcer.undo(step.resource, vm, step.before, live=step.live)
            except FAILURES as error:
                logger.error("undo_failed vmid=%s step=%r error=%s", step.vmid, step.name, error)
                continue
            self._write(lambda position=position: self._journal.undone(entry_id, position))  # type: ignore[misc]

    def _conclude(self, change: _Change, after: dict[UUID, Vm], result: OperationResult) -> None:
        self.running_step = None
        self._sharing.admission.dismiss(change.vms)
        self._holds.release(change.vms, after)
        abandoned = change.handle.finish(result)
        level = logging.INFO if result.ok else logging.WARNING
        logger.log(level, "apply_changes_ended status=%d message=%s", result.status, result.message)
        origin = change.handle.origin if abandoned else None
        # who waits lets the nodes go itself; a later NewConfig with the same text is not to go with them
        nodes = change.nodes if abandoned and result.ok else {}
        self._listener(Applied(result, origin, nodes, tuple(after), change.entry_id))

    def _recover(self, entry: JournalEntry, vms: dict[UUID, Vm]) -> None:
        handle = OperationHandle(entry.origin)
        handle.wait(0)  # whoever waited is gone with the agent that was killed: the end is to be reported
        report = entry.steps[-1]
        if report.state is StepState.INTENDED:
            nodes = report.detail["nodes"]
            assert isinstance(nodes, Mapping)
            change = _Change(entry.operation_id, vms, (), (), {str(k): str(v) for k, v in nodes.items()}, handle)
            result = OperationResult(int(str(report.detail["status"])), str(report.detail["message"]))
            self._conclude(change, {}, result)
            return
        steps = tuple(load_step(dict(step.detail)) for step in entry.steps[:-1])
        reason = entry.reason or f"{HOLD} failed, nothing was changed: the agent ended while it was running"
        logger.warning("apply_changes_undone steps=%d", len(steps))
        self._undo(entry.operation_id, steps, vms, reason)  # also what was not begun: it is as it was, and stays so
        change = _Change(entry.operation_id, vms, (), steps, {}, handle)
        self._conclude(change, {}, OperationResult(Status.COMMAND_FAILED, reason))

    def _say(self, what: str) -> None:
        self.running_step = what
        logger.info("step action=%s step=%r", HOLD, what)

    def _write(self, write: Callable[[], None]) -> None:
        """A journal write while undoing: its failure must not stop the undoing."""
        try:
            write()
        except StoreError as error:
            logger.error("journal_write_failed error=%s", error)


def _status_of(error: Exception) -> int:
    """420 when resources are missing, 403 for what this guest cannot do, a refusal's own, else 500 (A-08, A-16)."""
    if isinstance(error, (OutOfMemory, NoSpace)):
        return Status.DEVICE_FULL
    if isinstance(error, BeyondMaximum):
        return Status.FORBIDDEN
    if isinstance(error, OperationRefused):
        return error.status
    return Status.COMMAND_FAILED
