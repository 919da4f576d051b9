"""Runs in a guest instead of the shim, and does what dom0 says: an attack, or a shim to which something happens.

dom0 names what is next in ``data/attack``; the guest says in ``data/done`` when it is done. In between dom0 says in
``data/blow`` when a shim's transfer is to be hit, and the guest answers ``over`` there.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from guest_shim.link import LinkClosed
from guest_shim.transport import TransportError
from guest_shim.vchan import VchanError
from guest_shim.xenbus import XenBus, open_device
from tests.nested.channel.attacks import ATTACKS

#: Seconds for which the quota stays used up.
FULL = 6.0
#: Seconds for which a guest that does nothing to anybody uses its CPU.
BURN = 10.0
#: More nodes than a guest may have.
NODES = 1200


class _Shim:
    """The real one, over one kind of channel."""

    def __init__(self, transport: str) -> None:
        argv = ["python3", "-S", "-m", "guest_shim", "--transport", transport]
        self._pid = os.posix_spawn("/usr/bin/python3", argv, os.environ)

    def end(self, sign: signal.Signals) -> None:
        """And wait for it."""
        os.kill(self._pid, sign)
        os.waitpid(self._pid, 0)


def killed(transport: str) -> Callable[[XenBus], None]:
    """The shim is killed, and started again as an init does."""

    def program(bus: XenBus) -> None:
        shim = _Shim(transport)
        _told(bus, f"kill-{transport}")
        shim.end(signal.SIGKILL)
        shim = _Shim(transport)
        bus.write("data/blow", b"over")
        _told(bus, "end")
        shim.end(signal.SIGTERM)

    return program


def full(transport: str) -> Callable[[XenBus], None]:
    """Some other program of the guest uses up all of its XenStore quota for a while."""

    def program(bus: XenBus) -> None:
        shim = _Shim(transport)
        _told(bus, f"full-{transport}")
        use_up(bus)
        time.sleep(FULL)
        bus.remove("data/junk")
        bus.write("data/blow", b"over")
        _told(bus, "end")
        shim.end(signal.SIGTERM)

    return program


def burn(_bus: XenBus) -> None:
    """No attack: it uses its CPU, as any guest may."""
    end = time.monotonic() + BURN
    while time.monotonic() < end:
        pass


def use_up(bus: XenBus) -> None:
    """Nodes until XenStore refuses."""
    try:
        for number in range(NODES):
            bus.write(f"data/junk/{number}", b"x")
    except TransportError:
        return


def _told(bus: XenBus, word: str) -> None:
    while bus.read("data/blow") != word.encode():
        time.sleep(0.1)


PROGRAMS = {
    **ATTACKS,
    "burn": burn,
    **{f"kill-{transport}": killed(transport) for transport in ("vchan", "xenstore")},
    **{f"full-{transport}": full(transport) for transport in ("vchan", "xenstore")},
}


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
