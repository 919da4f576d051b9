"""A person at the console of a VM on nested Xen: reads what the guest shows, types what a test says.

Uses the pseudo terminal that Xen's console daemon has for the domain, as ``xl console`` does; no shim is involved.
"""

from __future__ import annotations

import shlex
import time
from uuid import UUID

from image.qemu import Dom0

_ATTACH = """
set -e
id=$(xl vm-list | awk -v uuid="$1" '$1 == uuid { print $2 }')
tty=$(xenstore-read "/local/domain/$id/console/tty")
stty -F "$tty" raw -echo
: >"$2"
nohup sh -c 'exec cat <"$0" >>"$1"' "$tty" "$2" >/dev/null 2>&1 &
echo "$tty"
"""


class Console:
    """The console of the domain with this UUID, from now on."""

    def __init__(self, dom0: Dom0, vmid: UUID, timeout: float = 240.0) -> None:
        self._dom0 = dom0
        self._timeout = timeout
        self._text = f"/run/console-{vmid}-{time.monotonic_ns()}"
        self._tty = dom0.run(["sh", "-c", _ATTACH, "attach", str(vmid), self._text]).stdout.strip()
        self._seen = 0

    def type(self, keys: str) -> None:
        """Press these keys; what was shown before does not count for :meth:`shows` any more."""
        self._seen = len(self.text())
        self._dom0.run(["sh", "-c", f"printf %s {shlex.quote(keys)} >{self._tty}"])

    def enter(self, line: str) -> None:
        """Type a line."""
        self.type(f"{line}\r")

    def text(self) -> str:
        """Everything shown so far."""
        return self._dom0.read(self._text)

    def shows(self, wanted: str) -> None:
        """Wait until the guest shows this, after the last keys."""
        deadline = time.monotonic() + self._timeout
        while wanted not in (shown := self.text()[self._seen :]):
            assert time.monotonic() < deadline, f"the console does not show {wanted!r} but {shown[-600:]!r}"
            time.sleep(0.5)

    def keeps_silent(self, unwanted: str, seconds: float) -> None:
        """The guest does not show this within so many seconds after the last keys."""
        time.sleep(seconds)
        shown = self.text()[self._seen :]
        assert unwanted not in shown, shown
