"""In dom0: measures the channel and the bare thing in turns, and prints one line of JSON.

dom0_side.py GUEST_DIR ROUNDS
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dom0_agent.guest.interface import GuestRequest
from dom0_agent.hypervisor.xenstore import XenStore
from guest_shim.vchan import Library, VchanLink
from tests.nested.channel.driver import BAD, Agent, until

SMALL = 200  #: bytes of a forwarded Get or Replace
LARGE = {"vchan": 1 << 20, "xenstore": 64 << 10}  #: bytes of a large one
NODE = 2000  #: bytes that a bare node holds


class BareVchan:
    """A ping-pong over libxenvchan as a C program would write it."""

    def __init__(self, domid: int) -> None:
        self._library = Library()
        self._link = VchanLink.serve(domid, f"/local/domain/{domid}/data/bare/vchan")
        self._buffer = ctypes.create_string_buffer(65536)
        until(lambda: self._library.is_open(self._link._handle) == 1, "the bare vchan is connected", 60)

    def echo(self, payload: bytes) -> None:
        """There and back."""
        library, handle = self._library, self._link._handle
        sent = received = 0
        while received < len(payload):
            moved = 0
            if sent < len(payload):
                piece = payload[sent : sent + 65536]
                moved = library.write(handle, piece, len(piece))
                sent += moved
            size = library.read(handle, self._buffer, 65536)
            assert size >= 0
            received += size
            if not moved and not size:
                select.select([self._link.fileno()], [], [])
                library.wait(handle)

    def close(self) -> None:
        self._link.close()


class BareXenStore:
    """One node after the other, each announced by a watch."""

    def __init__(self, domid: int) -> None:
        self._store = XenStore()
        self._base = f"/local/domain/{domid}/data/bare"
        self._changed = threading.Event()
        self._unwatch = self._store.watch(f"{self._base}/from", lambda _: self._changed.set())

    def echo(self, payload: bytes) -> None:
        """There and back."""
        for begin in range(0, len(payload), NODE):
            piece = payload[begin : begin + NODE]
            self._changed.clear()
            self._store.write(f"{self._base}/to", piece)
            while self._store.read(f"{self._base}/from") != piece:
                assert self._changed.wait(30)
                self._changed.clear()

    def close(self) -> None:
        self._unwatch()
        self._store.close()


def timed(call: Callable[[bytes], None], size: int) -> float:
    payload = os.urandom(size)
    began = time.monotonic()
    call(payload)
    return time.monotonic() - began


def measure(agent: Agent, rival: BareVchan | BareXenStore, size: int, rounds: int) -> tuple[float, float]:
    """Seconds of ours and of the bare one: medians, in turns."""

    def ours(payload: bytes) -> None:
        answer = agent.hub.request(BAD, GuestRequest("ping", {}, payload), deadline=120)
        assert answer.payload == payload

    timed(ours, size), timed(rival.echo, size)
    pairs = [(timed(ours, size), timed(rival.echo, size)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def main() -> None:
    guest_dir, rounds = Path(sys.argv[1]), int(sys.argv[2])
    figures: dict[str, dict[str, float]] = {}
    domid = 0
    for transport in ("vchan", "xenstore"):
        agent = Agent(guest_dir, "pv", transport=transport)
        if not domid:
            agent.boot(BAD)
            found = agent.hypervisor.find(BAD)
            assert found is not None
            domid = found.domid
        agent.connected(BAD)
        rival = BareVchan(domid) if transport == "vchan" else BareXenStore(domid)
        for what, size, times in (
            ("round trip", SMALL, rounds),
            ("throughput", LARGE[transport], max(3, rounds // 10)),
        ):
            mine, bare = measure(agent, rival, size, times)
            figures[f"{transport} {what}"] = {"bytes": size, "ours_ms": mine * 1000, "bare_ms": bare * 1000}
        rival.close()
        agent.close()
    agent = Agent(guest_dir, "pv")
    agent.hypervisor.destroy(BAD)
    agent.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
