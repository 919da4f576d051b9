"""The initial RAM disk, read back with a reader of its own: names, modes, contents, folders that come by themselves."""

from __future__ import annotations

import stat
from pathlib import Path

from image.initramfs import Ramdisk


def records(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """A reader of the "newc" format, after the kernel's Documentation/driver-api/early-userspace/buffer-format.rst."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        assert archive[at + 110 + name_size - 1] == 0
        data_at = (at + 110 + name_size + 3) & ~3
        at = (data_at + size + 3) & ~3
        if name == "TRAILER!!!":
            assert at == len(archive)
            return found
        found[name] = (mode, archive[data_at : data_at + size], (fields[9], fields[10]))


def test_files_links_and_devices() -> None:
    disk = Ramdisk()
    disk.file("etc/a", b"hello")
    disk.file("bin/b", b"#!", executable=True)
    disk.link("init", "/bin/b")
    disk.character_device("dev/console", 5, 1)
    found = records(disk.archive())
    assert found["etc/a"] == (stat.S_IFREG | 0o644, b"hello", (0, 0))
    assert found["bin/b"][0] == stat.S_IFREG | 0o755
    assert found["init"] == (stat.S_IFLNK | 0o777, b"/bin/b", (0, 0))
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))


def test_a_folder_stands_before_what_is_in_it() -> None:
    disk = Ramdisk()
    disk.file("usr/lib/x/y", b"")
    assert list(records(disk.archive())) == ["usr", "usr/lib", "usr/lib/x", "usr/lib/x/y"]


def test_a_tree_with_links_and_modes(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/run").write_text("#!/bin/sh\n")
    (tmp_path / "sub/run").chmod(0o755)
    (tmp_path / "link").symlink_to("sub/run")
    disk = Ramdisk()
    disk.tree("", tmp_path)
    found = records(disk.archive())
    assert found["link"][1] == b"sub/run"
    assert found["sub/run"][0] & 0o111


def test_archives_can_follow_each_other() -> None:
    """The guest's RAM disk is two archives: each must fill whole words, or the kernel loses the second."""
    disk = Ramdisk()
    disk.file("a", b"123")
    assert len(disk.archive()) % 4 == 0


def test_the_same_content_gives_the_same_bytes() -> None:
    one, two = Ramdisk(), Ramdisk()
    for disk, names in ((one, ("a", "b")), (two, ("b", "a"))):
        for name in names:
            disk.file(name, name.encode())
    assert one.archive() == two.archive()
