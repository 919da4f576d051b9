"""A dom0 for boards: two read-only system slots, a state partition, and a boot loader that counts.

    GPT  virmo-esp     FAT        GRUB, its environment block, and what the owner puts there for this board
         virmo-root-a  squashfs   a whole system: Xen, dom0's kernel, RAM disk and files
         virmo-root-b  squashfs   the other one; an update writes the slot that does not run
         virmo-state   ext4       /var: everything that changes

GRUB starts the slot that is good, or the one on trial as long as it has tries left (see `board-grub.cfg`); the health
check of the trial makes it the good one. One layout and one boot loader (UEFI) for both architectures.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from image.agent import STEPS as AGENT_STEPS
from image.agent import agent_hash, agent_tree
from image.arch import Arch
from image.base import STEPS as BASE_STEPS
from image.base import Base, build_base
from image.cache import Cache, Entry, hash_files
from image.dom0 import enable, lay_over, settle
from image.errors import ImageError
from image.host import Argv, ensure_packages, run_tool
from image.packages import Archive, unpack, unpack_tree
from image.progress import Progress
from image.sources import debian_sources, keyrings

STEPS = {"board: slot": 25.0, "board: boot loader": 5.0, "board: disk": 8.0}
ALL_STEPS = {**BASE_STEPS, **AGENT_STEPS, **STEPS}
MIB = 1024**2
SECTOR = 512
ESP_BYTES, SLOT_BYTES = 64 * MIB, 384 * MIB
DISK_BYTES = 3 * 1024**3
FIRST_BYTE = MIB
SLOTS = ("a", "b")
#: GPT partition names and types (EFI system, Linux), in the disk's order; 0 bytes: the rest.
PARTITIONS = (
    ("virmo-esp", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", ESP_BYTES),
    ("virmo-root-a", "0FC63DAF-8483-4772-8E79-3D69D8477DE4", SLOT_BYTES),
    ("virmo-root-b", "0FC63DAF-8483-4772-8E79-3D69D8477DE4", SLOT_BYTES),
    ("virmo-state", "0FC63DAF-8483-4772-8E79-3D69D8477DE4", 0),
)
ENVIRONMENT = "virmo/grubenv"
_ENV_BYTES = 1024
ENABLED = (
    ("multi-user.target", "virmo-grow-state.service"),
    ("multi-user.target", "virmo-provision.service"),
    ("multi-user.target", "virmo-slot-good.service"),
    ("timers.target", "virmo-trial.timer"),
)
#: Paths of the read-only root that lead to the state partition.
_LINKS = {
    "etc/virmo-agent": "/var/lib/virmo-config",
    "root/.ssh": "/var/lib/virmo-ssh",
}
_GRUB_MODULES = (
    *("part_gpt", "fat", "squash4", "gzio", "loadenv", "search", "search_fs_file", "search_label", "probe"),
    *("normal", "test", "echo", "sleep", "reboot", "configfile", "serial", "terminal", "regexp"),
)
_BUILD_TOOLS: dict[str, Path | str] = {
    "squashfs-tools": "mksquashfs",
    "mtools": "mcopy",
    "dosfstools": "mkfs.vfat",
    "fdisk": "sfdisk",
    "grub-common": "grub-mkstandalone",
    "e2fsprogs": "mkfs.ext4",
    "qemu-utils": "qemu-img",
}
_FILES = Path(__file__).parent / "files" / "board"
_GRUB_CONFIG = Path(__file__).parent / "files" / "board-grub.cfg"
_CODE = (Path(__file__), Path(__file__).with_name("dom0.py"), _FILES.with_name("dom0"), _FILES, _GRUB_CONFIG)
_TOOL_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class BoardImage:
    """A disk for a board, and the system slot in it alone (what an update delivers)."""

    arch: Arch
    entry: Entry
    base: Entry

    @property
    def disk(self) -> Path:
        return self.entry.path / "disk.qcow2"

    @property
    def slot(self) -> Path:
        return self.entry.path / "system.squashfs"

    def boot_args(self, xen_args: str, kernel_args: str) -> list[str]:
        """QEMU starts UEFI, which starts GRUB from the disk: what is on the command lines, the disk says."""
        del xen_args, kernel_args
        return ["-bios", str(self.arch.firmware)]

    @property
    def hypervisor(self) -> Path:
        return self.entry.path / "xen"


def build_board(
    arch: Arch,
    cache: Cache,
    progress: Progress,
    *,
    authorized_key: str = "",
    version: str = "",
    arguments: dict[str, str] | None = None,
) -> BoardImage:
    """The board's disk, from the cache when nothing it is made of has changed.

    `version` is what the system says of itself; by default it is made of what is in it. `authorized_key` lies on the
    first partition, as an owner would put it there; so do `arguments` (xen_args, kernel_args) for the boot loader.
    """
    ensure_packages(_BUILD_TOOLS)
    base = build_base(arch, cache, progress)
    inputs = {
        "base": base.entry.key,
        "agent": agent_hash(),
        "authorized_key": authorized_key,
        "version": version,
        "arguments": repr(sorted((arguments or {}).items())),
        "code": hash_files(_CODE, _FILES.parent.parent),
    }

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="virmo-board-", dir=cache.root) as scratch:
            work = Path(scratch)
            with progress.step("agent: wheel"):
                agent = agent_tree(cache)
            with progress.step("board: slot"):
                _make_slot(arch, base, agent, work / "root", version)
                pack_slot(work / "root", folder / "system.squashfs")
                shutil.copy(base.boot.hypervisor, folder / "xen")
            with progress.step("board: boot loader"):
                esp = _make_esp(arch, cache, work, authorized_key, arguments or {})
            with progress.step("board: disk"):
                raw = work / "disk.raw"
                _write_disk(raw, esp, folder / "system.squashfs", work)
                convert: Argv = ["qemu-img", "convert", "-O", "qcow2", raw, folder / "disk.qcow2"]
                run_tool(convert, what="packing the board's disk", timeout=_TOOL_TIMEOUT)

    entry = cache.get_or_build(f"board-{arch.name}", inputs, build)
    if not entry.fresh:
        progress.skip({**AGENT_STEPS, **STEPS}, "board: unchanged")
    return BoardImage(arch, entry, base.entry)


def _make_slot(arch: Arch, base: Base, agent: Path, root: Path, version: str) -> None:
    unpack_tree(base.tree, root)
    settle(root, "")
    lay_over(_FILES, root)
    enable(root, ENABLED)
    shutil.copytree(agent, root, dirs_exist_ok=True)
    for path, target in _LINKS.items():
        link = root / path
        if link.is_dir():
            shutil.rmtree(link)
        link.symlink_to(target)
    system = root / "usr/lib/virmo/system"
    system.mkdir(parents=True)
    shutil.copy(base.boot.hypervisor, system / "xen")
    shutil.copy(base.boot.kernel, system / "vmlinuz")
    shutil.copy(base.board_ramdisk, system / "initrd.img")
    shown = version or f"{base.entry.key[:8]}-{agent_hash()[:8]}"
    (root / "etc/virmo-release").write_text(f"VERSION={shown}\nARCH={arch.name}\n")


def pack_slot(root: Path, target: Path) -> None:
    """A root file system as a slot. gzip: GRUB reads it, and an old processor unpacks it quickly."""
    argv: Argv = ["mksquashfs", root, target, "-noappend", "-quiet", "-no-progress", "-comp", "gzip"]
    argv = [*argv, "-Xcompression-level", "4", "-b", "131072"]
    run_tool(argv, what="packing the system slot", timeout=_TOOL_TIMEOUT)
    size = target.stat().st_size
    if size > SLOT_BYTES:
        raise ImageError(f"the system is {size // MIB} MiB large, a slot only {SLOT_BYTES // MIB} MiB")


def environment(variables: dict[str, str]) -> bytes:
    """A GRUB environment block."""
    lines = "".join(f"{name}={value}\n" for name, value in variables.items())
    block = f"# GRUB Environment Block\n{lines}".encode()
    return block + b"#" * (_ENV_BYTES - len(block))


def _make_esp(arch: Arch, cache: Cache, work: Path, authorized_key: str, arguments: dict[str, str]) -> Path:
    """The first partition: GRUB with its configuration inside, and the environment block."""
    loader = work / "loader.efi"
    config = work / "grub.cfg"
    config.write_text(_GRUB_CONFIG.read_text().replace("@XEN@", arch.grub_xen).replace("@CONSOLE@", arch.xen_console))
    modules = " ".join((*_GRUB_MODULES, *arch.grub_modules))
    argv: Argv = ["grub-mkstandalone", "-d", _grub_folder(arch, cache, work), "-O", arch.grub_target, "-o", loader]
    argv = [*argv, f"--install-modules={modules}", f"--modules={modules}", "--locales=", "--fonts=", "--themes="]
    run_tool([*argv, f"boot/grub/grub.cfg={config}"], what="making the boot loader", timeout=_TOOL_TIMEOUT)
    esp = work / "esp.img"
    with esp.open("wb") as image:
        image.truncate(ESP_BYTES)
    run_tool(["mkfs.vfat", "-n", "VIRMO-BOOT", esp], what="making the boot partition", timeout=60)
    (work / "grubenv").write_bytes(environment({"slot": SLOTS[0], "try": "", "tries": "0", **arguments}))
    files: list[tuple[Path, str]] = [(loader, f"EFI/BOOT/{arch.efi_name}"), (work / "grubenv", ENVIRONMENT)]
    if authorized_key:
        (work / "authorized_keys").write_text(authorized_key.rstrip("\n") + "\n")
        files.append((work / "authorized_keys", "authorized_keys"))
    for folder in ("EFI", "EFI/BOOT", "virmo"):
        run_tool(["mmd", "-i", esp, f"::{folder}"], what="filling the boot partition", timeout=60)
    for source, name in files:
        run_tool(["mcopy", "-i", esp, source, f"::{name}"], what="filling the boot partition", timeout=60)
    return esp


def _grub_folder(arch: Arch, cache: Cache, work: Path) -> Path:
    """GRUB's modules for this architecture: this machine's package, or a foreign one, unpacked."""
    installed = Path("/usr/lib/grub") / arch.grub_target
    if installed.is_dir():
        return installed
    with cache.lock(f"apt-{arch.name}"):
        archive = Archive.open(cache.root / f"apt-{arch.name}", arch, debian_sources(), keyrings())
        (package,) = archive.download([arch.grub_package])
        unpack(package, work / "grub")
    return work / "grub/usr/lib/grub" / arch.grub_target


def layout() -> Iterator[tuple[str, str, int, int]]:
    """Name, type, first byte and size of each partition."""
    first = FIRST_BYTE
    for name, kind, wanted in PARTITIONS:
        # The last MiB is the copy of the partition table's.
        size = wanted or DISK_BYTES - first - MIB
        yield name, kind, first, size
        first += size


def _write_disk(raw: Path, esp: Path, slot: Path, work: Path) -> None:
    table = ["label: gpt"]
    for name, kind, first, size in layout():
        table.append(f'start={first // SECTOR}, size={size // SECTOR}, type={kind}, name="{name}"')
    with raw.open("wb") as disk:
        disk.truncate(DISK_BYTES)
    (work / "table").write_text("\n".join(table) + "\n")
    sfdisk: Argv = ["bash", "-c", 'sfdisk --quiet "$1" <"$2"', "bash", raw, work / "table"]
    run_tool(sfdisk, what="partitioning the disk", timeout=60)
    sizes = {name: (first, size) for name, _kind, first, size in layout()}
    state = work / "state.img"
    with state.open("wb") as image:
        image.truncate(sizes["virmo-state"][1])
    options = [
        "-E",
        "lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1",
        "-m",
        "0",
        "-L",
        "virmo-state",
    ]
    run_tool(["mkfs.ext4", "-q", "-F", *options, state], what="making the state partition", timeout=_TOOL_TIMEOUT)
    with _opened(raw) as write:
        write(sizes["virmo-esp"][0], esp)
        write(sizes["virmo-root-a"][0], slot)
        write(sizes["virmo-state"][0], state)


@contextmanager
def _opened(raw: Path) -> Iterator[Callable[[int, Path], None]]:
    with raw.open("r+b") as disk:

        def write(first: int, source: Path) -> None:
            disk.seek(first)
            with source.open("rb") as stream:
                while block := stream.read(MIB):
                    if block.count(0) == len(block):
                        disk.seek(len(block), 1)
                    else:
                        disk.write(block)

        yield write
