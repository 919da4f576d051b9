"""The bundle: one tar stream though packed in frames, vm.yaml first, members in pieces whole again."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from image.bundle import Piece, write_bundle
from image.host import ensure_packages


@pytest.fixture(autouse=True)
def packer() -> None:
    ensure_packages({"zstd": "zstd"})


def piece(folder: Path, name: str, data: bytes) -> Piece:
    path = folder / name
    path.write_bytes(data)
    return Piece.pack(path)


def test_members_in_order_and_whole(tmp_path: Path) -> None:
    kernel, one, two = b"k" * 1000, b"1" * 512, b"2" * 513
    target = tmp_path / "guest.tar.zst"
    write_bundle(
        target,
        [
            ("vm.yaml", [piece(tmp_path, "y", b"format: 1\n")]),
            ("vmlinux", [piece(tmp_path, "k", kernel)]),
            ("initramfs", [piece(tmp_path, "a", one), piece(tmp_path, "b", two)]),
        ],
    )
    unpacked = subprocess.run(["zstd", "-qdc", target], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as tar:
        found = [(member.name, member.isreg(), tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    assert found == [("vm.yaml", True, b"format: 1\n"), ("vmlinux", True, kernel), ("initramfs", True, one + two)]


def test_the_same_content_is_the_same_bundle(tmp_path: Path) -> None:
    bundles = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        write_bundle(folder / "g.tar.zst", [("vm.yaml", [piece(folder, "y", b"x" * 99)])])
        bundles.append((folder / "g.tar.zst").read_bytes())
    assert bundles[0] == bundles[1]
