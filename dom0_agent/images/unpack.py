"""From a downloaded file to verified content in a folder of our own naming.

Nothing of an image is used before it is verified: the manifest decides which members there are and how large, the
signature (when configured) is checked before any other member is read, and each member's SHA-256 while it is written.
What is written has names that we choose (:data:`KERNEL`, …), never those of the archive. On any error the caller
removes the folder. Knows neither downloads nor images' records.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dom0_agent.images import disk as disks
from dom0_agent.images.decompress import Stream, identify, open_stream
from dom0_agent.images.errors import Corrupt, SizeMismatch, TooLarge, Unsupported
from dom0_agent.images.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST,
    SIGNATURE_NAME,
    Disk,
    File,
    Manifest,
    ManifestError,
    parse_manifest,
    render_manifest,
)
from dom0_agent.images.mediatypes import Compression, Kind
from dom0_agent.images.tar import Member, TarReader, is_tar

KERNEL = "kernel"
RAMDISK = "ramdisk"
#: of a CMS signature with its certificates
MAX_SIGNATURE = 64 * 1024
_CHUNK = 256 * 1024
#: runs of zero bytes of this length become holes
_HOLE = 64 * 1024
#: where Linux' boot protocol has the mark of a bzImage
_BZIMAGE, _BZIMAGE_PLACE = b"HdrS", 0x202
_ZEROS = bytes(_HOLE)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a downloaded file is."""

    kind: Kind
    compression: Compression
    manifest: Manifest | None = None  #: of a bundle; not yet trusted when a signature is required


@dataclass(frozen=True, slots=True)
class Rules:
    """What content this device takes."""

    arch: str
    max_size: int  #: bytes, of all members together
    disk_memory: int  #: bytes of RAM for a VM made from a bare disk
    #: raises :class:`NotTrusted` unless (manifest, signature or ``None``) is acceptable
    check_signature: Callable[[bytes, bytes | None], None]


@dataclass(frozen=True, slots=True)
class Content:
    """Verified content in a folder. Equal ``digest``, equal content."""

    manifest: Manifest
    digest: str  #: of the manifest, which holds the digests of all else
    size: int  #: bytes of all files


#: called with each number of bytes written; may raise to stop
Observer = Callable[[int], None]


def disk_name(index: int, disk: Disk) -> str:
    """The name in the content folder of the manifest's disk number ``index``."""
    return f"disk-{index}.{disk.format}"


def named_files(manifest: Manifest) -> Iterator[tuple[File, str]]:
    """Each file of the manifest with its name in the content folder."""
    for file, name in ((manifest.kernel, KERNEL), (manifest.ramdisk, RAMDISK)):
        if file is not None:
            yield file, name
    for index, disk in enumerate(manifest.disks):
        yield disk, disk_name(index, disk)


def identify_file(body: Path, rules: Rules) -> Identity:
    """What the file is, from its beginning: it need not be complete.

    :raises Truncated: too little of it is there to say; :raises ManifestError: it is a bundle that we cannot take
    :raises TooLarge: a bundle that unpacks to more than is allowed
    """
    with body.open("rb") as file:
        compression = identify(file.read(8))
    with open_stream(body, compression) as stream:
        head = _take(stream, disks.HEAD)
    if is_tar(head):
        with open_stream(body, compression) as stream:
            manifest = parse_manifest(_read_manifest(TarReader(stream)))
        _check_fits(manifest, rules)
        return Identity(Kind.BUNDLE, compression, manifest)
    if disks.is_qcow2(head):
        return Identity(Kind.QCOW2, compression)
    return Identity(Kind.RAW if disks.looks_like_disk(head) else Kind.UNKNOWN, compression)


def unpack_bundle(body: Path, compression: Compression, folder: Path, rules: Rules, observer: Observer) -> Content:
    """Extract and verify the bundle into the empty ``folder``.

    :raises ImageError: damaged, not as its manifest says, not trusted, or not for this device
    """
    with open_stream(body, compression) as stream:
        tar = TarReader(stream)
        untrusted_manifest, signature, member = read_head(tar)
        rules.check_signature(untrusted_manifest, signature)
        manifest = parse_manifest(untrusted_manifest)
        _check_fits(manifest, rules)
        missing = {file.file: (file, name) for file, name in named_files(manifest)}
        while member is not None:
            file, name = _expected(missing, member.untrusted_name)
            if member.size != file.size:
                raise SizeMismatch(f"{file.file}: has {member.size} bytes, {MANIFEST_NAME} says {file.size}")
            _extract(tar, file, folder / name, observer)
            member = tar.next()
    if missing:
        raise Corrupt(f"the bundle lacks {', '.join(sorted(missing))}, which {MANIFEST_NAME} names")
    for index, disk in enumerate(manifest.disks):
        check_disk(folder / disk_name(index, disk), disk.format)
    if manifest.type == "hvm" and manifest.kernel is not None:
        _check_bzimage(folder / KERNEL, manifest.kernel.file)
    return _sealed(folder, manifest, untrusted_manifest, signature)


def unpack_disk(  # noqa: PLR0917 - one of two ways to content, called once
    body: Path, identity: Identity, sha256: str, folder: Path, rules: Rules, observer: Observer
) -> Content:
    """Make a bare disk image the content: an uncompressed one is moved, not copied. ``sha256`` is ``body``'s.

    :raises ImageError: damaged, or not a disk that this device can boot
    """
    form = "qcow2" if identity.kind is Kind.QCOW2 else "raw"
    rules.check_signature(b"", None)
    if rules.arch != "x86_64":
        raise Unsupported(
            f"a bare disk image cannot be booted on {rules.arch}: it has no kernel beside it; deliver a bundle"
        )
    target = folder / f"disk-0.{form}"
    if identity.compression is Compression.NONE:
        size = body.stat().st_size
        _fsync(body)
        body.rename(target)
    else:
        sha256, size = _inflate(body, identity.compression, target, rules, observer)
    check_disk(target, form)
    disk = Disk(file=target.name, sha256=sha256, size=size, format=form, device="xvda")
    manifest = Manifest("disk", rules.arch, "hvm", 1, rules.disk_memory, disks=(disk,))
    return _sealed(folder, manifest, render_manifest(manifest), None)


