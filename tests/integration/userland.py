"""A guest's own user land without Xen and without a kernel of its own: its init is process 1 of namespaces here.

So what happens at a guest's console, to its processes and in its network is seen within seconds. What only a real
domain can show is in ``tests/nested``.
"""

from __future__ import annotations

import os
import pty
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

#: Seconds that a program in the guest has.
DEADLINE = 60.0


def eventually(truth: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


class Userland:
    """A guest's init, running; what its console shows, and a keyboard.

    ``start`` is a shell script that mounts what the guest needs ($0 is its root, $1 the console's terminal) and becomes
    its init.
    """

    def __init__(self, root: Path, start: str) -> None:
        self.root = root
        self._keyboard, self._screen = pty.openpty()
        namespaces = ["--pid", "--mount", "--net", "--uts", "--ipc", "--fork", "--kill-child"]
        argv = ["unshare", *namespaces, "sh", "-c", start, str(root), os.ttyname(self._screen)]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        self.shown = ""
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def init(self) -> int:
        """Its process, here."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        eventually(lambda: bool(children.read_text()), "the guest begins")
        return int(children.read_text().split()[0])

    def run(self, *argv: str, check: bool = True, told: bytes = b"") -> str:
        """Run a program in the guest; what it printed, on both streams."""
        enter = ["nsenter", "--target", str(self.init), "--pid", "--mount", "--net", "--uts", "--ipc"]
        ended = subprocess.run(
            [*enter, "chroot", str(self.root), *argv],
            input=told,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE,
            check=False,
        )
        output = ended.stdout.decode(errors="replace")
        assert not check or ended.returncode == 0, output
        return output

    def type(self, keys: str) -> None:
        """At its console, and forget what was shown there."""
        self.shown = ""
        os.write(self._keyboard, keys.encode())

    def shows(self, wanted: str, seconds: float = 20.0) -> None:
        """Wait until the console shows it."""
        eventually(lambda: wanted in self.shown, f"{wanted!r} at the console, which shows {self.shown!r}", seconds)

    def keeps_silent(self, unwanted: str) -> None:
        """The console does not show it for a while."""
        time.sleep(1.5)
        assert unwanted not in self.shown

    def close(self) -> None:
        """As if the power was cut."""
        self._process.kill()
        self._process.wait()
        os.close(self._screen)
        os.close(self._keyboard)

    def _read(self) -> None:
        while True:
            try:
                seen = os.read(self._keyboard, 4096).decode(errors="replace")
            except OSError:
                return
            self.shown += seen
