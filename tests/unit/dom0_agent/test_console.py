"""Questions to dom0's user at a real terminal: alerts 1100 to 1104 with their options (OMA-TS-DM 9)."""

from __future__ import annotations

import os
import pty
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0_agent.console import Console, console_at
from dom0_agent.omadm.alerts import AlertCode
from dom0_agent.omadm.interaction import Answer, InputType, Outcome, Question

CONFIRM, TEXT, ONE, SOME = (
    AlertCode.CONFIRM_OR_REJECT,
    AlertCode.TEXT_INPUT,
    AlertCode.SINGLE_CHOICE,
    AlertCode.MULTIPLE_CHOICE,
)


class Terminal:
    """A pseudo-terminal with a console at one end and the test at the other."""

    def __init__(self) -> None:
        self.keyboard, self.line = pty.openpty()
        self.console = Console(self.line, self.line, wait=5.0)
        self.shown = ""

    def ask(self, question: Question, *typed: str) -> Answer:
        """The answer when each line is typed after a prompt."""
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(self.console.ask(question)))
        asking.start()
        for text in typed:
            self.read_until("? ", "] ")
            os.write(self.keyboard, text.encode())
        asking.join(10)
        self.read_until()
        assert answers, self.shown
        return answers[0]

    def read_until(self, *ends: str) -> None:
        """What the screen shows until it ends so; without an end, all that is there."""
        seen = ""
        while not (ends and seen.endswith(ends)):
            if not select.select([self.keyboard], [], [], 5.0 if ends else 0.05)[0]:
                assert not ends, f"the screen shows {self.shown + seen!r}"
                break
            seen += os.read(self.keyboard, 4096).decode()
        self.shown += seen


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.console.close()
    for descriptor in (made.keyboard, made.line):
        os.close(descriptor)


def test_a_text_is_displayed_and_needs_no_answer(terminal: Terminal) -> None:
    assert terminal.ask(Question(AlertCode.DISPLAY, "Update begins")) == Answer(Outcome.ANSWERED)
    assert "Update begins" in terminal.shown


@pytest.mark.parametrize(
    ("question", "typed", "answer"),
    [
        (Question(CONFIRM, "Go on?"), ["y\n"], Answer(Outcome.ANSWERED)),
        (Question(CONFIRM, "Go on?"), ["No\n"], Answer(Outcome.REJECTED)),
        (Question(CONFIRM, "Go on?"), ["perhaps\n", "yes\n"], Answer(Outcome.ANSWERED)),
        (Question(CONFIRM, "Go on?"), ["\n", "n\n"], Answer(Outcome.REJECTED)),
        (Question(CONFIRM, "Go on?", default="1"), ["\n"], Answer(Outcome.ANSWERED)),
        (Question(CONFIRM, "Go on?", default="0"), ["\n"], Answer(Outcome.REJECTED)),
        (Question(CONFIRM, "Go on?", default="0"), ["\x04"], Answer(Outcome.CANCELLED)),
        (Question(TEXT, "Name?"), ["zwölf & mehr\n"], Answer(Outcome.ANSWERED, "zwölf & mehr")),
        (Question(TEXT, "Name?", default="Mats"), ["\n"], Answer(Outcome.ANSWERED, "Mats")),
        (Question(TEXT, "Name?", max_length=3), ["four\n", "six\n"], Answer(Outcome.ANSWERED, "six")),
        (Question(ONE, "Which?", ("a", "b")), ["3\n", "b\n", "1 2\n", "2\n"], Answer(Outcome.ANSWERED, selected=(2,))),
        (Question(ONE, "Which?", ("a", "b"), default="1"), ["\n"], Answer(Outcome.ANSWERED, selected=(1,))),
        (Question(SOME, "Which?", ("a", "b", "c")), ["3, 1 3\n"], Answer(Outcome.ANSWERED, selected=(3, 1))),
        (Question(SOME, "Which?", ("a", "b", "c"), default="2-3"), ["\n"], Answer(Outcome.ANSWERED, selected=(2, 3))),
        (Question(SOME, "Which?", ("a", "b")), ["\n"], Answer(Outcome.ANSWERED)),
    ],
)
def test_answers(terminal: Terminal, question: Question, typed: list[str], answer: Answer) -> None:
    assert terminal.ask(question, *typed) == answer


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        (InputType.NUMERIC, "1a", "-3.5"),
        (InputType.DATE, "31131999", "31121999"),
        (InputType.TIME, "240000", "235959"),
        (InputType.PHONE, "call me", "+4912w3"),
        (InputType.IP_ADDRESS, "10.0.0", "10.0.0.1"),
    ],
)
def test_input_types(terminal: Terminal, kind: InputType, wrong: str, right: str) -> None:
    answer = terminal.ask(Question(TEXT, "Value?", input_type=kind), f"{wrong}\n", "\n", f"{right}\n")
    assert answer == Answer(Outcome.ANSWERED, right)
    assert terminal.shown.count("please.") == 2


def test_a_masked_answer_is_not_shown_and_the_next_one_is(terminal: Terminal) -> None:
    assert terminal.ask(Question(TEXT, "PIN?", masked=True), "12345\n").text == "12345"
    assert "12345" not in terminal.shown
    assert terminal.ask(Question(TEXT, "Name?"), "Mats\n").text == "Mats"
    assert "Mats" in terminal.shown


def test_what_was_typed_before_the_question_is_no_answer(terminal: Terminal) -> None:
    os.write(terminal.keyboard, b"y\n")
    time.sleep(0.05)
    assert terminal.ask(Question(CONFIRM, "Go on?"), "n\n").outcome is Outcome.REJECTED


def test_nobody_answers_within_maxdt(terminal: Terminal) -> None:
    """408: a default does not stand for a user who is not there."""
    began = time.monotonic()
    assert terminal.ask(Question(CONFIRM, "Go on?", default="1", max_display=1)).outcome is Outcome.TIMED_OUT
    assert 0.9 < time.monotonic() - began < 3


def test_an_agent_that_stops_does_not_wait_for_the_user(terminal: Terminal) -> None:
    threading.Timer(0.1, terminal.console.give_up).start()
    began = time.monotonic()
    assert terminal.ask(Question(CONFIRM, "Go on?", max_display=3600)).outcome is Outcome.CANCELLED
    assert terminal.ask(Question(CONFIRM, "And this?", max_display=3600)).outcome is Outcome.CANCELLED
    assert time.monotonic() - began < 3


def test_a_servers_text_cannot_move_the_cursor(terminal: Terminal) -> None:
    terminal.ask(Question(AlertCode.DISPLAY, "\x1b[2J\x07one\ntwo\u202e"))
    assert "\x1b" not in terminal.shown
    assert "\u202e" not in terminal.shown
    assert "one\r\ntwo" in terminal.shown


def test_a_terminal_that_is_gone_cancels(tmp_path: Path) -> None:
    keyboard, line = pty.openpty()
    console = Console(line, line)
    os.close(keyboard)
    assert console.ask(Question(CONFIRM, "Go on?")).outcome is Outcome.CANCELLED
    console.close()
    os.close(line)


def test_no_console_without_a_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert console_at(None) is None
    assert console_at(tmp_path / "tty9") is None
    assert "no_console" in caplog.text