def check_disk(path: Path, form: str) -> int:
    """The size in bytes that a guest will see.

    :raises Unsupported: it must not be used; :raises Corrupt: it is damaged
    """
    size = path.stat().st_size
    if form == "qcow2":
        with path.open("rb") as file:
            return disks.qcow2_virtual_size(file.read(disks.HEAD))
    if size == 0 or size % disks.SECTOR:
        raise Corrupt(f"a raw disk image of {size} bytes: not a whole number of {disks.SECTOR}-byte sectors")
    return size


def _check_bzimage(kernel: Path, name: str) -> None:
    """The device model boots nothing else, and says so only in a log of its own: "linux kernel too old"."""
    with kernel.open("rb") as file:
        file.seek(_BZIMAGE_PLACE)
        if file.read(len(_BZIMAGE)) != _BZIMAGE:
            raise Unsupported(
                f"{name}: the kernel of an hvm guest must be a bzImage (an ELF vmlinux is for pv and pvh)"
            )


def read_head(tar: TarReader) -> tuple[bytes, bytes | None, Member | None]:
    """A bundle's manifest, its signature if there is one, and the member that comes after them.

    :raises ImageError: it is none
    """
    untrusted_manifest = _read_manifest(tar)
    member = tar.next()
    if member is None or member.untrusted_name != SIGNATURE_NAME:
        return untrusted_manifest, None, member
    return untrusted_manifest, _read_small(tar, SIGNATURE_NAME, member.size, MAX_SIGNATURE), tar.next()


def _read_manifest(tar: TarReader) -> bytes:
    member = tar.next()
    if member is None or member.untrusted_name != MANIFEST_NAME:
        raise ManifestError(f"the first member of a bundle must be {MANIFEST_NAME}")
    return _read_small(tar, MANIFEST_NAME, member.size, MAX_MANIFEST)


def _read_small(tar: TarReader, name: str, size: int, most: int) -> bytes:
    if size > most:
        raise Unsupported(f"{name} has {size} bytes, at most {most} are taken")
    parts = []
    while data := tar.read(most):
        parts.append(data)
    return b"".join(parts)


def _check_fits(manifest: Manifest, rules: Rules) -> None:
    if manifest.arch != rules.arch:
        raise ManifestError(f"arch: the image is for {manifest.arch}, this device is {rules.arch}")
    if manifest.unpacked_size > rules.max_size:
        raise TooLarge(
            f"the image unpacks to {manifest.unpacked_size} bytes; at most {rules.max_size} are taken (images.max_size)"
        )


def _expected(missing: dict[str, tuple[File, str]], untrusted_name: str) -> tuple[File, str]:
    try:
        return missing.pop(untrusted_name)
    except KeyError:
        shown = "".join(char if char.isprintable() else "?" for char in untrusted_name)[:80]
        raise Corrupt(f"the bundle holds {shown!r}, which {MANIFEST_NAME} does not name (or names once)") from None


def _extract(tar: TarReader, file: File, target: Path, observer: Observer) -> None:
    digest = hashlib.sha256()
    with target.open("xb") as out:
        while data := tar.read(_CHUNK):
            digest.update(data)
            _write(out, data)
            observer(len(data))
        _finish(out)
    if digest.hexdigest() != file.sha256:
        raise Corrupt(
            f"{file.file}: SHA-256 is {digest.hexdigest()}, {MANIFEST_NAME} says {file.sha256}: "
            "the image was damaged, or changed after its manifest was made"
        )


def _inflate(body: Path, compression: Compression, target: Path, rules: Rules, observer: Observer) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with open_stream(body, compression) as stream, target.open("xb") as out:
        while data := stream.read(_CHUNK):
            size += len(data)
            if size > rules.max_size:
                raise TooLarge(f"the disk image unpacks to more than {rules.max_size} bytes (images.max_size)")
            digest.update(data)
            _write(out, data)
            observer(len(data))
        _finish(out)
    return digest.hexdigest(), size


def _write(out: BinaryIO, data: bytes) -> None:
    """Write ``data``, whole zero pieces as holes."""
    for start in range(0, len(data), _HOLE):
        piece = data[start : start + _HOLE]
        if piece == _ZEROS:
            out.seek(_HOLE, os.SEEK_CUR)
        else:
            out.write(piece)


def _finish(out: BinaryIO) -> None:
    """A hole at the end counts, too; the bytes are on the disk before anybody is told that they are there."""
    out.truncate(out.tell())
    out.flush()
    os.fsync(out.fileno())


def _sealed(folder: Path, manifest: Manifest, manifest_bytes: bytes, signature: bytes | None) -> Content:
    """Put the manifest beside its files, and everything on the disk."""
    for name, data in ((MANIFEST_NAME, manifest_bytes), (SIGNATURE_NAME, signature)):
        if data is not None:
            with (folder / name).open("xb") as out:
                out.write(data)
                _finish(out)
    _fsync(folder)
    size = sum(entry.stat().st_size for entry in folder.iterdir())
    return Content(manifest, hashlib.sha256(manifest_bytes).hexdigest(), size)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take(stream: Stream, size: int) -> bytes:
    """The first ``size`` bytes, or all there are."""
    parts, left = [], size
    while left and (data := stream.read(left)):
        parts.append(data)
        left -= len(data)
    return b"".join(parts)
