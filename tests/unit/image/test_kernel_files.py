"""ELF files and bzImages: what a library needs, and the kernel inside Debian's vmlinuz."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest

from image.arch import ARCHES, Arch
from image.elf import is_elf, library_closure, machine_of, needed
from image.errors import ImageError
from image.vmlinux import uncompressed

X86 = ARCHES["x86_64"]
BASE = 0x400000


def elf(machine: int, libraries: tuple[str, ...] = ()) -> bytes:
    """A minimal ELF file: header, one LOAD and one DYNAMIC segment, a string table."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in libraries)
    offsets = [strings.index(b"\0" + name.encode() + b"\0") + 1 for name in libraries]
    dynamic_at = 64 + 2 * 56
    strings_at = dynamic_at + 16 * (len(libraries) + 2)
    entries = [*((1, offset) for offset in offsets), (5, BASE + strings_at), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    size = strings_at + len(strings)
    header = b"\x7fELF\x02\x01\x01" + b"\0" * 9
    header += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    segments = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 4096)
    segments += struct.pack("<IIQQQQQQ", 2, 6, dynamic_at, BASE + dynamic_at, 0, len(dynamic), len(dynamic), 8)
    return header + segments + dynamic + strings


def bz_image(kernel: bytes) -> bytes:
    packed = gzip.compress(kernel) + struct.pack("<I", len(kernel))
    setup = bytearray(2 * 512)
    setup[0x1F1] = 1
    setup[0x202:0x206] = b"HdrS"
    setup[0x248:0x250] = struct.pack("<II", 16, len(packed))
    return bytes(setup) + b"\x90" * 16 + packed


def test_needed_libraries() -> None:
    data = elf(62, ("libc.so.6", "libm.so.6"))
    assert is_elf(data)
    assert machine_of(data) == 62
    assert needed(data) == ("libc.so.6", "libm.so.6")


def test_a_static_program_needs_nothing() -> None:
    assert needed(elf(62)) == ()


def test_closure_follows_libraries(tmp_path: Path) -> None:
    files = {"prog": ("liba.so",), "liba.so": ("libb.so",), "libb.so": ("liba.so",), "libc.so": ()}
    for name, wants in files.items():
        (tmp_path / name).write_bytes(elf(62, wants))
    libraries = {name: tmp_path / name for name in files if name != "prog"}
    assert set(library_closure([tmp_path / "prog"], libraries)) == {"liba.so", "libb.so"}


def test_a_library_nobody_brings_is_named(tmp_path: Path) -> None:
    (tmp_path / "prog").write_bytes(elf(62, ("libgone.so",)))
    with pytest.raises(ImageError, match=r"prog needs libgone\.so"):
        library_closure([tmp_path / "prog"], {})


def test_the_kernel_inside_a_bz_image(tmp_path: Path) -> None:
    kernel = elf(62)
    (tmp_path / "vmlinuz").write_bytes(bz_image(kernel))
    assert uncompressed(tmp_path / "vmlinuz", X86) == kernel


def test_an_image_that_is_not_packed_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(b"MZ" + b"\0" * 1024)
    assert uncompressed(tmp_path / "vmlinuz", ARCHES["arm64"]).startswith(b"MZ")


@pytest.mark.parametrize(
    ("kernel", "says"),
    [(elf(183), "no x86_64 ELF kernel"), (b"not an ELF", "no x86_64 ELF kernel")],
)
def test_a_foreign_kernel_is_refused(tmp_path: Path, kernel: bytes, says: str) -> None:
    (tmp_path / "vmlinuz").write_bytes(bz_image(kernel))
    with pytest.raises(ImageError, match=says):
        uncompressed(tmp_path / "vmlinuz", X86)


def test_an_unknown_packing_is_named(tmp_path: Path) -> None:
    image = bytearray(bz_image(elf(62)))
    image[2 * 512 + 16 : 2 * 512 + 20] = b"\xde\xad\xbe\xef"
    (tmp_path / "vmlinuz").write_bytes(image)
    with pytest.raises(ImageError, match="unknown way"):
        uncompressed(tmp_path / "vmlinuz", X86)


@pytest.mark.parametrize("arch", ARCHES.values())
def test_each_row_knows_its_elf_number(arch: Arch) -> None:
    assert machine_of(elf(arch.elf_machine)) == arch.elf_machine
