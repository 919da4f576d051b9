"""UI/Command, ExecUICmd and UI/Result (OMA-ER-VirMO 11.2.2), from the tree to a terminal that a test types on."""

from __future__ import annotations

import os
import pty
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0_agent.vm.model import VmState
from guest_shim.places import Places
from guest_shim.services import make_dispatcher
from tests.unit.mo.dmtree.guests_testing import GuestDevice, handler, status_of

EXEC = "./VirMO/a/Operations/ExecUICmd"
RESULT = "./VirMO/a/UI/Result"


def alert(code: int, *items: str, options: str = "MAXDT=5") -> str:
    texts = "".join(f"<Item><Data>{item}</Data></Item>" for item in items)
    return f"<Alert><CmdID>2</CmdID><Data>{code}</Data><Item><Data>{options}</Data></Item>{texts}</Alert>"


class Person:
    """Sits before the guest's terminal: types ``keys`` when a prompt appears, and remembers the screen."""

    def __init__(self, places: Places) -> None:
        self._master, slave = pty.openpty()
        terminal = os.ttyname(slave)
        self._slave = slave
        (places.settings / "ui").write_text(f"console:{terminal}")
        self.screen = ""
        self._keys: list[str] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def will_type(self, *keys: str) -> None:
        self._keys = list(keys)
        self.screen = ""

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def leave(self) -> None:
        os.close(self._slave)
        self._thread.join(5)
        os.close(self._master)

    def _watch(self) -> None:
        while True:
            try:
                seen = os.read(self._master, 4096)
            except OSError:
                return
            self.screen += seen.decode()
            if self._keys and re.search(r"\)( \[[^]]*\])?: $", self.screen):
                os.write(self._master, self._keys.pop(0).encode())


@pytest.fixture
def device(tmp_path: Path) -> Iterator[GuestDevice]:
    made = GuestDevice(tmp_path, answer_limit=20.0)
    yield made
    made.close()


@pytest.fixture
def person(device: GuestDevice) -> Iterator[Person]:
    """A person at the terminal of the guest of VM a, whose shim is connected."""
    sitting = Person(device.places())
    device.connect(make_dispatcher(device.places()))
    yield sitting
    sitting.leave()


def ask(device: GuestDevice, command: str) -> tuple[str, list[str]]:
    """The status in UI/Result, and its Items."""
    device.replace("./VirMO/a/UI/Command", command)
    assert device.execute(EXEC) == 200
    result = device.get(RESULT)
    assert "<MsgRef>1</MsgRef><CmdRef>2</CmdRef><Cmd>Alert</Cmd>" in result
    (status,) = re.findall(r"</Cmd><Data>(\d+)</Data>", result)
    return status, re.findall(r"<Item><Data>([^<]*)</Data></Item>", result)


def test_a_message_is_shown(device: GuestDevice, person: Person) -> None:
    """R-149 to R-156, A-46: 1100."""
    assert ask(device, alert(1100, "Maintenance tonight", options="MINDT=1")) == ("200", [])
    assert "Maintenance tonight" in person.screen


@pytest.mark.parametrize(
    ("keys", "options", "status"),
    [("yes\n", "MAXDT=5", "200"), ("n\n", "MAXDT=5", "304"), ("\n", "DR=0&amp;MAXDT=5", "304"), ("\n", "DR=1", "200"),
     ("\x03", "MAXDT=5", "214"), ("\x04", "MAXDT=5", "214")],
)  # fmt: skip
def test_a_question_is_confirmed_rejected_or_cancelled(
    device: GuestDevice, person: Person, keys: str, options: str, status: str
) -> None:
    """R-155, A-47: 1101; the Exec is 200 whatever the person says."""
    person.will_type(keys)
    assert ask(device, alert(1101, "Update now?", options=options)) == (status, [])


def test_nobody_answers(device: GuestDevice, person: Person) -> None:
    """MAXDT: 408."""
    person.will_type()
    assert ask(device, alert(1101, "Anybody there?", options="MAXDT=1")) == ("408", [])


def test_a_text_is_entered(device: GuestDevice, person: Person) -> None:
    """1102 with IT, MAXLEN and DR; what does not fit is asked for again."""
    person.will_type("12a\n", "1234567\n", "4711\n")
    assert ask(device, alert(1102, "Number?", options="IT=N&amp;MAXLEN=6&amp;MAXDT=9")) == ("200", ["4711"])
    assert "digits" in person.screen
    assert "at most 6" in person.screen
    person.will_type("\n")
    assert ask(device, alert(1102, "Name?", options="DR=web-1")) == ("200", ["web-1"])


def test_a_secret_is_not_echoed(device: GuestDevice, person: Person) -> None:
    """ET=P."""
    person.will_type("hush\n")
    assert ask(device, alert(1102, "Password?", options="ET=P&amp;MAXDT=5")) == ("200", ["hush"])
    assert "hush" not in person.screen


def test_one_of_several_is_chosen(device: GuestDevice, person: Person) -> None:
    """1103; DR marks the default."""
    person.will_type("4\n", "1,2\n", "2\n")
    assert ask(device, alert(1103, "Colour?", "red", "green", "blue")) == ("200", ["2"])
    person.will_type("\n")
    assert ask(device, alert(1103, "Colour?", "red", "green", options="DR=2&amp;MAXDT=5")) == ("200", ["2"])


