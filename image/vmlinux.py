"""Takes the uncompressed kernel out of Debian's vmlinuz.

Xen's tools accept both; but unpacking a bzImage in an emulated dom0 takes 9-28 s of each "xl create", and loading the
ELF image inside it takes 2 s.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from image.arch import Arch
from image.elf import is_elf, machine_of
from image.errors import ImageError

_UNPACK_TIMEOUT = 120.0
#: Offsets in a bzImage (the kernel's Documentation/x86/boot.rst), boot protocol 2.08 and later.
_MAGIC_AT, _MAGIC = 0x202, b"HdrS"
_SETUP_SECTORS_AT = 0x1F1
_PAYLOAD_OFFSET_AT = 0x248
_PAYLOAD_LENGTH_AT = 0x24C
_SECTOR = 512
#: The kernel's build appends the unpacked size to what is packed.
_SIZE_SUFFIX = 4


@dataclass(frozen=True, slots=True)
class _Packing:
    magic: bytes
    argv: tuple[str, ...]


_PACKINGS = (
    _Packing(b"\xfd7zXZ\0", ("xz", "-dc", "--single-stream")),
    _Packing(b"\x02\x21\x4c\x18", ("lz4", "-dc")),
    _Packing(b"\x28\xb5\x2f\xfd", ("zstd", "-dc")),
    _Packing(b"\x1f\x8b", ("gzip", "-dc")),
)


def uncompressed(vmlinuz: Path, arch: Arch) -> bytes:
    """The ELF kernel inside a bzImage. Other formats (arm64's Image) are not packed and come back as they are."""
    image = vmlinuz.read_bytes()
    if image[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        return image
    payload = _payload(image)
    for packing in _PACKINGS:
        if payload.startswith(packing.magic):
            kernel = _unpack(payload[:-_SIZE_SUFFIX], packing)
            if not is_elf(kernel) or machine_of(kernel) != arch.elf_machine:
                raise ImageError(f"{vmlinuz.name}: what is packed in it is no {arch.name} ELF kernel")
            return kernel
    raise ImageError(f"{vmlinuz.name}: the kernel in it is packed in an unknown way ({payload[:4].hex()})")


def _payload(image: bytes) -> bytes:
    def word(offset: int) -> int:
        return int.from_bytes(image[offset : offset + 4], "little")

    start = (image[_SETUP_SECTORS_AT] + 1) * _SECTOR + word(_PAYLOAD_OFFSET_AT)
    return image[start : start + word(_PAYLOAD_LENGTH_AT)]


def _unpack(payload: bytes, packing: _Packing) -> bytes:
    done = subprocess.run(packing.argv, input=payload, capture_output=True, timeout=_UNPACK_TIMEOUT, check=False)
    if done.returncode != 0:
        raise ImageError(f"unpacking the kernel: {packing.argv[0]} failed", detail=done.stderr.decode(errors="replace"))
    return done.stdout
