"""Asks the person in front of this guest: the question from dom0, the way to a person that this guest has, the answer.

Ways (``/etc/virmo/ui`` names one, else the first that is there): ``program``, the integrator's own executable
``handlers/ui/ask``; ``desktop[:USER]``, zenity in a graphical session; ``whiptail[:TERMINAL]``; ``console[:TERMINAL]``,
text on a terminal; ``none``. Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from guest_shim.dispatch import Answer, Request, ShimError, failure
from guest_shim.places import Places, run, which

logger = logging.getLogger(__name__)

CAPABILITY = "ui"
#: Terminals that a console can be, the one that Xen shows first.
TERMINALS = ("hvc0", "console", "tty1")

ANSWERED, REJECTED, CANCELLED, TIMED_OUT, NOT_DISPLAYABLE = (
    *("answered", "rejected", "cancelled"),
    *("timeout", "not-displayable"),
)

#: What a text may be, by the option IT.
INPUTS = {
    "A": re.compile(r".*", re.DOTALL),
    "N": re.compile(r"[0-9]+"),
    "D": re.compile(r"(0[1-9]|[12][0-9]|3[01])(0[1-9]|1[0-2])[0-9]{4}"),  # DDMMYYYY
    "T": re.compile(r"([01][0-9]|2[0-3])[0-5][0-9]([0-5][0-9])?"),  # hhmmss
    "P": re.compile(r"[0-9+*#pw() -]+"),
    "I": re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}"),
}
INPUT_WORDS = {
    "N": "digits",
    "D": "a date, DDMMYYYY",
    "T": "a time, hhmmss",
    "P": "a phone number",
    "I": "an IP address",
}


@dataclass(frozen=True)
class Question:
    """What dom0 wants to know; times in seconds, choices count from 1."""

    kind: str  #: display, confirm, text, choice or choices
    text: str
    choices: tuple[str, ...]
    shortest: int  #: that a text is to be shown at least
    longest: int  #: that the person has
    default: str
    selected: tuple[int, ...]
    length: int  #: of a text; 0: any
    input: str
    masked: bool

    def refuses(self, text: str) -> str:
        """Why ``text`` is no answer; empty: it is one."""
        if self.length and len(text) > self.length:
            return f"at most {self.length} characters"
        if not INPUTS[self.input].fullmatch(text):
            return INPUT_WORDS[self.input]
        return ""


@dataclass(frozen=True)
class Reply:
    """What the person did."""

    outcome: str
    text: str = ""
    selected: tuple[int, ...] = ()


Way = Callable[[Question, threading.Event], Reply]


def question_from(untrusted: Mapping[str, Any]) -> Question:
    """The question in a request. :class:`ValueError`, :class:`KeyError` or :class:`TypeError` when it is none."""
    kind = str(untrusted["kind"])
    if kind not in ("display", "confirm", "text", "choice", "choices"):
        raise ValueError(f"no kind of question: {kind!r}")
    return Question(
        kind=kind,
        text=printable(str(untrusted["text"])),
        choices=tuple(printable(str(choice)) for choice in untrusted.get("choices", ())),
        shortest=int(untrusted.get("min", 0)),
        longest=int(untrusted.get("max", 0)) or 300,
        default=printable(str(untrusted.get("default", ""))),
        selected=tuple(int(number) for number in untrusted.get("selected", ())),
        length=int(untrusted.get("length", 0)),
        input=untrusted["input"] if untrusted.get("input") in INPUTS else "A",
        masked=bool(untrusted.get("masked")),
    )


def printable(text: str) -> str:
    """Without what a terminal would take as a command."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


class Ask:
    """The verb ``ask``. One question at a time: a person has one screen."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._one = threading.Lock()

    def way(self) -> Way | None:
        """How a person can be asked here and now; ``None``: not at all."""
        kind, _, rest = self._configured().partition(":")
        if kind in ("", "program") and os.access(self._program, os.X_OK):
            return self._ask_program
        if kind in ("", "desktop") and which("zenity") and (kind or os.environ.get("DISPLAY")):
            from guest_shim.ask_zenity import zenity

            return zenity(rest)
        terminal = self._terminal(rest) if kind in ("", "whiptail", "console") else None
        return None if terminal is None else self._on_terminal(kind, terminal)

    def _on_terminal(self, kind: str, terminal: str) -> Way | None:
        if kind != "console" and which("whiptail"):
            from guest_shim.ask_whiptail import whiptail

            return whiptail(terminal)
        if kind == "whiptail":
            return None
        from guest_shim.ask_console import console

        return console(terminal)

    def answer(self, request: Request) -> Answer:
        """Ask. 406 nobody can be asked, 417 another question is being asked."""
        try:
            question = question_from(request.fields)
        except (KeyError, ValueError, TypeError) as error:
            raise ShimError(412, f"not a question: {error!r}") from None
        way = self.way()
        if way is None:
            raise ShimError(406, "there is nothing to ask a person with: see /etc/virmo/ui")
        if not self._one.acquire(blocking=False):
            return failure(417, "another question is being asked")
        try:
            reply = way(question, request.cancelled)
        finally:
            self._one.release()
        logger.info("asked kind=%s outcome=%s", question.kind, reply.outcome)
        return Answer(200, {"outcome": reply.outcome, "text": reply.text, "selected": list(reply.selected)})

    @property
    def _program(self) -> str:
        return str(self._places.handlers / "ui" / "ask")

    def _configured(self) -> str:
        try:
            return (self._places.settings / "ui").read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return ""

    def _terminal(self, named: str) -> str | None:
        root = str(self._places.root).rstrip("/")
        candidates = [named] if named else [f"{root}/dev/{name}" for name in TERMINALS]
        for candidate in candidates:
            try:
                os.close(os.open(candidate, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
            except OSError:
                continue
            return candidate
        return None

    def _ask_program(self, question: Question, cancelled: threading.Event) -> Reply:
        """The integrator's program: the question as JSON on its standard input, the answer as JSON from its output."""
        del cancelled
        told = json.dumps(
            {
                **{"kind": question.kind, "text": question.text, "choices": question.choices},
                **{"min": question.shortest, "max": question.longest, "default": question.default},
                **{"selected": question.selected, "length": question.length, "input": question.input},
                "masked": question.masked,
            }
        )
        result = run([self._program], deadline=float(question.longest), told=told.encode())
        if result.code == 124:
            return Reply(TIMED_OUT)
        try:
            said = json.loads(result.output)
            selected = tuple(int(number) for number in said.get("selected", ()))
            return Reply(str(said["outcome"]), str(said.get("text", "")), selected)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ShimError(500, f"{self._program} gave no answer ({result.code}): {result.words}") from None
