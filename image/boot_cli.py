"""The command line of `image/boot`: a dom0 in QEMU, and a shell in it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from image.arch import ARCHES
from image.errors import ImageError
from image.machine import SCHEDULERS, Hardware
from image.qemu import Dom0, open_dom0

_DEFAULTS = Hardware()


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: of the command run in dom0, if one is given."""
    options = _parser().parse_args(argv)
    hardware = Hardware(
        scheduler=options.scheduler, memory_mib=options.memory, dom0_memory_mib=options.dom0_memory, cpus=options.cpus
    )
    started = time.monotonic()
    try:
        with open_dom0(options.arch, hardware=hardware, snapshot=not options.cold, log=options.log, say=_say) as dom0:
            _say(f"dom0 is up after {time.monotonic() - started:.1f} s; its serial log is {dom0.serial_log}")
            return _use(dom0, options)
    except ImageError as error:
        print(f"image/boot: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="image/boot",
        description="Boots Xen and dom0 in QEMU, building what is missing, and opens a shell or runs a command.",
        epilog="The machine ends with the shell. Its disk is an overlay that is thrown away: the image is not changed.",
    )
    parser.add_argument("command", nargs="*", help="run this in dom0 instead of a shell (after --)")
    parser.add_argument("--arch", default="x86_64", metavar="|".join(ARCHES), help="architecture (default: x86_64)")
    parser.add_argument("--scheduler", choices=SCHEDULERS, help="Xen's (default: %(default)s)")
    parser.add_argument("--memory", type=int, metavar="MIB", help="the board's (default: %(default)s)")
    parser.add_argument("--dom0-memory", type=int, metavar="MIB", help="dom0's share of it (default: %(default)s)")
    parser.add_argument("--cpus", type=int, help="the board's (default: %(default)s)")
    parser.set_defaults(
        scheduler=_DEFAULTS.scheduler,
        memory=_DEFAULTS.memory_mib,
        dom0_memory=_DEFAULTS.dom0_memory_mib,
        cpus=_DEFAULTS.cpus,
    )
    parser.add_argument("--cold", action="store_true", help="boot from the beginning, not from the saved state")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the serial log there, and keep it")
    parser.add_argument("--wait", action="store_true", help="no shell: say how to log in, and wait for Ctrl-C")
    return parser


def _use(dom0: Dom0, options: argparse.Namespace) -> int:
    if options.command:
        return subprocess.run([*dom0.ssh_command(), *options.command], check=False).returncode
    if options.wait:
        _say(f"log in with: {' '.join(dom0.ssh_command())}")
        while dom0.running:
            time.sleep(1.0)
        _say("dom0 has switched itself off")
        return 0
    return subprocess.run(dom0.ssh_command(), check=False).returncode


def _say(message: str) -> None:
    print(message, file=sys.stderr)