def test_several_are_chosen(device: GuestDevice, person: Person) -> None:
    """1104."""
    person.will_type("1, 3\n")
    assert ask(device, alert(1104, "Which?", "a", "b", "c")) == ("200", ["1", "3"])


def test_a_late_answer_is_reported(tmp_path: Path) -> None:
    """R-157: asynchronous; UI/Result is there when the alert comes."""
    device = GuestDevice(tmp_path, answer_limit=0.05)
    person = Person(device.places())
    device.connect(make_dispatcher(device.places()))
    device.replace("./VirMO/a/UI/Command", alert(1101, "Ready?", options="MAXDT=20"))
    assert device.execute(EXEC, "c9") == 202
    assert device.get(RESULT) == ""
    person.type("yes\n")
    device.settle()
    (told,) = device.alerts()
    assert (told.source_uri, told.data, told.correlator) == (EXEC, "200", "c9")
    assert "<Data>200</Data>" in device.get(RESULT)
    person.leave()
    device.close()


def test_the_result_is_cleared_when_the_next_question_begins(device: GuestDevice, person: Person) -> None:
    """A-47."""
    person.will_type("no\n")
    assert ask(device, alert(1101, "One?"))[0] == "304"
    device.replace("./VirMO/a/UI/Command", alert(1101, "Two?"))
    device.guests.lose(device.vmid)
    assert status_of(device.execute, EXEC) == 503
    device.connect(make_dispatcher(device.places()))
    person.will_type("yes\n")
    assert ask(device, alert(1101, "Three?"))[0] == "200"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("", 412),
        ("not xml", 412),
        ("<Alert>", 412),
        ('<!DOCTYPE a [<!ENTITY x "y">]><Alert>&x;</Alert>', 412),
        ("<Get><CmdID>1</CmdID></Get>", 406),
        (alert(1226, "generic"), 406),
        ("<Alert><CmdID>2</CmdID><Data>1101</Data></Alert>", 412),
        (alert(1103, "no choices"), 412),
        (alert(1101, "x" * 5000), 416),
    ],
)
def test_what_is_no_question_is_refused(device: GuestDevice, person: Person, command: str, status: int) -> None:
    """R-149, A-45."""
    device.replace("./VirMO/a/UI/Command", command)
    assert status_of(device.execute, EXEC) == status
    assert person.screen == ""


def test_only_a_running_vm_can_ask(device: GuestDevice) -> None:
    """A-49, A-48."""
    device.replace("./VirMO/a/UI/Command", alert(1101, "?"))
    (device.places().settings / "ui").write_text("none")
    device.connect(make_dispatcher(device.places()))
    assert status_of(device.execute, EXEC) == 406
    device.set_state(device.vmid, VmState.SUSPENDED)
    assert status_of(device.execute, EXEC) == 403


def test_the_result_is_the_clients(device: GuestDevice) -> None:
    """R-150, A-05."""
    assert status_of(device.replace, RESULT, "<Status/>") == 405
    assert device.get("./VirMO/a/UI/Command?prop=Format") == "xml"
    assert device.get(f"{RESULT}?prop=Type") == "text/xml"


@pytest.mark.parametrize(
    "said",
    [
        '{"outcome": "answered", "selected": [9]}',
        '{"outcome": "answered", "selected": [1, 2]}',
        '{"outcome": "maybe"}',
        "[]",
        "x",
    ],
)
def test_a_guest_that_makes_no_sense_fails_the_exec(device: GuestDevice, said: str) -> None:
    handler(device.places(), "ui", "ask", f"cat >/dev/null; echo '{said}'")
    device.connect(make_dispatcher(device.places()))
    device.replace("./VirMO/a/UI/Command", alert(1103, "Which?", "a", "b"))
    assert status_of(device.execute, EXEC) == 500
    assert device.get(RESULT) == ""


def test_an_external_program_can_ask(device: GuestDevice, tmp_path: Path) -> None:
    """The integrator's own way to the person."""
    asked = tmp_path / "asked"
    handler(device.places(), "ui", "ask", f"""cat >{asked}; echo '{{"outcome": "answered", "text": "via program"}}'""")
    device.connect(make_dispatcher(device.places()))
    assert ask(device, alert(1102, "Say!", options="DR=x&amp;MAXLEN=20&amp;IT=A&amp;ET=T&amp;MAXDT=7")) == (
        "200", ["via program"],
    )  # fmt: skip
    told = asked.read_text()
    for part in ('"kind": "text"', '"text": "Say!"', '"max": 7', '"default": "x"', '"length": 20'):
        assert part in told


def test_a_program_that_never_answers_is_a_time_out(device: GuestDevice) -> None:
    handler(device.places(), "ui", "ask", "exec sleep 30")
    device.connect(make_dispatcher(device.places()))
    start = time.monotonic()
    assert ask(device, alert(1101, "Hello?", options="MAXDT=1"))[0] == "408"
    assert time.monotonic() - start < 10
