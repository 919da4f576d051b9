"""Kernel modules: which of Debian's 4000 a Xen board needs, and what each of those needs in turn.

A full Debian kernel brings 390 MB of modules. What stays is chosen by folder in the table below, plus the closure of
its dependencies; the rest is removed before it reaches an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path

from image.errors import ImageError
from image.host import Argv, run_tool

#: What a dom0 on a board or in QEMU may need, as patterns below lib/modules/<version>/kernel/.
DOM0_MODULES = (
    "arch/*/crypto/*",
    "block/*",
    "crypto/*",
    "lib/*",
    "drivers/xen/*",
    "drivers/virtio/*",
    "drivers/block/*",
    "drivers/net/xen-*",
    *(f"drivers/net/{name}.ko" for name in ("virtio_net", "ifb", "tun", "tap", "veth", "dummy", "macvlan", "macvtap")),
    "drivers/net/bonding/*",
    "drivers/net/vxlan/*",
    "drivers/net/wireguard/*",
    "drivers/net/phy/*",
    "drivers/net/usb/*",
    *(f"drivers/net/ethernet/{maker}/*" for maker in ("intel/e1000*", "intel/ig*", "realtek", "broadcom", "marvell")),
    "drivers/char/hw_random/*",
    "drivers/char/tpm/*",
    "drivers/ata/*",
    "drivers/nvme/*",
    *(f"drivers/scsi/{name}" for name in ("scsi_mod.ko", "sd_mod.ko", "sr_mod.ko", "sg.ko", "virtio_scsi.ko")),
    "drivers/mmc/*",
    "drivers/md/dm-*",
    "drivers/usb/core/*",
    "drivers/usb/host/*",
    "drivers/usb/storage/*",
    "drivers/usb/serial/*",
    "drivers/usb/class/*",
    "drivers/watchdog/*",
    "drivers/firmware/*",
    "drivers/cpufreq/*",
    "drivers/i2c/*",
    "net/core/*",
    "net/sched/*",
    "net/bridge/*",
    "net/802/*",
    "net/8021q/*",
    "net/llc/*",
    "net/ipv4/*",
    "net/ipv6/*",
    "net/netfilter/*",
    "net/packet/*",
    "net/tls/*",
    "net/unix/*",
    "net/netlink/*",
    "fs/ext4/*",
    "fs/jbd2/*",
    "fs/mbcache.ko",
    "fs/overlayfs/*",
    "fs/squashfs/*",
    "fs/erofs/*",
    "fs/fat/*",
    "fs/nls/*",
    "fs/isofs/*",
    "fs/fuse/*",
    "fs/autofs/*",
    "fs/configfs/*",
    "fs/efivarfs/*",
    "fs/binfmt_misc.ko",
)

_DEPMOD_TIMEOUT = 120.0


def kernel_version(root: Path) -> str:
    """The version of the one kernel whose modules lie below `root`."""
    found = [path.name for path in (root / "lib/modules").iterdir() if (path / "kernel").is_dir()]
    if len(found) != 1:
        raise ImageError(f"expected the modules of one kernel, found {found or 'none'}")
    return found[0]


def depmod(root: Path, version: str) -> None:
    """Writes modules.dep and the alias tables. The build machine's depmod reads any architecture's modules."""
    argv: Argv = ["depmod", "--basedir", root, version]
    run_tool(argv, what="indexing kernel modules", timeout=_DEPMOD_TIMEOUT)


def read_dependencies(root: Path, version: str) -> dict[str, tuple[str, ...]]:
    """modules.dep: each module's path below lib/modules/<version>, and what must be loaded before it, first first."""
    found = {}
    for line in (root / "lib/modules" / version / "modules.dep").read_text().splitlines():
        module, _, needs = line.partition(":")
        found[module] = tuple(reversed(needs.split()))
    return found


def closure(wanted: Iterable[str], dependencies: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The wanted modules and all they need, in an order in which they can be loaded."""
    ordered: dict[str, None] = {}
    for module in wanted:
        for needed in (*dependencies[module], module):
            ordered.setdefault(needed)
    return tuple(ordered)


def named(names: Iterable[str], dependencies: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The paths of modules given by name; the caller has left out what is built into the kernel (see `builtin`)."""
    by_name = {Path(path).name.removesuffix(".ko").replace("_", "-"): path for path in dependencies}
    return tuple(by_name[name.replace("_", "-")] for name in names)


def builtin(root: Path, version: str) -> frozenset[str]:
    """The names of what is built into this kernel."""
    lines = (root / "lib/modules" / version / "modules.builtin").read_text().splitlines()
    return frozenset(Path(line).name.removesuffix(".ko").replace("_", "-") for line in lines)


def prune(root: Path, version: str, patterns: Iterable[str]) -> None:
    """Removes every module that no pattern names and none of the kept ones needs."""
    depmod(root, version)
    dependencies = read_dependencies(root, version)
    wanted = [p for p in dependencies if any(fnmatch(p.removeprefix("kernel/"), pattern) for pattern in patterns)]
    kept = set(closure(wanted, dependencies))
    folder = root / "lib/modules" / version
    for path in dependencies:
        if path not in kept:
            (folder / path).unlink()
    depmod(root, version)
