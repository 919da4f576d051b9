"""Runs in a guest instead of the shim, as root, and does what dom0 says.

dom0 names what is next in ``data/attack``; the guest says in ``data/done`` when it is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from guest_shim.link import LinkClosed
from guest_shim.transport import TransportError
from guest_shim.vchan import VchanError
from guest_shim.xenbus import XenBus, open_device
from tests.nested.channel.attacks import ATTACKS

#: Seconds for which a guest that does nothing to anybody uses its CPU.
BURN = 10.0


def burn(_bus: XenBus) -> None:
    """No attack: it uses its CPU, as any guest may."""
    end = time.monotonic() + BURN
    while time.monotonic() < end:
        pass


PROGRAMS: dict[str, Callable[[XenBus], None]] = {**ATTACKS, "burn": burn}


def main() -> None:
    """Do what dom0 names, for ever."""
    bus = XenBus(open_device())
    bus.write("data/ready", b"1")
    done = ""
    while True:
        name = (bus.read("data/attack") or b"").decode("ascii", "replace")
        if name in PROGRAMS and name != done:
            try:
                PROGRAMS[name](bus)
            except (TransportError, VchanError, LinkClosed, OSError) as error:
                print(f"{name}: {error}", flush=True)
            done = name
            bus.write("data/done", name.encode())
        time.sleep(0.2)


if __name__ == "__main__":
    main()
