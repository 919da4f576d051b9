"""Asks the user of dom0 at a terminal: the questions of alerts 1100 to 1104 (OMA-TS-DM 9; ``oma-dm`` digest 3.1).

A line of text for each answer, nothing that a serial console could not show. Ctrl-D cancels. Knows no session; the
session waits meanwhile, so every question has an end: its MAXDT, or :data:`USUAL_WAIT`.
"""

from __future__ import annotations

import logging
import os
import re
import select
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dom0_agent.omadm.alerts import AlertCode
from dom0_agent.omadm.interaction import Answer, InputType, Outcome, Question

log = logging.getLogger(__name__)

USUAL_WAIT = 60.0  #: seconds for the answer to a question without MAXDT
MAX_LINE = 8192  #: octets of an answer; terminals end a line before that

_PATTERNS = {
    InputType.ALPHANUMERIC: (re.compile(r".*", re.DOTALL), "any text"),
    InputType.NUMERIC: (re.compile(r"[+-]?[0-9]*\.?[0-9]*"), "a number"),
    InputType.DATE: (re.compile(r"(0[1-9]|[12][0-9]|3[01])(0[1-9]|1[0-2])[0-9]{4}"), "a date as DDMMYYYY"),
    InputType.TIME: (re.compile(r"([01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]"), "a time as hhmmss"),
    InputType.PHONE: (re.compile(r"\+?[0-9pws]+"), "a phone number"),
    InputType.IP_ADDRESS: (re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}"), "an address as xxx.yyy.zzz.www"),
}
_YES_NO = {"y": Outcome.ANSWERED, "yes": Outcome.ANSWERED, "n": Outcome.REJECTED, "no": Outcome.REJECTED}


class Unusable(ValueError):  # noqa: N818 - it says what the line is
    """What was typed is no answer; the message says what would be one."""


class Console:
    """``UserInterface`` on two file descriptors of a terminal (or of pipes). Not for several threads."""

    def __init__(
        self, read_fd: int, write_fd: int, *, clock: Callable[[], float] = time.monotonic, wait: float = USUAL_WAIT
    ) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._clock = clock
        self._wait = wait
        self._given_up, self._give_up = os.pipe()

    def give_up(self) -> None:
        """Cancel the question that waits, and all that follow. Safe in any thread and in a signal handler."""
        os.write(self._give_up, b".")

    def close(self) -> None:
        """Ask no more; the terminal's own descriptors stay open."""
        os.close(self._given_up)
        os.close(self._give_up)

    def ask(self, question: Question) -> Answer:
        """Show the question and wait for its answer, for MAXDT or :data:`USUAL_WAIT` at most.

        What is typed has to fit (IT, MAXLEN, the choices), otherwise it is asked again. An empty line is the default
        (DR). MINDT needs nothing: a text stays on the screen. ``CANCELLED`` also when the terminal is gone.
        """
        deadline = self._clock() + float(question.max_display or self._wait)
        try:
            with self._typing(masked=question.masked):
                return self._answer(question, deadline)
        except (OSError, termios.error) as error:
            log.warning("event=console_failed reason=%r", str(error))
            return Answer(Outcome.CANCELLED)

    def _answer(self, question: Question, deadline: float) -> Answer:
        self._say(f"\n--- the management server says:\n{_shown(question.text)}")
        for index, choice in enumerate(question.choices, 1):
            self._say(f"  {index}: {_shown(choice)}")
        if question.kind is AlertCode.DISPLAY:
            return Answer(Outcome.ANSWERED)
        while True:
            self._say(_prompt(question), end=" ")
            line = self._line(deadline)
            if isinstance(line, Outcome):
                self._say("(no answer)" if line is Outcome.TIMED_OUT else "(cancelled)")
                return Answer(line)
            try:
                return _PARSE[question.kind](question, line)
            except Unusable as error:
                self._say(f"{error}, please.")

    def _line(self, deadline: float) -> str | Outcome:
        """The next line without its end; ``CANCELLED`` at the end of input, ``TIMED_OUT`` at the deadline."""
        typed = b""
        while not typed.endswith(b"\n"):
            left = deadline - self._clock()
            ready = select.select([self._read_fd, self._given_up], [], [], left)[0] if left > 0 else []
            if not ready:
                return Outcome.TIMED_OUT
            if self._given_up in ready:
                return Outcome.CANCELLED
            part = os.read(self._read_fd, 1)  # no more: what follows the line answers the next question
            if not part or len(typed) > MAX_LINE:
                return Outcome.CANCELLED
            typed += part
        return typed.decode("utf-8", "replace").rstrip("\r\n")

    def _say(self, text: str, end: str = "\n") -> None:
        octets = (text + end).encode()
        while octets:
            octets = octets[os.write(self._write_fd, octets) :]

    @contextmanager
    def _typing(self, *, masked: bool) -> Iterator[None]:
        """Forget what was typed before the question could be read; do not show what is typed if it is ``masked``."""
        if not os.isatty(self._read_fd):
            yield
            return
        termios.tcflush(self._read_fd, termios.TCIFLUSH)
        before = termios.tcgetattr(self._read_fd)
        if masked:
            hidden = [*before]
            hidden[3] = before[3] & ~termios.ECHO | termios.ECHONL
            termios.tcsetattr(self._read_fd, termios.TCSANOW, hidden)
        try:
            yield
        finally:
            with suppress(termios.error):
                termios.tcsetattr(self._read_fd, termios.TCSANOW, before)


