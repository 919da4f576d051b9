"""An update of dom0's own system: the bundle that ./FUMO takes, signed.

The Management VM's image is a bundle as every VM's: named `virmo-dom0`, its kernel is the hypervisor, its one disk the
system slot. The signature is CMS over the manifest, which holds every member's SHA-256.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from image.arch import Arch
from image.host import run_tool
from image.manifest import FILE_NAME, Disk, Manifest, Member

NAME = "virmo-dom0"
SIGNATURE = f"{FILE_NAME}.p7s"
_BLOCK = 1 << 20
_MEMORY = 1024**3
_SIGN_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Signer:
    """Who vouches for systems: a certificate under the authority that boards know, and its key (PEM)."""

    certificate: Path
    key: Path


def write_system_bundle(target: Path, arch: Arch, slot: Path, hypervisor: Path, signer: Signer) -> None:
    """Writes the bundle, uncompressed: a squashfs is packed already."""
    members = [("xen", hypervisor), ("system.squashfs", slot)]
    kernel, system = (Member.of(name, _blocks(path)) for name, path in members)
    manifest = Manifest(
        name=NAME,
        arch=arch.name,
        type="pvh",
        vcpus=1,
        memory=_MEMORY,
        cmdline="",
        kernel=kernel,
        ramdisk=None,
        disks=(Disk(system, "raw", "xvda"),),
    )
    described, signature = target.with_suffix(".yaml"), target.with_suffix(".p7s")
    described.write_text(manifest.text())
    argv = ["openssl", "cms", "-sign", "-binary", "-outform", "DER", "-in", str(described), "-out", str(signature)]
    argv += ["-signer", str(signer.certificate), "-inkey", str(signer.key)]
    run_tool(argv, what="signing the system", timeout=_SIGN_TIMEOUT)
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as bundle:
        for name, path in ((FILE_NAME, described), (SIGNATURE, signature), *members):
            bundle.add(path, name, recursive=False)
    for path in (described, signature):
        path.unlink()


def make_signer(folder: Path) -> Signer:
    """A self-signed signer, for those who have no authority yet: the certificate is what boards are given."""
    signer = Signer(folder / "firmware-ca.pem", folder / "firmware-key.pem")
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=VirMO systems"]
    argv += ["-keyout", str(signer.key), "-out", str(signer.certificate)]
    run_tool(argv, what="making a signer", timeout=_SIGN_TIMEOUT)
    signer.key.chmod(0o600)
    return signer


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block
