"""UI/Command, ExecUICmd, UI/Result: asks the user of a VM through its shim (OMA-ER-VirMO 11.2.2, R-148 to R-158).

The command is an ``Alert`` of OMA DM as text, the result a ``Status``; the question between them is the one that dom0's
own user interaction uses. What the person says is only in UI/Result, the Exec says whether asking worked (A-47).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from dom0_agent.guest.interface import GuestAbsent, GuestAnswer, GuestError, GuestRequest, GuestTimeout
from dom0_agent.mo.dmtree.forwarded import MESSAGE_CAP, Surroundings
from dom0_agent.mo.dmtree.work import Ended, Report
from dom0_agent.mo.virmo_nodes import XML_TYPES
from dom0_agent.omadm import commands as c
from dom0_agent.omadm.alerts import USER_INTERACTION, AlertCode
from dom0_agent.omadm.interaction import Answer, Outcome, Question, answer_items, question_from
from dom0_agent.omadm.mo import ExecOutcome, ExecRequest, Path
from dom0_agent.omadm.node import Format, Value
from dom0_agent.omadm.reader import body_element_from
from dom0_agent.omadm.status import DMError, ProtocolError, Status
from dom0_agent.omadm.xml import XmlCodec, parse_untrusted
from dom0_agent.operation import OperationRefused, Origin
from dom0_agent.reporting import OPERATION_COMPLETE
from dom0_agent.vm.model import VmRecord, VmState

PURPOSE = "ui"
CAPABILITY = "ui"  #: in the shim's hello: it has somebody to ask
#: seconds that a person has when the command does not say (MAXDT)
PATIENCE = 300
#: seconds beyond that for the shim to answer
GRACE = 15.0

#: AlertCode → what the shim is told
KINDS = {
    AlertCode.DISPLAY: "display",
    AlertCode.CONFIRM_OR_REJECT: "confirm",
    AlertCode.TEXT_INPUT: "text",
    AlertCode.SINGLE_CHOICE: "choice",
    AlertCode.MULTIPLE_CHOICE: "choices",
}
#: what the shim says → how the question ended
OUTCOMES = {
    "answered": Outcome.ANSWERED,
    "rejected": Outcome.REJECTED,
    "cancelled": Outcome.CANCELLED,
    "timeout": Outcome.TIMED_OUT,
    "not-displayable": Outcome.NOT_DISPLAYABLE,
}


class Interaction:
    """Carries out UI commands: called with the VM's record and the Exec, it is ``VirMO``'s ``interact``."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings

    def __call__(self, record: VmRecord, request: ExecRequest) -> ExecOutcome:
        """Ask; the answer is in UI/Result when this is 200, or when the alert after a 202 comes (R-157)."""
        around, entry = self._around, request.path[:2]
        command = around.tree.stored_value((*entry, "UI", "Command")) or ""
        alert = parse_command(command, request.uri)
        question = question_from(alert)
        self._need_somebody(record, request.uri)
        around.tree.device_set((*entry, "UI", "Result"), _xml(""))
        origin = Origin(request.server_id, request.uri, request.correlator)
        report = Report(OPERATION_COMPLETE, request.uri, Status.COMMAND_FAILED)
        try:
            handle = around.work.begin(
                record.vmid, PURPOSE, origin, report, lambda: self._ask(record.vmid, entry, alert, question)
            )
        except OperationRefused as refusal:
            raise DMError(refusal.status, str(refusal)) from refusal
        result = handle.wait(around.answer_limit)
        around.tasks.settle()
        if result is None:
            return ExecOutcome(Status.ACCEPTED)
        if not result.ok:
            raise DMError(result.status, result.message)
        return ExecOutcome(result.status)

    def _need_somebody(self, record: VmRecord, uri: str) -> None:
        if record.state is not VmState.RUNNING:
            raise DMError(Status.FORBIDDEN, f"{uri} needs the VM Running, but it is {record.state.name} (A-49)")
        hello = self._around.guests.hello(record.vmid)
        if hello is None:
            raise DMError(Status.SERVICE_UNAVAILABLE, f"{uri}: no shim is connected in the guest")
        if CAPABILITY not in hello.capabilities:
            raise DMError(Status.NOT_SUPPORTED, f"{uri}: the guest has nothing to ask a person with")

    def _ask(self, vmid: UUID, entry: Path, alert: c.Alert, question: Question) -> Ended:
        """In a worker."""
        seconds = question.max_display or PATIENCE
        asked = GuestRequest("ask", question_fields(question, seconds))
        try:
            reply = self._around.guests.request(vmid, asked, deadline=seconds + GRACE)
            answer = answer_from(question, reply)
        except GuestTimeout:
            answer = Answer(Outcome.TIMED_OUT)
        except GuestAbsent as error:
            return Ended(Status.SERVICE_UNAVAILABLE, str(error))
        except GuestError as error:
            return Ended(Status.COMMAND_FAILED, str(error))
        if answer is None:
            words = " ".join(str(reply.fields.get("error", ""))[:MESSAGE_CAP].split())
            return Ended(Status.COMMAND_FAILED, f"the guest could not ask: {words} (status {reply.status})")
        result = _xml(status_text(alert, question, answer))
        self._around.tasks.post(lambda: self._set_result(entry, result))
        return Ended(Status.OK)

    def _set_result(self, entry: Path, result: Value) -> None:
        path = (*entry, "UI", "Result")
        if self._around.tree.exists(path):
            self._around.tree.device_set(path, result)


