"""Overwrites a file's data before it is removed, so that what it held cannot be read from the device any more (R-022).

Only what the file holds is written to: a sparse disk stays sparse (GNU ``shred`` would fill its holes, which takes
hours, and more room than there is). Knows files, not VMs.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

#: Bytes that are written at a time.
PIECE = 1 << 20

_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_NOCOW_FL = 0x00800000
#: What a file system answers that has no such flag, and writes in place anyway.
_NO_SUCH_FLAG = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL})


def overwrite(path: Path) -> None:
    """Write random bytes over all that ``path`` holds, durably. :class:`OSError` when that fails."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for start, end in _held(descriptor):
            for position in range(start, end, PIECE):
                _write(descriptor, os.urandom(min(PIECE, end - position)), position)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_in_place(directory: Path) -> None:
    """Have files that will be made in ``directory`` overwritten where they lie.

    btrfs writes changed data elsewhere and leaves the old, unless a file is marked (``chattr +C``); it then shares no
    blocks with another one either. Other file systems have no such mark and need none. :class:`OSError` when it cannot
    be set.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = int.from_bytes(fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8))[:4], "little")
        fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, (flags | _FS_NOCOW_FL).to_bytes(8, "little"))
    except OSError as error:
        if error.errno not in _NO_SUCH_FLAG:
            raise
    finally:
        os.close(descriptor)


def _held(descriptor: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no holes: start and end."""
    position = 0
    while True:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        position = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, position


def _write(descriptor: int, data: bytes, position: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, position)
        data, position = data[written:], position + written
