"""Who signed an image: what is taken, what is refused, what is shown."""

from __future__ import annotations

import gzip
import io
import lzma
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0_agent.images.manifest import MAX_MANIFEST
from virmo_server.certificates import Pair, make_certificates, make_client_certificate
from virmo_server.clock import utc_now
from virmo_server.config import ConfigError, Signatures, load_config
from virmo_server.database import Database
from virmo_server.images.library import ImageLibrary, ImageSpec
from virmo_server.images.signature import judge
from virmo_server.migrate import migrate
from virmo_server.model import SignatureState
from virmo_server.problem import Problem

MANIFEST = b"format: 1\nname: signed\n"


class Signer:
    """Someone who signs, under a CA."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / name
        self._folder.mkdir()
        ca = make_certificates(["unused"]).ca
        self.authority = self._folder / "ca.pem"
        self.authority.write_bytes(ca.certificate)
        own: Pair = make_client_certificate(ca, name)
        (self._folder / "own.pem").write_bytes(own.certificate)
        (self._folder / "own.key").write_bytes(own.key)

    def sign(self, content: bytes) -> bytes:
        """A detached signature, as the agent's documentation tells people to make it."""
        command = ["openssl", "cms", "-sign", "-binary", "-outform", "DER", "-signer", str(self._folder / "own.pem")]
        command += ["-inkey", str(self._folder / "own.key")]
        return subprocess.run(command, input=content, capture_output=True, check=True, timeout=30).stdout


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("signer"), "Image-Factory")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("stranger"), "Somebody")


def bundle(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def zstd(content: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=content, capture_output=True, check=True, timeout=30).stdout


def signed(signer: Signer) -> bytes:
    return bundle(("vm.yaml", MANIFEST), ("vm.yaml.p7s", signer.sign(MANIFEST)), ("disk", bytes(3 << 20)))


def refusal(file: Path, detached: bytes | None, settings: Signatures) -> str:
    with pytest.raises(Problem) as raised:
        judge(file, detached, settings)
    return raised.value.code


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, zstd], ids=["tar", "gzip", "xz", "zstd"])
def test_a_signed_bundle_is_checked_however_it_is_packed(
    tmp_path: Path, signer: Signer, stranger: Signer, pack: Callable[[bytes], bytes]
) -> None:
    """R-094: the operator learns at the upload what boards would refuse."""
    file = tmp_path / "bundle"
    file.write_bytes(pack(signed(signer)))
    verdict = judge(file, None, Signatures(ca=signer.authority, required=True))
    assert (verdict.state, verdict.signed_by) == (SignatureState.GOOD, "CN=Image-Factory")
    assert refusal(file, None, Signatures(ca=stranger.authority)) == "signature-bad"
    assert judge(file, None, Signatures()).state is SignatureState.UNCHECKED


def test_a_manifest_that_was_changed_after_signing_is_refused(tmp_path: Path, signer: Signer) -> None:
    file = tmp_path / "bundle"
    file.write_bytes(bundle(("vm.yaml", MANIFEST + b"#"), ("vm.yaml.p7s", signer.sign(MANIFEST))))
    assert refusal(file, None, Signatures(ca=signer.authority)) == "signature-bad"


@pytest.mark.parametrize(
    "content",
    [
        b"raw disk" * 100,
        bundle(("vm.yaml", MANIFEST), ("disk", b"x")),
        bundle(("disk", b"x"), ("vm.yaml", MANIFEST)),
        bundle(("vm.yaml", MANIFEST)),
        bundle(),
        gzip.compress(bundle(("vm.yaml", bytes(MAX_MANIFEST + 1)), ("vm.yaml.p7s", b"x"))),
        gzip.compress(b"x" * 1000)[:-20],
        b"\xfd7zXZ\x00 and no more",
        b"\x28\xb5\x2f\xfd and no more",
        b"x",
    ],
    ids=["disk", "unsigned", "other order", "manifest alone", "empty", "bomb", "cut gzip", "no xz", "no zstd", "short"],
)
def test_what_is_no_signed_bundle_is_unsigned(tmp_path: Path, signer: Signer, content: bytes) -> None:
    file = tmp_path / "image"
    file.write_bytes(content)
    assert judge(file, None, Signatures(ca=signer.authority)).state is SignatureState.NONE
    assert refusal(file, None, Signatures(ca=signer.authority, required=True)) == "unsigned"


def test_a_detached_signature_is_of_the_whole_file(tmp_path: Path, signer: Signer, stranger: Signer) -> None:
    file = tmp_path / "disk.img"
    file.write_bytes(b"raw disk" * 1000)
    signature = signer.sign(file.read_bytes())
    assert judge(file, signature, Signatures(ca=signer.authority, required=True)).signed_by == "CN=Image-Factory"
    assert judge(file, signature, Signatures()).state is SignatureState.UNCHECKED
    assert refusal(file, signature, Signatures(ca=stranger.authority)) == "signature-bad"
    assert refusal(file, b"no signature", Signatures(ca=signer.authority)) == "signature-bad"
    file.write_bytes(b"another")
    assert refusal(file, signature, Signatures(ca=signer.authority)) == "signature-bad"


def test_the_library_keeps_who_signed_and_nothing_of_what_it_refuses(tmp_path: Path, signer: Signer) -> None:
    database = Database(f"sqlite:///{tmp_path / 'virmo.db'}")
    migrate(database)
    settings = Signatures(ca=signer.authority, required=True)
    library = ImageLibrary(
        tmp_path / "images", database, utc_now, max_bytes=1 << 30, signatures=settings, free_bytes=lambda _path: 1 << 40
    )
    with library.begin(ImageSpec("web", "web.tar", "application/x-tar")) as upload:
        upload.write(signed(signer))
        image = upload.finish()
    assert (image.signature_state, image.signed_by, image.signature) == ("good", "CN=Image-Factory", None)
    with (
        pytest.raises(Problem, match="takes only signed"),
        library.begin(ImageSpec("web", "web.tar", "application/x-tar")) as upload,
    ):
        upload.write(bundle(("vm.yaml", MANIFEST)))
        upload.finish()
    assert [path.name for path in (tmp_path / "images").iterdir()] == [image.id]
    database.close()


def test_required_signatures_need_a_ca(tmp_path: Path) -> None:
    file = tmp_path / "virmo-server.yaml"
    file.write_text("public_url: https://x\nstate_dir: state\nsignatures: {required: true}\n")
    with pytest.raises(ConfigError, match="signatures: Value error, required needs ca"):
        load_config(file)
    file.write_text("public_url: https://x\nstate_dir: state\nsignatures: {ca: ca.pem, required: true}\n")
    assert load_config(file).signatures.ca == tmp_path / "ca.pem"
