"""The VM engine: the :class:`~dom0_agent.vm.model.VmService` over worker threads, the journal and a hypervisor.

Decides who may begin what and when, keeps the table of VMs, and tells listeners. What an operation does is ``plans``
and ``steps``, how it survives a crash is ``runner``, what domains say of VMs is ``reconcile``.

Each VM has one queue: operations and reconciliation of one VM never run at the same time, those of different VMs do.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid as uuids
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import UUID

from dom0_agent.hypervisor.interface import Hypervisor, HypervisorError
from dom0_agent.hypervisor.readback import discard_saved
from dom0_agent.images.model import ImageService
from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationHandle, OperationRefused, OperationResult, Origin
from dom0_agent.resources.config import ResourcesConfig
from dom0_agent.resources.sharing import Sharing, open_sharing
from dom0_agent.store.database import Database, StoreError
from dom0_agent.store.journal import Journal, JournalEntry
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.files import FilesError, VmFiles
from dom0_agent.vm.hints import Hints
from dom0_agent.vm.holds import HOLD, Holds
from dom0_agent.vm.model import Primitive, Rebuild, VmEvent, VmRecord, VmState
from dom0_agent.vm.plans import REBUILDS, RESTART, require_rebuild
from dom0_agent.vm.reconcile import Reconciler
from dom0_agent.vm.runner import Operation, Outcome, Runner
from dom0_agent.vm.slots import Request, Slot
from dom0_agent.vm.states import TRANSITIONS, IllegalTransition, OperationRunning, require
from dom0_agent.vm.steps import Services, Step
from dom0_agent.vm.worker import Worker

logger = logging.getLogger(__name__)

#: Seconds that running operations get to end when the agent stops; what does not is finished or undone at the start.
STOP_DEADLINE = 20.0
#: Changes with each boot of dom0.
HOST_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class VmEngine:
    """Implements ``VmService``. Construct, ``subscribe``, ``start``; ``stop`` at the end."""

    def __init__(self, services: Services, database: Database, *, new_vmid: Callable[[], UUID] = uuids.uuid4) -> None:
        self._services = services
        self._database = database
        self._vms = VmTable(database)
        self._journal = Journal(database)
        self._runner = Runner(services, database, self._note)
        self._new_vmid = new_vmid
        self._lock = threading.RLock()
        self._slots: dict[UUID, Slot] = {}
        self._parting: list[Worker] = []  #: of VMs that are gone from the table
        self._gone: set[UUID] = set()  #: deleted by this agent; their domains must not come back
        self._listeners: list[Callable[[VmEvent], None]] = []
        self.holds = Holds(self._lock, self._slots, self._tell, self._put)
        self._reconciler = Reconciler(
            services, self._lock, self._slots, self._gone, restart=self._restart, change=self._change
        )
        self._sweeper = Worker("vm-sweeper")
        for row in self._vms.list():
            vm = Vm.load(row)
            self._slots[vm.vmid] = Slot(vm, Worker(f"vm-{vm.vmid}"))

    # -- VmService --------------------------------------------------------------------------------------------------

    def add(self) -> UUID:
        """A new entry in NotCreated with a fresh VMID (R-032, R-033, R-115)."""
        vm = Vm(VmRecord(self._new_vmid(), VmState.NOT_CREATED))
        self._vms.put(vm.dump())  # not under the lock: the caller may be in a transaction that others wait for
        with self._lock:
            self._slots[vm.vmid] = Slot(vm, Worker(f"vm-{vm.vmid}"))
        return vm.vmid

    def forget(self, vmid: UUID) -> None:
        """Drop an entry in NotCreated; :class:`OperationRefused` 405 in the other states (A-07)."""
        with self._lock:
            slot = self._slots.get(vmid)
            if slot is None:
                return
            if slot.vm.record.state is not VmState.NOT_CREATED or slot.requests:
                raise OperationRefused(
                    Status.NOT_ALLOWED, f"VM {vmid} has been created: use its Operations/Delete to remove it"
                )
            del self._slots[vmid]
        self._vms.delete(vmid)

    def require_idle(self, vmid: UUID) -> None:
        """See ``VmService``."""
        with self._lock:
            slot = self._slots.get(vmid)
            if slot is not None and slot.requests:
                running = slot.requests[0].action
                raise OperationRefused(Status.RETRY_LATER, f"VM {vmid}: {running} is running; try again later")

    def get(self, vmid: UUID) -> VmRecord | None:
        """The record, or ``None``."""
        with self._lock:
            slot = self._slots.get(vmid)
            return None if slot is None else slot.shown()

    def list(self) -> tuple[VmRecord, ...]:
        """All records."""
        with self._lock:
            return tuple(slot.shown() for slot in self._slots.values())

    def submit(
        self,
        vmid: UUID,
        primitive: Primitive,
        *,
        img_id: str | None = None,
        vendor: Mapping[str, str] | None = None,
        origin: Origin | None = None,
    ) -> OperationHandle:
        """Begin a primitive; see ``VmService``. PowerOff and Delete pre-empt what runs (cancel and undo it first)."""
        arguments: dict[str, str] = {}
        if primitive in (Primitive.CREATE, Primitive.CREATE_AND_POWER_OFF):
            if img_id is None:
                raise OperationRefused(Status.INCOMPLETE, f"VM {vmid}: {primitive.value} needs an image")
            arguments["img_id"] = img_id
        with self._lock:
            slot = self._slots.get(vmid)
            if slot is None:
                raise OperationRefused(Status.NOT_FOUND, f"there is no VM {vmid}")
            self._admit(slot, primitive)
            if img_id is not None and arguments:
                self._services.images.verified(img_id)  # refuses what is unknown or not there yet
            request = Request(primitive.value, OperationHandle(origin), arguments, dict(vendor or {}))
            self._enqueue(slot, request)
        return request.handle

    def rebuild(self, vmid: UUID, rebuild: Rebuild, img_id: str, *, health_timeout: float = 0.0) -> OperationHandle:
        """Give the VM another system; see ``VmService``. Nobody waits for the handle's end but the caller: no alert."""
        arguments = {"img_id": img_id, "health_timeout": str(health_timeout)}
        with self._lock:
            slot = self._slots.get(vmid)
            if slot is None:
                raise OperationRefused(Status.NOT_FOUND, f"there is no VM {vmid}")
            if slot.requests:
                raise OperationRefused(Status.RETRY_LATER, f"VM {vmid}: {slot.requests[0].action} is running")
            require_rebuild(slot.vm, rebuild)
            self._services.images.verified(img_id)
            request = Request(rebuild.value, OperationHandle(), arguments)
            self._enqueue(slot, request)
        return request.handle

    def subscribe(self, listener: Callable[[VmEvent], None]) -> None:
        """Call ``listener`` from worker threads at each change. It may write to the same database."""
        with self._lock:
            self._listeners.append(listener)

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Finish or undo what a crash interrupted, sweep what is left over, then follow the hypervisor.

        Recovery of each VM runs in its queue: the agent is usable at once, and what needs a VM waits for that VM.
        """
        entries = [entry for entry in self._journal.unfinished() if entry.vmid is not None]
        for entry in entries:
            self._recover_later(entry)
        self._sweep_files({entry.vmid for entry in entries if entry.vmid is not None})
        self._reconciler.start()

    def stop(self, deadline: float = STOP_DEADLINE) -> None:
        """Stop following the hypervisor and wait for running operations. VMs go on."""
        self._reconciler.stop(deadline)
        self.drain(deadline)

    def drain(self, deadline: float) -> bool:
        """Wait until no VM has anything to do; ``False`` when that took longer than ``deadline`` seconds."""
        end = time.monotonic() + deadline
        with self._lock:
            workers = [self._sweeper, *self._parting, *(slot.worker for slot in self._slots.values())]
        return all(worker.join(max(0.0, end - time.monotonic())) for worker in workers)

    # -- operations -------------------------------------------------------------------------------------------------

    def _admit(self, slot: Slot, primitive: Primitive) -> None:
        """Whether a primitive may be queued now (A-08). The lock is held."""
        vm = slot.vm
        if not slot.requests:
            require(vm.vmid, primitive, vm.record.state)
            return
        last = slot.requests[-1]
        running = slot.requests[0].action
        if not TRANSITIONS[primitive].preempts or last.action in (primitive.value, Primitive.DELETE.value):
            raise OperationRunning(vm.vmid, primitive, running)
        if running == HOLD or (primitive is Primitive.POWER_OFF and not self._leads_to_running(slot)):
            require(vm.vmid, primitive, vm.record.state)
        for request in slot.requests:
            request.cancel()
        self._services.hints.hint()  # wakes one that waits for its guest

    def _leads_to_running(self, slot: Slot) -> bool:
        action = slot.requests[0].action
        return action in (RESTART, *REBUILDS) or TRANSITIONS[Primitive(action)].target is VmState.RUNNING

    def _enqueue(self, slot: Slot, request: Request) -> None:
        """Take a request. While somebody holds the VM it waits for the end of that, which begins it."""
        slot.requests.append(request)
        if slot.requests[0].action != HOLD:
            self._put(slot, request)

    def _put(self, slot: Slot, request: Request) -> None:
        slot.worker.put(lambda: self._perform(slot, request))

    def _perform(self, slot: Slot, request: Request) -> None:
        """Run one request in its VM's worker."""
        outcome = self._runner.internal_error(slot.vm, request.action)
        try:
            refused = self._refuse(slot, request)
            if refused is not None:
                outcome = refused
                return
            outcome = self._runner.run(self._begin(slot, request))
        except (StoreError, HypervisorError) as error:  # it could not be begun
            message = f"VM {slot.vm.vmid}: {request.action} could not begin: {error}"
            outcome = Outcome(slot.vm, OperationResult(Status.COMMAND_FAILED, message))
        finally:
            self._conclude(slot, request, outcome)

    def _refuse(self, slot: Slot, request: Request) -> Outcome | None:
        """What was allowed when it was asked for may not be so any more, when its turn comes."""
        vm = slot.vm
        if request.action == RESTART:
            return None if vm.record.state is VmState.RUNNING else Outcome(vm, OperationResult(Status.OK))
        if request.action in REBUILDS:
            return self._refuse_rebuild(vm, Rebuild(request.action))
        primitive, state = Primitive(request.action), vm.record.state
        if primitive is Primitive.DELETE and state is VmState.NOT_CREATED:  # it pre-empted the Create
            self._vms.delete(vm.vmid)
            return Outcome(None, OperationResult(Status.OK, f"VM {vm.vmid}: it was not created, and is removed"))
        if primitive is Primitive.POWER_OFF and state is VmState.POWERED_OFF:  # it pre-empted a PowerOn
            return Outcome(vm, OperationResult(Status.OK, f"VM {vm.vmid}: it is PoweredOff"))
        try:
            require(vm.vmid, primitive, state)
        except IllegalTransition as refusal:
            return Outcome(vm, OperationResult(refusal.status, str(refusal)))
        return None

    def _refuse_rebuild(self, vm: Vm, rebuild: Rebuild) -> Outcome | None:
        try:
            require_rebuild(vm, rebuild)
        except OperationRefused as refusal:
            return Outcome(vm, OperationResult(refusal.status, str(refusal)))
        return None

    def _begin(self, slot: Slot, request: Request) -> Operation:
        can_save = self._services.hypervisor.host().can_save if request.action == Primitive.SUSPEND.value else True
        vm = slot.vm
        operation = self._runner.begin(request.action, vm, request.arguments, request.handle.origin, can_save=can_save)
        if request.vendor:
            operation.work.vm = replace(vm, record=replace(vm.record, vendor=dict(request.vendor)))
        with self._lock:
            request.operation = operation
            if request.cancelled:
                operation.work.cancelled.set()
        return operation

    def _note(self, operation: Operation, step: Step) -> None:
        with self._lock:
            slot = self._slots.get(operation.before.vmid)
            if slot is not None:
                slot.doing = (operation, step)
        logger.info("step vmid=%s action=%s step=%r", operation.before.vmid, operation.action, step.name)

    def _conclude(self, slot: Slot, request: Request, outcome: Outcome) -> None:
        """Make a committed end visible, then known."""
        operation = request.operation
        with self._lock:
            spontaneous = (
                request.action == RESTART
                and outcome.vm is not None
                and (outcome.vm.record.state is not slot.vm.record.state)
            )
            slot.requests.remove(request)
            self._show(slot, outcome.vm)
        abandoned = request.handle.finish(outcome.result)
        level = logging.INFO if outcome.result.ok else logging.WARNING
        logger.log(level, "operation_ended status=%d message=%s", outcome.result.status, outcome.result.message)
        self._tell(
            VmEvent(
                vmid=slot.vm.vmid,
                record=self.get(slot.vm.vmid),
                origin=request.handle.origin if abandoned else None,
                result=outcome.result if abandoned else None,
                primitive=None if request.action in (RESTART, *REBUILDS) else Primitive(request.action),
                spontaneous=spontaneous,
            )
        )
        if operation is not None:
            self._runner.reported(operation.entry_id)

    def _show(self, slot: Slot, vm: Vm | None) -> None:
        """Put the VM's new state into the table. The lock is held."""
        slot.doing = None
        if vm is None:
            self._slots.pop(slot.vm.vmid, None)
            self._gone.add(slot.vm.vmid)
            # The worker still has to report the end: who stops the engine waits for that, too.
            self._parting = [worker for worker in self._parting if not worker.join(0.0)] + [slot.worker]
        else:
            slot.vm = vm

    def _tell(self, event: VmEvent) -> None:
        with self._lock:
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(event)

    # -- recovery ---------------------------------------------------------------------------------------------------

    def _recover_later(self, entry: JournalEntry) -> None:
        """Queue the recovery of an interrupted operation; until then its VM accepts only what pre-empts."""
        vmid = entry.vmid
        assert vmid is not None
        handle = OperationHandle(entry.origin)
        handle.wait(0)  # whoever waited is gone with the agent that was killed: the end is to be reported
        with self._lock:
            slot = self._slots.get(vmid)
            if slot is None:  # its end was committed: only the report is due
                slot = Slot(Vm(VmRecord(vmid, VmState.DELETED)), Worker(f"vm-{vmid}"))
            request = Request(entry.primitive, handle)
            slot.requests.append(request)
            slot.worker.put(lambda: self._recover(slot, request, entry))

    def _recover(self, slot: Slot, request: Request, entry: JournalEntry) -> None:
        operation = self._runner.resume(entry, slot.vm)
        outcome = self._runner.internal_error(slot.vm, entry.primitive)
        try:
            result = self._runner.report_due(entry)
            if result is None:
                outcome = self._runner.recover(entry, operation)
            else:
                outcome = Outcome(slot.vm if slot.vm.vmid in self._slots else None, result)
        finally:
            with self._lock:
                request.operation = operation
            self._conclude(slot, request, outcome)

    def _sweep_files(self, busy: set[UUID]) -> None:
        """Remove directories of VMs that are not there (what Create would make again goes first), and saved states of
        VMs that are not suspended: a power cut may undo a file's removal."""
        files = self._services.files

        def known(vmid: UUID) -> bool:
            slot = self._slots.get(vmid)
            return vmid in busy or (slot is not None and slot.vm.record.state is not VmState.NOT_CREATED)

        leftovers = files.leftovers(known)
        for vmid in self._slots.keys() - busy:
            if files.directory(vmid) in leftovers:
                files.discard(vmid)
            if self._slots[vmid].vm.record.state is not VmState.SUSPENDED:
                discard_saved(files.saved_state(vmid))
        for path in leftovers:
            logger.warning("leftover_removed path=%s", path)
            self._sweeper.put(partial(self._destroy_leftover, path))

    def _destroy_leftover(self, path: Path) -> None:
        try:
            self._services.files.destroy_leftover(path)
        except (FilesError, HypervisorError) as error:
            logger.error("leftover_stays path=%s error=%s", path, error)

    # -- reconciliation ---------------------------------------------------------------------------------------------

    def _restart(self, slot: Slot) -> None:
        with self._lock:
            if not slot.requests:
                self._enqueue(slot, Request(RESTART, OperationHandle()))

    def _change(self, slot: Slot, vm: Vm) -> None:
        """A State that changed without an operation: durable, visible, told."""
        self._vms.put(vm.dump())
        with self._lock:
            self._show(slot, vm)
        self._tell(VmEvent(vm.vmid, self.get(vm.vmid), spontaneous=True))


def open_engine(
    database: Database,
    hypervisor: Hypervisor,
    images: ImageService,
    config: VmConfig,
    state_dir: Path,
    *,
    sharing: Sharing | None = None,
    others_pause: bool = False,
) -> VmEngine:
    """The engine of this dom0, not yet started; VMs' files lie below ``state_dir``. ``sharing``: by default as
    :func:`open_sharing` gives it. ``others_pause``: see :class:`Services`."""
    files = VmFiles(state_dir, reserve=config.storage_reserve, delete_policy=config.delete_policy)
    boot_id = HOST_BOOT_ID.read_text(encoding="ascii").strip()
    sharing = sharing or open_sharing(database, hypervisor, config, ResourcesConfig(), state_dir)
    enforcer, admission = sharing.enforcer, sharing.admission
    services = Services(
        hypervisor, files, images, config, Hints(), boot_id, enforcer, admission, others_pause=others_pause
    )
    return VmEngine(services, database)
