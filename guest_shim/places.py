"""Where the shim keeps things in the guest, and how it runs programs. Tests give other places.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import json
import os
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guest_shim.dispatch import FAILED, ShimError

#: Octets of a program's output that are kept.
OUTPUT_CAP = 64 * 1024
#: Seconds that a handler has.
HANDLER_DEADLINE = 600.0


@dataclass(frozen=True)
class Places:
    """Directories of this guest."""

    state: Path = Path("/var/lib/virmo")  #: what survives a reboot
    handlers: Path = Path("/etc/virmo/handlers")  #: an integrator's own executables
    settings: Path = Path("/etc/virmo")
    root: Path = Path("/")  #: the guest's file system

    def load(self, name: str, default: Any) -> Any:
        """A JSON file of ours below ``state``; ``default`` when there is none, or none that can be read."""
        try:
            return json.loads((self.state / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return default

    def store(self, name: str, value: Any) -> None:
        """Write it, durably, whole or not at all."""
        target = self.state / name
        target.parent.mkdir(parents=True, exist_ok=True)
        building = target.with_name(target.name + ".new")
        with building.open("w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        building.replace(target)


def which(program: str) -> str | None:
    """Where a program is; as :func:`shutil.which`, without the compression libraries that shutil brings along."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder, program)  # noqa: PTH118 - a string is asked for
        if os.access(path, os.X_OK) and not os.path.isdir(path):  # noqa: PTH112
            return path
    return None


def remove_tree(path: Path, *, ignore_errors: bool = False) -> None:
    """As :func:`shutil.rmtree`."""
    import shutil

    shutil.rmtree(path, ignore_errors=ignore_errors)


@dataclass(frozen=True)
class Result:
    """How a program ended."""

    code: int
    output: str  #: both streams

    @property
    def words(self) -> str:
        """The end of what it said, on one line."""
        return " ".join(self.output.split())[-300:]


def run(
    argv: Sequence[str],
    *,
    deadline: float = HANDLER_DEADLINE,
    environment: dict[str, str] | None = None,
    told: bytes = b"",
) -> Result:
    """Run a program to its end; ``told`` is its standard input. A program that cannot be run has code 127, one that
    takes longer than ``deadline`` seconds 124."""
    import subprocess  # here, and not above: an idle shim is to be small

    try:
        ended = subprocess.run(
            list(argv),
            input=told,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=deadline,
            check=False,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        return Result(124, f"{argv[0]} took longer than {deadline:g} s")
    except OSError as error:
        return Result(127, f"{argv[0]}: {error.strerror}")
    return Result(ended.returncode, ended.stdout[-OUTPUT_CAP:].decode("utf-8", "replace"))


def handle(places: Places, kind: str, name: str, *arguments: str) -> Result:
    """Run the handler ``kind/name``: the integrator's executable if there is one, else the shim's own script.

    It finds the shim's state directory in ``VIRMO_STATE`` and the guest's root in ``VIRMO_ROOT``.
    """
    environment = {"VIRMO_STATE": str(places.state), "VIRMO_ROOT": str(places.root).rstrip("/")}
    own = places.handlers / kind / name
    if own.is_file() and os.access(own, os.X_OK):
        return run([str(own), *arguments], environment=environment)
    script = pkgutil.get_data("guest_shim", f"handlers/{kind}/{name}")
    if script is None:
        raise ShimError(FAILED, f"there is no handler {kind}/{name}")
    return run(["/bin/sh", "-c", script.decode(), name, *arguments], environment=environment)
