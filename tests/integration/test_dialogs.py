"""UI commands shown by real whiptail on a terminal and by real zenity on an X display (R-149 to R-158).

From ``UI/Command`` through the shim to what is on the screen, and back to ``UI/Result``. Nothing is drawn for a person;
what the programs print on the terminal, and the windows that there are, show what a person would see.
"""

from __future__ import annotations

import html
import json
import os
import pty
import pwd
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

import pytest

from guest_shim.ask_dialogs import TITLE
from guest_shim.dispatch import Request
from guest_shim.services import make_dispatcher
from tests.unit.mo.dmtree.guests_testing import GuestDevice

EXEC, COMMAND, RESULT = "./VirMO/a/Operations/ExecUICmd", "./VirMO/a/UI/Command", "./VirMO/a/UI/Result"
PATIENCE = 20.0  #: seconds for anything to appear
CLEAN = "\x1b[2J"  #: what empties a terminal
ENTER, ESCAPE, TAB, DOWN = "\r", "\x1b", "\t", "\x1b[B"
#: What a server may write that the programs could take for their own: options, markup, underlined letters, escapes.
TRICKY = r"-Is 3 < 4 & _5_ <b>true</b>\?"


def within(seconds: float, truth: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


@dataclass
class Asking:
    """An ExecUICmd that runs."""

    device: GuestDevice

    def result(self) -> tuple[str, list[str]]:
        """The status in UI/Result, and its Items."""
        within(PATIENCE, lambda: self.device.work.drain(0.05), "the end of the question")
        self.device.settle()
        told = self.device.get(RESULT)
        (status,) = re.findall(r"</Cmd><Data>(\d+)</Data>", told)
        return status, re.findall(r"<Item><Data>([^<]*)</Data></Item>", told)


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def ask(device: GuestDevice, code: int, text: str, *choices: str, options: str = "MAXDT=20") -> Asking:
    items = "".join(f"<Item><Data>{escaped(item)}</Data></Item>" for item in (options, text, *choices))
    device.replace(COMMAND, f"<Alert><CmdID>2</CmdID><Data>{code}</Data>{items}</Alert>")
    assert device.execute(EXEC) in {200, 202}  # 200: a notification was shown before the answer was due
    return Asking(device)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[GuestDevice]:
    made = GuestDevice(tmp_path, answer_limit=0.01)
    yield made
    made.close()


class Terminal:
    """A terminal with a shell-like reader on it; what is on it, and its keyboard."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self._keyboard, self._line = pty.openpty()
        ioctl(self._line, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.path = os.ttyname(self._line)
        self.mode = termios.tcgetattr(self._line)
        self.screen = ""
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def mode_now(self) -> list[object]:
        return termios.tcgetattr(self._line)

    def shows(self, text: str) -> None:
        within(PATIENCE, lambda: text in self.screen.rpartition(CLEAN)[2], f"{text!r} on the terminal")

    def type(self, *keys: str) -> None:
        """One key after the other: whiptail takes Escape with something after it for one key."""
        self.screen = ""
        for key in keys:
            os.write(self._keyboard, key.encode())
            time.sleep(0.05)

    def close(self) -> None:
        os.close(self._line)
        self._reading.join(5)
        os.close(self._keyboard)

    def _read(self) -> None:
        while True:
            try:
                seen = os.read(self._keyboard, 65536).decode(errors="replace")
            except OSError:
                return
            self.screen += seen


@pytest.fixture
def terminal(device: GuestDevice) -> Iterator[Terminal]:
    """Where the guest of VM a asks with whiptail."""
    made = Terminal()
    (device.places().settings / "ui").write_text(f"whiptail:{made.path}")
    device.connect(make_dispatcher(device.places()))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("options", "keys", "status"),
    [
        ("MAXDT=20", [ENTER], "200"),
        ("MAXDT=20", [TAB, ENTER], "304"),
        ("MAXDT=20&DR=0", [ENTER], "304"),
        ("MAXDT=20&DR=1", [ENTER], "200"),
        ("MAXDT=20", [ESCAPE], "214"),
    ],
)
def test_whiptail_confirms(device: GuestDevice, terminal: Terminal, options: str, keys: list[str], status: str) -> None:
    """1101 with DR: 200, 304, 214; the terminal is as it was before."""
    asking = ask(device, 1101, TRICKY, options=options)
    terminal.shows("<No>")
    assert TRICKY in terminal.screen
    assert TITLE in terminal.screen
    terminal.type(*keys)
    assert asking.result() == (status, [])
    assert terminal.mode_now() == terminal.mode


def test_nobody_answers_whiptail(device: GuestDevice, terminal: Terminal) -> None:
    """MAXDT: 408; a dialog that had to be ended leaves neither its mode nor its box."""
    asking = ask(device, 1101, "Anybody?", options="MAXDT=1")
    terminal.shows("<No>")
    assert asking.result() == ("408", [])
    assert terminal.mode_now() == terminal.mode
    within(PATIENCE, lambda: CLEAN in terminal.screen, "an empty screen")


def test_whiptail_shows_a_text_for_as_long_as_the_server_wants(device: GuestDevice, terminal: Terminal) -> None:
    """1100 with MINDT: put away too early, it comes again; MAXDT without anybody there is no failure."""
    began = time.monotonic()
    asking = ask(device, 1100, "Maintenance tonight", options="MINDT=2&MAXDT=20")
    terminal.shows("Maintenance tonight")
    terminal.type(ENTER)
    terminal.shows("Maintenance tonight")
    time.sleep(2.0)
    terminal.type(ENTER)
    assert asking.result() == ("200", [])
    assert time.monotonic() - began >= 2.0
    assert ask(device, 1100, "Nobody sees this", options="MAXDT=1").result() == ("200", [])


def test_whiptail_takes_a_text(device: GuestDevice, terminal: Terminal) -> None:
    """1102 with IT, MAXLEN, DR; what is no answer is asked for again."""
    asking = ask(device, 1102, TRICKY, options="IT=N&MAXLEN=4&MAXDT=20&DR=7")
    terminal.shows("<Cancel>")
    assert TRICKY in terminal.screen
    terminal.type("x", ENTER)
    terminal.shows("(Please enter digits.)")
    terminal.type("2345", ENTER)
    terminal.shows("at most 4 characters")
    terminal.type("1", ENTER)
    assert asking.result() == ("200", ["71"])
    asking = ask(device, 1102, "Name?", options="DR=-w-1&MAXDT=20")
    terminal.shows("-w-1")
    terminal.type(ENTER)
    assert asking.result() == ("200", ["-w-1"])
    asking = ask(device, 1102, "Name?")
    terminal.shows("<Cancel>")
    terminal.type(TAB, TAB, ENTER)
    assert asking.result() == ("214", [])


def test_whiptail_does_not_show_a_secret(device: GuestDevice, terminal: Terminal) -> None:
    """ET=P."""
    asking = ask(device, 1102, "Password?", options="ET=P&MAXDT=20")
    terminal.shows("<Cancel>")
    terminal.type(*"hush")
    assert "hush" not in terminal.screen.replace("\x08", "")
    terminal.type(ENTER)
    assert asking.result() == ("200", ["hush"])


def test_whiptail_offers_choices(device: GuestDevice, terminal: Terminal) -> None:
    """1103 and 1104 with DR; a single choice must be made."""
    asking = ask(device, 1103, "Colour?", "-red", "gr&een", "blue", options="DR=2&MAXDT=20")
    terminal.shows("gr&een")
    terminal.type(TAB, ENTER)
    assert asking.result() == ("200", ["2"])
    asking = ask(device, 1103, "Colour?", "red", "blue")
    terminal.shows("<Cancel>")
    terminal.type(TAB, ENTER)
    terminal.shows("(Please choose one.)")
    terminal.type(DOWN, " ", TAB, ENTER)
    assert asking.result() == ("200", ["2"])
    asking = ask(device, 1104, "Which?", "a", "b", "c", options="DR=1-3&MAXDT=20")
    terminal.shows("<Cancel>")
    terminal.type(DOWN, " ", TAB, ENTER)
    assert asking.result() == ("200", ["1", "2", "3"])
    asking = ask(device, 1104, "Which?", "a", "b")
    terminal.shows("<Cancel>")
    terminal.type(ESCAPE)
    assert asking.result() == ("214", [])


def test_whiptail_scrolls_what_is_long(device: GuestDevice, terminal: Terminal) -> None:
    """Buttons stay in reach under a text that is longer than the screen."""
    asking = ask(device, 1101, "\n".join(f"line {number}" for number in range(60)))
    terminal.shows("<No>")
    terminal.type(TAB, ENTER)
    assert asking.result() == ("200", [])


def test_whiptail_on_what_is_no_terminal(device: GuestDevice, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    (device.places().settings / "ui").write_text(f"whiptail:{plain}")
    answer = make_dispatcher(device.places()).handle(Request("ask", {"kind": "confirm", "text": "?", "max": 5}))
    assert answer.status == 406
    assert "not a terminal" in answer.fields["error"]


class Desktop:
    """An X display, with its keyboard."""

    def __init__(self, folder: Path) -> None:
        # Whoever has the cookie may use the display, and nobody else: as on a real desktop.
        self.authority = folder / "Xauthority"
        read, write = os.pipe()
        cookie = os.urandom(16)
        self.authority.write_bytes(authority_entry(cookie))
        argv = ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24", "-auth", str(self.authority)]
        self._process = subprocess.Popen(
            [*argv, "-nolisten", "tcp", "-noreset"], pass_fds=[write], stderr=subprocess.DEVNULL
        )
        os.close(write)
        with os.fdopen(read) as told:
            self.display = f":{told.readline().strip()}"

    @property
    def environment(self) -> dict[str, str]:
        return {"DISPLAY": self.display, "XAUTHORITY": str(self.authority)}

    def window(self, after: int = 0) -> int:
        """Waits for the dialog of another process than ``after``, gives it the keyboard, and names its process."""
        found: list[str] = []

        def there() -> bool:
            found[:] = self._xdotool("search", "--onlyvisible", "--name", TITLE, check=False).split()
            return bool(found) and self._process_of(found[-1]) not in (0, after)

        within(PATIENCE, there, "a dialog")
        self._xdotool("windowfocus", "--sync", found[-1])
        return self._process_of(found[-1])

    def has_window(self) -> bool:
        return bool(self._xdotool("search", "--onlyvisible", "--name", TITLE, check=False))

    def press(self, *keys: str) -> None:
        self._xdotool("key", "--delay", "30", *keys)

    def type(self, text: str) -> None:
        self._xdotool("type", "--delay", "30", text)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def _process_of(self, window: str) -> int:
        """0: the window is gone."""
        return int(self._xdotool("getwindowpid", window, check=False).strip() or 0)

    def _xdotool(self, *words: str, check: bool = True) -> str:
        argv = ["xdotool", *words]
        environment = {**os.environ, **self.environment}
        return subprocess.run(argv, capture_output=True, text=True, check=check, timeout=20, env=environment).stdout


def authority_entry(cookie: bytes) -> bytes:
    """One line of an Xauthority file: any host, any display."""
    wild = 0xFFFF
    name = b"MIT-MAGIC-COOKIE-1"
    return struct.pack(">HHHH", wild, 0, 0, len(name)) + name + struct.pack(">H", len(cookie)) + cookie


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desktop]:
    made = Desktop(tmp_path_factory.mktemp("x"))
    yield made
    made.close()


def on_desktop(
    device: GuestDevice, monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], user: str = ""
) -> None:
    """The guest of VM a asks with zenity."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    (device.places().settings / "ui").write_text(f"desktop:{user}" if user else "desktop")
    device.connect(make_dispatcher(device.places()))


@pytest.fixture
def desktop(device: GuestDevice, screen: Desktop, monkeypatch: pytest.MonkeyPatch) -> Desktop:
    on_desktop(device, monkeypatch, screen.environment)
    return screen


@pytest.mark.parametrize(
    ("options", "keys", "status"),
    [
        ("MAXDT=20", ["Return"], "200"),
        ("MAXDT=20&DR=0", ["Return"], "304"),
        ("MAXDT=20", ["Escape"], "214"),
    ],
)
def test_zenity_confirms(device: GuestDevice, desktop: Desktop, options: str, keys: list[str], status: str) -> None:
    """1101 with DR: 200, 304, 214."""
    asking = ask(device, 1101, TRICKY, options=options)
    desktop.window()
    desktop.press(*keys)
    assert asking.result() == (status, [])


def test_nobody_answers_zenity(device: GuestDevice, desktop: Desktop) -> None:
    """MAXDT: 408, and the window goes."""
    asking = ask(device, 1101, "Anybody?", options="MAXDT=1")
    assert asking.result() == ("408", [])
    within(5, lambda: not desktop.has_window(), "the window goes")


def test_zenity_shows_a_text(device: GuestDevice, desktop: Desktop) -> None:
    """1100 with MINDT and MAXDT."""
    began = time.monotonic()
    asking = ask(device, 1100, TRICKY, options="MINDT=2&MAXDT=20")
    first = desktop.window()
    desktop.press("Return")
    desktop.window(after=first)
    time.sleep(max(0.0, began + 2.5 - time.monotonic()))
    desktop.press("Return")
    assert asking.result() == ("200", [])
    assert time.monotonic() - began >= 2.0
    assert ask(device, 1100, "Nobody sees this", options="MAXDT=1").result() == ("200", [])


def test_zenity_takes_a_text(device: GuestDevice, desktop: Desktop) -> None:
    """1102 with IT, MAXLEN, DR and ET."""
    asking = ask(device, 1102, TRICKY, options="IT=N&MAXLEN=4&MAXDT=20&DR=x")
    first = desktop.window()
    desktop.press("Return")
    desktop.window(after=first)
    desktop.type("4711")
    desktop.press("Return")
    assert asking.result() == ("200", ["4711"])
    asking = ask(device, 1102, "Password?", options="ET=P&MAXDT=20&DR=-s")
    desktop.window()
    desktop.press("Return")
    assert asking.result() == ("200", ["-s"])
    asking = ask(device, 1102, "Name?")
    desktop.window()
    desktop.press("Escape")
    assert asking.result() == ("214", [])


def test_zenity_offers_choices(device: GuestDevice, desktop: Desktop) -> None:
    """1103 and 1104 with DR; a single choice must be made."""
    asking = ask(device, 1103, TRICKY, "--help", "gr&een", "blue", options="DR=2&MAXDT=20")
    desktop.window()
    desktop.press("Tab", "Tab", "Return")
    assert asking.result() == ("200", ["2"])
    asking = ask(device, 1104, "Which?", "a", "b", "c", options="DR=1-3&MAXDT=20")
    desktop.window()
    desktop.press("Tab", "Tab", "Return")
    assert asking.result() == ("200", ["1", "3"])
    asking = ask(device, 1104, "Which?", "a", "b")
    desktop.window()
    desktop.press("Escape")
    assert asking.result() == ("214", [])


def test_a_short_text_comes_as_a_notification(
    device: GuestDevice, screen: Desktop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """1100 where the desktop has notifications (here dunst's): no window that holds anybody up."""
    environment = {**os.environ, **screen.environment, "XDG_CONFIG_HOME": str(tmp_path)}
    argv = ["dbus-daemon", "--session", "--nofork", "--print-address=1", "--nopidfile"]
    bus = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert bus.stdout is not None
    environment["DBUS_SESSION_BUS_ADDRESS"] = bus.stdout.readline().strip()

    def dunstctl(*words: str) -> str:
        return subprocess.run(["dunstctl", *words], env=environment, capture_output=True, text=True, check=False).stdout

    try:
        within(PATIENCE, lambda: dunstctl("count", "displayed").strip() == "0", "dunst, which the bus starts")
        on_desktop(device, monkeypatch, screen.environment)
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", environment["DBUS_SESSION_BUS_ADDRESS"])
        assert ask(device, 1100, TRICKY, options="MAXDT=20").result() == ("200", [])
        assert dunstctl("count", "displayed").strip() == "1"
        assert not screen.has_window()
        dunstctl("close")
        (told,) = json.loads(dunstctl("history"))["data"][0]
        assert told["summary"]["data"] == TITLE
        assert html.unescape(told["body"]["data"]) == TRICKY
    finally:
        bus.terminate()  # and dunst with it
        bus.wait(10)
        bus.stdout.close()


def test_without_a_display_nobody_said_no(device: GuestDevice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """zenity ends as if "no" was pressed when it cannot open the display: that is 416, and never 304."""
    on_desktop(device, monkeypatch, {"DISPLAY": ":4711", "XAUTHORITY": str(tmp_path / "none")})
    assert ask(device, 1101, "Update?").result() == ("416", [])


def test_zenity_in_a_users_session(
    device: GuestDevice, screen: Desktop, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """``desktop:USER``: the shim is a service of root's; display and cookie are those of the user's programs."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("XAUTHORITY", raising=False)
    user = pwd.getpwnam("games")
    cookie = Path(f"/run/virmo-test-cookie-{os.getpid()}")
    cookie.write_bytes(screen.authority.read_bytes())
    os.chown(cookie, user.pw_uid, user.pw_gid)
    argv = ["runuser", "-u", "games", "--", "env", f"DISPLAY={screen.display}", f"XAUTHORITY={cookie}", "sleep", "60"]
    session = subprocess.Popen(argv, start_new_session=True)
    try:
        on_desktop(device, monkeypatch, {}, "games")
        within(5, lambda: "sleep" in programs_below(session.pid), "the session's program")
        asking = ask(device, 1101, "Restart?")
        asked_by = screen.window()
        assert Path(f"/proc/{asked_by}").stat().st_uid == user.pw_uid
        screen.press("Return")
        assert asking.result() == ("200", [])
    finally:
        os.killpg(session.pid, signal.SIGKILL)
        session.wait()
        cookie.unlink()


def programs_below(pid: int) -> list[str]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{child}/comm").read_text().strip() for child in children]
