"""Runs an operation: journal, steps, undo. What makes a transition atomic (R-010 to R-012, R-023), also over a crash.

The order is fixed: intent and plan are written down before the first step, each step's begin before its effect, its end
before the next one. The end of one and the begin of the next are one write, as are the last one's end and the new
State. All of that survives a kill of the agent; a write waits for the disk where a power cut would leave an effect that
nothing tells of. A failure at step k undoes k…1. Knows steps only as steps; must not know events or the server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dom0_agent.hypervisor.interface import HypervisorError, OutOfMemory
from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationRefused, OperationResult, Origin
from dom0_agent.store.database import Database, StoreError
from dom0_agent.store.journal import Journal, JournalEntry, StepState
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.files import FilesError, NoSpace
from dom0_agent.vm.plans import Plan, plan_for
from dom0_agent.vm.steps import Cancelled, Services, Step, Work

logger = logging.getLogger(__name__)

#: The last entry of each operation's journal: its end is committed, and its report may be due.
REPORT = "report"

#: What a step may fail with. Anything else is a bug: it is undone all the same, and goes up the stack.
FAILURES = (HypervisorError, FilesError, OperationRefused, StoreError, OSError)


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that is in the journal."""

    entry_id: str
    action: str
    before: Vm
    plan: Plan
    work: Work
    host_boot_id: str  #: of the boot of dom0 in which it began

    def progress(self, step: Step) -> int:
        """Percent that is done while ``step`` is being done: 0 to 100."""
        done = self.plan.steps.index(step) + min(1.0, max(0.0, step.fraction(self.work)))
        return int(100 * done / len(self.plan.steps))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: the VM as it is to be (None: gone), and the result for whoever asked."""

    vm: Vm | None
    result: OperationResult


class Runner:
    """Runs operations, each in its VM's worker thread."""

    def __init__(self, services: Services, database: Database, note: Callable[[Operation, Step], None]) -> None:
        """``note`` is told the step before it begins; it must only note it."""
        self._services = services
        self._database = database
        self._journal = Journal(database)
        self._vms = VmTable(database)
        self._note = note

    def begin(
        self, action: str, vm: Vm, arguments: Mapping[str, str], origin: Origin | None, *, can_save: bool
    ) -> Operation:
        """Write down the intent, and that the first step begins. :class:`StoreError` when that is impossible; then
        nothing was begun."""
        plan = plan_for(action, vm, can_save=can_save)
        boot_id = self._services.host_boot_id
        params = {"arguments": dict(arguments), "can_save": can_save, "host_boot_id": boot_id}
        names = [*(step.name for step in plan.steps), REPORT]
        with self._database.transaction():
            entry_id = self._journal.begin(action, names, vmid=vm.vmid, origin=origin, params=params)
            self._journal.intend(entry_id, 0)
        work = Work(self._services, vm, dict(arguments))
        return Operation(entry_id, action, vm, plan, work, boot_id)

    def resume(self, entry: JournalEntry, vm: Vm) -> Operation:
        """The operation of an entry that a crash interrupted."""
        params = entry.params
        plan = plan_for(entry.primitive, vm, can_save=bool(params["can_save"]))
        arguments = params["arguments"]
        work = Work(self._services, vm, dict(arguments) if isinstance(arguments, Mapping) else {})
        return Operation(entry.operation_id, entry.primitive, vm, plan, work, str(params["host_boot_id"]))

    def run(self, operation: Operation, start: int = 0) -> Outcome:
        """Do the steps from ``start`` on and commit; undo all that were begun when one fails. The first step of all is
        written down as begun with the operation."""
        begun = start
        steps = operation.plan.steps
        error: Exception | None = None
        outcome: Outcome | None = None
        try:
            for position in range(start, len(steps)):
                if not _committed(steps[:position]):
                    operation.work.check()
                if position > 0:
                    self._advance(operation, position)
                begun = position + 1
                self._step(operation, position)
            vm = operation.plan.success(operation.work.vm, operation.host_boot_id)
            message = f"VM {operation.before.vmid}: {operation.action} done"
            ended = Outcome(vm, OperationResult(Status.OK, message))
            self._commit(operation, ended, must=not _committed(steps), complete=True)
            outcome = ended
        except (*FAILURES, Cancelled) as failure:
            error = failure
        finally:
            if outcome is None:
                outcome = self._fail(operation, begun, _status_of(error), _explain(error))
        return outcome

    def recover(self, entry: JournalEntry, operation: Operation) -> Outcome:
        """Finish or undo what a crash interrupted, as far as the steps' nature and the hypervisor's truth say."""
        start = self._resume_at(entry, operation)
        if start is not None:
            logger.warning("operation_resumed vmid=%s action=%s step=%d", entry.vmid, entry.primitive, start + 1)
            return self.run(operation, start)
        begun = sum(step.state is not StepState.PLANNED for step in entry.steps[:-1])
        reason = entry.reason or "the agent ended while it was running"
        logger.warning("operation_undone vmid=%s action=%s steps=%d", entry.vmid, entry.primitive, begun)
        return self._fail(operation, begun, Status.COMMAND_FAILED, reason)

    def report_due(self, entry: JournalEntry) -> OperationResult | None:
        """The result of an entry whose operation has ended, with only its report outstanding; else ``None``."""
        report = entry.steps[-1]
        if report.state is not StepState.INTENDED:
            return None
        return OperationResult(int(str(report.detail["status"])), str(report.detail["message"]))

    def reported(self, entry_id: str) -> None:
        """The end reached whoever is to hear of it: drop the journal's entry."""
        try:
            with self._database.transaction(durable=False):
                self._journal.finish(entry_id)
        except StoreError as error:  # it is reported once more at the next start
            logger.error("journal_entry_stays id=%s error=%s", entry_id, error)

    def internal_error(self, vm: Vm, action: str) -> Outcome:
        """The outcome when a bug ended an operation."""
        return _failed(vm, action, Status.COMMAND_FAILED, _explain(None))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _fail(self, operation: Operation, begun: int, status: int, reason: str) -> Outcome:
        """Undo the steps that were begun; the State before, and why."""
        self._undo(operation, begun, reason)
        vm = operation.before
        if operation.plan.failure_state is not None:
            vm = vm.moved(operation.plan.failure_state)
        outcome = _failed(vm, operation.action, status, reason)
        self._commit(operation, outcome, must=False)
        return outcome

    def _commit(self, operation: Operation, outcome: Outcome, *, must: bool, complete: bool = False) -> None:
        """State and end in one transaction; ``complete``: with the last step's. If it need not succeed, the journal
        mends it at the next start."""
        vmid = operation.before.vmid
        result = {"status": int(outcome.result.status), "message": outcome.result.message}
        try:
            with self._database.transaction():
                if outcome.vm is None:
                    self._vms.delete(vmid)
                else:
                    self._vms.put(outcome.vm.dump())
                if complete:
                    self._journal.done(operation.entry_id, len(operation.plan.steps) - 1)
                self._journal.intend(operation.entry_id, len(operation.plan.steps), result)
        except StoreError as error:
            if must:
                raise
            logger.error("state_not_durable vmid=%s error=%s", vmid, error)

    def _undo(self, operation: Operation, begun: int, reason: str) -> None:
        """Undo the first ``begun`` steps, last first. One that cannot be undone does not stop the others."""
        self._write(lambda: self._journal.turn_back(operation.entry_id, reason))
        for position in reversed(range(begun)):
            step = operation.plan.steps[position]
            try:
                step.undo(operation.work)
            except FAILURES as error:
                # reconciliation and the sweep at the next start find what stays
                logger.error("undo_failed vmid=%s step=%r error=%s", operation.before.vmid, step.name, error)
                continue
            self._write(lambda position=position: self._journal.undone(operation.entry_id, position))  # type: ignore[misc]

    def _advance(self, operation: Operation, position: int) -> None:
        """Write down that the step before ``position`` took effect, and that this one begins."""
        with self._database.transaction(durable=must_last(operation.plan.steps, position)):
            self._journal.done(operation.entry_id, position - 1)
            self._journal.intend(operation.entry_id, position)

    def _step(self, operation: Operation, position: int) -> None:
        step = operation.plan.steps[position]
        committed = _committed(operation.plan.steps[:position])
        self._note(operation, step)
        try:
            step.do(operation.work)
        except FAILURES as error:
            if not committed and not self._happened(operation, step):
                raise
            logger.warning("step_failed_but_stands vmid=%s step=%r error=%s", operation.before.vmid, step.name, error)

    def _happened(self, operation: Operation, step: Step) -> bool:
        try:
            return step.happened(operation.work)
        except FAILURES as error:
            logger.warning("step_unknown vmid=%s step=%r error=%s", operation.before.vmid, step.name, error)
            return False

    def _resume_at(self, entry: JournalEntry, operation: Operation) -> int | None:
        """The step to go on with after a crash; ``None`` when the operation is to be undone."""
        steps = operation.plan.steps
        states = [step.state for step in entry.steps[:-1]]
        done = states.count(StepState.DONE)
        if entry.undoing:
            return None
        if _committed(steps[:done]):
            return done
        if StepState.INTENDED in states:
            if self._happened(operation, steps[done]):
                self._journal.done(operation.entry_id, done)
                return done + 1
            return done if steps[done].redo_after_crash else None
        return done if done and steps[done - 1].redo_after_crash else None

    def _write(self, write: Callable[[], None]) -> None:
        """A journal write while undoing: its failure must not stop the undoing."""
        try:
            write()
        except StoreError as error:
            logger.error("journal_write_failed error=%s", error)


