"""In the guest: the shim, with two verbs more to measure, and beside it what answers a bare vchan and a bare XenStore
node, with nothing of ours around them."""

from __future__ import annotations

import ctypes
import select
import struct
import threading
import time

from guest_shim.cli import BOOT_ID, make_transport
from guest_shim.dispatch import Answer, Request
from guest_shim.memory import keep_freed_memory
from guest_shim.services import make_dispatcher
from guest_shim.shim import Shim
from guest_shim.vchan import Library, VchanError, VchanLink
from guest_shim.xenbus import XenBus, open_device

BASE = "data/bare"
#: How many bytes follow, and how many are wanted back.
ORDER = struct.Struct(">II")
#: What a node's value begins with: the other side wants it confirmed, or filled up to ``NODE`` bytes.
UP, DOWN = b"u", b"d"
#: Bytes of a node that carries as much as XenStore lets a guest have, and of what confirms one.
NODE, CONFIRMED = 2000, 9
_RECEIVE = 65536


class BareVchan:
    """libxenvchan as a C program would use it."""

    def __init__(self, link: VchanLink) -> None:
        self._library = Library()
        self._link = link
        self._buffer = ctypes.create_string_buffer(_RECEIVE)

    def is_open(self) -> int:
        """0 closed, 1 open, 2 the other side has not come yet."""
        return int(self._library.is_open(self._link._handle))

    def send(self, data: bytes) -> None:
        """All of it."""
        done = 0
        while done < len(data):
            sent = self._library.write(
                self._link._handle, data[done : done + _RECEIVE], min(_RECEIVE, len(data) - done)
            )
            if sent < 0:
                raise VchanError("closed")
            done += sent
            if not sent:
                self._wait()

    def receive(self, wanted: int) -> bytes:
        """So many bytes; of many, only the first piece."""
        first = b""
        while wanted > 0:
            size = self._library.read(self._link._handle, self._buffer, min(wanted, _RECEIVE))
            if size < 0:
                raise VchanError("closed")
            if not size:
                self._wait()
            elif not first:
                first = self._buffer.raw[:size]
            wanted -= size
        return first

    def close(self) -> None:
        """Let go."""
        self._link.close()

    def _wait(self) -> None:
        if self.is_open() == 0:
            raise VchanError("closed")
        select.select([self._link.fileno()], [], [])
        self._library.wait(self._link._handle)


def answer_vchan() -> None:
    """Take and give as many bytes as are ordered; for ever."""
    while True:
        try:
            bare = BareVchan(VchanLink.connect(f"{BASE}/vchan"))
        except VchanError:
            time.sleep(0.2)
            continue
        try:
            while True:
                up, down = ORDER.unpack(bare.receive(ORDER.size))
                bare.receive(up)
                bare.send(bytes(down))
        except VchanError:
            bare.close()
            time.sleep(0.2)


def answer_node() -> None:
    """Write to one node what another one asks for."""
    watcher, bus = XenBus(open_device()), XenBus(open_device())
    watcher.watch(f"{BASE}/to")
    while True:
        select.select([watcher.fileno()], [], [])
        if any(path.endswith("/to") for path in watcher.changes()):
            asked = bus.read(f"{BASE}/to") or b""
            bus.write(f"{BASE}/from", asked[:CONFIRMED].ljust(NODE if asked[:1] == DOWN else CONFIRMED, b"."))


def _take(_request: Request) -> Answer:
    return Answer()


def _give(request: Request) -> Answer:
    return Answer(payload=bytes(int(request.fields["size"])))


def main() -> None:
    """Run all three."""
    keep_freed_memory()  # as the shim does
    for bare in (answer_vchan, answer_node):
        threading.Thread(target=bare, daemon=True).start()
    dispatcher = make_dispatcher()
    dispatcher.add("take", _take)
    dispatcher.add("give", _give)
    shim = Shim(make_transport("auto", dispatcher), BOOT_ID.read_text(encoding="ascii").strip())
    shim.run(threading.Event().wait)


if __name__ == "__main__":
    main()
