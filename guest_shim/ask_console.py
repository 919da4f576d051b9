"""Asks on a terminal, in text. What else reads from that terminal waits meanwhile.

A shell that is at its prompt there would take every second line that the person types: the programs that have this
terminal as standard input are stopped for the time of the question, and go on after it.
Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from guest_shim.ask import ANSWERED, CANCELLED, REJECTED, TIMED_OUT, Question, Reply

#: Seconds between looks at whether the question is still wanted.
_LOOK = 0.25
_CONTROL_C, _CONTROL_D = b"\x03", b"\x04"
_LINE_CAP = 8192
YES, NO = frozenset({"y", "yes", "1"}), frozenset({"n", "no", "0"})


def console(terminal: str) -> Callable[[Question, threading.Event], Reply]:
    """Asks on the terminal with that path."""
    return lambda question, cancelled: _Conversation(terminal, question, cancelled).hold()


class _Over(Exception):  # noqa: N818 - a way out, not an error
    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class _Conversation:
    def __init__(self, terminal: str, question: Question, cancelled: threading.Event) -> None:
        self._terminal = terminal
        self._question = question
        self._cancelled = cancelled
        self._end = time.monotonic() + question.longest
        self._descriptor = -1

    def hold(self) -> Reply:
        """The whole of it. :class:`OSError` when the terminal cannot be used."""
        question = self._question
        self._descriptor = os.open(self._terminal, os.O_RDWR | os.O_NOCTTY)
        try:
            with silence(self._terminal), self._mode():
                self._print(f"\n*** Message from the owner of this machine ***\n{question.text}\n")
                if question.kind == "display":
                    self._cancelled.wait(question.shortest)
                    return Reply(ANSWERED)
                return self._ask()
        except _Over as over:
            self._print("\n(cancelled)\n" if over.outcome == CANCELLED else "\n(no answer in time)\n")
            return Reply(over.outcome)
        finally:
            os.close(self._descriptor)

    def _ask(self) -> Reply:
        question = self._question
        for number, choice in enumerate(question.choices, 1):
            mark = "*" if number in question.selected else " "
            self._print(f" {mark}{number}) {choice}\n")
        while True:
            self._print(self._prompt())
            reply = self._understand(self._line())
            if isinstance(reply, Reply):
                return reply
            self._print(f"{reply}\n")

    def _prompt(self) -> str:
        question = self._question
        if question.kind == "confirm":
            return "Answer yes or no (Ctrl-C cancels)" + (f" [{question.default}]" if question.default else "") + ": "
        if question.kind == "text":
            shown = question.default and not question.masked
            return "Answer (Ctrl-C cancels)" + (f" [{question.default}]" if shown else "") + ": "
        several = "numbers, separated by commas" if question.kind == "choices" else "a number"
        return f"Answer with {several} (Ctrl-C cancels): "

    def _understand(self, line: str) -> Reply | str:
        """The reply, or what is wrong with the line."""
        question, line = self._question, line.strip() if self._question.kind != "text" else line
        if question.kind == "confirm":
            word = (line or question.default).lower()
            if word in YES:
                return Reply(ANSWERED)
            return Reply(REJECTED) if word in NO else "Please answer yes or no."
        if question.kind == "text":
            text = line or question.default
            wrong = question.refuses(text)
            return f"Please enter {wrong}." if wrong else Reply(ANSWERED, text)
        words = [word for word in line.replace(",", " ").split() if word]
        numbers = tuple(int(word) for word in words if word.isdigit()) if words else question.selected
        if len(numbers) != len(words or numbers) or not all(1 <= n <= len(question.choices) for n in numbers):
            return f"Please choose from 1 to {len(question.choices)}."
        if question.kind == "choice" and len(numbers) != 1:
            return "Please choose one."
        return Reply(ANSWERED, selected=tuple(dict.fromkeys(numbers)))

    def _line(self) -> str:
        """What the person typed, without the end of the line. :class:`_Over` cancelled, or the time is over."""
        line = b""
        while not line.endswith(b"\n"):
            if self._cancelled.is_set():
                raise _Over(CANCELLED)
            left = self._end - time.monotonic()
            if left <= 0:
                raise _Over(TIMED_OUT)
            if not select.select([self._descriptor], [], [], min(_LOOK, left))[0]:
                continue
            got = os.read(self._descriptor, 1024)
            if not got or _CONTROL_C in got or _CONTROL_D in got:
                raise _Over(CANCELLED)
            line = (line + got)[:_LINE_CAP]
        if self._question.masked:
            self._print("\n")
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def _print(self, text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(self._descriptor, data) :]

    @contextlib.contextmanager
    def _mode(self) -> Iterator[None]:
        """Lines, echoed (unless it is a secret), and Ctrl-C as a character: whatever mode a shell had left."""
        try:
            before = termios.tcgetattr(self._descriptor)
        except termios.error:  # not a terminal: a pipe in a test, a serial log
            yield
            return
        wanted: list[Any] = [list(item) if isinstance(item, list) else item for item in before]
        wanted[0] = (int(before[0]) | termios.ICRNL) & ~termios.IXOFF
        wanted[1] = int(before[1]) | termios.OPOST | termios.ONLCR
        wanted[3] = (int(before[3]) | termios.ICANON | termios.ECHO | termios.ECHONL) & ~termios.ISIG
        if self._question.masked:
            wanted[3] &= ~termios.ECHO & ~termios.ECHONL
        wanted[6][termios.VEOL] = _CONTROL_C
        termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, wanted)
        try:
            yield
        finally:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def silence(terminal: str) -> Iterator[None]:
    """Stop the programs whose standard input is this terminal, and let them go on afterwards."""
    stopped = []
    for pid in _readers(terminal):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
    try:
        yield
    finally:
        for pid in reversed(stopped):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _readers(terminal: str) -> list[int]:
    """Processes with the terminal as standard input, but init, ourselves and those above us."""
    spared = {1, *_ancestors()}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in spared and _input_of(entry) == terminal:
            found.append(int(entry.name))
    return sorted(found)


def _input_of(process: Path) -> str | None:
    try:
        return str((process / "fd" / "0").readlink())
    except OSError:
        return None


def _ancestors() -> set[int]:
    """Our own process and all above it."""
    found, pid = set(), os.getpid()
    while pid > 1:
        found.add(pid)
        try:
            after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
            pid = int(after_name.split()[1])
        except (OSError, ValueError, IndexError):
            break
    return found