def must_last(steps: tuple[Step, ...], position: int) -> bool:
    """Whether the begin of a step must be on disk before its effect.

    Not where the effect goes with dom0's boot, as what is written of it may; nor where it is on disk already that there
    is no way back: all that follows is done again.
    """
    ended, begins = steps[position - 1], steps[position]
    return ended.no_return or not (begins.ends_with_boot or _committed(steps[: position - 1]))


def _committed(done: tuple[Step, ...]) -> bool:
    return any(step.no_return for step in done)


def _failed(vm: Vm, action: str, status: int, reason: str) -> Outcome:
    message = f"VM {vm.vmid}: {action} failed: {reason}"
    record = replace(vm.record, last_error=message, running_step=None)
    return Outcome(replace(vm, record=record), OperationResult(status, message))


def _status_of(error: Exception | None) -> int:
    """The DM status of a failure (A-08): 420 when resources are missing, a refusal's own, else 500."""
    if isinstance(error, (OutOfMemory, NoSpace)):
        return Status.DEVICE_FULL
    if isinstance(error, OperationRefused):
        return error.status
    return Status.COMMAND_FAILED


def _explain(error: Exception | None) -> str:
    if isinstance(error, Cancelled):
        return "it was pre-empted by another operation"
    return str(error) if error is not None else "an internal error; the agent's log tells more"
