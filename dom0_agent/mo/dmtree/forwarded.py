"""A management object below ``VirMO/<x>/DMTree``: the tree keeps its nodes, the VM's shim does what it says.

What is common to all kinds: live nodes are asked for at a Get, configuration is pushed when it has changed durably (so
that an Atomic that is rolled back never reaches the guest), operations need a Running VM whose shim serves them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from dom0_agent.guest.interface import GuestAnswer, GuestError, GuestRequest, Guests
from dom0_agent.mo.dmtree.mirror import Mirror
from dom0_agent.mo.dmtree.nodes import GuestObject, fits
from dom0_agent.mo.dmtree.work import Ended, GuestWork, Report, TreeTasks
from dom0_agent.omadm.mo import Change, ExecOutcome, ExecRequest, Path, Undo
from dom0_agent.omadm.node import NodeDef, Value
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.uri import format_path
from dom0_agent.operation import OperationHandle, OperationRefused, Origin
from dom0_agent.vm.model import VmRecord, VmService, VmState

log = logging.getLogger(__name__)

OPERATION_DEADLINE = 900.0  #: seconds that a guest has for one operation
PUSH_DEADLINE = 30.0  #: seconds that it has to take its configuration
READ_DEADLINE = 10.0  #: seconds that it has to say its live nodes, when no session waits
MESSAGE_CAP = 400  #: characters of what a guest says for people


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the objects work with."""

    tree: ManagementTree
    vms: VmService
    guests: Guests
    mirror: Mirror
    work: GuestWork
    tasks: TreeTasks
    answer_limit: float  #: seconds before an Exec is answered 202


