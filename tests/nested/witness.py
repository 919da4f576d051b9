"""A guest that can testify to its own continuity: 64 MiB of memory with a checksum, a counter, one open TCP connection.

:func:`build_witness` makes a VM image of it from the sample guest; ``watcher.py`` is its other end, in dom0.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from image.guest import build_guest
from image.initramfs import Ramdisk
from image.manifest import FILE_NAME, Manifest, Member

HERE = Path(__file__).parent
#: The sample guest's own needs, and the memory that it vouches for.
MEMORY = 256 << 20
PORT = 7777
CHUNK = 1 << 20

INITTAB_LINE = "::respawn:/usr/lib/virmo/witness\n"
DOM0 = "192.168.77.1"  #: dom0 on the guests' bridge
LAUNCHER = f"""#!/bin/sh
exec python3 -S /usr/lib/virmo/witness.py {DOM0} {PORT}
"""


def build_witness(folder: Path) -> Path:
    """A bundle, in ``folder``: the sample guest with the witness in its RAM disk."""
    work = folder / "witness"
    work.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", build_guest("x86_64"), "-C", work], check=True, timeout=300)
    inittab = (HERE.parent.parent / "image/files/guest/etc/inittab").read_text()
    more = Ramdisk()
    more.file("etc/inittab", (inittab + INITTAB_LINE).encode())
    more.file("usr/lib/virmo/witness", LAUNCHER.encode(), executable=True)
    more.copy("usr/lib/virmo/witness.py", HERE / "guest/witness.py")
    with (work / "initramfs").open("ab") as ramdisk:
        ramdisk.write(more.archive())
    about = yaml.safe_load((work / FILE_NAME).read_text())
    manifest = Manifest(
        name="witness",
        arch=about["arch"],
        type=about["type"],
        vcpus=about["vcpus"],
        memory=MEMORY,
        # Magic SysRq, so that dom0 can make it crash.
        cmdline=f"{about['cmdline']} sysrq_always_enabled=1",
        kernel=Member.of("vmlinux", _pieces(work / "vmlinux")),
        ramdisk=Member.of("initramfs", _pieces(work / "initramfs")),
    )
    (work / FILE_NAME).write_text(manifest.text())
    bundle = folder / "witness.tar.zst"
    members = [FILE_NAME, "vmlinux", "initramfs"]
    pack = ["tar", "--format=ustar", "--use-compress-program=zstd -3 -T0", "-cf"]
    subprocess.run([*pack, str(bundle), "-C", str(work), *members], check=True, timeout=300)
    return bundle


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece
