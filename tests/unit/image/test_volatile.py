"""A disk's write cache that a power cut empties, by QEMU's own tool as client."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest

from image.errors import ImageError
from image.host import ensure_packages
from image.volatile import PACKAGES, VolatileCache, unpack_disk

KIB = 1024
#: In this order; then it waits to be killed, for at its end qemu-io would flush.
COMMANDS = ("write -P 0x41 0 4k", "flush", "write -P 0x42 4k 4k", "write -P 0x43 0 2k", "sleep 60000")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """64 KiB of zeros."""
    ensure_packages({**PACKAGES, "qemu-utils": "qemu-io"})
    file = tmp_path / "disk.raw"
    file.write_bytes(bytes(64 * KIB))
    return file


def written_three_times(url: str) -> None:
    """A client that is killed after its third write."""
    argv = [
        "stdbuf",
        "-oL",
        "qemu-io",
        "-f",
        "raw",
        "-t",
        "writeback",
        *(word for line in COMMANDS for word in ("-c", line)),
        url,
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        written = 0
        while written < 3:
            line = client.stdout.readline()
            assert line, "qemu-io ended too early"
            written += line.startswith("wrote")
        client.kill()


def test_a_cut_loses_what_was_not_flushed_and_nothing_else(disk: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="virmo-") as sockets:
        cache = VolatileCache(disk, Path(sockets))
        written_three_times(cache.drive.split(",")[0].removeprefix("file="))
        cache.cut()
    assert disk.read_bytes() == b"A" * 4 * KIB + bytes(60 * KIB)


def test_a_disk_that_cannot_be_served_is_an_error(tmp_path: Path) -> None:
    ensure_packages(PACKAGES)
    with pytest.raises(ImageError, match="nbdkit"):
        VolatileCache(tmp_path / "none", tmp_path)


def test_a_disk_is_unpacked_as_it_reads(tmp_path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "a.qcow2", "64k"], check=True, timeout=60)
    unpack_disk(tmp_path / "a.qcow2", tmp_path / "a.raw")
    assert (tmp_path / "a.raw").read_bytes() == bytes(64 * KIB)
