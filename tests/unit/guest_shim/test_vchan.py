"""The vchan link over a library that behaves as libxenvchan does, without Xen; real vchans are in ``tests/nested``.

What counts: never a call that could wait, bytes that were sent before a close arrive, a full ring and a missing client
are no error, and a library that is laid out in another way is not used.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from dom0_agent.guest.channel import Channel
from dom0_agent.guest.config import BudgetConfig
from dom0_agent.guest.interface import GuestAbsent, GuestRequest
from guest_shim import vchan
from guest_shim.dispatch import Answer, Dispatcher
from guest_shim.link import LinkClosed
from guest_shim.session import Identity, ShimSession
from guest_shim.vchan import RING, Library, VchanError, VchanLink

CHANCE = 0xDEADBEFE  # what malloc left in the flags, without the one that the library sets


class End:
    """One end's state, as in ``struct libxenvchan``."""

    def __init__(self, *, server: bool) -> None:
        self.server = server
        self.memory = ctypes.create_string_buffer(64)
        self.handle = ctypes.addressof(self.memory)
        ctypes.c_uint32.from_address(self.handle + 28).value = CHANCE | server
        self.inbox = bytearray()
        self.event = os.eventfd(0)
        self.peer: End | None = None
        self.live = 2 if server else 1  # of the peer, as this end sees it
        self.closed = False


class FakeVchan:
    """The functions that the link uses, over two ends in this process."""

    def __init__(self) -> None:
        self.ends: dict[int, End] = {}
        self.lock = threading.Lock()

    def add(self, *, server: bool) -> End:
        end = End(server=server)
        self.ends[end.handle] = end
        return end

    def join(self, server: End, client: End) -> None:
        server.peer, client.peer = client, server
        server.live = 1
        os.eventfd_write(server.event, 1)

    def descriptor(self, handle: int) -> int:
        return self.ends[handle].event

    def wait(self, handle: int) -> int:
        event = self.ends[handle].event
        assert not os.get_blocking(event), "the library would block here"
        try:
            os.eventfd_read(event)
        except OSError as error:  # BlockingIOError, when there is no event
            ctypes.set_errno(error.errno or 0)
            return -1
        return 0

    def is_open(self, handle: int) -> int:
        return self.ends[handle].live

    def read(self, handle: int, buffer: Any, size: int) -> int:
        end = self.ends[handle]
        flags = ctypes.c_uint32.from_address(handle + 28).value
        with self.lock:
            data = bytes(end.inbox[:size])
            del end.inbox[: len(data)]
            if data:
                ctypes.memmove(buffer, data, len(data))
                if end.peer is not None and not end.peer.closed:
                    os.eventfd_write(end.peer.event, 1)
                return len(data)
        if end.live == 0:
            return -1
        assert not flags & 4, "the library would block here"
        return 0

    def write(self, handle: int, data: bytes | int, size: int) -> int:
        data = ctypes.string_at(data, size) if isinstance(data, int) else data
        end = self.ends[handle]
        if end.live == 0:
            return -1
        assert end.peer is not None, "nobody is there to take it"
        with self.lock:
            room = min(size, RING - len(end.peer.inbox))
            end.peer.inbox += data[:room]
        if room:
            os.eventfd_write(end.peer.event, 1)
        return room

    def close(self, handle: int) -> None:
        end = self.ends[handle]
        assert not end.closed, "closed twice: that would be a crash"
        end.closed = True
        if end.peer is not None and not end.peer.closed:
            end.peer.live = 0
            os.eventfd_write(end.peer.event, 1)
        os.close(end.event)


@pytest.fixture
def library() -> Iterator[FakeVchan]:
    fake = FakeVchan()
    yield fake
    for end in fake.ends.values():
        if not end.closed:
            os.close(end.event)


def link(library: FakeVchan, end: End) -> VchanLink:
    return VchanLink(cast(Library, library), end.handle, server=end.server)


def test_blocking_is_switched_off_and_nothing_else(library: FakeVchan) -> None:
    end = library.add(server=True)
    link(library, end)
    assert ctypes.c_uint32.from_address(end.handle + 28).value == (CHANCE | 1) & ~6


