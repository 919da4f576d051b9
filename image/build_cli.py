"""The command line of `image/build`."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from image.arch import ARCHES, Arch, arch_named
from image.board import ALL_STEPS as BOARD_STEPS
from image.board import build_board
from image.cache import Cache, default_root
from image.dom0 import ALL_STEPS, build_dom0
from image.errors import ImageError
from image.guest import ALL_STEPS as GUEST_STEPS
from image.guest import build_bundle
from image.machine import SCHEDULERS, Hardware
from image.progress import Progress
from image.qemu import prepare_dom0
from image.system_bundle import NAME as SYSTEM_NAME
from image.system_bundle import Signer, write_system_bundle

_EPILOG = f"""
Results are kept in a cache ({default_root()}; $VIRMO_CACHE changes it) and built again only when something they are
made of has changed. Packages that this machine lacks are installed with apt-get, which needs root.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        arch = arch_named(options.arch)
        cache = Cache(say=lambda message: print(message, file=sys.stderr))
        for path in _COMMANDS[options.what](options, arch, cache):
            print(path)
    except ImageError as error:
        print(f"\nimage/build: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="image/build",
        description="Builds a bootable Xen dom0 with the agent in it, or the sample guest.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=_COMMANDS,
        default="dom0",
        help="dom0 (default); board: a dom0 with two system slots for a board's own disk; "
        "system: a signed update of that; guest: a VM image bundle",
    )
    parser.add_argument("--arch", default="x86_64", metavar="|".join(ARCHES), help="architecture (default: x86_64)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="copy the result there")
    dom0 = parser.add_argument_group("dom0")
    dom0.add_argument("--authorized-key", type=Path, metavar="FILE", help="ssh public key that may log in as root")
    dom0.add_argument(
        "--scheduler",
        choices=SCHEDULERS,
        help="also boot it once with this scheduler of Xen's, so that the first image/boot and tests start in seconds",
    )
    board = parser.add_argument_group("board")
    board.add_argument("--version", default="", help="what the system says of itself (default: made of its content)")
    system = parser.add_argument_group("system")
    system.add_argument("--signer", type=Path, metavar="PEM", help="certificate under the boards' signature_ca_file")
    system.add_argument("--key", type=Path, metavar="PEM", help="its private key")
    system.add_argument(
        "--slot", type=Path, metavar="SQUASHFS", help="sign this one, such as Buildroot's rootfs.squashfs"
    )
    system.add_argument("--hypervisor", type=Path, metavar="XEN", help="the Xen of that slot")
    guest = parser.add_argument_group("guest")
    guest.add_argument("--type", choices=("pv", "pvh"), help="how Xen runs it (default: pv; on Arm pvh)")
    return parser


def _dom0(options: argparse.Namespace, arch: Arch, cache: Cache) -> list[Path]:
    progress = Progress(f"dom0 {arch.name}")
    progress.plan(ALL_STEPS)
    image = build_dom0(arch, cache, progress, authorized_key=_read_key(options.authorized_key))
    progress.finish()
    if options.scheduler is not None:
        prepare_dom0(arch, Hardware(scheduler=options.scheduler), cache)
    return _hand_out([image.disk, image.boot.hypervisor, image.boot.kernel, image.boot.ramdisk], options.output)


def _guest(options: argparse.Namespace, arch: Arch, cache: Cache) -> list[Path]:
    progress = Progress(f"guest {arch.name}")
    progress.plan(GUEST_STEPS)
    bundle = build_bundle(arch, options.type, progress, cache)
    progress.finish()
    return _hand_out([bundle], options.output)


def _board(options: argparse.Namespace, arch: Arch, cache: Cache) -> list[Path]:
    progress = Progress(f"board {arch.name}")
    progress.plan(BOARD_STEPS)
    image = build_board(
        arch, cache, progress, authorized_key=_read_key(options.authorized_key), version=options.version
    )
    progress.finish()
    return _hand_out([image.disk, image.slot], options.output)


def _system(options: argparse.Namespace, arch: Arch, cache: Cache) -> list[Path]:
    if options.signer is None or options.key is None or options.output is None:
        raise ImageError("a system is always signed", todo="name --signer CERTIFICATE, --key KEY and --output FOLDER")
    if (options.slot is None) != (options.hypervisor is None):
        raise ImageError("a slot of another's making comes with its Xen", todo="name both --slot and --hypervisor")
    slot, hypervisor = options.slot, options.hypervisor
    if slot is None:
        progress = Progress(f"system {arch.name}")
        progress.plan(BOARD_STEPS)
        image = build_board(arch, cache, progress, version=options.version)
        progress.finish()
        slot, hypervisor = image.slot, image.hypervisor
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / f"{SYSTEM_NAME}-{arch.name}.tar"
    write_system_bundle(target, arch, slot, hypervisor, Signer(options.signer, options.key))
    return [target]


_COMMANDS: dict[str, Callable[[argparse.Namespace, Arch, Cache], list[Path]]] = {
    "dom0": _dom0,
    "board": _board,
    "system": _system,
    "guest": _guest,
}


def _read_key(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text()
    except OSError as error:
        raise ImageError(f"the key file {path} cannot be read: {error.strerror}") from error


def _hand_out(files: Sequence[Path], folder: Path | None) -> list[Path]:
    """Copies the results out of the cache, which nobody but the builder may change."""
    if folder is None:
        return list(files)
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(file, folder)) for file in files]
