"""A disk with a write cache that a power cut empties: what the machine wrote and did not flush is lost, as on a board.

nbdkit holds the cache, in front of a raw file; QEMU is its client. Between QEMU and the file itself nothing would ever
be lost: the build machine's page cache outlives a killed QEMU.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from image.errors import ImageError
from image.host import Argv, run_tool

PACKAGES: dict[str, Path | str] = {"nbdkit": "nbdkit"}
_START_TIMEOUT = 20.0
_CONVERT_TIMEOUT = 300.0
_EXIT_TIMEOUT = 20.0
_POLL = 0.05


def unpack_disk(source: Path, target: Path) -> None:
    """A raw, sparse file that reads as the qcow2 ``source``."""
    argv: Argv = ["qemu-img", "convert", "-O", "raw", source, target]
    run_tool(argv, what="unpacking the machine's disk", timeout=_CONVERT_TIMEOUT)


class VolatileCache:
    """The cache of one start of the machine. QEMU's drive is ``drive``; `cut` loses what was not flushed."""

    def __init__(self, disk: Path, sockets: Path) -> None:
        """Starts to serve the raw file ``disk`` at a socket in ``sockets``; the cache lies beside ``disk``."""
        socket = sockets / "disk"
        socket.unlink(missing_ok=True)
        self.drive = f"file=nbd+unix:///?socket={socket},format=raw,cache=writeback"
        argv = [
            # It dies with the process that started it, as QEMU does. The filter's cache is a file without a name.
            *("setpriv", "--pdeathsig", "KILL", "nbdkit", "--foreground", "--unix", str(socket)),
            *("--filter=cache", "file", str(disk), "cache=writeback"),
        ]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(disk.parent)},
        )
        deadline = time.monotonic() + _START_TIMEOUT
        while not socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ImageError("nbdkit does not serve the machine's disk", detail=self.cut())
            time.sleep(_POLL)

    def cut(self) -> str:
        """Ends it at once: the file has what was flushed, and nothing else. Returns what nbdkit complained of."""
        self._process.kill()
        return self._process.communicate(timeout=_EXIT_TIMEOUT)[1].decode(errors="replace").strip()
