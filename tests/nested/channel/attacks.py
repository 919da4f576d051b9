"""What a malicious guest does to its channels: runs in the guest as root, instead of the shim, one attack at a time."""

from __future__ import annotations

import ctypes
import json
import os
import random
import struct
import time
from collections.abc import Callable

from guest_shim.endpoint import SHIM, Endpoint
from guest_shim.link import LinkClosed
from guest_shim.mailbox import SLOTS
from guest_shim.protocol import FIELDS_CAP, Frame, encode
from guest_shim.transport import TransportError
from guest_shim.vchan import VchanLink
from guest_shim.xenbus import XenBus

HELLO = encode(Frame("hello", {"versions": [1], "shim": "6.6.6", "beats": 1}))
#: Seconds in which dom0 must have granted a channel: a guest that was cut off waits.
GRANT = 25.0
#: Seconds after which it is asked again: what a guest wished for while it had to stay away, dom0 has not seen.
AGAIN = 2.0
#: Seconds in which dom0 must have read a mailbox.
READ = 3.0


def grant(bus: XenBus, transport: str) -> dict[str, str] | None:
    """Ask for a channel as a shim does."""
    end = time.monotonic() + GRANT
    while time.monotonic() < end:
        nonce, again = os.urandom(4).hex(), time.monotonic() + AGAIN
        bus.write("data/virmo/up/want", json.dumps({"nonce": nonce, "transports": [transport]}).encode())
        while time.monotonic() < again:
            granted: dict[str, str] = json.loads(bus.read("data/virmo/down/grant") or b"{}")
            if granted.get("nonce") == nonce:
                return granted
            time.sleep(0.1)
    return None


def over_vchan(stream: bytes) -> Callable[[XenBus], None]:
    """Send this and wait to be cut off."""

    def attack(bus: XenBus) -> None:
        if grant(bus, "vchan") is None:
            return
        link = VchanLink.connect("data/virmo/vchan")
        try:
            rest, end = stream, time.monotonic() + GRANT
            while time.monotonic() < end:
                rest = rest[link.send(rest) :] if rest else rest
                link.receive()
                time.sleep(0.002)
        except LinkClosed:
            return
        finally:
            link.close()

    return attack


def in_turn(*streams: bytes) -> Callable[[XenBus], None]:
    """One after the other, each over a channel of its own."""

    def attack(bus: XenBus) -> None:
        for stream in streams:
            over_vchan(stream)(bus)

    return attack


def over_slots(stream: bytes) -> Callable[[XenBus], None]:
    """The same in a mailbox: as much as fits, time to read it, and the rest without waiting for anything."""

    def attack(bus: XenBus) -> None:
        granted = grant(bus, "xenstore")
        if granted is None:
            return
        for number in range(1, 200):
            if number == SLOTS:  # what we wrote over before it was read is nothing to anybody
                time.sleep(READ)
            piece = stream[(number - 1) * 2000 : number * 2000]
            bus.write(f"data/virmo/up/{number % SLOTS}", f"{granted['session']}{number:08x}".encode() + piece)

    return attack


def a_megabyte_of_nesting(bus: XenBus) -> None:
    """Fields that do not fit a header, within all credit: a megabyte of opening brackets."""
    if grant(bus, "vchan") is None:
        return
    link = VchanLink.connect("data/virmo/vchan")
    endpoint = Endpoint(SHIM)
    endpoint.send("hello", 0, {"versions": [1], "shim": "6.6.6", "beats": 1})
    endpoint.send("say", 1, {"verb": "x", "spilled": FIELDS_CAP}, None, b"[" * FIELDS_CAP)
    try:
        rest, end = b"", time.monotonic() + GRANT
        while time.monotonic() < end:
            rest = rest or bytes(endpoint.take())
            rest = rest[link.send(rest) :] if rest else rest
            endpoint.receive(link.receive())
            time.sleep(0.002)
    except LinkClosed:
        return
    finally:
        link.close()


