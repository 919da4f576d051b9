"""``virmo-guest-shim``: the command line. Must run on Python 3.9 with the standard library alone."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from guest_shim.dispatch import Dispatcher
from guest_shim.memory import GivingBack, give_back_start, keep_freed_memory
from guest_shim.services import make_dispatcher
from guest_shim.shim import VERSION, Shim
from guest_shim.transport import Transport
from guest_shim.xenbus import open_device
from guest_shim.xenchannel import TRANSPORTS
from guest_shim.xenstore_transport import XenStoreTransport

#: what ``--transport`` may be on Xen, and the channels that it allows
_ON_XEN = {"auto": TRANSPORTS, "vchan": ("vchan",), "xenstore": ("xenstore",)}
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def main(argv: list[str] | None = None) -> int:
    """Run the shim until SIGTERM or SIGINT; returns the exit status."""
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if arguments.verbose else logging.WARNING,
        format="virmo-guest-shim: %(levelname)s %(message)s",
    )
    try:
        transport = make_transport(arguments.transport, make_dispatcher())
    except ValueError as error:
        print(f"virmo-guest-shim: {error}", file=sys.stderr)
        return 2
    try:
        boot_id = BOOT_ID.read_text(encoding="ascii").strip()
    except OSError as error:
        print(f"virmo-guest-shim: cannot read {BOOT_ID}: {error.strerror}; is /proc mounted?", file=sys.stderr)
        return 1
    ending = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ending.set()

    give_back_start()
    keep_freed_memory()
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    Shim(transport, boot_id).run(GivingBack(ending.wait))
    return 0


def _parse(argv: list[str]) -> Any:
    """The options. A service has none, and then does without argparse's megabyte."""
    if not argv:
        return SimpleNamespace(transport="auto", verbose=False)
    import argparse

    parser = argparse.ArgumentParser(
        prog="virmo-guest-shim", description="Speaks for this guest to the VirMO agent in dom0."
    )
    parser.add_argument(
        "--transport",
        default="auto",
        metavar="auto|vchan|xenstore|unix:PATH",
        help="the way to dom0: vchan (needs libxenvchan), XenStore, or the better one that both sides have (default: "
        "auto); each may be followed by :DEVICE, where /dev/xen/xenbus is not XenStore's device",
    )
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument("--verbose", action="store_true", help="log what happens, not only what fails")
    return parser.parse_args(argv)


def make_transport(text: str, dispatcher: Dispatcher | None = None) -> Transport:
    """The transport that ``--transport`` names. :class:`ValueError` when there is none such."""
    kind, _, rest = text.partition(":")
    if kind in _ON_XEN:
        return XenStoreTransport(lambda: open_device(rest or None), dispatcher, _ON_XEN[kind])
    if kind == "unix" and rest:
        from guest_shim.unix_socket import UnixSocketTransport  # a guest of Xen does without sockets

        return UnixSocketTransport(rest, dispatcher=dispatcher)
    raise ValueError(f"--transport: {text!r} is neither auto, vchan, xenstore (each with :DEVICE) nor unix:PATH")