class ForwardedObject:
    """ManagementObject for one MO of one VM."""

    def __init__(self, kind: GuestObject, mount: Path, surroundings: Surroundings) -> None:
        self.kind = kind
        self.mount = mount
        self.around = surroundings

    @property
    def moid(self) -> str:
        """Type of the root."""
        return self.kind.moid

    @property
    def definition(self) -> NodeDef:
        """The object's node table."""
        return self.kind.definition

    def read(self, path: Path) -> Value | None:
        """Never asked: all nodes are stored."""
        del path
        return None

    def initial(self, path: Path) -> Value | None:
        """The table's defaults serve."""
        del path
        return None

    def prepare(self, change: Change) -> Undo | None:
        """Nothing reaches the guest before it is durable."""
        del change
        return None

    def committed(self, changes: Sequence[Change]) -> None:
        """Tell the guest when its configuration has changed."""
        if any(self.kind.is_configuration(change.path[len(self.mount) :]) for change in changes):
            self.push()

    def refresh(self) -> None:
        """The server is about to read: ask the guest, if it runs (A-41)."""
        record = self.record()
        if record is not None and record.state is VmState.RUNNING:
            self.around.mirror.refresh(record.vmid, self.kind, self.mount)

    def execute(self, request: ExecRequest) -> ExecOutcome:
        """Run an operation; past the answer limit 202, and its end is an alert (R-147, A-43)."""
        path = request.path[len(self.mount) :]
        origin = Origin(request.server_id, request.uri, request.correlator)
        try:
            handle = self.begin(self.needed_record(request), path, request, origin)
        except OperationRefused as refusal:
            raise DMError(refusal.status, str(refusal)) from refusal
        result = handle.wait(self.around.answer_limit)
        self.around.tasks.settle()
        if result is None:
            return ExecOutcome(Status.ACCEPTED)
        if not Ended(result.status).ok:
            raise DMError(result.status, result.message)
        return ExecOutcome(result.status)

    def begin(self, record: VmRecord, path: Path, request: ExecRequest, origin: Origin) -> OperationHandle:
        """Begin the operation at ``path`` (below the root); :class:`DMError` or OperationRefused when it cannot be."""
        pattern = next((pattern for pattern in self.kind.forwarded if fits(pattern, path)), None)
        if pattern is None:
            raise DMError(Status.NOT_SUPPORTED, f"{request.uri} is not available on this device")
        failed = self.kind.forwarded[pattern]
        self.need_guest(record, path, request.uri)
        data = request.data.encode() if isinstance(request.data, str) else request.data
        question = GuestRequest("exec", {"moid": self.moid, "node": "/".join(path), **self.details(path)}, data)
        return self.run(record.vmid, origin, lambda: self.forward(record.vmid, question, failed))

    def details(self, path: Path) -> dict[str, str]:
        """What the guest is told with an operation, beside its node."""
        del path
        return {}

    # -- parts for the kinds ---------------------------------------------------------------------------------------

    def record(self) -> VmRecord | None:
        """The VM that this object belongs to (R-146)."""
        vmid = self.around.tree.stored_value((*self.mount[:2], "VMID"))
        return self.around.vms.get(UUID(vmid)) if vmid else None

    def needed_record(self, request: ExecRequest) -> VmRecord:
        """As :meth:`record`; :class:`DMError` 500 when the device does not know the VM."""
        record = self.record()
        if record is None:
            raise DMError(Status.COMMAND_FAILED, f"{request.uri}: the VM of this sub-tree is unknown to the device")
        return record

    def need_guest(self, record: VmRecord, path: Path, uri: str) -> None:
        """:class:`DMError` 403 not Running (A-41), 503 no shim is connected, 406 the shim does not serve this."""
        if record.state is not VmState.RUNNING:
            raise DMError(Status.FORBIDDEN, f"{uri} needs the VM Running, but it is {record.state.name}")
        hello = self.around.guests.hello(record.vmid)
        if hello is None:
            raise DMError(
                Status.SERVICE_UNAVAILABLE,
                f"{uri}: no shim is connected in the guest: is virmo-guest-shim installed and started there?",
            )
        operations = [served.operations for served in hello.objects if served.moid == self.moid]
        if not any(fits(tuple(node.split("/")), path) for nodes in operations for node in nodes):
            raise DMError(Status.NOT_SUPPORTED, f"{uri}: the guest's shim (version {hello.shim_version}) cannot do it")

    def run(
        self, vmid: UUID, origin: Origin, job: Callable[[], Ended], *, lost_code: int | None = None
    ) -> OperationHandle:
        """Run ``job`` in the VM's worker for this kind of object."""
        report = self.report(origin)
        if lost_code is not None:
            report = Report(report.alert_type, report.source_uri, lost_code, report.as_xml, report.always)
        return self.around.work.begin(vmid, self.moid, origin, report, job)

    def report(self, origin: Origin) -> Report:
        """How the end is told when nobody waits."""
        return Report(self.kind.alert_type, origin.uri, self.kind.client_error)

    def forward(self, vmid: UUID, question: GuestRequest, failed: int) -> Ended:
        """In a worker: ask the guest to do it, then see what that changed."""
        try:
            answer = self.around.guests.request(vmid, question, deadline=OPERATION_DEADLINE)
        except GuestError as error:
            return Ended(failed, str(error))
        self.look(vmid)
        return ended(answer, failed)

    def look(self, vmid: UUID) -> None:
        """In a worker: read the live nodes and post them to the tree."""
        if not self.kind.live:
            return
        try:
            untrusted = self.around.mirror.ask(vmid, self.kind, READ_DEADLINE)
        except GuestError as error:
            log.warning("event=live_nodes_old vm=%s node=%s reason=%r", vmid, format_path(self.mount), str(error))
            return
        if untrusted is not None:
            self.around.tasks.post(lambda: self._apply(untrusted))

    def _apply(self, untrusted: dict[str, str]) -> None:
        if self.around.tree.exists(self.mount):
            self.around.mirror.apply(self.kind, self.mount, untrusted)

    def connected(self) -> None:
        """The VM's shim said hello: it gets its configuration, and tells its state. In the tree's thread."""
        record = self.record()
        if record is not None and self.around.mirror.served(record.vmid, self.kind):
            self.around.mirror.stale(self.mount)
            vmid = record.vmid
            self.push()
            self.around.work.put(vmid, self.moid, lambda: self.look(vmid))

    def push(self) -> None:
        """Send all configuration to the guest, if it is there; else it gets it when it connects."""
        record = self.record()
        if record is None or not self.kind.configuration or not self.around.mirror.served(record.vmid, self.kind):
            return
        vmid = record.vmid
        question = GuestRequest("configure", {"moid": self.moid}, json.dumps(self.configuration()).encode())

        def tell() -> None:
            try:
                answer = self.around.guests.request(vmid, question, deadline=PUSH_DEADLINE)
            except GuestError as error:
                log.warning("event=configuration_waits vm=%s moid=%s reason=%r", vmid, self.moid, str(error))
                return
            if answer.status != Status.OK:
                log.warning("event=configuration_refused vm=%s moid=%s status=%d", vmid, self.moid, answer.status)

        self.around.work.put(vmid, self.moid, tell)

    def configuration(self) -> dict[str, str]:
        """All configuration leaves that there are, path below the root → value."""
        found: dict[str, str] = {}
        for pattern in self.kind.configuration:
            for path in self._existing((), pattern):
                value = self.around.tree.stored_value((*self.mount, *path))
                if value is not None:
                    found["/".join(path)] = value
        return found

    def _existing(self, path: Path, pattern: Path) -> list[Path]:
        if len(path) == len(pattern):
            return [path]
        names: tuple[str, ...] = (pattern[len(path)],)
        if names == ("*",):
            names = self.around.tree.children((*self.mount, *path))
        return [found for name in names for found in self._existing((*path, name), pattern)]


def ended(answer: GuestAnswer, failed: int) -> Ended:
    """A guest's answer to an operation, with its words cut short and on one line."""
    untrusted_words = answer.fields.get("error") or answer.fields.get("message") or ""
    untrusted_identifier = answer.fields.get("identifier") or ""
    words = " ".join(str(untrusted_words)[:MESSAGE_CAP].split())
    code = answer.status
    if not Ended(code).ok and code < 1000 <= failed:  # the shim's own status: the object has a code of its own
        words, code = f"{words} (status {code})", failed
    return Ended(code, words, str(untrusted_identifier)[:MESSAGE_CAP])