@pytest.mark.parametrize("server", [True, False])
def test_a_structure_that_looks_otherwise_is_not_used(library: FakeVchan, server: bool) -> None:
    end = library.add(server=server)
    ctypes.c_uint32.from_address(end.handle + 28).value ^= 1
    with pytest.raises(VchanError, match="laid out"):
        link(library, end)
    assert end.closed


def test_a_server_waits_for_its_client(library: FakeVchan) -> None:
    dom0, guest = library.add(server=True), library.add(server=False)
    server = link(library, dom0)
    assert server.receive() == b""
    assert server.send(b"too early") == 0
    library.join(dom0, guest)
    client = link(library, guest)
    assert select.select([server.fileno()], [], [], 0)[0], "its coming is an event"
    assert server.receive() == b""
    assert server.send(b"now") == 3
    assert client.receive() == b"now"
    assert client.receive() == b""


def test_what_was_sent_before_a_close_arrives(library: FakeVchan) -> None:
    dom0, guest = library.add(server=True), library.add(server=False)
    library.join(dom0, guest)
    server, client = link(library, dom0), link(library, guest)
    client.send(b"last words")
    client.close()
    client.close()
    assert server.receive() == b"last words"
    with pytest.raises(LinkClosed):
        server.receive()
    with pytest.raises(LinkClosed):
        server.send(b"x")
    with pytest.raises(LinkClosed, match="is closed"):
        client.receive()


def test_a_full_ring_is_no_error(library: FakeVchan) -> None:
    dom0, guest = library.add(server=True), library.add(server=False)
    library.join(dom0, guest)
    server, client = link(library, dom0), link(library, guest)
    server.receive()
    assert server.send(bytes(RING + 5)) == RING
    assert server.send(b"x") == 0
    assert len(client.receive()) == RING
    assert server.send(b"x") == 1


def test_an_event_channel_that_is_broken_ends_it(library: FakeVchan) -> None:
    """Not an endless loop around a descriptor that is always ready."""
    dom0, guest = library.add(server=True), library.add(server=False)
    library.join(dom0, guest)
    client = link(library, guest)

    def broken(_handle: int) -> int:
        ctypes.set_errno(errno.ENODEV)
        return -1

    library.wait = broken  # type: ignore[method-assign,assignment]
    with pytest.raises(LinkClosed, match="broken: No such device"):
        client.receive()


class Nobody:
    def opened(self, channel: Channel) -> None: ...
    def said(self, *_: object) -> None: ...
    def cut_off(self, *_: object) -> None: ...
    def closed(self, channel: Channel) -> None: ...


def test_a_whole_channel_over_it(library: FakeVchan) -> None:
    """More than both rings hold, both ways at once; then the guest's end is gone in the middle of a request."""
    dom0, guest = library.add(server=True), library.add(server=False)
    channel = Channel("vm", link(library, dom0), Nobody(), BudgetConfig())
    agent = threading.Thread(target=channel.run)
    agent.start()
    library.join(dom0, guest)
    dispatcher = Dispatcher()
    dispatcher.add("hang", lambda request: Answer(200 + request.cancelled.wait(20)))
    session = ShimSession(link(library, guest), dispatcher, Identity("", "0", "0"))
    shim = threading.Thread(target=session.run)
    shim.start()
    assert session.greeted.wait(10)
    payload = os.urandom(1_000_000)
    assert channel.request("vm", GuestRequest("ping", {}, payload), 30).payload == payload
    threading.Timer(0.1, lambda: session.pump.close("killed")).start()
    with pytest.raises(GuestAbsent):
        channel.request("vm", GuestRequest("hang"), 30)
    shim.join(10)
    agent.join(10)
    assert not agent.is_alive()
    assert dom0.closed
    assert guest.closed


def test_without_the_library_there_is_no_vchan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vchan, "LIBRARIES", ("libnothing.so.1",))
    with pytest.raises(VchanError, match="not installed"):
        VchanLink.connect("data/x")
    assert not vchan.available()