def parse_command(untrusted_text: str, uri: str) -> c.Alert:
    """The Alert in UI/Command; :class:`DMError` 412 empty or malformed, 406 something else than 1100 to 1104 (A-45)."""
    text = untrusted_text.strip()
    if not text:
        raise DMError(Status.INCOMPLETE, f"{uri}: UI/Command is empty: set it first (R-151)")
    try:
        command = body_element_from(parse_untrusted(text.encode()))
    except ProtocolError as error:
        raise DMError(Status.INCOMPLETE, f"{uri}: UI/Command cannot be read: {error}") from error
    if not isinstance(command, c.Alert) or command.code not in USER_INTERACTION:
        raise DMError(Status.NOT_SUPPORTED, f"{uri}: UI/Command must be an Alert of 1100 to 1104")
    return command


def question_fields(question: Question, seconds: int) -> dict[str, Any]:
    """The question as it travels to the shim; ``seconds`` is how long the person has."""
    return {
        "kind": KINDS[question.kind],
        "text": question.text,
        "choices": list(question.choices),
        "min": question.min_display or 0,
        "max": seconds,
        "default": question.default or "",
        "selected": list(question.default_choices),
        "length": question.max_length or 0,
        "input": question.input_type.value,
        "masked": question.masked,
    }


def answer_from(question: Question, reply: GuestAnswer) -> Answer | None:
    """What the shim says that the person did; ``None`` when it says something that cannot be."""
    untrusted: Mapping[str, Any] = reply.fields
    outcome = OUTCOMES.get(str(untrusted.get("outcome")))
    if reply.status != Status.OK or outcome is None:
        return None
    if outcome is not Outcome.ANSWERED:
        return Answer(outcome)
    text, selected = untrusted.get("text", ""), untrusted.get("selected", [])
    if not isinstance(text, str) or not isinstance(selected, list):
        return None
    numbers = tuple(number for number in selected if type(number) is int and 1 <= number <= len(question.choices))
    if len(numbers) != len(selected) or (question.kind is AlertCode.SINGLE_CHOICE and len(numbers) != 1):
        return None
    cap = question.max_length or 4096
    if len(text) > cap:
        return None
    return Answer(outcome, text, numbers)


def status_text(alert: c.Alert, question: Question, answer: Answer) -> str:
    """UI/Result: the Status of the Alert (R-150, A-46)."""
    status = c.Status(
        cmd_id=alert.cmd_id,
        msg_ref=1,
        cmd_ref=alert.cmd_id,
        cmd="Alert",
        code=int(answer.outcome.value),
        items=answer_items(question, answer),
    )
    return XmlCodec().fragment(status, alert.cmd_id).decode()


def _xml(text: str) -> Value:
    return Value(text, Format.XML, XML_TYPES[0])
