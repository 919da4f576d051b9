"""Asks on a desktop: with zenity. What is only to be shown, and is short, comes as a notification where there are any.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from guest_shim.ask import ANSWERED, CANCELLED, TIMED_OUT, Question, Reply
from guest_shim.ask_dialogs import TITLE, Shown, converse, negative, shown_by
from guest_shim.places import run, which

#: Exit statuses of our choice: 1 is also what zenity ends with when there is no display.
_OK, _CANCEL, _ESCAPE, _TIMEOUT = 0, 101, 102, 103
_STATUSES = {"ZENITY_OK": _OK, "ZENITY_CANCEL": _CANCEL, "ZENITY_ESC": _ESCAPE, "ZENITY_TIMEOUT": _TIMEOUT}
#: Seconds after the question's own end at which zenity ends by itself, for the case that nobody ends it any more. Not
#: at the same time: a zenity that is slow to start would end before it has a window, with a status that says nothing.
_LATER = 10
#: Characters that a notification can hold; a longer text gets a window.
_NOTICE_CAP = 300
#: Seconds for the desktop to take a notification.
_NOTICE_DEADLINE = 10.0
#: What a program needs of a graphical session's environment.
_SESSION = ("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "HOME", "LANG")


def zenity(user: str) -> Callable[[Question, threading.Event], Reply]:
    """Asks in the graphical session of ``user`` (empty: ours)."""

    def ask(question: Question, cancelled: threading.Event) -> Reply:
        start = _in_session(user)
        if question.kind == "display" and _notify(start, question):
            cancelled.wait(question.shortest)
            return Reply(ANSWERED)
        return converse(lambda q, end, stop: _show(start, q, end, stop), question, cancelled)

    return ask


def arguments(question: Question) -> list[str]:
    """The call. Its answer comes on standard output."""
    text = _escaped(question.text)
    if question.kind == "text":  # this label alone takes no markup, but lines under letters
        text = question.text.replace("\\", "\\\\").replace("_", "__")
    start = ["zenity", "--title", TITLE, "--timeout", str(question.longest + _LATER), "--text", text]
    if question.kind == "display":
        return [*start, "--info"]
    if question.kind == "confirm":
        return [*start, "--question", *(["--default-cancel"] if question.default == "0" else [])]
    if question.kind == "text":
        return [*start, "--entry", "--entry-text", question.default, *(["--hide-text"] if question.masked else [])]
    kind = "--radiolist" if question.kind == "choice" else "--checklist"
    columns = ["--column", "", "--column", "#", "--column", "", "--print-column", "2", "--separator", " "]
    rows = []
    for number, choice in enumerate(question.choices, 1):
        # "--" before the rows would become one of them where a row begins like an option
        shown = f" {choice}" if choice.startswith("-") else choice
        rows += ["TRUE" if number in question.selected else "FALSE", str(number), shown]
    return [*start, "--list", kind, "--height", "400", "--width", "400", *columns, *rows]


def _show(start: list[str], question: Question, end: float, cancelled: threading.Event) -> Shown:
    outcomes = {_OK: ANSWERED, _CANCEL: negative(question), _ESCAPE: CANCELLED, _TIMEOUT: TIMED_OUT}
    environment = {name: str(status) for name, status in _STATUSES.items()}
    return shown_by([*start, *arguments(question)], outcomes, end, cancelled, environment=environment)


def _notify(start: list[str], question: Question) -> bool:
    """Show the text as a notification; ``False`` when the desktop has none."""
    if not which("notify-send") or len(question.text) > _NOTICE_CAP:
        return False
    argv = ["notify-send", "--urgency=critical", f"--expire-time={1000 * question.longest}", "--", TITLE]
    return run([*start, *argv, _escaped(question.text)], deadline=_NOTICE_DEADLINE).code == 0


def _escaped(text: str) -> str:
    """Text that stays what it is where markup and backslashes are understood."""
    words = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\\": "\\\\"}
    return "".join(words.get(character, character) for character in text)


def _in_session(user: str) -> list[str]:
    """How a program is started in the user's graphical session: as that user, in the session's environment."""
    if not user:
        return []
    import pwd

    entry = pwd.getpwnam(user)
    found = _environment_of(entry.pw_uid)
    known = {"HOME": entry.pw_dir, "XDG_RUNTIME_DIR": f"/run/user/{entry.pw_uid}", "DISPLAY": ":0", **found}
    return ["runuser", "-u", user, "--", "env", *(f"{name}={value}" for name, value in known.items())]


def _environment_of(uid: int) -> dict[str, str]:
    """What the programs of the user's session share, taken from the youngest that has a display of this machine."""
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name), reverse=True):
        try:
            if process.stat().st_uid != uid:
                continue
            lines = (process / "environ").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        found = {key: value for key, _, value in (line.partition("=") for line in lines) if key in _SESSION}
        if found.get("DISPLAY", "").startswith(":") or "WAYLAND_DISPLAY" in found:
            return found
    return {}
