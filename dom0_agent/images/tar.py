"""A tar archive as a stream of plain files, and nothing else.

Not the standard library's ``tarfile``: that is made to restore anything, with links, devices, sparse maps and headers
of any size held in memory. An image bundle needs regular files with short names; everything else is refused, and no
header can make this reader hold more than :data:`MAX_HEADER` bytes. It opens no files itself: names are for comparing.
"""

from __future__ import annotations

from dataclasses import dataclass

from dom0_agent.images.decompress import Stream
from dom0_agent.images.errors import Corrupt, Truncated, Unsupported

BLOCK = 512
#: a pax header has a few dozen bytes: times, and a size beyond 8 GiB
MAX_HEADER = 16 * 1024
#: members and headers together; a bundle has about ten
MAX_ENTRIES = 64
_CHUNK = 64 * 1024

_REGULAR = (b"0", b"\0")
_PAX = (b"x", b"g")
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a directory",
    b"6": "a fifo",
    b"L": "a file with a long name",
    b"K": "a link with a long name",
    b"S": "a sparse file",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive. ``untrusted_name`` is as the archive has it, without a leading ``./``."""

    untrusted_name: str
    size: int


def is_tar(head: bytes) -> bool:
    """Whether a file that begins so is a tar archive: its first header's checksum fits."""
    return len(head) >= BLOCK and any(head[:BLOCK]) and _checksum_fits(head[:BLOCK])


class TarReader:
    """Reads members one after the other. ``next`` skips what was not read of the one before."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = 0  # unread bytes of the current member
        self._padding = 0
        self._entries = 0

    def next(self) -> Member | None:
        """The next member, or ``None`` at the archive's end mark.

        :raises Corrupt: damaged; :raises Unsupported: not a plain file
        """
        overrides: dict[str, str] = {}
        while True:
            self._skip()
            header = self._exactly(BLOCK)
            if not any(header):
                return None
            if not _checksum_fits(header):
                raise Corrupt("the tar archive is damaged: a header's checksum does not match")
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                raise Unsupported(f"the tar archive has more than {MAX_ENTRIES} entries")
            kind, size = header[156:157], _number(header[124:136])
            if kind in _PAX:
                if size > MAX_HEADER:
                    raise Unsupported(f"the tar archive has an extended header of {size} bytes")
                overrides |= _pax_records(self._exactly(size))
                self._exactly(-size % BLOCK)
                continue
            return self._member(header, kind, size, overrides)

    def _member(self, header: bytes, kind: bytes, size: int, overrides: dict[str, str]) -> Member:
        name = overrides.get("path", _text(header[0:100])).removeprefix("./")
        shown = "".join(char if char.isprintable() else "?" for char in name)[:80]
        if any(key.startswith("GNU.sparse") for key in overrides):
            kind = b"S"
        if kind not in _REGULAR:
            what = _REFUSED.get(kind, f"of unknown type {kind!r}")
            raise Unsupported(f"tar member {shown!r} is {what}; a bundle holds only plain files at its top")
        if "size" in overrides:
            size = _decimal(overrides["size"])
        if header[257:262] == b"ustar" and any(header[345:500]) and "path" not in overrides and _is_posix(header):
            raise Unsupported(f"tar member {shown!r} is below a directory; a bundle holds only plain files at its top")
        self._left, self._padding = size, -size % BLOCK
        return Member(name, size)

    def read(self, size: int) -> bytes:
        """1 to ``size`` bytes of the current member, or none at its end. :raises Truncated: the archive ends first"""
        wanted = min(size, self._left)
        if not wanted:
            return b""
        data = self._stream.read(wanted)
        if not data:
            raise Truncated("the tar archive ends in the middle of a file")
        self._left -= len(data)
        return data

    def _skip(self) -> None:
        while self._left:
            self.read(_CHUNK)
        padding, self._padding = self._padding, 0
        self._exactly(padding)

    def _exactly(self, size: int) -> bytes:
        parts: list[bytes] = []
        missing = size
        while missing:
            more = self._stream.read(missing)
            if not more:
                raise Truncated("the tar archive ends too early")
            parts.append(more)
            missing -= len(more)
        return b"".join(parts)


def _checksum_fits(header: bytes) -> bool:
    """The sum of the header's bytes, its own field counted as spaces, signed or not (both are in use)."""
    try:
        said = int(header[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    rest = header[:148] + b" " * 8 + header[156:]
    unsigned = sum(rest)
    return said in (unsigned, unsigned - 256 * sum(byte > 127 for byte in rest))


def _number(field: bytes) -> int:
    """Octal text, or base 256 when the first bit is set (sizes beyond 8 GiB)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if not text.isdigit():
        raise Corrupt("the tar archive is damaged: a size is not a number")
    try:
        return int(text, 8)
    except ValueError as error:
        raise Corrupt("the tar archive is damaged: a size is not a number") from error


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Corrupt("the tar archive is damaged: a size is not a number")
    return int(text)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


def _is_posix(header: bytes) -> bool:
    """POSIX archives keep a directory prefix at 345; GNU ones (magic ``ustar  ``) other things."""
    return header[257:263] == b"ustar\0"


def _pax_records(untrusted_data: bytes) -> dict[str, str]:
    """``length key=value`` lines. :raises Corrupt: they do not add up"""
    records: dict[str, str] = {}
    rest = untrusted_data
    while rest.strip(b"\0"):
        digits, space, _ = rest.partition(b" ")
        length = int(digits) if space and digits.isdigit() and len(digits) <= 5 else 0
        line, rest = rest[:length], rest[length:]
        key, equals, value = line[len(digits) + 1 : -1].partition(b"=")
        if not line.endswith(b"\n") or len(line) != length or not equals:
            raise Corrupt("the tar archive is damaged: an extended header does not add up")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return records
