"""The sample guest as a VM image bundle: kernel, RAM disk with the guest shim, and the manifest that names them.

build_guest("x86_64")                     # PV, on Arm PVH: the first of the architecture's types
build_guest("x86_64", guest_type="pvh")   # the same files, another `type` in vm.yaml
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from image.agent import REPOSITORY, compile_tree
from image.arch import Arch, arch_named
from image.bundle import SUFFIX, Piece, write_bundle
from image.cache import Cache, hash_files
from image.errors import ImageError
from image.guest_base import STEPS as BASE_STEPS
from image.guest_base import GuestBase, build_guest_base
from image.initramfs import Ramdisk
from image.manifest import FILE_NAME, Manifest, Member
from image.progress import Progress

NAME = "sample-guest"
STEPS = {"guest: bundle": 2.0}
ALL_STEPS = {**BASE_STEPS, **STEPS}
#: With 96 MiB the kernel (53 MB with what it frees after start), the RAM disk and a shim leave nothing to balloon away.
MEMORY_BYTES = 128 * 1024**2
CMDLINE = "console=hvc0 quiet"
_SHIM = REPOSITORY / "guest_shim"
_FILES = Path(__file__).parent / "files" / "guest"


def build_guest(
    arch: str | Arch = "x86_64",
    *,
    guest_type: str | None = None,
    cache: Cache | None = None,
    say: Callable[[str], None] = lambda _message: None,
) -> Path:
    """The bundle's path, built if anything it is made of has changed."""
    row = arch_named(arch) if isinstance(arch, str) else arch
    progress = Progress(f"guest {row.name}")
    progress.plan(ALL_STEPS)
    bundle = build_bundle(row, guest_type, progress, Cache(say=say) if cache is None else cache)
    progress.finish()
    return bundle


def build_bundle(arch: Arch, guest_type: str | None, progress: Progress, cache: Cache) -> Path:
    """The same, as part of a larger build."""
    if guest_type is None:
        guest_type = arch.guest_types[0]
    if guest_type not in arch.guest_types:
        raise ImageError(f"{arch.name} has no {guest_type} guests", todo=f"choose {' or '.join(arch.guest_types)}")
    base = build_guest_base(arch, cache, progress)
    own = (_FILES, Path(__file__), Path(__file__).with_name("manifest.py"), Path(__file__).with_name("bundle.py"))
    inputs = {
        "base": base.entry.key,
        "type": guest_type,
        "args": arch.guest_args,
        "own": hash_files([_SHIM, *own], REPOSITORY),
    }

    def build(folder: Path) -> None:
        with progress.step("guest: bundle"):
            _write(folder, arch, guest_type, base)

    entry = cache.get_or_build(f"guest-{guest_type}-{arch.name}", inputs, build)
    if not entry.fresh:
        progress.skip(STEPS, "guest: unchanged")
    return entry.path / f"{NAME}{SUFFIX}"


def _write(folder: Path, arch: Arch, guest_type: str, base: GuestBase) -> None:
    """The RAM disk is two archives one after the other, as Linux allows: the base's, and this small one."""
    own = folder / "own.cpio"
    own.write_bytes(_own_files())
    pieces = {"vmlinux": [base.kernel], "initramfs": [base.ramdisk, Piece.pack(own)]}
    members = {name: Member.of(name, (piece.plain.read_bytes() for piece in of)) for name, of in pieces.items()}
    manifest = Manifest(
        name=NAME,
        arch=arch.name,
        type=guest_type,
        vcpus=1,
        memory=MEMORY_BYTES,
        cmdline=" ".join((CMDLINE, arch.guest_args)).strip(),
        kernel=members["vmlinux"],
        ramdisk=members["initramfs"],
    )
    described = folder / FILE_NAME
    described.write_text(manifest.text())
    write_bundle(folder / f"{NAME}{SUFFIX}", [(FILE_NAME, [Piece.pack(described)]), *pieces.items()])
    for left in (own, own.with_name("own.cpio.zst"), described.with_name(f"{FILE_NAME}.zst")):
        left.unlink()


def _own_files() -> bytes:
    disk = Ramdisk()
    disk.tree("", _FILES)
    with tempfile.TemporaryDirectory(prefix="virmo-shim-") as scratch:
        tree = Path(scratch)
        target = tree / "usr/lib/virmo" / _SHIM.name
        shutil.copytree(_SHIM, target, ignore=shutil.ignore_patterns("__pycache__"))
        compile_tree(tree)
        disk.tree("", tree)
    return disk.archive()
