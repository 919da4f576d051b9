"""Disk images by their headers: a guest's disk must stay inside its own file."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.images.disk import HEAD, MAX_VIRTUAL, looks_like_disk, qcow2_virtual_size
from dom0_agent.images.errors import Corrupt, ImageError, Unsupported


def header(
    *,
    version: int = 3,
    backing: int = 0,
    bits: int = 16,
    size: int = 1 << 30,
    crypt: int = 0,
    features: int = 0,
    length: int = 112,
    extensions: bytes = b"",
) -> bytes:
    """A qcow2 header as the format's specification lays it out."""
    start = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", version, backing, 9, bits, size, crypt, 1, 0x30000, 0x10000, 1, 0, 0
    )
    if version == 3:
        start += struct.pack(">QQQII", features, 0, 0, 4, length)
        start = start.ljust(length, b"\0")
    return start + extensions


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")


@pytest.mark.parametrize("version", [2, 3])
def test_virtual_size(version: int) -> None:
    assert qcow2_virtual_size(header(version=version)) == 1 << 30


def test_known_extensions_are_accepted() -> None:
    names = extension(0x6803F857, b"\0" * 48) + extension(0, b"")
    assert qcow2_virtual_size(header(extensions=names)) == 1 << 30


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"backing": 512}, "backing file"),
        ({"version": 2, "backing": 512}, "backing file"),
        ({"features": 4}, "data in another file"),
        ({"features": 1 << 5}, "unknown incompatible features"),
        ({"features": 1 << 63}, "unknown incompatible features"),
        ({"crypt": 1}, "encrypted"),
        ({"version": 1}, "version 1"),
        ({"version": 4}, "version 4"),
        ({"extensions": extension(0x44415441, b"/etc/shadow")}, "names another file"),
        ({"extensions": extension(0x6803F857, b"x" * 9) + extension(0xE2792ACA, b"raw")}, "names another file"),
    ],
)
def test_refused(damage: dict[str, int], reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        qcow2_virtual_size(header(**damage))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "damage", [{"size": 0}, {"size": MAX_VIRTUAL + 1}, {"bits": 8}, {"bits": 22}, {"features": 2}, {"length": 100}]
)
def test_damaged(damage: dict[str, int]) -> None:
    with pytest.raises(Corrupt):
        qcow2_virtual_size(header(**damage))  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, 3, 4, 71, 72, 103])
def test_cut_short(length: int) -> None:
    with pytest.raises(ImageError):
        qcow2_virtual_size(header()[:length])


@given(st.binary(max_size=200), st.integers(0, 111), st.binary(max_size=8))
def test_any_header(rest: bytes, at: int, damage: bytes) -> None:
    """A size within bounds, or the package's own error."""
    data = bytearray(header(extensions=rest))
    data[at : at + len(damage)] = damage
    try:
        assert 0 < qcow2_virtual_size(bytes(data)[:HEAD]) <= MAX_VIRTUAL
    except ImageError:
        return


def test_magics() -> None:
    assert looks_like_disk(bytes(510) + b"\x55\xaa")
    assert looks_like_disk(bytes(512) + b"EFI PART")
    assert looks_like_disk(bytes(1080) + b"\x53\xef")
    assert not looks_like_disk(bytes(4096)) and not looks_like_disk(b"")


def test_file_system_of_a_real_tool_is_known(tmp_path: Path) -> None:
    """mke2fs writes what the table of magics says."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1024 * 1024))
    subprocess.run(["mke2fs", "-q", "-t", "ext4", str(disk)], check=True, capture_output=True, timeout=30)
    assert looks_like_disk(disk.read_bytes()[:HEAD])