def console_at(terminal: Path | None) -> Console | None:
    """The console at ``terminal`` (``/dev/tty2``), ``None`` without one or where it cannot be used; the log says so."""
    if terminal is None:
        return None
    try:
        descriptor = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
    except OSError as error:
        log.warning("event=no_console terminal=%s reason=%r", terminal, error.strerror)
        return None
    return Console(descriptor, descriptor)


def console_of_process() -> Console | None:
    """The terminal that this process was started at, ``None`` when there is none."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    return Console(sys.stdin.fileno(), sys.stdout.fileno())


def _shown(text: str) -> str:
    """A server's text must not move the cursor: lines stay lines, other control characters go."""
    return "\n".join("".join(c if c.isprintable() else "\ufffd" for c in line) for line in text.splitlines())


def _prompt(question: Question) -> str:
    default = "" if question.default is None else f" [{_shown(question.default)}]"
    if question.kind is AlertCode.CONFIRM_OR_REJECT:
        return "yes or no?" + {"1": " [yes]", "0": " [no]"}.get(question.default or "", "")
    if question.kind is AlertCode.SINGLE_CHOICE:
        return f"number of one?{default}"
    if question.kind is AlertCode.MULTIPLE_CHOICE:
        return f"numbers, with blanks between them?{default}"
    return f"your answer?{'' if question.masked else default}"


def _confirm(question: Question, line: str) -> Answer:
    word = line.strip().lower() or {"1": "yes", "0": "no"}.get(question.default or "", "")
    if word not in _YES_NO:
        raise Unusable("yes or no")
    return Answer(_YES_NO[word])


def _text(question: Question, line: str) -> Answer:
    text = line or question.default or ""
    pattern, meaning = _PATTERNS[question.input_type]
    if pattern.fullmatch(text) is None or (question.input_type is not InputType.ALPHANUMERIC and not text):
        raise Unusable(meaning)
    if question.max_length is not None and len(text) > question.max_length:
        raise Unusable(f"at most {question.max_length} characters")
    return Answer(Outcome.ANSWERED, text=text)


def _choice(question: Question, line: str) -> Answer:
    chosen = _numbers(question, line)
    if len(chosen) != 1:
        raise Unusable(f"one number from 1 to {len(question.choices)}")
    return Answer(Outcome.ANSWERED, selected=chosen)


def _choices(question: Question, line: str) -> Answer:
    return Answer(Outcome.ANSWERED, selected=_numbers(question, line))


def _numbers(question: Question, line: str) -> tuple[int, ...]:
    words = line.replace(",", " ").split()
    if not words:
        return question.default_choices
    possible = {str(number): number for number in range(1, len(question.choices) + 1)}
    if not all(word in possible for word in words):
        raise Unusable(f"numbers from 1 to {len(question.choices)}")
    return tuple(dict.fromkeys(possible[word] for word in words))


_PARSE: dict[AlertCode, Callable[[Question, str], Answer]] = {
    AlertCode.CONFIRM_OR_REJECT: _confirm,
    AlertCode.TEXT_INPUT: _text,
    AlertCode.SINGLE_CHOICE: _choice,
    AlertCode.MULTIPLE_CHOICE: _choices,
}
