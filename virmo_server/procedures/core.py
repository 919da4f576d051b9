"""What a procedure is made of: steps that give commands and judge their answers. No I/O, no clock, no database.

A procedure is a table of steps. The engine (``orders.engine``) sends a step's commands, hands the answers to its
``judge`` and does what the decision says; it persists everything between, so that a procedure continues over messages,
sessions and restarts of the server. A step must therefore bear being sent again: where the first sending may or may not
have worked ("in doubt"), ``if_doubtful`` names the step that finds out by reading the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dom0_agent.omadm.node import Command, Format
from dom0_agent.omadm.status import Status

#: JSON that a procedure carries from step to step.
Memory = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DmCommand:
    """One command for the device. ``format`` and ``type`` of ``None`` mean the defaults (chr, text/plain)."""

    verb: Command
    uri: str
    data: str = ""
    format: Format | None = None
    type: str | None = None
    correlator: str | None = None

    def describe(self) -> str:
        """For people, without values."""
        return f"{self.verb.value} {self.uri}"


@dataclass(frozen=True, slots=True)
class ReadNode:
    """A node as a Get answered it. ``value`` is ``None`` for interior nodes listed without data."""

    uri: str
    value: str | None
    format: str = "chr"
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the device answered to one command."""

    command: DmCommand
    status: int
    nodes: tuple[ReadNode, ...] = ()

    @property
    def ok(self) -> bool:
        """A success code; 202 is none: it only promises an end."""
        return self.status == Status.OK

    def value(self) -> str | None:
        """The value of the node that a successful Get asked for."""
        return self.nodes[0].value if self.ok and self.nodes else None


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a step may look at."""

    params: Mapping[str, Any]
    memory: Memory
    correlator: str
    virmo_root: str
    vmimg_root: str
    doubtful: bool = False  #: an earlier sending of this or an earlier step was never answered


@dataclass(frozen=True, slots=True)
class Go:
    """Continue with ``step``. ``note`` goes into the audit trail."""

    step: str
    remember: Memory = field(default_factory=dict)
    note: str = ""
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Await:
    """The device will report the end by a Generic Alert; until then ``poll`` is sent once in each new session."""

    poll: str
    remember: Memory = field(default_factory=dict)
    note: str = ""
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The order is fulfilled."""

    message: str = ""
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """The order cannot be fulfilled. ``status`` is the DM status that decided it, if it was one."""

    message: str
    status: int | None = None


Decision = Go | Await | Done | Fail


#: As ``Step.if_doubtful``: nobody can find out whether it was done, so the order fails and says so.
UNKNOWABLE = "unknowable"


@dataclass(frozen=True, slots=True)
class Step:
    """``commands`` are executed by the device in this order; ``judge`` gets one outcome for each."""

    commands: Callable[[Situation], Sequence[DmCommand]]
    judge: Callable[[Situation, Sequence[Outcome]], Decision]
    if_doubtful: str | None = None


#: Data of the alert's end code, 200 for the Image Ready Alert.
AlertJudge = Callable[[Situation, int], Decision]


@dataclass(frozen=True, slots=True)
class Procedure:
    """Steps by name, where to begin, and what to do when the awaited alert comes."""

    first: str
    steps: Mapping[str, Step]
    on_alert: AlertJudge | None = None


def get(uri: str) -> DmCommand:
    """A Get."""
    return DmCommand(Command.GET, uri)


def add_interior(uri: str) -> DmCommand:
    """An Add of an interior node."""
    return DmCommand(Command.ADD, uri, format=Format.NODE)


def replace(uri: str, value: str) -> DmCommand:
    """A Replace of a chr leaf."""
    return DmCommand(Command.REPLACE, uri, value, format=Format.CHR)


def execute(situation: Situation, uri: str) -> list[DmCommand]:
    """An Exec without data; the correlator leads the alert of its end to the order."""
    return [DmCommand(Command.EXEC, uri, format=Format.NULL, correlator=situation.correlator)]


