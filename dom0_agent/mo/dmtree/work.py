"""Operations below DMTree that take time: one queue a VM and purpose, the end as answer or as alert (R-147, A-43).

An operation is in the journal while it runs, so that its end is reported also when the agent ends before it does.
The tree is written by its own thread only: what a worker wants changed there is posted as a task. Must not know which
objects there are.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID
from xml.sax.saxutils import escape

from dom0_agent.omadm.status import DMError, Status
from dom0_agent.operation import OperationHandle, OperationRefused, OperationResult, Origin
from dom0_agent.store.journal import JournalEntry
from dom0_agent.vm.worker import Worker

log = logging.getLogger(__name__)

#: Journal entries of ours begin so; they name no VM, because the VM engine recovers those that do.
JOURNAL_PREFIX = "DMTree:"
LOST = "the agent ended while it was running"


@dataclass(frozen=True, slots=True)
class Ended:
    """How an operation ended: a DM status or a result code of the object, and what it was about."""

    code: int
    message: str = ""
    identifier: str = ""  #: of the component (SCOMO)

    @property
    def ok(self) -> bool:
        """200 to 299, and 1200 to 1299 of the objects that count from 1000."""
        return self.code % 1000 // 100 == 2


@dataclass(frozen=True, slots=True)
class Report:
    """The Generic Alert that tells the end of an operation that was answered 202."""

    alert_type: str
    source_uri: str  #: with the full ``./VirMO/<x>/…`` path
    lost_code: int  #: when the agent ended meanwhile
    as_xml: bool = False  #: Data is SCOMO's fragment, not a number
    always: bool = False  #: also when the Exec was answered with the end (FUMO)


class AlertBox(Protocol):
    """Where alerts wait for their server; see ``store.outbox``."""

    def add(
        self,
        server_id: str,
        alert_type: str,
        *,
        source_uri: str,
        format: str = "chr",  # noqa: A002 - the specification's word
        data: str = "",
        mark: str | None = None,
        correlator: str | None = None,
    ) -> int:
        """Queue one, durably."""


class OperationJournal(Protocol):
    """What survives the agent; see ``store.journal``."""

    def begin(self, primitive: str, steps: tuple[str, ...], *, origin: Origin | None, params: dict[str, object]) -> str:
        """A new operation; its id."""

    def finish(self, operation_id: str) -> None:
        """It is over."""

    def unfinished(self) -> tuple[JournalEntry, ...]:
        """Those that are not."""


class TreeTasks:
    """What is to be done in the thread that owns the tree. ``wake`` (any thread) makes it call :meth:`settle` soon."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._tasks: deque[Callable[[], None]] = deque()
        self._wake = wake

    def post(self, task: Callable[[], None]) -> None:
        """Do ``task`` in the tree's thread. Any thread."""
        self._tasks.append(task)
        self._wake()

    def settle(self) -> None:
        """Do what was posted. The tree's thread only; a task that the tree refuses is logged and dropped."""
        while self._tasks:
            task = self._tasks.popleft()
            try:
                task()
            except DMError as error:
                log.warning("event=tree_task_refused status=%d reason=%r", error.status, str(error))


class GuestWork:
    """All queues. Thread-safe."""

    def __init__(self, alerts: AlertBox, journal: OperationJournal, told: Callable[[], None]) -> None:
        """``told`` (any thread): an alert waits, a session with its server is due."""
        self._told = told
        self._alerts = alerts
        self._journal = journal
        self._lock = threading.Lock()
        self._workers: dict[tuple[UUID, str], Worker] = {}
        self._running: set[tuple[UUID, str]] = set()
        self._ending = threading.Lock()  #: held while an end is written down
        self._closed = False

    def put(self, vmid: UUID, purpose: str, job: Callable[[], None]) -> None:
        """Do ``job`` after what is queued for that VM and purpose."""
        with self._lock:
            worker = self._workers.setdefault((vmid, purpose), Worker(f"guest-{purpose.rpartition(':')[2]}-{vmid}"))
        worker.put(job)

    def begin(
        self, vmid: UUID, purpose: str, origin: Origin, report: Report, job: Callable[[], Ended]
    ) -> OperationHandle:
        """Run ``job``; its end goes to who waits for the handle, else into an alert.

        :class:`OperationRefused` 417 while another operation of that purpose runs on the VM.
        """
        key = (vmid, purpose)
        with self._lock:
            if key in self._running:
                raise OperationRefused(
                    Status.RETRY_LATER, f"{origin.uri} has to wait: another operation is running; try again later"
                )
            self._running.add(key)
        handle = OperationHandle(origin)
        try:
            entry = self._journal.begin(
                JOURNAL_PREFIX + purpose,
                (),
                origin=origin,
                params={
                    "alert_type": report.alert_type,
                    "source_uri": report.source_uri,
                    "lost_code": report.lost_code,
                    "as_xml": report.as_xml,
                },
            )
        except BaseException:
            with self._lock:
                self._running.discard(key)
            raise
        self.put(vmid, purpose, lambda: self._perform(key, entry, handle, report, job))
        return handle

    def is_running(self, vmid: UUID, purpose: str) -> bool:
        """Whether an operation of that purpose runs."""
        with self._lock:
            return (vmid, purpose) in self._running

    def recover(self) -> None:
        """At start: report what was running when the agent ended last time as lost."""
        for entry in self._journal.unfinished():
            if entry.primitive.startswith(JOURNAL_PREFIX) and entry.origin is not None:
                params = entry.params
                lost = Report(
                    str(params["alert_type"]),
                    str(params["source_uri"]),
                    int(str(params["lost_code"])),
                    as_xml=bool(params["as_xml"]),
                )
                log.warning("event=operation_lost node=%s reason=%r", entry.origin.uri, LOST)
                self._tell(entry.origin, lost, Ended(lost.lost_code, LOST))
                self._journal.finish(entry.operation_id)

    def close(self, seconds: float) -> None:
        """Give what runs ``seconds`` to end; what ends later is not written down, but reported at the next start."""
        self.drain(seconds)
        with self._ending:
            self._closed = True

    def drain(self, seconds: float) -> bool:
        """Wait until nothing is queued; ``False`` when that took longer."""
        with self._lock:
            workers = list(self._workers.values())
        return all(worker.join(seconds) for worker in workers)

    def _perform(
        self, key: tuple[UUID, str], entry: str, handle: OperationHandle, report: Report, job: Callable[[], Ended]
    ) -> None:
        ended = Ended(report.lost_code, "an internal error; the agent's log tells more")
        try:
            ended = job()
        finally:
            with self._lock:
                self._running.discard(key)
            self._conclude(entry, handle, report, ended)

    def _conclude(self, entry: str, handle: OperationHandle, report: Report, ended: Ended) -> None:
        origin = handle.origin
        assert origin is not None
        log.info("event=guest_operation node=%s code=%d message=%r", origin.uri, ended.code, ended.message)
        with self._ending:
            if self._closed:  # the journal knows it, and the next start reports it
                return
            if handle.finish(OperationResult(ended.code, ended.message)) or report.always:
                self._tell(origin, report, ended)
            self._journal.finish(entry)

    def _tell(self, origin: Origin, report: Report, ended: Ended) -> None:
        data = str(ended.code)
        if report.as_xml:
            data = f"<ResultCode>{ended.code}</ResultCode><Identifier>{escape(ended.identifier)}</Identifier>"
        self._alerts.add(
            origin.server_id,
            report.alert_type,
            source_uri=report.source_uri,
            format="xml" if report.as_xml else "int",
            data=data,
            mark="informational" if ended.ok else "warning",
            correlator=origin.correlator,
        )
        self._told()
