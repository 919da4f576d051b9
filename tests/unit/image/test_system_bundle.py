"""The bundle of dom0's own system is one that the agent's image store takes, signature and all."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from dom0_agent.firmware.service import MAGIC
from dom0_agent.firmware.service import NAME as WANTED
from dom0_agent.images.errors import NotTrusted
from dom0_agent.images.manifest import parse_manifest
from dom0_agent.images.signature import verify
from image.arch import ARCHES
from image.build_cli import main
from image.system_bundle import NAME, Signer, make_signer, write_system_bundle


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture
def bundle(signer: Signer, tmp_path: Path) -> Path:
    (tmp_path / "slot").write_bytes(MAGIC + b"\0" * 4092)
    (tmp_path / "xen").write_bytes(b"\x7fELF" + b"\0" * 100)
    write_system_bundle(tmp_path / "system.tar", ARCHES["x86_64"], tmp_path / "slot", tmp_path / "xen", signer)
    return tmp_path / "system.tar"


def member(bundle: Path, name: str) -> bytes:
    with tarfile.open(bundle) as archive:
        stream = archive.extractfile(name)
        assert stream is not None
        return stream.read()


def test_the_agent_understands_the_manifest(bundle: Path) -> None:
    manifest = parse_manifest(member(bundle, "vm.yaml"))
    assert manifest.name == NAME == WANTED
    (system,) = manifest.disks
    assert (system.file, system.format, system.size) == ("system.squashfs", "raw", 4096)
    with tarfile.open(bundle) as archive:
        assert archive.getnames() == ["vm.yaml", "vm.yaml.p7s", "xen", "system.squashfs"]


def test_the_signature_is_the_signers_and_nobody_elses(bundle: Path, signer: Signer, tmp_path: Path) -> None:
    text, signature = member(bundle, "vm.yaml"), member(bundle, "vm.yaml.p7s")
    verify(text, signature, signer.certificate)
    with pytest.raises(NotTrusted):
        verify(text + b"\n", signature, signer.certificate)
    (tmp_path / "other").mkdir()
    with pytest.raises(NotTrusted):
        verify(text, signature, make_signer(tmp_path / "other").certificate)


def test_only_the_bundle_is_left(bundle: Path) -> None:
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["slot", "system.tar", "xen"]


def test_a_slot_that_buildroot_has_made_is_signed_by_the_same_program(signer: Signer, bundle: Path) -> None:
    folder = bundle.parent
    argv = ["system", "--signer", str(signer.certificate), "--key", str(signer.key), "--output", str(folder / "out")]
    argv += ["--arch", "arm64", "--slot", str(folder / "slot")]
    assert main(argv) == 1, "without its Xen it is not complete"
    assert main([*argv, "--hypervisor", str(folder / "xen")]) == 0
    made = folder / "out/virmo-dom0-arm64.tar"
    assert parse_manifest(member(made, "vm.yaml")).arch == "arm64"
    assert member(made, "system.squashfs") == member(bundle, "system.squashfs")
