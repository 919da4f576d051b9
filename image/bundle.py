"""Writes a VM image bundle: a tar, packed in frames, so that what did not change is not packed again.

zstd reads concatenated frames as one stream. The slow part (the kernel, the base of the RAM disk) is packed once and
kept; a change of the shim packs a few kilobytes.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from image.host import run_tool

#: Chosen by what an emulated dom0 needs to unpack it (71 MB; processor time): zstd -15 1.4 s (18.0 MB), zstd -19 5.3 s
#: (15.2 MB), gzip -9 3.9 s (18.3 MB), xz -6 14 s (14.0 MB).
_LEVEL = "-15"
_PACK_TIMEOUT = 600.0
SUFFIX = ".tar.zst"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a member, in a file, and the same bytes packed."""

    plain: Path
    packed: Path

    @classmethod
    def pack(cls, plain: Path) -> Piece:
        """Packs a file beside itself."""
        packed = plain.with_name(plain.name + ".zst")
        run_tool(["zstd", "-q", "-f", "-T0", _LEVEL, plain, "-o", packed], what="packing", timeout=_PACK_TIMEOUT)
        return cls(plain, packed)

    @classmethod
    def packed_already(cls, plain: Path) -> Piece:
        return cls(plain, plain.with_name(plain.name + ".zst"))

    def size(self) -> int:
        return self.plain.stat().st_size


def write_bundle(target: Path, members: Iterable[tuple[str, list[Piece]]]) -> None:
    """Writes the members in order; vm.yaml must be the first, so that a reader knows what follows."""
    work = target.parent
    frames = (packed for name, pieces in members for packed in _frames(name, pieces, work))
    with target.open("wb") as bundle:
        for frame in frames:
            bundle.write(frame)
        bundle.write(_pack(b"\0" * (2 * tarfile.BLOCKSIZE), work))


def _frames(name: str, pieces: list[Piece], work: Path) -> Iterator[bytes]:
    size = sum(piece.size() for piece in pieces)
    header = tarfile.TarInfo(name)
    header.size = size
    header.mode = 0o644
    yield _pack(header.tobuf(tarfile.USTAR_FORMAT), work)
    for piece in pieces:
        yield piece.packed.read_bytes()
    padding = -size % tarfile.BLOCKSIZE
    if padding:
        yield _pack(b"\0" * padding, work)


def _pack(data: bytes, work: Path) -> bytes:
    plain = work / ".frame"
    plain.write_bytes(data)
    piece = Piece.pack(plain)
    packed = piece.packed.read_bytes()
    for path in (piece.plain, piece.packed):
        path.unlink()
    return packed
