"""Puts a dom0's folder together: today's code, the sample guest as it is, and one with another program in it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from image.guest import build_guest
from image.initramfs import Ramdisk
from tests.nested.bundles import unpack_guest

REPOSITORY = Path(__file__).parent.parent.parent.parent
#: Where the folder lies in dom0.
PLACE = "/root/channel"


def lay_out(folder: Path, code: tuple[str, ...], shim: str, programs: Mapping[str, Path]) -> None:
    """Fill ``folder``: the repository's ``code``, ``guest/kernel`` and ``guest/ramdisk``, and ``guest/other-ramdisk``.

    In the last, ``shim`` is the script that runs instead of the shim, and ``programs`` are files below ``/root``.
    """
    ignore = shutil.ignore_patterns("__pycache__")
    for name in code:
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
    guest = folder / "guest"
    unpack_guest(build_guest("x86_64", say=print), guest)
    other = Ramdisk()  # one archive after another: the kernel takes the last of each file
    other.file("usr/lib/virmo/shim", shim.encode(), executable=True)
    for name, source in programs.items():
        other.file(f"root/{name}", source.read_bytes())
    (guest / "other-ramdisk").write_bytes((guest / "ramdisk").read_bytes() + other.archive())


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of the folder in dom0."""
    command = ["env", "-C", PLACE, f"PYTHONPATH={PLACE}", "PYTHONDONTWRITEBYTECODE=1", "python3", "-u", "-m", module]
    return [*command, *arguments]