def ring_pointers(bus: XenBus) -> None:
    """Write what we like into the shared page: both rings' pointers, their sizes, who lives, who is to be told."""
    if grant(bus, "vchan") is None:
        return
    link = VchanLink.connect("data/virmo/vchan")
    chance = random.Random(1)
    try:
        page = ctypes.cast(link._handle + 8, ctypes.POINTER(ctypes.c_void_p))[0]
        assert page is not None
        shared = (ctypes.c_uint8 * 24).from_address(page)
        link.send(HELLO)
        end = time.monotonic() + 8
        while time.monotonic() < end:
            wild = [chance.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, chance.getrandbits(32)]) for _ in range(4)]
            shared[:16] = list(struct.pack("<4I", *wild))
            shared[16:20] = list(os.urandom(4))
            shared[22:24] = [3, 3]
            try:
                link.send(os.urandom(16))
                link.receive()
            except LinkClosed:  # what is in the page says so; dom0 may believe it or not
                shared[20:22] = [1, 1]
            time.sleep(0.01)
    finally:
        link.close()


def close_at_every_byte(bus: XenBus) -> None:
    """Connect, send a beginning of something sensible, and go."""
    stream = encode(Frame("hello", {"versions": [1]})) + encode(Frame("say", {"id": 1, "verb": "x", "size": 1}, b"a"))
    for length in range(len(stream)):
        if grant(bus, "vchan") is None:
            continue  # asking so often is over the budget: we have to wait
        link = VchanLink.connect("data/virmo/vchan")
        try:
            link.send(stream[:length])
        except LinkClosed:
            continue
        finally:
            link.close()


def whole_quota(bus: XenBus) -> None:
    """All nodes that XenStore lets us have, as large as they may be."""
    try:
        for number in range(1200):
            bus.write(f"data/junk/{number}", b"x" * 2000)
    except TransportError:
        pass
    bus.remove("data/junk")


def many_wishes(bus: XenBus) -> None:
    """Ask for channels as fast as XenStore takes it, and for strange ones."""
    for number in range(400):
        want: object = {"nonce": f"{number:08x}", "transports": ["vchan", "xenstore", "../..", 7]}
        if number % 3 == 0:
            want = [[[[[[want]]]]]]
        bus.write("data/virmo/up/want", json.dumps(want).encode())


def many_changes(bus: XenBus) -> None:
    """Change nodes for ten seconds."""
    end = time.monotonic() + 10
    number = 0
    while time.monotonic() < end:
        number += 1
        bus.write(f"data/virmo/up/{number % 40}", b"x" * 500)


def _flood() -> bytes:
    return b"".join(encode(Frame("say", {"id": n, "verb": "x"})) for n in range(1, 3000))


def _frame(kind: str, **fields: object) -> bytes:
    return encode(Frame(kind, fields))


_DEEP = b'{"type":"say","id":1,"verb":"x","fields":' + b"[" * 6000 + b"]" * 6000 + b"}"
_PATHS = ("../../../etc/shadow", "a/../b", "/a", "a\0b", "x" * 300)
_OBJECT = {"moid": "urn:oma:mo:oma-virmo:1.0"}

ATTACKS: dict[str, Callable[[XenBus], None]] = {
    "rubbish": over_vchan(os.urandom(100_000)),
    "oversize-message": over_vchan(HELLO + _frame("say", id=1, verb="x", size=1 << 40)),
    "oversize": over_vchan(HELLO + struct.pack(">I", 1 << 31)),
    "half-frame": over_vchan(HELLO + struct.pack(">I", 100) + b'{"type":'),
    "nested": over_vchan(HELLO + struct.pack(">I", len(_DEEP)) + _DEEP),
    "nested-megabyte": a_megabyte_of_nesting,
    "wrong-ids": in_turn(
        *(HELLO + _frame("say", id=number, verb="y") for number in ("x", -1, 1 << 60)),
        HELLO + _frame("say", id=1, verb="y", size=5000) + _frame("say", id=1, verb="y", size=5000),
        HELLO + encode(Frame("data", {"id": 7, "kind": "say"})),
    ),
    "answer-to-others": over_vchan(HELLO + b"".join(_frame("answer", id=n, status=200) for n in range(1, 50))),
    "claims": over_vchan(_frame("hello", versions=[1], objects=[_OBJECT])),
    "paths": in_turn(*(_frame("hello", versions=[1], objects=[{"moid": "urn:x", "live": [path]}]) for path in _PATHS)),
    "flood": over_vchan(HELLO + _flood()),
    "ring-pointers": ring_pointers,
    "slots-rubbish": over_slots(os.urandom(100_000)),
    "slots-flood": over_slots(HELLO + _flood()),
    "quota": whole_quota,
    "wishes": many_wishes,
    "changes": many_changes,
    "closing": close_at_every_byte,
}
