"""Writes an initial RAM disk: a cpio archive ("newc"), made in this process.

No root rights, device nodes or foreign-architecture programs are needed, and the same content gives the same bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_TRAILER = "TRAILER!!!"
_ALIGN = 4


@dataclass(frozen=True, slots=True)
class Node:
    """A file, folder, symbolic link or device of the archive."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


class Ramdisk:
    """Collects nodes by path; folders above a node come by themselves."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def file(self, path: str, data: bytes, *, executable: bool = False) -> None:
        self._add(path, Node(stat.S_IFREG | (0o755 if executable else 0o644), data))

    def link(self, path: str, target: str) -> None:
        self._add(path, Node(stat.S_IFLNK | 0o777, target.encode()))

    def folder(self, path: str, mode: int = 0o755) -> None:
        self._add(path, Node(stat.S_IFDIR | mode))

    def character_device(self, path: str, major: int, minor: int) -> None:
        self._add(path, Node(stat.S_IFCHR | 0o600, device=(major, minor)))

    def copy(self, path: str, source: Path) -> None:
        """Takes over a file as it is on the build machine: contents and whether it is executable."""
        self.file(path, source.read_bytes(), executable=os.access(source, os.X_OK))

    def tree(self, path: str, source: Path) -> None:
        """Takes over a whole folder, links included."""
        for found in sorted(source.rglob("*")):
            inside = str(PurePosixPath(path, found.relative_to(source)))
            if found.is_symlink():
                self.link(inside, str(found.readlink()))
            elif found.is_dir():
                self.folder(inside)
            else:
                self.copy(inside, found)

    def archive(self) -> bytes:
        """The cpio archive."""
        parts: list[bytes] = []
        for number, (path, node) in enumerate(sorted(self._nodes.items()), start=1):
            parts.extend(_record(number, path, node))
        parts.extend(_record(0, _TRAILER, Node(0)))
        return b"".join(parts)

    def _add(self, path: str, node: Node) -> None:
        for parent in PurePosixPath(path).parents:
            if str(parent) != ".":
                self._nodes.setdefault(str(parent), Node(stat.S_IFDIR | 0o755))
        self._nodes[path] = node


def _record(number: int, path: str, node: Node) -> Iterator[bytes]:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(node.mode) else 1
    fields = (number, node.mode, 0, 0, links, 0, len(node.data), 0, 0, *node.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    yield _padded(header + name)
    yield _padded(node.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGN)
