"""A guest that can testify to its own continuity: 64 MiB of memory with a checksum, a counter, one open TCP connection.

:func:`build_witness` makes a VM image of it from the sample guest; ``watcher.py`` is its other end, in dom0.
"""

from __future__ import annotations

from pathlib import Path

from image.initramfs import Ramdisk
from tests.nested.bundles import build_over, respawned

HERE = Path(__file__).parent
#: The sample guest's own needs, and the memory that it vouches for.
MEMORY = 256 << 20
PORT = 7777

DOM0 = "192.168.77.1"  #: dom0 on the guests' bridge
LAUNCHER = f"""#!/bin/sh
exec python3 -S /usr/lib/virmo/witness.py {DOM0} {PORT}
"""


def build_witness(folder: Path) -> Path:
    """A bundle, in ``folder``: the sample guest with the witness in its RAM disk."""
    over = Ramdisk()
    over.file("etc/inittab", respawned("/usr/lib/virmo/witness"))
    over.file("usr/lib/virmo/witness", LAUNCHER.encode(), executable=True)
    over.copy("usr/lib/virmo/witness.py", HERE / "guest/witness.py")
    return build_over(folder, "witness", over, MEMORY)
