"""The slow layer of a dom0 image: Debian's packages, trimmed, with the hypervisor and kernel beside them.

Nothing of this project is in it, so it is rebuilt only when the package list, the archives or this code change. The
build machine's own architecture is installed by Debian's tools; any other is put together from it (`image.foreign`).
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from image.arch import Arch, BootFiles
from image.cache import Cache, Entry, hash_files
from image.errors import ImageError
from image.foreign import assemble, native
from image.host import ensure_packages, run_tool
from image.initramfs import Ramdisk
from image.modules import DOM0_MODULES, builtin, closure, kernel_version, named, prune, read_dependencies
from image.packages import Archive, compress_tree, unpack
from image.progress import Progress
from image.sources import CODENAME, debian_sources, fetch_settings, keyrings, sources_list

PACKAGES = (
    "ca-certificates",
    "e2fsprogs",
    # sfdisk, for boards: the state partition grows to the disk it is on.
    "fdisk",
    "iproute2",
    "iputils-ping",
    "kmod",
    "openssh-server",
    "openssl",
    "procps",
    "python3",
    "python3-lxml",
    "python3-pyxs",
    "python3-requests",
    "python3-yaml",
    # qemu-img reads qcow2 disks of VM images: 7 MB, and 9 MB of libraries.
    "qemu-utils",
    "systemd",
    "systemd-resolved",
    "systemd-timesyncd",
    "systemd-sysv",
    "udev",
    "xen-utils-4.17",
    "xenstore-utils",
    "xz-utils",
    "zstd",
)
#: Debian package → a program of it that this layer's builder runs on the build machine.
BUILD_TOOLS: dict[str, Path | str] = {
    "mmdebstrap": "mmdebstrap",
    "e2fsprogs": "mkfs.ext4",
    "kmod": "depmod",
    "qemu-utils": "qemu-img",
    "xz-utils": "xz",
    "zstd": "zstd",
    "lz4": "lz4",
}
STEPS = {
    "base: package lists": 5.0,
    "base: packages": 35.0,
    "base: kernel": 22.0,
    "base: packing": 4.0,
}
#: What no dom0 reads: documentation, translations, caches of tools that are not there.
_EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/usr/share/bash-completion/*",
    "/usr/share/zsh/*",
    "/usr/share/i18n/*",
    # The device model's libspice brings a multimedia library, and that the names of all languages: 20 MB.
    "/usr/share/iso-codes/*",
    "/usr/share/xml/iso-codes/*",
)
_REMOVED = ("boot", "dev", "var/cache/apt", "var/lib/apt", "etc/apt", "var/cache/debconf")
_BOOTSTRAP_TIMEOUT = 1200.0
#: Makes /bin, /sbin and /lib links from the start: the usrmerge package, and the 47 MB of Perl it brings, stay out.
_MERGED_USR = "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"
#: The modules that dom0's initial RAM disk loads to reach its root disk in QEMU.
_ROOT_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
#: The same on a board: a squashfs and an ext4 on whatever disk it has.
_BOARD_MODULES = (
    *_ROOT_MODULES,
    *("squashfs", "ahci", "sd_mod", "nvme", "mmc_block", "sdhci_pci", "sdhci_acpi", "usb_storage", "xhci_pci"),
)
#: RAM disk → its modules, its init.
_RAMDISKS = (
    ("initrd.img", _ROOT_MODULES, "dom0-initramfs/init"),
    ("board-initrd.img", _BOARD_MODULES, "board-initramfs/init"),
)
_FILES = Path(__file__).parent / "files"
_CODE = (
    "base.py",
    "modules.py",
    "initramfs.py",
    "packages.py",
    "sources.py",
    "files/dom0-initramfs",
    "files/board-initramfs",
)


@dataclass(frozen=True, slots=True)
class Base:
    """The finished layer: a packed root file system, and what QEMU loads itself."""

    entry: Entry

    @property
    def tree(self) -> Path:
        return self.entry.path / "rootfs.tar.zst"

    @property
    def boot(self) -> BootFiles:
        return BootFiles(self.entry.path / "xen", self.entry.path / "vmlinuz", self.entry.path / "initrd.img")

    @property
    def board_ramdisk(self) -> Path:
        """The initial RAM disk of a board, which starts from a slot."""
        return self.entry.path / "board-initrd.img"

    @property
    def package_list(self) -> Path:
        return self.entry.path / "packages.txt"


def packages(arch: Arch) -> tuple[str, ...]:
    """What is installed in a dom0 of this architecture; its kernel comes by another way."""
    return (*PACKAGES, arch.hypervisor_package, *arch.device_model_packages)


def build_base(arch: Arch, cache: Cache, progress: Progress) -> Base:
    """The base layer, from the cache when nothing it is made of has changed."""
    ensure_packages(BUILD_TOOLS)
    sources, signed_by = debian_sources(), keyrings()
    own = native()
    configured = None if arch == own else _build_native(own, cache)
    inputs = {
        "arch": arch.name,
        "packages": " ".join((*packages(arch), arch.dom0_kernel)),
        "sources": sources_list(sources),
        "modules": " ".join(DOM0_MODULES),
        "code": hash_files((_FILES.parent / name for name in _CODE), _FILES.parent),
        **({} if configured is None else _foreign_inputs(configured)),
    }

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="virmo-base-", dir=cache.root) as scratch:
            work = Path(scratch)
            with progress.step("base: package lists"):
                archive = Archive.open(cache.root / f"apt-{arch.name}", arch, sources, signed_by)
            with progress.step("base: packages"):
                root = work / "root"
                if configured is None:
                    _bootstrap(arch, root, work, sources_list(sources, signed_by), progress)
                else:
                    assemble(
                        archive,
                        packages(arch),
                        root,
                        excluded=_EXCLUDED,
                        like=configured.tree,
                        report=progress.fraction,
                    )
                _trim(root)
            with progress.step("base: kernel"):
                _install_kernel(arch, archive, root, work / "kernel", folder)
            with progress.step("base: packing"):
                _write_package_list(root, folder / "packages.txt")
                compress_tree(root, folder / "rootfs.tar.zst")

    entry = cache.get_or_build(f"base-{arch.name}", inputs, build)
    if not entry.fresh:
        progress.skip(STEPS, "base: unchanged")
    return Base(entry)


def _foreign_inputs(configured: Base) -> dict[str, str]:
    here = Path(__file__).parent
    return {"configured": configured.entry.key, "assembly": hash_files([here / "foreign.py"], here)}


def _build_native(arch: Arch, cache: Cache) -> Base:
    """The build machine's own layer, for another one to be put together from; shown as a build of its own."""
    progress = Progress(f"base {arch.name}")
    progress.plan(STEPS)
    base = build_base(arch, cache, progress)
    if base.entry.fresh:
        progress.finish()
    return base


