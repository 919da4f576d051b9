"""The slow part of the sample guest: a kernel that Xen loads at once, and a small system that can run Python.

Taken from Debian's packages file by file; nothing of them is run, so it works for any architecture on any machine.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from image.agent import HOST_PYTHON
from image.arch import Arch
from image.bundle import Piece
from image.cache import Cache, Entry, hash_files
from image.elf import is_elf, library_closure
from image.host import Argv, ensure_packages, run_tool
from image.initramfs import Ramdisk
from image.modules import builtin, closure, depmod, kernel_version, named, read_dependencies
from image.packages import Archive, unpack
from image.progress import Progress
from image.sources import debian_sources, keyrings, sources_list
from image.vmlinux import uncompressed

STEPS = {"guest: packages": 8.0, "guest: kernel": 4.0, "guest: programs": 3.0, "guest: packing": 8.0}
_BUILD_TOOLS: dict[str, Path | str] = {
    "kmod": "depmod",
    "xz-utils": "xz",
    "lz4": "lz4",
    "zstd": "zstd",
    "python3": HOST_PYTHON,
}
PACKAGES = (
    "busybox-static",
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libc6",
    "libexpat1",
    "libffi8",
    "zlib1g",
    # vchan: the guest's end of a shared-memory channel to dom0.
    "libxenmisc4.17",
    "libxencall1",
    "libxenevtchn1",
    "libxengnttab1",
    "libxenstore4",
    "libxentoolcore1",
    "libxentoollog1",
)
MODULES = ("xen-blkfront", "xen-netfront", "xen-evtchn", "xen-gntdev", "xen-gntalloc")
#: What a shim in a guest has no use for, below usr/lib/python3.11.
_DROPPED = (
    *("test", "unittest", "pydoc*", "turtle*", "idlelib", "tkinter", "lib2to3", "ensurepip", "venv", "distutils"),
    *("doctest.py", "pdb.py", "bdb.py", "xmlrpc", "wsgiref", "curses", "sqlite3", "dbm", "multiprocessing"),
    *("mailbox.py", "imaplib.py", "smtplib.py", "nntplib.py", "ftplib.py", "telnetlib.py", "poplib.py", "cgi*.py"),
    *("aifc.py", "sunau.py", "wave.py", "chunk.py", "sndhdr.py", "imghdr.py", "pickletools.py", "webbrowser.py"),
    *("_pydecimal.py", "_pyio.py", "statistics.py", "fractions.py", "decimal.py", "difflib.py", "tomllib", "zoneinfo"),
    *("xml", "html", "email", "http", "mimetypes.py", "optparse.py", "trace.py", "tabnanny.py", "config-*"),
    *("*.txt", "__pycache__", "EXTERNALLY-MANAGED", "sitecustomize.py"),
    *(
        f"lib-dynload/{name}.*"
        for name in ("_codecs_*", "_test*", "xx*", "_xx*", "_sqlite3", "_curses*", "nis", "_ssl")
    ),
    *(f"lib-dynload/{name}.*" for name in ("ossaudiodev", "readline", "_dbm", "_hashlib", "_decimal", "audioop")),
    *(f"lib-dynload/{name}.*" for name in ("_crypt", "_lzma", "_bz2", "_uuid", "_zoneinfo", "_lsprof")),
)
_ENCODINGS = ("__init__", "aliases", "ascii", "latin_1", "utf_8", "utf_8_sig", "idna", "hex_codec", "unicode_escape")
_PROGRAMS = """
sh mount umount mkdir insmod hostname ip udhcpc sleep echo sync test
cat ls cp mv rm dd grep head tail vi ps top free df kill date uptime dmesg mknod nc ping wget
"""
#: The kernel starts /init, and calls /sbin/poweroff when Xen asks for a shutdown; the rest is for scripts and people.
_BUSYBOX_LINKS = (
    *("init", "sbin/init", "sbin/poweroff", "sbin/reboot", "sbin/halt"),
    *(f"bin/{name}" for name in _PROGRAMS.split()),
)
_PYTHON = "usr/lib/python3.11"
_COMPILE_TIMEOUT = 120.0
_CODE = ("guest_base.py", "initramfs.py", "vmlinux.py", "elf.py", "modules.py", "packages.py", "bundle.py")


@dataclass(frozen=True, slots=True)
class GuestBase:
    """The finished part: the kernel and the first archive of the RAM disk, both also packed."""

    entry: Entry

    @property
    def kernel(self) -> Piece:
        return Piece.packed_already(self.entry.path / "vmlinux")

    @property
    def ramdisk(self) -> Piece:
        return Piece.packed_already(self.entry.path / "base.cpio")


def build_guest_base(arch: Arch, cache: Cache, progress: Progress) -> GuestBase:
    """The guest's kernel and system, from the cache when nothing they are made of has changed."""
    ensure_packages(_BUILD_TOOLS)
    sources, signed_by = debian_sources(), keyrings()
    here = Path(__file__).parent
    inputs = {
        "arch": arch.name,
        "packages": " ".join((*PACKAGES, arch.guest_kernel)),
        "modules": " ".join(MODULES),
        "sources": sources_list(sources),
        "code": hash_files((here / name for name in _CODE), here),
    }

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="virmo-guest-", dir=cache.root) as scratch:
            work = Path(scratch)
            with progress.step("guest: packages"), cache.lock(f"apt-{arch.name}"):
                archive = Archive.open(cache.root / f"apt-{arch.name}", arch, sources, signed_by)
                kernel_package = archive.kernel_package(arch.guest_kernel)
                for package in archive.download([kernel_package]):
                    unpack(package, work / "kernel")
                for package in archive.download(PACKAGES):
                    unpack(package, work / "system")
            disk = Ramdisk()
            with progress.step("guest: kernel"):
                version = kernel_version(work / "kernel")
                kernel = uncompressed(work / f"kernel/boot/vmlinuz-{version}", arch)
                (folder / "vmlinux").write_bytes(kernel)
                _add_modules(disk, work / "kernel", version)
            with progress.step("guest: programs"):
                _add_system(disk, work / "system", arch)
                (folder / "base.cpio").write_bytes(disk.archive())
            with progress.step("guest: packing"):
                Piece.pack(folder / "vmlinux")
                progress.fraction(0.7)
                Piece.pack(folder / "base.cpio")

    entry = cache.get_or_build(f"guest-base-{arch.name}", inputs, build)
    if not entry.fresh:
        progress.skip(STEPS, "guest: kernel and programs unchanged")
    return GuestBase(entry)


