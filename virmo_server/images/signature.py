"""Who vouches for an image: a signed bundle, or a detached signature that came with the file (CMS, RFC 5652, DER).

A signed bundle is a tar, perhaps packed, that begins with ``vm.yaml`` and ``vm.yaml.p7s``: the manifest holds the
digests of all other members. Boards check it again, against a CA of their own; here operators learn at the upload
what boards would refuse hours later. Checked with the ``openssl`` program. Knows no HTTP and no database.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from cryptography import x509

from virmo_server.config import Signatures
from virmo_server.model import SignatureState
from virmo_server.problem import Problem

MANIFEST_NAME, SIGNATURE_NAME = "vm.yaml", "vm.yaml.p7s"
#: Both members with their headers; a packed file must not grow without end.
MAX_HEAD_BYTES = 2 << 20
MAX_SIGNATURE_BYTES = 64 * 1024
#: A detached signature is of the whole file, which may be large.
VERIFY_SECONDS = 1800

_GZIP, _XZ, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_UNREADABLE = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``signed_by``: subject of the certificate that signed, when the signature is good."""

    state: SignatureState
    signed_by: str | None = None


def judge(file: Path, detached: bytes | None, settings: Signatures) -> Verdict:
    """What the signature of an upload is worth; :class:`Problem` 422 when it is bad, or missing and required."""
    embedded = None if detached is not None else _signed_manifest(file)
    if detached is None and embedded is None:
        if settings.required:
            raise Problem(422, "unsigned", "the image is not signed, and this server takes only signed ones")
        return Verdict(SignatureState.NONE)
    if settings.ca is None:
        return Verdict(SignatureState.UNCHECKED)
    if detached is not None:
        return Verdict(SignatureState.GOOD, _verify(file, detached, settings.ca))
    assert embedded is not None
    manifest, signature = embedded
    with tempfile.NamedTemporaryFile(prefix="virmo-manifest-") as copy:
        copy.write(manifest)
        copy.flush()
        return Verdict(SignatureState.GOOD, _verify(Path(copy.name), signature, settings.ca))


def _verify(untrusted_content: Path, untrusted_signature: bytes, authority: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="virmo-signature-") as folder:
        signature, signer = Path(folder, "signature"), Path(folder, "signer")
        signature.write_bytes(untrusted_signature)
        command = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", str(signature)]
        command += ["-content", str(untrusted_content), "-CAfile", str(authority), "-no-CApath", "-no-CAstore"]
        command += ["-purpose", "any", "-signer", str(signer), "-out", "/dev/null"]
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=VERIFY_SECONDS, check=False, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Problem(500, "signature-unchecked", f"the signature cannot be checked: {error}") from error
        if done.returncode != 0:
            untrusted_lines = done.stderr.decode("ascii", "replace").splitlines()
            reason = "; ".join(line.strip() for line in untrusted_lines if line.strip())[-300:]
            raise Problem(422, "signature-bad", f"the image's signature is not good under {authority.name}: {reason}")
        return x509.load_pem_x509_certificate(signer.read_bytes()).subject.rfc4514_string()[:255]


def _signed_manifest(file: Path) -> tuple[bytes, bytes] | None:
    """The manifest of a signed bundle and its signature; ``None`` for anything else."""
    try:
        with _unpacked(file) as stream, tarfile.open(fileobj=_Head(stream), mode="r|") as tar:
            manifest, signature = tar.next(), None
            if manifest is None or manifest.name != MANIFEST_NAME or not manifest.isreg():
                return None
            content = _content(tar, manifest)
            signature = tar.next()
            if signature is None or signature.name != SIGNATURE_NAME or not signature.isreg():
                return None
            return content, _content(tar, signature)
    except _UNREADABLE:
        return None  # whatever it is, it is no bundle


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None  # it is a regular file
    return stream.read()


class _Head(io.RawIOBase):
    """The begin of a stream; who wants more gets an ``OSError``."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._left = MAX_HEAD_BYTES

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._left:
            raise OSError("too long")
        self._left -= size
        return self._stream.read(size)


@contextmanager
def _unpacked(file: Path) -> Iterator[IO[bytes]]:
    """The file without its compression, known by its first octets."""
    with file.open("rb") as raw:
        begin = raw.read(6)
        raw.seek(0)
        if begin.startswith(_GZIP):
            with gzip.open(raw) as unpacked:
                yield cast("IO[bytes]", unpacked)
        elif begin.startswith(_XZ):
            with lzma.open(raw) as unpacked_xz:
                yield unpacked_xz
        elif begin.startswith(_ZSTD):
            os.lseek(raw.fileno(), 0, os.SEEK_SET)  # the program reads past our buffer
            command = ["zstd", "-dcq"]
            with subprocess.Popen(command, stdin=raw, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
                assert program.stdout is not None
                try:
                    yield program.stdout
                finally:
                    program.kill()
        else:
            yield raw
