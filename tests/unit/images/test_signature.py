"""Signed bundles: with a CA configured, nothing of an image is used that its owner did not sign."""

from __future__ import annotations

import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml

from dom0_agent.images.config import ImagesConfig
from dom0_agent.images.errors import ImageError, NotTrusted
from dom0_agent.images.signature import signature_rule, verify
from tests.unit.images.images_testing import bundle, file_script, manifest_document, mbr_disk, serving, tar_of
from tests.unit.images.test_image_service import Device, device

KERNEL, RAMDISK = b"kernel" * 10, b"ramdisk" * 10
MANIFEST = yaml.safe_dump(manifest_document(KERNEL, RAMDISK)).encode()


class Signer:
    """A CA, and a signer with a certificate of it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.ca, self._key, self._cert = folder / "ca.pem", folder / "key.pem", folder / "cert.pem"
        ca_key, request = folder / "ca.key", folder / "request.pem"
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl("req", "-x509", *new, "-days", "2", "-subj", "/CN=CA", "-keyout", ca_key, "-out", self.ca)
        openssl("req", *new, "-subj", "/CN=signer", "-keyout", self._key, "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", ca_key, "-days", "2", "-out", self._cert)

    def sign(self, data: bytes) -> bytes:
        files = ("-signer", self._cert, "-inkey", self._key)
        return openssl("cms", "-sign", "-binary", "-outform", "DER", *files, data=data)


def openssl(*arguments: str | Path, data: bytes = b"") -> bytes:
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, check=True, timeout=30).stdout


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("pki") / "good")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("pki") / "stranger")


def demanding(folder: Path, signer: Signer) -> AbstractContextManager[Device]:
    """A device that takes nothing but what ``signer``'s CA vouches for."""
    return device(folder, require_signature=True, signature_ca_file=signer.ca)


def signed_bundle(signature: bytes, manifest: bytes = MANIFEST) -> bytes:
    members = {"vm.yaml": manifest, "vm.yaml.p7s": signature, "vmlinux": KERNEL, "initramfs.gz": RAMDISK}
    return tar_of(members)


def test_good_signature(tmp_path: Path, signer: Signer) -> None:
    data = signed_bundle(signer.sign(MANIFEST))
    with serving(file_script(data)) as server, demanding(tmp_path, signer) as here:
        img_id, result = here.deliver(server.url)
        assert result.ok, result.message
        location = here.record(img_id).location
        assert location is not None and (location / "vm.yaml.p7s").is_file()


@pytest.mark.parametrize("case", ["missing", "stranger", "other manifest", "rubbish", "empty"])
def test_bad_signature(tmp_path: Path, signer: Signer, stranger: Signer, case: str) -> None:
    """403, nothing of the image stays on the disk."""
    signature = {
        "stranger": stranger.sign(MANIFEST),
        "other manifest": signer.sign(MANIFEST + b"#"),
        "rubbish": b"\x30\x82rubbish",
        "empty": b"",
        "missing": None,
    }[case]
    data = bundle() if signature is None else signed_bundle(signature)
    with serving(file_script(data)) as server, demanding(tmp_path, signer) as here:
        _, result = here.deliver(server.url)
        assert result.status == 403
        assert ("is not signed" if signature is None else "signature is not good") in result.message
        assert not any(name.startswith(("content/", "staging/")) for name in here.files())


def test_signature_is_checked_before_any_member_is_read(tmp_path: Path, signer: Signer, stranger: Signer) -> None:
    """The members are rubbish; that is not what is complained about."""
    data = tar_of({"vm.yaml": MANIFEST, "vm.yaml.p7s": stranger.sign(MANIFEST), "evil": b"x"})
    with serving(file_script(data)) as server, device(tmp_path, signature_ca_file=signer.ca) as here:
        assert here.deliver(server.url)[1].status == 403


def test_optional_signature(tmp_path: Path, signer: Signer, stranger: Signer) -> None:
    """A CA without require_signature: an unsigned image passes, a bad signature does not."""
    with serving(file_script(bundle())) as server, device(tmp_path, signature_ca_file=signer.ca) as here:
        assert here.deliver(server.url)[1].ok
        server.script = file_script(signed_bundle(stranger.sign(MANIFEST)))
        assert here.deliver(server.url)[1].status == 403


def test_without_a_ca_signatures_are_not_looked_at(tmp_path: Path) -> None:
    with serving(file_script(signed_bundle(b"whatever"))) as server, device(tmp_path) as here:
        assert here.deliver(server.url)[1].ok


def test_bare_disk_cannot_be_signed(tmp_path: Path, signer: Signer) -> None:
    with serving(file_script(mbr_disk())) as server, demanding(tmp_path, signer) as here:
        assert here.deliver(server.url, "application/octet-stream")[1].status == 403


def test_missing_program_is_not_a_good_signature(
    tmp_path: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = signer.sign(MANIFEST)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="cannot be checked"):
        verify(MANIFEST, signature, signer.ca)


def test_missing_ca_is_not_a_good_signature(tmp_path: Path, signer: Signer) -> None:
    rule = signature_rule(ImagesConfig(dir=tmp_path, require_signature=True, signature_ca_file=tmp_path / "missing"))
    with pytest.raises(NotTrusted):
        rule(MANIFEST, signer.sign(MANIFEST))
