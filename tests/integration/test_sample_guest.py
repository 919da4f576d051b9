"""The shim's handlers in the sample guest's own user land: its busybox as init, its Python, a terminal at its console.

No Xen, and no kernel of its own (see ``userland``). What only a real domain can show is in
``tests/nested/test_guests_xen.py``.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.arch import arch_named
from image.cache import Cache
from image.guest_base import STEPS, build_guest_base
from image.host import ensure_packages
from image.progress import Progress
from tests.integration.userland import Userland

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


class SampleGuest(Userland):
    """Its busybox, at whose console a shell waits."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, _START)
        self.shows("/ # ")

    def python(self, code: str, *arguments: str) -> str:
        """Run a program in the guest, as its shim would; what it printed."""
        environment = ["/bin/busybox", "env", "-i", "PYTHONPATH=/usr/lib/virmo"]
        return self.run(*environment, "python3", "-S", "-c", code, *arguments)

    def a_shell_answers(self) -> None:
        self.type("echo alive-$((6*7))\r")
        self.shows("alive-42")


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
