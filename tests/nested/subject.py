"""A guest whose resources are measured: it burns, sends, receives and looks as ``dom0/measure.py`` asks it to.

iperf3 is Debian's, taken out of its packages with the libraries that it needs; the guest has it, and dom0 gets it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from image.arch import arch_named
from image.cache import Cache
from image.elf import library_closure
from image.initramfs import Ramdisk
from image.packages import Archive, unpack
from image.sources import debian_sources, keyrings
from tests.nested.bundles import build_over, respawned

HERE = Path(__file__).parent
MEMORY = 160 << 20
ARCH = "x86_64"
IPERF_PACKAGES = ("iperf3", "libiperf0", "libsctp1", "libssl3")
LIBC = "libc6"  #: what guest and dom0 have anyway
LAUNCHER = b"#!/bin/sh\nsleep 1\nexec python3 -S /usr/lib/virmo/answerer.py\n"


def unpack_iperf(folder: Path) -> list[Path]:
    """iperf3 and its libraries as files in ``folder``."""
    cache, arch = Cache(), arch_named(ARCH)
    folder.mkdir()
    with tempfile.TemporaryDirectory(prefix="iperf-") as scratch, cache.lock("apt-tests"):
        own, libc = Path(scratch) / "own", Path(scratch) / "libc"
        archive = Archive.open(cache.root / "apt-tests", arch, debian_sources(), keyrings())
        for package in archive.download((*IPERF_PACKAGES, LIBC)):
            unpack(package, libc if package.name.startswith(f"{LIBC}_") else own)
        program = own / "usr/bin/iperf3"
        libraries = {path.name: path for path in Path(scratch).glob(f"**/{arch.library_dir}/*.so*")}
        for name, path in {"iperf3": program, **library_closure([program], libraries)}.items():
            if own in path.parents:
                (folder / name).write_bytes(path.resolve().read_bytes())
                (folder / name).chmod(0o755)
    return sorted(folder.iterdir())


def build_subject(folder: Path, name: str, iperf: list[Path], vcpus: int) -> Path:
    """A bundle, in ``folder``, that asks for ``vcpus`` CPUs."""
    over = Ramdisk()
    over.file("etc/inittab", respawned("/usr/lib/virmo/answerer"))
    over.file("sbin/hotplug", (HERE / "guest/hotplug").read_bytes(), executable=True)
    over.file("usr/lib/virmo/answerer", LAUNCHER, executable=True)
    over.copy("usr/lib/virmo/answerer.py", HERE / "guest/answerer.py")
    for file in iperf:
        over.file(f"usr/{'bin' if file.name == 'iperf3' else 'lib'}/{file.name}", file.read_bytes(), executable=True)
    return build_over(folder, name, over, MEMORY, vcpus=vcpus)
