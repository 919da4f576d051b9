"""What a server does with each element of a proved device's message: files answers, hears alerts and DevInfo.

Knows the application and the outcomes; no authentication and no state of a session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.alerts import USER_INTERACTION, AlertCode
from dom0_agent.omadm.largeobject import Assembler, no_end_of_data
from dom0_agent.omadm.outbox import Outbox
from dom0_agent.omadm.server_outcomes import CommandOutcome, CommandRequest, Outcomes
from dom0_agent.omadm.status import Status


class ServerApplication(Protocol):
    """Who decides what a session does. Called within :meth:`ServerSession.receive` only, for proved devices only."""

    def device_info(self, values: Mapping[str, str]) -> None:
        """DevInfo of package 1: node URI to value."""

    def alert(self, alert: c.Alert) -> int:
        """An alert 1200, 1201, 1224 or 1226; the status to answer (200; 202, 406, 412, 415, 500 for 1224 and 1226)."""

    def outcome(self, outcome: CommandOutcome) -> None:
        """What became of a command; a ref comes back exactly once."""

    def commands(self) -> Sequence[CommandRequest]:
        """What to send now; asked when the device has answered all before. Nothing ends the session."""


class Hearing:
    """Hears one device. ``answered`` is what the last message was answered with, in case it has to be said again."""

    def __init__(self, outcomes: Outcomes, assembler: Assembler, outbox: Outbox) -> None:
        self.answered: list[c.BodyElement] = []
        self._outcomes = outcomes
        self._assembler = assembler
        self._outbox = outbox

    def process(self, message: c.Message, our_msg_id: int, application: ServerApplication) -> list[c.BodyElement]:
        """Our answers to the alerts, DevInfo and chunks in ``message``; its Status and Results are filed."""
        answers: list[c.BodyElement] = []
        for command in message.body:
            if isinstance(command, c.Status):
                ref = self._outcomes.take(command, our_msg_id)
                if ref is not None and ref == self._outbox.chunked_ref and command.code != Status.CHUNK_ACCEPTED:
                    self._outbox.drop_chunked()
                continue
            taken = self._assembler.take(command)
            if taken.broken is not None:
                answers.append(no_end_of_data(taken.broken))
            if isinstance(taken.command, c.Results):
                self._outcomes.take(taken.command, our_msg_id)
                continue
            code = taken.status if taken.command is None else _ANSWERS[type(command)](self, command, application)
            assert code is not None  # executed or answered
            answers.append(c.Status("", message.header.msg_id, command.cmd_id, command.NAME, code))
        self.answered = answers
        return answers

    def _alert(self, alert: c.Alert, application: ServerApplication) -> int:
        if alert.code == AlertCode.NEXT_MESSAGE:
            return Status.OK
        if alert.code == AlertCode.NO_END_OF_DATA:
            self._outbox.restart_chunked()
            return Status.OK
        if alert.code is None:
            return Status.INCOMPLETE
        if alert.code in USER_INTERACTION:
            return Status.NOT_SUPPORTED
        return application.alert(alert)

    def _replace(self, command: c.Replace, application: ServerApplication) -> int:
        """DevInfo; a client may replace nothing else."""
        values = {item.source: _text(item.data) for item in command.items if item.source is not None}
        application.device_info(values)
        return Status.OK

    def _not_allowed(self, _command: c.BodyElement, _application: ServerApplication) -> int:
        return Status.NOT_ALLOWED

    def _not_implemented(self, _command: c.BodyElement, _application: ServerApplication) -> int:
        return Status.NOT_IMPLEMENTED


def _text(data: c.Data | None) -> str:
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else data or ""


#: how a command of a device is answered; a device sends alerts, DevInfo, Status and Results, and nothing else
_ANSWERS: dict[type, Callable[..., int]] = {
    c.Alert: Hearing._alert,
    c.Replace: Hearing._replace,
    c.Add: Hearing._not_allowed,
    c.Copy: Hearing._not_allowed,
    c.Delete: Hearing._not_allowed,
    c.Exec: Hearing._not_allowed,
    c.Get: Hearing._not_allowed,
    c.Atomic: Hearing._not_allowed,
    c.Sequence: Hearing._not_allowed,
    c.UnknownCommand: Hearing._not_implemented,
}