def _add_modules(disk: Ramdisk, kernel: Path, version: str) -> None:
    """The Xen front ends, in the order they are loaded in."""
    depmod(kernel, version)
    dependencies = read_dependencies(kernel, version)
    present = builtin(kernel, version)
    loadable = [name for name in MODULES if name not in present]
    modules = closure(named(loadable, dependencies), dependencies)
    for path in modules:
        disk.copy(f"lib/modules/{Path(path).name}", kernel / "lib/modules" / version / path)
    disk.file("lib/modules/list", "".join(f"{Path(path).name}\n" for path in modules).encode())


def _add_system(disk: Ramdisk, system: Path, arch: Arch) -> None:
    """busybox as init and shell, Python with the part of its library a shim may want, and the libraries both need."""
    for folder in ("dev", "proc", "sys", "run", "tmp", "root", "var"):
        disk.folder(folder)
    disk.character_device("dev/console", 5, 1)
    disk.copy("bin/busybox", system / "bin/busybox")
    for link in _BUSYBOX_LINKS:
        disk.link(link, "/bin/busybox")
    python = system / _PYTHON
    _thin(python)
    _compile(python, system)
    disk.tree(_PYTHON, python)
    interpreter = system / "usr/bin/python3.11"
    disk.copy("usr/bin/python3.11", interpreter)
    disk.link("usr/bin/python3", "python3.11")
    libraries = {path.name: path for path in system.glob(f"**/{arch.library_dir}/*.so*")}
    roots = [interpreter, *(python / "lib-dynload").glob("*.so"), libraries["libxenvchan.so.4.17"]]
    for name, path in library_closure(roots, libraries).items():
        disk.copy(f"usr/lib/{name}", path.resolve())
    disk.copy("usr/lib/libxenvchan.so.4.17", libraries["libxenvchan.so.4.17"].resolve())
    disk.copy(arch.loader, _loader(system, arch))


def _loader(system: Path, arch: Arch) -> Path:
    """The dynamic loader: the path every program names is a link in Debian's package."""
    return next(path for path in system.glob(f"lib/{arch.library_dir}/ld-linux*") if is_elf(path.read_bytes()))


def _thin(python: Path) -> None:
    for path in sorted(python.rglob("*"), reverse=True):
        name = str(path.relative_to(python))
        if any(fnmatch(name, pattern) or fnmatch(path.name, pattern) for pattern in _DROPPED):
            _remove(path)
    kept = {f"{name}.py" for name in _ENCODINGS}
    for path in (python / "encodings").iterdir():
        if path.name not in kept:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _compile(python: Path, system: Path) -> None:
    """Leaves compiled files only: Python starts in a third of the time, in half the memory of the RAM disk."""
    argv: Argv = [HOST_PYTHON, "-OO", "-m", "compileall", "-q", "-b", "-j", "0", "-s", system, "-p", "/", python]
    run_tool(argv, what="compiling Python's library", timeout=_COMPILE_TIMEOUT)
    for source in _sources(python):
        source.unlink()


def _sources(python: Path) -> Iterable[Path]:
    return [path for path in python.rglob("*.py") if path.with_suffix(".pyc").exists()]
