"""Who vouches for an image: a signed bundle, or a detached signature that came with the file (CMS, RFC 5652, DER).

A signed bundle is a tar, perhaps packed, that begins with ``vm.yaml`` and ``vm.yaml.p7s``: the manifest holds the
digests of all other members. Boards check it again, against a CA of their own; here operators learn at the upload
what boards would refuse hours later. Bundles are read and signatures checked by the agent's own code, so that both
judge alike. Knows no HTTP and no database.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from dom0_agent.images.decompress import identify, open_stream
from dom0_agent.images.errors import ImageError, NotTrusted
from dom0_agent.images.signature import verify_file
from dom0_agent.images.tar import TarReader
from dom0_agent.images.unpack import read_head
from virmo_server.config import Signatures
from virmo_server.model import SignatureState
from virmo_server.problem import Problem

#: A detached signature is of the whole file, which may be large.
VERIFY_SECONDS = 1800


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
    try:
        signer = verify_file(untrusted_content, untrusted_signature, authority, deadline=VERIFY_SECONDS)
    except NotTrusted as error:
        message = f"the image's signature is not good under {authority.name}: {error}"
        raise Problem(422, "signature-bad", message) from error
    except ImageError as error:
        raise Problem(500, "signature-unchecked", str(error)) from error
    return x509.load_pem_x509_certificate(signer).subject.rfc4514_string()[:255]


def _signed_manifest(file: Path) -> tuple[bytes, bytes] | None:
    """The manifest of a signed bundle and its signature; ``None`` for anything else. Read as boards read it."""
    try:
        with file.open("rb") as packed:
            compression = identify(packed.read(8))
        with open_stream(file, compression) as stream:
            manifest, signature, _ = read_head(TarReader(stream))
    except (ImageError, OSError):
        return None  # whatever it is, it is no bundle
    return None if signature is None else (manifest, signature)
