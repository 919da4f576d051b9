"""The shim's handlers in the sample guest's own user land: its busybox as init, its Python, a terminal at its console.

No Xen and no kernel of its own: the guest's init is process 1 of namespaces, so that a lock and a question can be seen
at its console within seconds. What only a real domain can show is in ``tests/nested/test_guests_xen.py``.
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.arch import arch_named
from image.cache import Cache
from image.guest_base import STEPS, build_guest_base
from image.host import ensure_packages
from image.progress import Progress

REPOSITORY = Path(__file__).parents[2]
FIRST_TIMEOUT = 1200.0  #: seconds; the first run on a machine builds the guest
_START = """
mount --bind "$1" "$0/dev/hvc0"
mount --bind "$1" "$0/dev/console"
mount -t proc proc "$0/proc"
exec chroot "$0" /sbin/init
"""
_ASK = """
import sys, threading
from guest_shim.ask import Ask
from guest_shim.dispatch import Request
from guest_shim.places import Places
print(Ask(Places()).answer(Request("ask", {"kind": sys.argv[1], "text": sys.argv[2], "max": 20})).fields)
"""
_LAWMO = """
import sys
from guest_shim.dispatch import Request
from guest_shim.lawmo import Lawmo
from guest_shim.places import Places
lawmo = Lawmo(Places())
print(lawmo.execute("Operations/" + sys.argv[1], Request("exec")), lawmo.read()["State"])
"""


class SampleGuest:
    """The guest's init, running; what its console shows, and a keyboard."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._keyboard, self._screen = pty.openpty()
        terminal = os.ttyname(self._screen)
        argv = [
            "unshare",
            "--pid",
            "--mount",
            "--net",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            _START,
            str(root),
            terminal,
        ]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        self._shown: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.shows("/ # ")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._init = children[0]

    def python(self, code: str, *arguments: str) -> str:
        """Run a program in the guest, as its shim would; what it printed."""
        enter = ["nsenter", "--target", self._init, "--pid", "--mount", "--net", "chroot", str(self._root)]
        argv = [
            *enter,
            "/bin/busybox",
            "env",
            "-i",
            "PYTHONPATH=/usr/lib/virmo",
            "python3",
            "-S",
            "-c",
            code,
            *arguments,
        ]
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def type(self, keys: str) -> None:
        self._shown.clear()
        os.write(self._keyboard, keys.encode())

    def shows(self, wanted: str, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while wanted not in "".join(self._shown):
            assert time.monotonic() < end, f"the console does not show {wanted!r} but {''.join(self._shown)!r}"
            time.sleep(0.05)

    def keeps_silent(self, unwanted: str) -> None:
        time.sleep(1.5)
        assert unwanted not in "".join(self._shown)

    def a_shell_answers(self) -> None:
        self.type("echo alive-$((6*7))\r")
        self.shows("alive-42")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._screen)
        os.close(self._keyboard)

    def _read(self) -> None:
        while True:
            try:
                self._shown.append(os.read(self._keyboard, 4096).decode(errors="replace"))
            except OSError:
                return


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample guest's files, with today's shim; init starts only the shell at the console."""
    ensure_packages({"cpio": "cpio", "util-linux": "unshare"})
    progress = Progress("guest x86_64")
    progress.plan(STEPS)
    base = build_guest_base(arch_named("x86_64"), Cache(say=lambda _line: None), progress)
    made = tmp_path_factory.mktemp("guest")
    with base.ramdisk.plain.open("rb") as archive:
        argv = [
            "cpio",
            "--extract",
            "--make-directories",
            "--quiet",
            "--no-absolute-filenames",
            "--nonmatching",
            "dev/*",
        ]
        subprocess.run(argv, stdin=archive, cwd=made, check=True, timeout=120)
    shutil.copytree(REPOSITORY / "guest_shim", made / "usr/lib/virmo/guest_shim")
    (made / "etc").mkdir()
    table = (REPOSITORY / "image/files/guest/etc/inittab").read_text().splitlines()
    kept = [line for line in table if not any(word in line for word in ("sysinit", "uevent", "/shim"))]
    (made / "etc/inittab").write_text("\n".join(kept) + "\n")
    for name in ("dev", "proc", "sys", "root"):
        (made / name).mkdir(exist_ok=True)
    for name in ("dev/hvc0", "dev/console"):
        (made / name).touch()
    return made


@pytest.fixture
def guest(root: Path) -> Iterator[SampleGuest]:
    made = SampleGuest(root)
    yield made
    made.close()


@pytest.mark.timeout(FIRST_TIMEOUT)
def test_a_lock_takes_the_shell_away_and_unlock_gives_one_back(guest: SampleGuest) -> None:
    """HLF-12, HLF-13: at the console of the sample guest."""
    guest.a_shell_answers()
    assert "1200" in guest.python(_LAWMO, "FullyLock")
    guest.shows("this machine is locked by its owner")
    guest.type("echo alive-$((6*7))\r")
    guest.keeps_silent("alive-42")
    guest.type("")
    unlocked = guest.python(_LAWMO, "UnLock")
    assert "1200" in unlocked
    assert "30" in unlocked
    guest.shows("this machine is unlocked")
    guest.shows("/ # ")
    guest.keeps_silent("alive-42")
    guest.a_shell_answers()


@pytest.mark.timeout(FIRST_TIMEOUT)
@pytest.mark.parametrize(("keys", "outcome"), [("yes\r", "answered"), ("n\r", "rejected"), ("\x03", "cancelled")])
def test_a_person_is_asked_while_a_shell_waits_at_the_same_terminal(
    guest: SampleGuest, keys: str, outcome: str
) -> None:
    """R-155: the shell gets none of the keys, and goes on afterwards."""
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(guest.python(_ASK, "confirm", "Restart now?")))
    guest.type("")
    asking.start()
    guest.shows("Answer yes or no")
    guest.type(keys)
    asking.join(30)
    assert f"'outcome': '{outcome}'" in answers[0]
    guest.a_shell_answers()
