"""The build machine's tools: runs them with a deadline, and installs the Debian packages they come from when missing.

Everything the image code starts on the build machine, except QEMU and ssh themselves, goes through `run_tool`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from image.errors import ImageError

#: A program and its arguments; paths need no conversion.
Argv = Sequence[str | Path]
#: A user's PATH may lack the administrator's folders, where depmod and mkfs.ext4 are.
_PATH = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
#: How much of a failed tool's output is worth showing.
TAIL_LINES = 20
#: apt on a slow mirror: a package or two hundred, but not for ever.
APT_TIMEOUT = 900.0


def run_tool(
    argv: Argv,
    *,
    what: str,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Runs one program to its end and returns its output (both streams). Fails with the last lines it said."""
    lines: list[str] = []
    try:
        process = subprocess.Popen(
            [str(word) for word in argv],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", "PATH": _PATH, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise ImageError(f"{what}: the program {argv[0]} is not installed") from error
    expired = threading.Event()

    def kill() -> None:
        expired.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(timeout, kill)
    timer.start()
    try:
        assert process.stdout is not None
        with process.stdout as said:
            for line in said:
                lines.append(line)
                if on_line is not None:
                    on_line(line.rstrip("\n"))
        code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if expired.is_set():
        raise ImageError(f"{what}: {argv[0]} did not finish within {timeout:.0f} s", detail=_tail(lines))
    if code != 0:
        raise ImageError(f"{what}: {argv[0]} failed (exit status {code})", detail=_tail(lines))
    return "".join(lines)


def ensure_packages(needed: Mapping[str, Path | str]) -> None:
    """Makes sure that every program (or file) is there, installing the Debian packages of those that are not.

    `needed` maps a Debian package to a program name looked up on PATH, or to a Path that must exist.
    """
    missing = [package for package, witness in needed.items() if not _present(witness)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise ImageError(
            f"These Debian packages are missing: {' '.join(missing)}",
            todo=f"run as root: apt-get install --no-install-recommends {' '.join(missing)}",
        )
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    try:
        run_tool(install, what=f"installing {' '.join(missing)}", timeout=APT_TIMEOUT, env=env)
    except ImageError:
        # The package lists are missing or too old: fetch them, and only then is a second failure final.
        run_tool(["apt-get", "update"], what="fetching the package lists", timeout=APT_TIMEOUT, env=env)
        run_tool(install, what=f"installing {' '.join(missing)}", timeout=APT_TIMEOUT, env=env)
    still = [package for package, witness in needed.items() if not _present(witness)]
    if still:
        raise ImageError(f"Installed, but without the programs expected of them: {' '.join(still)}")


def _present(witness: Path | str) -> bool:
    if isinstance(witness, Path):
        return witness.exists()
    return shutil.which(witness, path=_PATH) is not None


def _tail(lines: Sequence[str]) -> str:
    return "".join(f"    {line}" for line in deque(lines, TAIL_LINES)).rstrip("\n")
