"""Asks with whiptail on a terminal. Must run on Python 3.9 with the standard library alone."""

from __future__ import annotations

import contextlib
import os
import termios
import threading
from collections.abc import Callable, Iterator

from guest_shim.ask import ANSWERED, CANCELLED, NOT_DISPLAYABLE, Question, Reply
from guest_shim.ask_console import silence
from guest_shim.ask_dialogs import TITLE, Shown, converse, negative, shown_by
from guest_shim.dispatch import NOT_SUPPORTED, ShimError

#: Lines of this many characters that fit into a box beside its buttons; more are scrolled.
_LINES, _COLUMNS = 10, 64
_FULL = ("20", "72")
#: whiptail makes a box as large as what is in it, and no larger than the terminal.
_FITTING = ("0", "0")
#: Attributes off, cursor shown, screen empty: where a killed dialog leaves its box and no cursor.
_CLEAN = b"\x1b[0m\x1b[?25h\x1b[H\x1b[2J"
#: The exit status for the Escape key, and for errors, which are told in words.
_ESCAPE = 255


def whiptail(terminal: str) -> Callable[[Question, threading.Event], Reply]:
    """Asks on the terminal with that path."""

    def ask(question: Question, cancelled: threading.Event) -> Reply:
        descriptor = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
        try:
            with silence(terminal), _restored(descriptor):
                return converse(lambda q, end, stop: _show(descriptor, q, end, stop), question, cancelled)
        finally:
            os.close(descriptor)

    return ask


def arguments(question: Question) -> list[str]:
    """The call. Its answer comes on standard error."""
    rows = sum(len(line) // _COLUMNS + 1 for line in question.text.split("\n"))
    size, scrolled = (_FITTING, []) if rows + len(question.choices) <= _LINES else (_FULL, ["--scrolltext"])
    kinds = {
        "display": ["--msgbox"],
        "confirm": [*(["--defaultno"] if question.default == "0" else []), "--yesno"],
        "text": ["--passwordbox" if question.masked else "--inputbox"],
        "choice": ["--separate-output", "--radiolist"],
        "choices": ["--separate-output", "--checklist"],
    }
    more = [question.default] if question.kind == "text" else []
    if question.choices:
        more = [str(min(len(question.choices), _LINES)) if size == _FULL else "0"]
        for number, choice in enumerate(question.choices, 1):
            more += [str(number), choice, "ON" if number in question.selected else "OFF"]
    # nothing after "--" is an option, whatever the server wrote
    return ["whiptail", "--title", TITLE, *scrolled, *kinds[question.kind], "--", question.text, *size, *more]


def _show(descriptor: int, question: Question, end: float, cancelled: threading.Event) -> Shown:
    environment = {"TERM": os.environ.get("TERM", "linux"), "LC_ALL": os.environ.get("LC_ALL", "C.UTF-8")}
    outcomes = {0: ANSWERED, 1: negative(question), _ESCAPE: CANCELLED}
    shown = shown_by(arguments(question), outcomes, end, cancelled, screen=descriptor, environment=environment)
    if shown.outcome == CANCELLED and shown.answer:
        return Shown(NOT_DISPLAYABLE)  # not Escape, but an error message
    return shown


@contextlib.contextmanager
def _restored(descriptor: int) -> Iterator[None]:
    """The terminal's mode and screen as a program wants to find them, also when the dialog was killed."""
    try:
        before = termios.tcgetattr(descriptor)
    except termios.error:
        raise ShimError(NOT_SUPPORTED, "what /etc/virmo/ui names for whiptail is not a terminal") from None
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)
        os.write(descriptor, _CLEAN)
