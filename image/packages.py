"""Debian packages as files: resolved and downloaded by apt for any architecture, unpacked without being installed.

Kernels (which would drag in an initramfs generator) and the sample guest's programs are taken this way. apt runs with
its own state folder in the cache, but with this machine's settings: its proxies and credentials apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from image.arch import Arch
from image.errors import ImageError
from image.host import APT_TIMEOUT, Argv, run_tool
from image.sources import Source, sources_list

_UNPACK_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Archive:
    """apt, looking at one architecture's packages with a state folder of its own."""

    folder: Path
    arch: Arch
    options: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path, arch: Arch, sources: Iterable[Source], signed_by: Sequence[str]) -> Archive:
        """Makes the state folder and fetches the package lists."""
        for part in ("lists/partial", "archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(sources_list(sources, signed_by))
        settings = {
            "APT::Architecture": arch.debian,
            "APT::Architectures": arch.debian,
            "Dir::State": folder,
            "Dir::State::status": folder / "status",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder,
            "Dir::Cache::archives": folder / "archives",
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferencesparts": "-",
            "Acquire::Languages": "none",
            # apt's unprivileged download user cannot enter root's cache folder, and would say so each time.
            "APT::Sandbox::User": "root",
        }
        archive = cls(
            folder, arch, tuple(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))
        )
        archive._apt("apt-get", "update", what=f"fetching the {arch.name} package lists")
        return archive

    def kernel_package(self, meta: str) -> str:
        """The kernel image package that a meta-package such as linux-image-amd64 stands for today."""
        for line in self._apt("apt-cache", "depends", "--important", meta, what=f"looking up {meta}").splitlines():
            word, _, name = line.strip().partition(": ")
            if word == "Depends" and name.startswith("linux-image-"):
                return name
        raise ImageError(f"the package {meta} names no kernel")

    def download(self, names: Sequence[str]) -> list[Path]:
        """Fetches packages (not their dependencies) and returns the files."""
        archives = self.folder / "archives"
        uris = self._apt("apt-get", "download", "--print-uris", *names, what="looking up packages")
        files = [archives / line.split()[1] for line in uris.splitlines() if line.startswith("'")]
        if len(files) != len(names):
            raise ImageError(f"looking up packages: {len(names)} asked for, {len(files)} found", detail=uris)
        for old in archives.glob("*.deb"):
            if old not in files:
                old.unlink()
        if not all(file.exists() for file in files):
            self._apt("apt-get", "download", *names, what=f"downloading {' '.join(names)}", cwd=archives)
        return files

    def closure(self, names: Sequence[str]) -> list[Path]:
        """Fetches packages and all that they depend on, as if nothing were installed; apt's patterns are understood."""
        folder, nothing = self.folder / "closure", self.folder / "nothing"
        for made in (folder, nothing):
            (made / "partial").mkdir(parents=True, exist_ok=True)
        install = ("install", "-y", "--no-install-recommends", *names)
        what = f"downloading {self.arch.name} packages"
        # apt leaves out of this list what it finds in its archive folder: it is shown an empty one.
        uris = self._apt("apt-get", "-o", f"Dir::Cache::archives={nothing}", "--print-uris", *install, what=what)
        files = [folder / line.split()[1] for line in uris.splitlines() if line.startswith("'")]
        self._apt("apt-get", "-o", f"Dir::Cache::archives={folder}", "--download-only", *install, what=what)
        wanted = {_name_of(file) for file in files}
        for old in folder.glob("*.deb"):
            if _name_of(old) in wanted and old not in files:
                old.unlink()
        missing = [file.name for file in files if not file.exists()]
        if missing or not files:
            raise ImageError(f"{what}: not there afterwards: {', '.join(missing) or 'anything'}")
        return files

    def _apt(self, program: str, *words: str, what: str, cwd: Path | None = None) -> str:
        return run_tool([program, *self.options, *words], what=what, timeout=APT_TIMEOUT, cwd=cwd or self.folder)


def unpack(package: Path, folder: Path) -> None:
    """Unpacks a .deb's files; nothing in it is run."""
    run_tool(["dpkg-deb", "--extract", package, folder], what=f"unpacking {package.name}", timeout=_UNPACK_TIMEOUT)


def unpack_over(package: Path, root: Path, excluded: Iterable[str] = ()) -> None:
    """Unpacks a .deb over a root file system with a merged /usr, whose links stay; `excluded` are dpkg's patterns."""
    argv: Argv = ["tar", "--extract", "--file=-", "--keep-directory-symlink", "--numeric-owner", "--wildcards"]
    patterns = [f"--exclude=.{pattern}" for pattern in excluded]
    what = f"unpacking {package.name}"
    run_tool(
        ["bash", "-o", "pipefail", "-c", 'dpkg-deb --fsys-tarfile "$1" | "${@:2}"', "bash", package, *argv, *patterns],
        what=what,
        timeout=_UNPACK_TIMEOUT,
        cwd=root,
    )


def control_of(package: Path) -> str:
    """A .deb's control fields, its name first."""
    return run_tool(["dpkg-deb", "--field", package], what=f"reading {package.name}", timeout=_UNPACK_TIMEOUT)


def _name_of(package: Path) -> str:
    return package.name.partition("_")[0]


def compress_tree(folder: Path, target: Path) -> None:
    """Packs a root file system, keeping owners and capabilities."""
    argv: Argv = ["tar", "--create", "--xattrs", "--numeric-owner", "--sort=name", "--directory", folder]
    run_tool(
        [*argv, "--use-compress-program=zstd -3 -T0", "--file", target, "."], what="packing", timeout=_UNPACK_TIMEOUT
    )


def unpack_tree(packed: Path, folder: Path) -> None:
    """The reverse of `compress_tree`."""
    folder.mkdir(parents=True, exist_ok=True)
    argv: Argv = [
        "tar",
        "--extract",
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "--directory",
        folder,
    ]
    run_tool([*argv, "--zstd", "--file", packed], what="unpacking", timeout=_UNPACK_TIMEOUT)
