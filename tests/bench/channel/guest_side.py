"""In the guest, beside the shim: echoes a bare vchan and a bare XenStore node, with nothing of ours around them."""

from __future__ import annotations

import ctypes
import select
import threading
import time

from guest_shim.vchan import Library, VchanError, VchanLink
from guest_shim.xenbus import XenBus, open_device

BASE = "data/bare"


def echo_vchan() -> None:
    """Send back what comes, until the other side closes; for ever."""
    library = Library()
    buffer = ctypes.create_string_buffer(65536)
    while True:
        try:
            link = VchanLink.connect(f"{BASE}/vchan")
        except VchanError:
            time.sleep(0.2)
            continue
        handle = link._handle
        while library.is_open(handle):
            size = library.read(handle, buffer, 65536)
            if size == 0:
                select.select([link.fileno()], [], [])
                library.wait(handle)
                continue
            done = 0
            while 0 <= done < size:
                sent = library.write(handle, ctypes.byref(buffer, done), size - done)
                if sent == 0:
                    select.select([link.fileno()], [], [])
                    library.wait(handle)
                done = -1 if sent < 0 else done + sent
            if size < 0 or done < 0:
                break
        link.close()
        time.sleep(0.2)


def echo_node() -> None:
    """Write to one node what was written to the other."""
    watcher, bus = XenBus(open_device()), XenBus(open_device())
    watcher.watch(f"{BASE}/to")
    while True:
        select.select([watcher.fileno()], [], [])
        if any(path.endswith("/to") for path in watcher.changes()):
            bus.write(f"{BASE}/from", bus.read(f"{BASE}/to") or b"")


if __name__ == "__main__":
    threading.Thread(target=echo_node, daemon=True).start()
    XenBus(open_device()).write("data/bare/ready", b"1")
    echo_vchan()
