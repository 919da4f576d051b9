"""The fast layer of a dom0 image: base, this project's settings, the agent; as a disk that QEMU boots from.

No loop device, mount or network is used: the tree is unpacked, completed, and written by `mkfs.ext4 -d`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from image.agent import STEPS as AGENT_STEPS
from image.agent import agent_hash, agent_tree
from image.arch import Arch, BootFiles
from image.base import STEPS as BASE_STEPS
from image.base import build_base
from image.cache import Cache, Entry, hash_files
from image.errors import ImageError
from image.host import run_tool
from image.packages import unpack_tree
from image.progress import Progress

STEPS = {"dom0: files": 5.0, "dom0: disk": 8.0}
ALL_STEPS = {**BASE_STEPS, **AGENT_STEPS, **STEPS}
#: The disk's size as dom0 sees it: the rest of it, for VM images and disks, takes no space on the build machine.
DISK_BYTES = 6 * 1024**3
_ENABLED = (
    ("multi-user.target", "systemd-networkd.service"),
    ("sockets.target", "systemd-networkd.socket"),
    ("multi-user.target", "virmo-agent.service"),
)
#: Nobody can log in on a console without a password, and ssh sessions need no seats; xendomains would save and start
#: VMs behind the agent's back; the rest is housekeeping that costs boot time and finds nothing to do here.
_MASKED = (
    "serial-getty@hvc0.service",
    "getty@tty1.service",
    "systemd-logind.service",
    "xendomains.service",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
    "e2scrub_reap.service",
    "e2scrub_all.timer",
    "dpkg-db-backup.timer",
    "systemd-hwdb-update.service",
    "ldconfig.service",
)
_FILES = Path(__file__).parent / "files" / "dom0"
_CODE = (Path(__file__), _FILES)
_MKFS_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Dom0Image:
    """A dom0 to boot. Its disk is never written to: QEMU runs on an overlay."""

    arch: Arch
    entry: Entry
    boot: BootFiles
    base: Entry

    @property
    def disk(self) -> Path:
        return self.entry.path / "disk.qcow2"

    def boot_args(self, xen_args: str, kernel_args: str) -> list[str]:
        """QEMU loads hypervisor, kernel and RAM disk itself."""
        return self.arch.boot_loader(self.boot, xen_args, kernel_args)


def build_dom0(
    arch: Arch, cache: Cache, progress: Progress, *, with_agent: bool = True, authorized_key: str = ""
) -> Dom0Image:
    """The dom0 image, from the cache when nothing it is made of has changed.

    Without the agent it is the same system with the agent's service waiting for its program: what a test harness
    snapshots, so that an edit of the agent does not cost a boot.
    """
    base = build_base(arch, cache, progress)
    inputs = {
        "base": base.entry.key,
        "agent": agent_hash() if with_agent else "",
        "authorized_key": authorized_key,
        "bytes": str(DISK_BYTES),
        "code": hash_files(_CODE, _FILES.parent.parent),
    }

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="virmo-dom0-", dir=cache.root) as scratch:
            root = Path(scratch) / "root"
            with progress.step("agent: wheel"):
                agent = agent_tree(cache) if with_agent else None
            with progress.step("dom0: files"):
                unpack_tree(base.tree, root)
                settle(root, authorized_key)
                if agent is not None:
                    shutil.copytree(agent, root, dirs_exist_ok=True)
            with progress.step("dom0: disk"):
                _write_disk(root, Path(scratch) / "disk.raw", folder / "disk.qcow2")

    entry = cache.get_or_build(f"dom0-{arch.name}" if with_agent else f"dom0-bare-{arch.name}", inputs, build)
    if not entry.fresh:
        progress.skip({**AGENT_STEPS, **STEPS}, "dom0: unchanged")
    return Dom0Image(arch, entry, base.boot, base.entry)


def lay_over(files: Path, root: Path) -> None:
    """Copies a folder of settings over a root file system; of modes only "executable" counts."""
    for source in sorted(files.rglob("*")):
        target = root / source.relative_to(files)
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.unlink(missing_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def settle(root: Path, authorized_key: str) -> None:
    """Lays this project's files over Debian's, and settles what a running system would settle at its first boot."""
    lay_over(_FILES, root)
    system = root / "etc/systemd/system"
    enable(root, _ENABLED)
    for unit in _MASKED:
        (system / unit).unlink(missing_ok=True)
        (system / unit).symlink_to("/dev/null")
    # Empty: the first boot makes an id. ("uninitialized" would also enable every unit of every package.)
    (root / "etc/machine-id").write_text("")
    (root / "etc/systemd/system-preset").mkdir(exist_ok=True)
    (root / "etc/systemd/system-preset/00-virmo.preset").write_text("disable *\n")
    for folder, mode in (("etc/virmo-agent", 0o755), ("var/lib/virmo-agent", 0o700), ("root", 0o700)):
        (root / folder).mkdir(exist_ok=True)
        (root / folder).chmod(mode)
    _keep_dom0_without_qemu(root)
    if authorized_key:
        (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        (root / "root/.ssh/authorized_keys").write_text(authorized_key.rstrip("\n") + "\n")
        (root / "root/.ssh/authorized_keys").chmod(0o600)
    for stamp in ("etc/.updated", "var/.updated"):
        (root / stamp).touch()
    newest = (root / "usr").stat().st_mtime
    for stamp in ("etc/.updated", "var/.updated"):
        os.utime(root / stamp, (newest, newest))


def _keep_dom0_without_qemu(root: Path) -> None:
    """Xen's init script starts the device model for dom0 itself where there is one: 30 MB for disks that no VM has.

    Theirs are raw, and the kernel serves them.
    """
    script = root / "etc/init.d/xen"
    text = script.read_text()
    started = "QEMU=/usr/libexec/xen-qemu-system-i386\n"
    if text.count(started) != 1:
        raise ImageError(f"Debian's {script.relative_to(root)} has changed: it should name dom0's qemu once")
    script.write_text(text.replace(started, "QEMU=/nonexistent\n"))


def enable(root: Path, units: Iterable[tuple[str, str]]) -> None:
    """Lets targets want units, as "systemctl enable" does."""
    system = root / "etc/systemd/system"
    for target_unit, unit in units:
        wants = system / f"{target_unit}.wants"
        wants.mkdir(exist_ok=True)
        home = "/etc" if (system / unit).exists() else "/lib"
        (wants / unit).symlink_to(f"{home}/systemd/system/{unit}")


def _write_disk(root: Path, raw: Path, target: Path) -> None:
    """A journalled ext4 with everything in it, then as qcow2, which holds only the data."""
    with raw.open("wb") as disk:
        disk.truncate(DISK_BYTES)
    # The file reads as zeros already: neither mkfs nor the kernel later needs to clear tables and journal.
    options = ["-E", "lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1", "-m", "0", "-L", "virmo-dom0"]
    run_tool(
        ["mkfs.ext4", "-q", "-F", *options, "-d", root, raw], what="writing dom0's file system", timeout=_MKFS_TIMEOUT
    )
    run_tool(["qemu-img", "convert", "-O", "qcow2", raw, target], what="packing dom0's disk", timeout=_MKFS_TIMEOUT)
