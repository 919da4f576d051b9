"""A Debian guest with systemd, log-ins, ssh, apt and nftables, for ``userland``; built once a machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from image.base import BUILD_TOOLS
from image.cache import Cache
from image.host import ensure_packages, run_tool
from image.sources import CODENAME, debian_sources, fetch_settings, keyrings, sources_list
from tests.integration.userland import Userland, eventually

PACKAGES = ("systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "nftables", "iproute2", "procps", "python3")
_BUILD_TIMEOUT = 900.0
#: Kernel and devices are this machine's: what would change them is read-only, or is not started.
_START = """
set -e
root=$0
mount --bind "$root" "$root" # services with a name space of their own need a root that is a mount point
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom tty; do
    touch "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
touch "$root/dev/console"
mount --bind "$1" "$root/dev/console"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
if [ -d /sys/fs/cgroup/systemd ]; then
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    mkdir "$root/sys/fs/cgroup/systemd"
    mount -t cgroup -o none,name=systemd,xattr cgroup "$root/sys/fs/cgroup/systemd"
else
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
fi
ip link set lo up
cd "$root"
exec chroot "$root" env -i container=virmo PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=vt100 /sbin/init
"""
_LEFT_OUT = (
    *("systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udevd-kernel.socket"),
    *("systemd-udevd-control.socket", "systemd-sysctl.service", "systemd-modules-load.service"),
)


def unpack_debian(root: Path) -> None:
    """Its files, below ``root``; user anna (password ``secret``) may log in at the console."""
    ensure_packages({**BUILD_TOOLS, "util-linux": "unshare"})
    sources, signed_by = debian_sources(), keyrings()
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
    recipe = [
        *("mmdebstrap", "--variant=apt", f"--include={','.join(PACKAGES)}"),
        *('--aptopt=Acquire::Languages "none"', '--aptopt=APT::Install-Recommends "false"', *excluded),
        '--customize-hook=chroot "$1" useradd --create-home --shell /bin/sh anna',
        '--customize-hook=echo anna:secret | chroot "$1" chpasswd',
    ]

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch)
            (work / "sources.list").write_text(sources_list(sources, signed_by))
            (work / "apt.conf").write_text(fetch_settings())
            argv = [*recipe, f"--aptopt={work / 'apt.conf'}", CODENAME, str(folder / "root.tar.zst")]
            run_tool([*argv, work / "sources.list"], what="installing a Debian guest", timeout=_BUILD_TIMEOUT)

    inputs = {"recipe": "\n".join(recipe), "sources": sources_list(sources)}
    entry = Cache().get_or_build("debian-guest", inputs, build)
    root.mkdir()
    run_tool(["tar", "--zstd", "-xf", entry.path / "root.tar.zst", "-C", root, "--exclude=./dev/*"],
             what="unpacking a Debian guest", timeout=120)  # fmt: skip
    for unit in _LEFT_OUT:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")


class DebianGuest(Userland):
    """It runs. ``close`` and a new one with the same root is a reboot after the power was cut."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, _START)

    def boots(self) -> None:
        """Wait until its services are started."""
        eventually(lambda: Path(f"/proc/{self.init}/comm").read_text() == "systemd\n", "init is systemd")
        eventually(lambda: self.unit("multi-user.target") == "active", "the guest is up", 90)

    def unit(self, name: str) -> str:
        """How systemd calls its state."""
        return self.run("systemctl", "is-active", name, check=False).strip()