def _bootstrap(arch: Arch, root: Path, work: Path, sources: str, progress: Progress) -> None:
    (work / "sources.list").write_text(sources)
    (work / "apt.conf").write_text(fetch_settings())
    options = [f"--dpkgopt=path-exclude={path}" for path in _EXCLUDED]
    include = ",".join(packages(arch))
    argv = [
        *("mmdebstrap", "--variant=essential", f"--architectures={arch.debian}", f"--include={include}", _MERGED_USR),
        *(f"--aptopt={work / 'apt.conf'}", '--aptopt=Acquire::Languages "none"', *options),
        *("--format=directory", CODENAME, str(root), str(work / "sources.list")),
    ]
    run_tool(argv, what="installing Debian's packages", timeout=_BOOTSTRAP_TIMEOUT, on_line=_phase_reporter(progress))


def _phase_reporter(progress: Progress) -> Callable[[str], None]:
    """mmdebstrap says "I: …" as it enters a phase; the fractions are how far along each was when measured."""
    phases = {
        "downloading packages": 0.15,
        "extracting archives": 0.3,
        "installing essential packages": 0.4,
        "installing remaining packages": 0.5,
        "cleaning package lists": 0.98,
    }

    def report(line: str) -> None:
        for words, part in phases.items():
            if line.startswith(f"I: {words}"):
                progress.fraction(part)

    return report


def _trim(root: Path) -> None:
    """Removes what the packages brought and no dom0 needs; the hypervisor itself is handed out beside the disk."""
    hypervisor = root / "boot"
    hypervisor.rename(root.parent / "boot")
    for name in _REMOVED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in ("boot", "dev"):
        (root / name).mkdir()
    for left in (*(root / "etc/ssh").glob("ssh_host_*"), *(p for p in (root / "var/log").rglob("*") if p.is_file())):
        left.unlink()
    for name in ("etc/hostname", "etc/xen/oxenstored.conf.dpkg-dist"):
        (root / name).unlink(missing_ok=True)


def _install_kernel(arch: Arch, archive: Archive, root: Path, kernel: Path, folder: Path) -> None:
    """Adds the kernel's modules to the tree, and writes what QEMU loads: hypervisor, kernel, initial RAM disk."""
    packages = archive.download([archive.kernel_package(arch.dom0_kernel), "busybox-static"])
    for package in packages:
        unpack(package, kernel)
    version = kernel_version(kernel)
    prune(kernel, version, DOM0_MODULES)
    shutil.copytree(kernel / "lib/modules", root / "usr/lib/modules", dirs_exist_ok=True)
    shutil.copy(kernel / f"boot/vmlinuz-{version}", folder / "vmlinuz")
    hypervisor = root.parent / "boot" / arch.hypervisor_file
    if not hypervisor.exists():
        raise ImageError(f"{arch.hypervisor_package} brought no {arch.hypervisor_file}")
    # QEMU must get the hypervisor uncompressed: given the .gz it says "linux kernel too old".
    unpacked = gzip.decompress if hypervisor.suffix == ".gz" else bytes
    (folder / "xen").write_bytes(unpacked(hypervisor.read_bytes()))
    for name, wanted, init in _RAMDISKS:
        (folder / name).write_bytes(_ramdisk(kernel, version, wanted, _FILES / init))


def _ramdisk(kernel: Path, version: str, wanted: tuple[str, ...], init: Path) -> bytes:
    dependencies = read_dependencies(kernel, version)
    present = builtin(kernel, version)
    loadable = [name for name in wanted if name.replace("_", "-") not in present]
    modules = closure(named(loadable, dependencies), dependencies)
    disk = Ramdisk()
    for folder in ("dev", "proc", "sys", "root", "bin"):
        disk.folder(folder)
    disk.character_device("dev/console", 5, 1)
    disk.copy("bin/busybox", kernel / "bin/busybox")
    disk.copy("init", init)
    for path in modules:
        disk.copy(f"modules/{Path(path).name}", kernel / "lib/modules" / version / path)
    disk.file("modules/list", "".join(f"{Path(path).name}\n" for path in modules).encode())
    return disk.archive()


def _write_package_list(root: Path, target: Path) -> None:
    argv = ["dpkg-query", f"--admindir={root / 'var/lib/dpkg'}", "--show", "--showformat=${Package} ${Version}\n"]
    target.write_text(run_tool(argv, what="listing the packages", timeout=60))
