"""Asks with a dialog program: what whiptail on a terminal and zenity on a desktop have in common.

A dialog takes any text: what is no answer to the question is asked for again, with a word on why, until the time is
over. Must not know any program. Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from guest_shim.ask import ANSWERED, CANCELLED, NOT_DISPLAYABLE, REJECTED, TIMED_OUT, Question, Reply

TITLE = "Message from the owner of this machine"
_LOOK = 0.1
#: Seconds that a program has to end when it is told to.
_END = 5.0
_ANSWER_CAP = 65536


@dataclass(frozen=True)
class Shown:
    """How one showing of a dialog ended: one of the outcomes, and what the program printed."""

    outcome: str
    answer: str = ""


#: Shows the question once, until it is answered or this moment of the monotonic clock.
Show = Callable[[Question, float, threading.Event], Shown]


def converse(show: Show, question: Question, cancelled: threading.Event) -> Reply:
    """Show the question until there is an answer to it, or the time is over."""
    start = time.monotonic()
    end, wanted = start + question.longest, question
    while True:
        shown = show(wanted, end, cancelled)
        if question.kind == "display":
            if shown.outcome == ANSWERED and time.monotonic() < start + question.shortest:
                continue  # put away too early: the server wants it to be seen that long
            return Reply(ANSWERED if shown.outcome == TIMED_OUT else shown.outcome)
        if shown.outcome != ANSWERED or question.kind == "confirm":
            return Reply(shown.outcome)
        reply, wrong = understood(question, shown.answer)
        if reply is not None:
            return reply
        wanted = replace(question, text=f"{question.text}\n\n(Please {wrong}.)")


def understood(question: Question, answer: str) -> tuple[Reply | None, str]:
    """What was entered or chosen, or what the person has to do instead."""
    if question.kind == "text":
        wrong = question.refuses(answer)
        return (None, f"enter {wrong}") if wrong else (Reply(ANSWERED, answer), "")
    numbers = tuple(int(word) for word in answer.split() if word.isdigit())
    if question.kind == "choice" and len(numbers) != 1:
        return None, "choose one"
    return Reply(ANSWERED, selected=numbers), ""


def shown_by(
    argv: list[str],
    outcomes: Mapping[int, str],
    end: float,
    cancelled: threading.Event,
    *,
    screen: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Shown:
    """Run a dialog program to its end; ``outcomes`` says what its exit statuses mean, all others that it failed.

    On a terminal (``screen``) programs answer on standard error, else on standard output.
    """
    on_terminal = screen is not None
    process = subprocess.Popen(
        argv,
        stdin=screen if on_terminal else subprocess.DEVNULL,
        stdout=screen if on_terminal else subprocess.PIPE,
        stderr=subprocess.PIPE if on_terminal else subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
    stream = process.stderr if on_terminal else process.stdout
    assert stream is not None
    try:
        while process.poll() is None:
            if cancelled.is_set() or time.monotonic() >= end:
                return Shown(CANCELLED if cancelled.is_set() else TIMED_OUT)
            try:
                process.wait(_LOOK)
            except subprocess.TimeoutExpired:
                continue
        answer = stream.read(_ANSWER_CAP).decode("utf-8", "replace").rstrip("\n")
        return Shown(outcomes.get(process.returncode, NOT_DISPLAYABLE), answer)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        stream.close()


def negative(question: Question) -> str:
    """What the button beside OK means: "no" to a question for confirmation, else that the person does not answer."""
    return REJECTED if question.kind == "confirm" else CANCELLED
