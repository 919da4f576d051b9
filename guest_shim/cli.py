"""``virmo-guest-shim``: the command line. Must run on Python 3.9 with the standard library alone."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from guest_shim.shim import VERSION, Shim
from guest_shim.transport import Transport, UnixSocketTransport
from guest_shim.xenbus import XenStoreTransport, open_device

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def main(argv: list[str] | None = None) -> int:
    """Run the shim until SIGTERM or SIGINT; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="virmo-guest-shim", description="Speaks for this guest to the VirMO agent in dom0."
    )
    parser.add_argument(
        "--transport",
        default="xenstore",
        metavar="xenstore[:DEVICE]|unix:PATH",
        help="the way to dom0 (default: xenstore)",
    )
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument("--verbose", action="store_true", help="log what happens, not only what fails")
    arguments = parser.parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if arguments.verbose else logging.WARNING,
        format="virmo-guest-shim: %(levelname)s %(message)s",
    )
    try:
        transport = make_transport(arguments.transport)
    except ValueError as error:
        parser.error(str(error))
    try:
        boot_id = BOOT_ID.read_text(encoding="ascii").strip()
    except OSError as error:
        print(f"virmo-guest-shim: cannot read {BOOT_ID}: {error.strerror}; is /proc mounted?", file=sys.stderr)
        return 1
    ending = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ending.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    Shim(transport, boot_id).run(ending.wait)
    return 0


def make_transport(text: str) -> Transport:
    """The transport that ``--transport`` names. :class:`ValueError` when there is none such."""
    kind, _, rest = text.partition(":")
    if kind == "xenstore":
        return XenStoreTransport(lambda: open_device(rest or None))
    if kind == "unix" and rest:
        return UnixSocketTransport(rest)
    raise ValueError(f"--transport: {text!r} is neither xenstore, xenstore:DEVICE nor unix:PATH")
