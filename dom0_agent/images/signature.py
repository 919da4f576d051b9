"""Whether a bundle's manifest is signed by someone this device trusts (CMS, RFC 5652, detached, DER).

The manifest holds the SHA-256 of every member, so its signature covers the whole image. Checked with the ``openssl``
program, which boards have; the agent itself brings no cryptography beyond digests.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from dom0_agent.images.config import ImagesConfig
from dom0_agent.images.errors import ImageError, NotTrusted

#: a check takes milliseconds; a board under load gets seconds
_DEADLINE = 30.0


def signature_rule(config: ImagesConfig) -> Callable[[bytes, bytes | None], None]:
    """The check that ``config`` asks for, as :class:`dom0_agent.images.unpack.Rules` wants it.

    Without a CA nothing is checked. With one, a signature that is there must be good, and with ``require_signature`` it
    must be there.
    """
    authority = config.signature_ca_file

    def check(untrusted_manifest: bytes, untrusted_signature: bytes | None) -> None:
        if authority is not None and untrusted_signature is not None:
            verify(untrusted_manifest, untrusted_signature, authority)
        elif config.require_signature:
            raise NotTrusted("the image is not signed (vm.yaml.p7s), and images.require_signature is set")

    return check


def verify(untrusted_manifest: bytes, untrusted_signature: bytes, authority: Path) -> None:
    """Check that the signature is of exactly these bytes, by a certificate that ``authority`` (PEM) vouches for.

    :raises NotTrusted: it is not; :raises ImageError: the check could not be made
    """
    with tempfile.NamedTemporaryFile(prefix="virmo-manifest-") as manifest:
        manifest.write(untrusted_manifest)
        manifest.flush()
        try:
            verify_file(Path(manifest.name), untrusted_signature, authority)
        except NotTrusted as error:
            raise NotTrusted(
                f"the image's signature is not good under {authority} (images.signature_ca_file): {error}"
            ) from error


def verify_file(
    untrusted_content: Path, untrusted_signature: bytes, authority: Path, *, deadline: float = _DEADLINE
) -> bytes:
    """As :func:`verify`, of a whole file; the certificate that signed it, in PEM. ``deadline``: seconds.

    :raises NotTrusted: with openssl's reasons alone; :raises ImageError: the check could not be made
    """
    with tempfile.TemporaryDirectory(prefix="virmo-signature-") as folder:
        signature, signer = Path(folder, "signature"), Path(folder, "signer")
        signature.write_bytes(untrusted_signature)
        command = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", str(signature)]
        command += ["-content", str(untrusted_content), "-CAfile", str(authority), "-no-CApath", "-no-CAstore"]
        command += ["-purpose", "any", "-signer", str(signer), "-out", "/dev/null"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=deadline, check=False, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ImageError(f"the signature cannot be checked: {error}") from error
        if done.returncode != 0:
            untrusted_lines = done.stderr.decode("ascii", "replace").splitlines()
            raise NotTrusted("; ".join(line.strip() for line in untrusted_lines if line.strip())[-300:])
        return signer.read_bytes()
