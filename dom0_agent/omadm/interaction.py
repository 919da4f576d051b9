"""User interaction alerts 1100-1104: from an Alert to a question, from an answer to status and Items (digest 3.1).

The question goes through :class:`UserInterface`, which a console implements in dom0. Knows no session and no tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol
from urllib.parse import unquote_plus

from dom0_agent.omadm.alerts import AlertCode
from dom0_agent.omadm.commands import Alert, Item
from dom0_agent.omadm.status import DMError, Status

#: Choices of one question; more cannot be shown sensibly (status 416).
MAX_CHOICES = 100
#: Characters of any one text of a question.
MAX_TEXT = 4096
#: Longest MAXDT and MINDT honoured (seconds): the session waits meanwhile.
MAX_SECONDS = 3600


class InputType(StrEnum):
    """Option ``IT``: what a text input accepts."""

    ALPHANUMERIC = "A"
    NUMERIC = "N"
    DATE = "D"
    TIME = "T"
    PHONE = "P"
    IP_ADDRESS = "I"


@dataclass(frozen=True, slots=True)
class Question:
    """What the user is shown. Times in seconds; ``default`` as the wire has it (``DR``); choices count from 1."""

    kind: AlertCode
    text: str
    choices: tuple[str, ...] = ()
    min_display: int | None = None
    max_display: int | None = None
    default: str | None = None
    max_length: int | None = None
    input_type: InputType = InputType.ALPHANUMERIC
    masked: bool = False

    @property
    def default_choices(self) -> tuple[int, ...]:
        """Indices named by ``DR`` of a choice, those that exist."""
        numbers = (part for part in (self.default or "").split("-") if part.isascii() and part.isdigit())
        return tuple(n for n in map(int, (part[:4] for part in numbers)) if 1 <= n <= len(self.choices))


class Outcome(Enum):
    """How a question ended, with the status it gives its Alert."""

    ANSWERED = Status.OK  #: shown, accepted, or answered
    REJECTED = Status.NOT_MODIFIED  #: "no" to 1101
    CANCELLED = Status.CANCELLED
    TIMED_OUT = Status.TIMEOUT
    NOT_DISPLAYABLE = Status.SIZE_TOO_BIG


@dataclass(frozen=True, slots=True)
class Answer:
    """The user's answer: ``text`` for 1102, ``selected`` (from 1) for 1103 and 1104."""

    outcome: Outcome
    text: str = ""
    selected: tuple[int, ...] = ()


class UserInterface(Protocol):
    """Whoever can ask the device's user. ``ask`` honours ``max_display`` and never waits longer."""

    def ask(self, question: Question) -> Answer:
        """Show the question and wait for the answer."""


def question_from(alert: Alert) -> Question:
    """The question in an Alert; raises :class:`DMError` 412 when malformed and 416 when it cannot be shown."""
    if len(alert.items) < 2:
        raise DMError(Status.INCOMPLETE, f"Alert {alert.code} has {len(alert.items)} Items, at least 2 are needed")
    texts = [_text(item) for item in alert.items]
    choices = tuple(texts[2:])
    kind = AlertCode(alert.code or 0)
    if kind in (AlertCode.SINGLE_CHOICE, AlertCode.MULTIPLE_CHOICE) and not choices:
        raise DMError(Status.INCOMPLETE, f"Alert {alert.code} offers no choices")
    if len(choices) > MAX_CHOICES or any(len(text) > MAX_TEXT for text in texts):
        raise DMError(Status.SIZE_TOO_BIG, f"Alert {alert.code} is too long to be shown")
    options = _options(texts[0])
    text_input = kind is AlertCode.TEXT_INPUT
    return Question(
        kind=kind,
        text=texts[1],
        choices=choices,
        min_display=_positive(options.get("MINDT"), MAX_SECONDS),
        max_display=_positive(options.get("MAXDT"), MAX_SECONDS),
        default=None if kind is AlertCode.DISPLAY else options.get("DR"),
        max_length=_positive(options.get("MAXLEN"), MAX_TEXT) if text_input else None,
        input_type=_input_type(options.get("IT")) if text_input else InputType.ALPHANUMERIC,
        masked=text_input and options.get("ET") == "P",
    )


def answer_items(question: Question, answer: Answer) -> tuple[Item, ...]:
    """The Items that the Status carries: the text, or one Item per selected index; none when nothing was answered."""
    if answer.outcome is not Outcome.ANSWERED:
        return ()
    if question.kind is AlertCode.TEXT_INPUT:
        return (Item(data=answer.text),)
    if question.kind in (AlertCode.SINGLE_CHOICE, AlertCode.MULTIPLE_CHOICE):
        return tuple(Item(data=str(index)) for index in answer.selected)
    return ()


def _text(item: Item) -> str:
    data = item.data
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else data or ""


def _options(untrusted_text: str) -> dict[str, str]:
    """``K=V&K=V``, URL-encoded; what has no ``=`` is skipped (unknown options are skipped by the caller)."""
    pairs = (part.partition("=") for part in untrusted_text.strip().split("&"))
    return {unquote_plus(key).strip(): unquote_plus(value) for key, equals, value in pairs if equals}


def _positive(text: str | None, most: int) -> int | None:
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) == 0:
        return None
    return min(int(text), most)


def _input_type(text: str | None) -> InputType:
    return InputType(text) if text in set(InputType) else InputType.ALPHANUMERIC
