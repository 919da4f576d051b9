"""Another architecture's root file system: what is taken over from this machine's, and how packages are unpacked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from image.arch import ARCHES
from image.foreign import canonical, native, owned_paths, take_over
from image.packages import control_of, unpack_over


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A configured root file system: one file of a package, and what that package's script made."""
    root = tmp_path / "model"
    for name, text in {
        "usr/bin/tool": "for this machine",
        "etc/passwd": "root:*:0:0",
        "etc/ld.so.cache": "for this machine",
        "usr/lib/python3/__pycache__/a.pyc": "bytes",
        "usr/lib/modules/6.1/kernel/a.ko": "for this machine",
        "var/lib/dpkg/info/tool.list": "/.\n/bin\n/bin/tool\n",
        "var/lib/made/deep/file": "made",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "usr/bin/tool").chmod(0o4755)
    (root / "etc/mtab").symlink_to("../proc/mounts")
    return root


@pytest.mark.parametrize(
    ("path", "merged"),
    [("/bin/sh", "usr/bin/sh"), ("/usr/bin/sh", "usr/bin/sh"), ("/lib", "usr/lib"), ("/libx", "libx"), ("/.", ".")],
)
def test_paths_of_a_merged_usr(path: str, merged: str) -> None:
    assert canonical(path) == merged


def test_what_scripts_made_is_taken_over_and_what_packages_brought_is_not(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_text("for the other machine")
    take_over(model, root, owned_paths(model))
    assert (root / "usr/bin/tool").read_text() == "for the other machine"
    assert (root / "usr/bin/tool").stat().st_mode & 0o7777 == 0o4755, "a script had changed its mode"
    assert (root / "etc/passwd").read_text() == "root:*:0:0"
    assert (root / "etc/mtab").readlink() == Path("../proc/mounts")
    assert (root / "var/lib/made/deep/file").read_text() == "made"


def test_what_is_for_one_architecture_only_stays_behind(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    take_over(model, root, owned_paths(model))
    left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
    assert left == {"etc/passwd", "var/lib/made/deep/file"}


def test_this_machine_is_one_of_the_rows() -> None:
    assert native() in ARCHES.values()


def test_a_package_is_unpacked_through_the_links_of_a_merged_usr(tmp_path: Path) -> None:
    package = tmp_path / "build"
    for name in ("DEBIAN", "bin", "usr/share/doc/tool"):
        (package / name).mkdir(parents=True)
    (package / "DEBIAN/control").write_text(
        "Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDescription: a test\n"
    )
    (package / "DEBIAN/postinst").write_text("#!/bin/sh\nexit 1\n")
    (package / "DEBIAN/postinst").chmod(0o755)
    (package / "bin/tool").write_text("x")
    (package / "usr/share/doc/tool/README").write_text("x")
    deb = tmp_path / "tool.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", package, deb], check=True, capture_output=True)
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    unpack_over(deb, root, ["/usr/share/doc/*"])
    assert (root / "bin").is_symlink()
    assert (root / "usr/bin/tool").is_file()
    assert list((root / "usr/share/doc").rglob("README")) == []
    assert control_of(deb).startswith("Package: tool\n")