def judge_exec(
    situation: Situation,
    outcome: Outcome,
    on_alert: AlertJudge,
    ended: Callable[[Outcome], Decision],
    *,
    may_be_running: bool = False,
) -> Decision:
    """What an answer to :func:`execute` means; ``ended`` judges one that is the operation's end.

    ``may_be_running``: a device that is busy there after a lost session is busy with the first Exec, which carried the
    same correlator.
    """
    if "alert_status" in situation.memory:  # some clients send the alert before the Status (``oma-dm`` 15)
        return on_alert(situation, int(situation.memory["alert_status"]))
    if outcome.status == Status.ACCEPTED:
        remember = {"status": outcome.status}
        return Await("poll", remember, "accepted: the device will report the end", outcome.status)
    if may_be_running and situation.doubtful and outcome.status == Status.RETRY_LATER:
        return Await("poll", {"status": Status.ACCEPTED}, "the device is still at it since the lost session")
    return ended(outcome)


def read_after(words: str) -> Callable[[Outcome], Decision]:
    """For :func:`judge_exec`: whatever the answer was, what the device shows decides. ``words`` name the operation."""
    return lambda outcome: Go(
        "read", {"status": outcome.status}, f"{words}: {status_words(outcome.status)}", outcome.status
    )


def failed_outcomes(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The first command that did not succeed."""
    return next((outcome for outcome in outcomes if not outcome.ok), None)


def refused(outcome: Outcome) -> Fail:
    """The device refused this command."""
    return Fail(f"the device refused {outcome.command.describe()}: {status_words(outcome.status)}", outcome.status)


def status_words(status: int) -> str:
    """A DM status code with its meaning, ``405 not allowed (wrong state?)``."""
    words = _WORDS.get(status)
    if words is None:
        words = "success" if 200 <= status < 300 else "unknown code"
    return f"{status} {words}"


_WORDS: Mapping[int, str] = {
    Status.OK: "done",
    Status.ACCEPTED: "accepted, the end will be reported later",
    Status.AUTHENTICATED: "authenticated",
    Status.CANCELLED: "cancelled on the device",
    Status.NOT_EXECUTED: "not executed",
    Status.ROLLED_BACK: "rolled back",
    Status.NOT_MODIFIED: "not modified",
    Status.BAD_REQUEST: "bad request",
    Status.UNAUTHORIZED: "credentials are wrong",
    Status.FORBIDDEN: "forbidden at present",
    Status.NOT_FOUND: "not found on the device",
    Status.NOT_ALLOWED: "not allowed in the present state",
    Status.NOT_SUPPORTED: "not supported by the device",
    Status.AUTHENTICATION_REQUIRED: "credentials are missing",
    Status.TIMEOUT: "timed out on the device",
    Status.SIZE_REQUIRED: "size is missing",
    Status.INCOMPLETE: "incomplete or malformed value",
    Status.TOO_LARGE: "too large for the device",
    Status.URI_TOO_LONG: "URI too long for the device",
    Status.UNSUPPORTED_FORMAT: "unsupported media type or format",
    Status.SIZE_TOO_BIG: "requested size too big",
    Status.RETRY_LATER: "the device is busy with another operation there",
    Status.ALREADY_EXISTS: "exists already",
    Status.DEVICE_FULL: "the device has not enough resources (storage, RAM or CPU)",
    Status.SIZE_MISMATCH: "size or checksum mismatch",
    Status.PERMISSION_DENIED: "this server has no right to it (ACL)",
    Status.COMMAND_FAILED: "the device tried and failed",
    Status.NOT_IMPLEMENTED: "not implemented by the device",
    Status.SERVICE_UNAVAILABLE: "service unavailable",
    Status.DTD_NOT_SUPPORTED: "DTD version not supported",
    Status.PROCESSING_ERROR: "processing error",
    Status.ATOMIC_FAILED: "atomic failed",
    Status.DATA_STORE_FAILURE: "storage failure on the device",
    Status.PROTOCOL_NOT_SUPPORTED: "protocol version not supported",
    Status.ROLL_BACK_FAILED: "could not be rolled back",
    Status.ATOMIC_RESPONSE_TOO_LARGE: "atomic response too large",
}
