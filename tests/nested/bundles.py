"""VM images for tests: the sample guest with files laid over it, and a manifest of one's own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from image.guest import build_guest
from image.initramfs import Ramdisk
from image.manifest import FILE_NAME, Manifest, Member

CHUNK = 1 << 20
TIMEOUT = 300
INITTAB = Path(__file__).parent.parent.parent / "image/files/guest/etc/inittab"


def unpack_guest(bundle: Path, folder: Path) -> None:
    """What a domain of the sample guest is built from: ``kernel`` and ``ramdisk``, in a new ``folder``."""
    folder.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", bundle, "-C", folder], check=True, timeout=TIMEOUT)
    (folder / "vmlinux").rename(folder / "kernel")
    (folder / "initramfs").rename(folder / "ramdisk")


def build_over(folder: Path, name: str, over: Ramdisk, memory: int, *, vcpus: int | None = None) -> Path:
    """A bundle ``NAME.tar.zst`` in ``folder``: the x86-64 sample guest with ``over`` in its RAM disk."""
    work = folder / name
    work.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", build_guest("x86_64"), "-C", work], check=True, timeout=TIMEOUT)
    with (work / "initramfs").open("ab") as ramdisk:
        ramdisk.write(over.archive())
    about = yaml.safe_load((work / FILE_NAME).read_text())
    manifest = Manifest(
        name=name,
        arch=about["arch"],
        type=about["type"],
        vcpus=about["vcpus"] if vcpus is None else vcpus,
        memory=memory,
        # Magic SysRq, so that dom0 can make it crash.
        cmdline=f"{about['cmdline']} sysrq_always_enabled=1",
        kernel=Member.of("vmlinux", _pieces(work / "vmlinux")),
        ramdisk=Member.of("initramfs", _pieces(work / "initramfs")),
    )
    (work / FILE_NAME).write_text(manifest.text())
    bundle = folder / f"{name}.tar.zst"
    members = [FILE_NAME, "vmlinux", "initramfs"]
    pack = ["tar", "--format=ustar", "--use-compress-program=zstd -3 -T0", "-cf"]
    subprocess.run([*pack, str(bundle), "-C", str(work), *members], check=True, timeout=TIMEOUT)
    return bundle


def respawned(program: str) -> bytes:
    """The sample guest's inittab with a program more that init starts again whenever it ends."""
    return INITTAB.read_bytes() + f"::respawn:{program}\n".encode()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece
