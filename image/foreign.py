"""Debian's packages as a root file system of another architecture than the build machine's; none of them is run.

Emulating another processor for two hundred packages' scripts takes longer than everything else together, and needs the
kernel's binfmt_misc. What those scripts make (accounts, links, enabled services, certificates) is the same on every
architecture: it is taken from the build machine's own base layer, where they did run. What is for one architecture only
is left out of that, or made by the build machine's tools.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from image.agent import compile_tree
from image.arch import ARCHES, Arch
from image.errors import ImageError
from image.host import run_tool
from image.packages import Archive, control_of, unpack_over, unpack_tree

#: Links at the top of a merged-/usr system.
MERGED = ("bin", "lib", "sbin")
#: Made by packages' scripts, and of no use or harmful on another architecture.
_OF_ONE_ARCHITECTURE = (
    "etc/ld.so.cache",
    "lib32",
    "lib64",
    "libx32",
    "usr/lib/modules/*",
    "var/lib/dpkg/*",
    "*/__pycache__/*",
)
_ESSENTIAL = "?essential"
_STATUS = "var/lib/dpkg/status"


def native() -> Arch:
    """The architecture of the build machine's own packages."""
    debian = run_tool(["dpkg", "--print-architecture"], what="asking for this machine's architecture", timeout=30)
    for arch in ARCHES.values():
        if arch.debian == debian.strip():
            return arch
    raise ImageError(f"this machine's architecture, {debian.strip()}, is none that images can be built on")


def assemble(
    archive: Archive,
    names: Iterable[str],
    root: Path,
    *,
    excluded: Iterable[str],
    like: Path,
    report: Callable[[float], None],
) -> None:
    """Makes the root file system `root` of packages and all they need.

    `like` is the packed root file system of the same packages for this machine; `excluded` are dpkg's patterns of
    files that stay out; `report` hears how far it is (0 to 1).
    """
    packages = archive.closure([_ESSENTIAL, *names])
    report(0.3)
    root.mkdir(parents=True)
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for number, package in enumerate(packages):
        unpack_over(package, root, excluded)
        report(0.3 + 0.4 * number / len(packages))
    _write_status(packages, root)
    with tempfile.TemporaryDirectory(prefix="virmo-configured-", dir=root.parent) as scratch:
        model = Path(scratch)
        unpack_tree(like, model)
        report(0.8)
        take_over(model, root, owned_paths(model))
    compile_tree(root, "-x", r"/(test|lib2to3/tests)/")


def owned_paths(root: Path) -> frozenset[str]:
    """The paths that packages of a root file system brought, as dpkg's lists have them."""
    lists = (root / "var/lib/dpkg/info").glob("*.list")
    return frozenset(canonical(line) for file in lists for line in file.read_text().splitlines())


def canonical(path: str) -> str:
    """A path without its leading slash, as it is in a merged /usr."""
    relative = path.strip("/")
    return f"usr/{relative}" if PurePosixPath(relative).parts[:1] in {(name,) for name in MERGED} else relative


def take_over(model: Path, root: Path, owned: frozenset[str]) -> None:
    """Copies what packages' scripts made in `model`, and the owners and modes they set on what packages brought."""
    for path, found in _walk(model):
        if any(fnmatch(path, pattern) for pattern in _OF_ONE_ARCHITECTURE):
            continue
        target = root / path
        if canonical(path) in owned:
            if os.path.lexists(target):
                _same_owner(found, target)
        elif stat.S_ISDIR(found.lstat().st_mode):
            target.mkdir(parents=True, exist_ok=True)
            _same_owner(found, target)
        elif not os.path.lexists(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, target, follow_symlinks=False)
            _same_owner(found, target)


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Everything below `root`, folders before what is in them; links are not followed."""
    for folder, folders, files in os.walk(root):
        for name in sorted((*folders, *files)):
            path = Path(folder, name)
            yield str(path.relative_to(root)), path


def _same_owner(source: Path, target: Path) -> None:
    about = source.lstat()
    os.chown(target, about.st_uid, about.st_gid, follow_symlinks=False)
    if not target.is_symlink() and not source.is_symlink():
        target.chmod(stat.S_IMODE(about.st_mode))


def _write_status(packages: Iterable[Path], root: Path) -> None:
    """dpkg's database as far as anybody reads it in an image: what is there, in which version."""
    entries = []
    for package in packages:
        first, _, rest = control_of(package).partition("\n")
        entries.append(f"{first}\nStatus: install ok installed\n{rest.rstrip()}\n\n")
    status = root / _STATUS
    status.parent.mkdir(parents=True, exist_ok=True)
    status.write_text("".join(entries))
