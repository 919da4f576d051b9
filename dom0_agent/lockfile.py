"""One agent at a time uses a state directory: a lock that ends with its process, and says whose it is."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO


class AlreadyRunning(Exception):  # noqa: N818 - it says what is the matter
    """Another agent has this state directory."""


def hold(file: Path) -> IO[str]:
    """The lock, held until it is closed. :class:`AlreadyRunning` names the process that has it."""
    handle = file.open("a+", encoding="ascii")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.seek(0)
        pid = handle.read().strip() or "unknown"
        handle.close()
        raise AlreadyRunning(f"another agent (process {pid}) uses {file.parent}") from None
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle
