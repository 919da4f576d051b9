"""Asks with a dialog program: whiptail on a terminal, zenity on a desktop. How each is called is a table of functions.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable

from guest_shim.ask import ANSWERED, CANCELLED, NOT_DISPLAYABLE, REJECTED, TIMED_OUT, Question, Reply

_LOOK = 0.25
TITLE = "Message from the owner of this machine"
_ROWS, _COLUMNS = "20", "72"


def whiptail(terminal: str) -> Callable[[Question, threading.Event], Reply]:
    """Asks with whiptail on the terminal with that path."""

    def ask(question: Question, cancelled: threading.Event) -> Reply:
        from guest_shim.ask_console import silence

        with silence(terminal), open(terminal, "r+b", buffering=0) as screen:  # noqa: PTH123 - a device, unbuffered
            run = _run(whiptail_arguments(question), question, cancelled, screen.fileno())
        return _reply(question, *run, yes_no={0: ANSWERED, 1: REJECTED})

    return ask


def zenity(user: str) -> Callable[[Question, threading.Event], Reply]:
    """Asks with zenity, in the graphical session of ``user`` (empty: ours)."""

    def ask(question: Question, cancelled: threading.Event) -> Reply:
        argv = [*_as_user(user), *zenity_arguments(question)]
        return _reply(question, *_run(argv, question, cancelled, None), yes_no={0: ANSWERED, 1: REJECTED, 5: TIMED_OUT})

    return ask


def whiptail_arguments(question: Question) -> list[str]:
    """The call. Its answer comes on standard error."""
    size = (_ROWS, _COLUMNS)
    text = question.text
    choices = [(str(number), choice) for number, choice in enumerate(question.choices, 1)]
    start = ["whiptail", "--title", TITLE]
    if question.kind == "display":
        return [*start, "--infobox", text, *size]
    if question.kind == "confirm":
        return [*start, *(["--defaultno"] if question.default == "0" else []), "--yesno", text, *size]
    if question.kind == "text":
        return [*start, "--passwordbox" if question.masked else "--inputbox", text, *size, question.default]
    marked = [
        word
        for number, choice in choices
        for word in (number, choice, "ON" if int(number) in question.selected else "OFF")
    ]
    kind = "--radiolist" if question.kind == "choice" else "--checklist"
    return [*start, "--separate-output", kind, text, *size, str(min(len(choices), 12)), *marked]


def zenity_arguments(question: Question) -> list[str]:
    """The call. Its answer comes on standard output."""
    start = ["zenity", "--title", TITLE, "--timeout", str(question.longest), "--text", question.text]
    if question.kind == "display":
        return [*start, "--info"]
    if question.kind == "confirm":
        return [*start, "--question", *(["--default-cancel"] if question.default == "0" else [])]
    if question.kind == "text":
        return [*start, "--entry", "--entry-text", question.default, *(["--hide-text"] if question.masked else [])]
    kind = "--radiolist" if question.kind == "choice" else "--checklist"
    rows = [
        word
        for number, choice in enumerate(question.choices, 1)
        for word in ("TRUE" if number in question.selected else "FALSE", str(number), choice)
    ]
    columns = ["--column", "", "--column", "#", "--column", "", "--print-column", "2", "--separator", " "]
    return [*start, "--list", kind, *columns, *rows]


def _as_user(user: str) -> list[str]:
    if not user:
        return []
    import pwd

    number = pwd.getpwnam(user).pw_uid
    display = os.environ.get("DISPLAY", ":0")
    return ["runuser", "-u", user, "--", "env", f"DISPLAY={display}", f"XDG_RUNTIME_DIR=/run/user/{number}"]


def _run(argv: list[str], question: Question, cancelled: threading.Event, screen: int | None) -> tuple[int | None, str]:
    """(exit status, answer); the status is ``None`` when the time was over, -1 when the question was cancelled."""
    answer = subprocess.PIPE
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL if screen is None else screen,
        stdout=answer if screen is None else screen,
        stderr=subprocess.DEVNULL if screen is None else answer,
        env={**os.environ, "TERM": os.environ.get("TERM", "linux"), "LC_ALL": os.environ.get("LC_ALL", "C.UTF-8")},
    )
    stream = process.stdout if screen is None else process.stderr
    assert stream is not None
    end = time.monotonic() + question.longest
    status: int | None = None
    try:
        while time.monotonic() < end and not cancelled.is_set():
            try:
                status = process.wait(_LOOK)
                break
            except subprocess.TimeoutExpired:
                continue
        else:
            if cancelled.is_set():
                status = -1
            process.terminate()
            process.wait(5.0)
        return status, stream.read(65536).decode("utf-8", "replace").rstrip("\n")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        stream.close()


def _reply(question: Question, status: int | None, answer: str, *, yes_no: dict[int, str]) -> Reply:
    if status is None or (status == 5 and yes_no.get(5) == TIMED_OUT):
        return Reply(ANSWERED if question.kind == "display" else TIMED_OUT)
    if status not in (0, 1, -1, 255):
        return Reply(NOT_DISPLAYABLE)
    if question.kind == "confirm":
        return Reply(yes_no.get(status, CANCELLED))
    return _understood(question, answer) if status == 0 else Reply(CANCELLED)


def _understood(question: Question, answer: str) -> Reply:
    """What was entered or chosen; what is no answer to the question counts as none."""
    if question.kind == "text":
        return Reply(CANCELLED) if question.refuses(answer) else Reply(ANSWERED, answer)
    numbers = tuple(int(word) for word in answer.split() if word.isdigit())
    if question.kind == "choice" and len(numbers) != 1:
        return Reply(CANCELLED)
    return Reply(ANSWERED, selected=numbers)
