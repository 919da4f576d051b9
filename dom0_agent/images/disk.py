"""Disk images as bytes: what kind a file is, and whether a qcow2 header may be trusted to stay inside its own file.

Reads headers only; knows no store and no VM. The danger of qcow2 is not in its data but in what its header makes
the block layer open: a backing file or an external data file is a path into dom0, chosen by whoever made the image.
"""

from __future__ import annotations

import struct

from dom0_agent.images.errors import Corrupt, Unsupported

#: bytes from the start of a file that :func:`is_qcow2`, :func:`looks_like_disk` and :func:`qcow2_virtual_size` want
HEAD = 72 * 1024
SECTOR = 512
#: 64 TiB: more than Xen's block front-ends are used with, far below where arithmetic of tools overflows
MAX_VIRTUAL = 1 << 46

_QCOW2_MAGIC = b"QFI\xfb"
_QCOW2 = struct.Struct(">4sIQIIQIIQQIIQ")
_QCOW2_V3 = struct.Struct(">QQQII")
_V2_LENGTH = 72
_DIRTY, _CORRUPT, _EXTERNAL_DATA, _COMPRESSION, _EXTENDED_L2 = 1, 2, 4, 8, 16
_EXTENSION_END = 0
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_DATA_FILE = 0x44415441

#: (offset, magic) of what a disk that is worth booting or mounting begins with
_DISK_MAGICS = (
    (510, b"\x55\xaa"),  # MBR
    (512, b"EFI PART"),  # GPT
    (1080, b"\x53\xef"),  # ext2…ext4
    (0, b"XFSB"),
    (0, b"hsqs"),  # squashfs
    (32769, b"CD001"),  # ISO 9660
    (65600, b"_BHRfS_M"),  # btrfs
    (1024, b"\x10\x20\xf5\xf2"),  # f2fs
    (1024, b"\xe2\xe1\xf5\xe0"),  # erofs
)


def is_qcow2(head: bytes) -> bool:
    """Whether a file with these first bytes is a qcow2 (of any version)."""
    return head.startswith(_QCOW2_MAGIC)


def looks_like_disk(head: bytes) -> bool:
    """Whether these are the first bytes of a partitioned disk or of a known file system."""
    return any(head[offset : offset + len(magic)] == magic for offset, magic in _DISK_MAGICS)


def qcow2_virtual_size(untrusted_head: bytes) -> int:
    """The size in bytes of the disk that a guest sees.

    :raises Unsupported: it refers to other files, is encrypted, or uses features we do not know
    :raises Corrupt: the header contradicts itself
    """
    if len(untrusted_head) < _QCOW2.size or not is_qcow2(untrusted_head):
        raise Corrupt("not a qcow2 disk image: its header is missing")
    fields = _QCOW2.unpack_from(untrusted_head)
    version, backing, cluster_bits, size, crypt = fields[1], fields[2], fields[4], fields[5], fields[6]
    features, length = 0, _V2_LENGTH
    if version == 3:
        if len(untrusted_head) < _V2_LENGTH + _QCOW2_V3.size:
            raise Corrupt("qcow2 disk image: its header is cut short")
        features, _, _, _, length = _QCOW2_V3.unpack_from(untrusted_head, _V2_LENGTH)
    known = _DIRTY | _COMPRESSION | _EXTENDED_L2
    refusals = (
        (version not in (2, 3), f"version {version}, known are 2 and 3"),
        (backing != 0, "it has a backing file; flatten it with qemu-img convert"),
        (bool(features & _EXTERNAL_DATA), "it keeps its data in another file; flatten it with qemu-img convert"),
        (bool(features & ~(known | _CORRUPT | _EXTERNAL_DATA)), f"unknown incompatible features {features:#x}"),
        (crypt != 0, "it is encrypted"),
    )
    for refused, reason in refusals:
        if refused:
            raise Unsupported(f"qcow2 disk image refused: {reason}")
    damages = (
        (bool(features & _CORRUPT), "it is marked corrupt"),
        (not 9 <= cluster_bits <= 21, f"cluster size 2^{cluster_bits}"),
        (not 0 < size <= MAX_VIRTUAL, f"virtual size {size}"),
        (version == 3 and (length < 104 or length % 8 != 0 or length > 4096), f"header length {length}"),
    )
    for damaged, reason in damages:
        if damaged:
            raise Corrupt(f"qcow2 disk image refused: {reason}")
    _check_extensions(untrusted_head, length, min(1 << cluster_bits, HEAD))
    return int(size)


def _check_extensions(untrusted_head: bytes, start: int, end: int) -> None:
    """No header extension names another file."""
    offset = start
    while offset + 8 <= min(end, len(untrusted_head)):
        kind, length = struct.unpack_from(">II", untrusted_head, offset)
        if kind == _EXTENSION_END:
            return
        if kind in (_EXTENSION_DATA_FILE, _EXTENSION_BACKING_FORMAT):
            raise Unsupported("qcow2 disk image refused: its header names another file")
        offset += 8 + length + (-length % 8)
