"""The simulator's channel: guests are cut off, never the agent."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dom0_agent.guest.facts import NO_FACTS
from dom0_agent.guest.unix_channel import UnixChannelServer
from guest_shim.protocol import HEADER_CAP, Frame, FrameReader, encode
from guest_shim.shim import VERSION, Shim
from guest_shim.unix_socket import UnixSocketTransport

BOOT_ID = "0f0e0d0c-0b0a-4908-8706-050403020100"
HELLO = encode(Frame("hello", {"versions": [1], "shim": "0.1.0", "boot_id": BOOT_ID, "beats": 1}))


@pytest.fixture
def server() -> Iterator[UnixChannelServer]:
    opened = UnixChannelServer()
    yield opened
    opened.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory whose sockets' paths would be too long to bind."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    return directory


@pytest.fixture
def connect(place: Path) -> Iterator[Callable[..., socket.socket]]:
    """Connects as a guest's shim does; another guest is in another directory."""
    opened: list[socket.socket] = []

    def make(directory: Path = place) -> socket.socket:
        anchor = os.open(directory, os.O_PATH)
        guest = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        opened.append(guest)
        guest.settimeout(5)
        try:
            guest.connect(f"/proc/self/fd/{anchor}/channel.sock")
        finally:
            os.close(anchor)
        return guest

    yield make
    for guest in opened:
        guest.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for the server's thread."""
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def closed(guest: socket.socket) -> bool:
    """Whether the server hung up."""
    try:
        while guest.recv(100):  # a goodbye may come first
            pass
    except ConnectionResetError:
        return True
    return True


def test_the_shim_says_hello_and_beats(server: UnixChannelServer, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.listen("vm", place)
    monkeypatch.chdir(place)
    shim = Shim(UnixSocketTransport("channel.sock"), BOOT_ID)
    shim.step()
    shim.step()
    until(lambda: server.facts("vm").beats == 2)
    facts = server.facts("vm")
    assert (facts.boot_id, facts.shim_version) == (BOOT_ID, VERSION)
    shim.close()
    assert server.facts("vm") == facts, "the last facts stay when the guest is silent"


def test_the_shim_comes_back_to_a_new_server(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    shim = Shim(UnixSocketTransport("channel.sock", timeout=1), BOOT_ID)
    shim.step()  # nobody listens yet
    for _ in range(2):
        server = UnixChannelServer()
        server.listen("vm", place)
        before = shim.beats
        while server.facts("vm") == NO_FACTS:
            shim.step()
            assert shim.beats < before + 20
        server.close()
    shim.close()


def test_hello_is_answered_with_the_version(
    server: UnixChannelServer, place: Path, connect: Callable[[], socket.socket]
) -> None:
    server.listen("vm", place)
    guest = connect()
    guest.sendall(HELLO)
    (answer,) = FrameReader().feed(guest.recv(1000))
    assert (answer.type, answer.fields) == ("hello", {"version": 1})


@pytest.mark.parametrize(
    "bytes_of_a_bad_guest",
    [
        struct.pack(">I", HEADER_CAP + 1),
        struct.pack(">I", 4) + b"[[[[",
        struct.pack(">I", 2) + b"[]",
        encode(Frame("beat", {"beats": 1})),
        encode(Frame("hello", {"versions": [99]})),
        encode(Frame("hello", {"versions": "1"})),
        b"\xff" * 100,
    ],
    ids=["long header", "no JSON", "no object", "beat before hello", "no version", "versions no list", "rubbish"],
)
def test_a_guest_that_breaks_the_protocol_is_cut_off_and_others_live_on(
    bytes_of_a_bad_guest: bytes,
    server: UnixChannelServer,
    place: Path,
    tmp_path: Path,
    connect: Callable[..., socket.socket],
) -> None:
    server.listen("vm", place)
    server.listen("other", tmp_path)
    bad, good = connect(), connect(tmp_path)
    bad.sendall(bytes_of_a_bad_guest)
    assert closed(bad)
    good.sendall(HELLO)
    until(lambda: server.facts("other").boot_id == BOOT_ID)
    assert server.facts("vm") == NO_FACTS


@pytest.mark.parametrize(
    "value", [None, True, [], {}, 1.5, "x" * 5000, 2**70, "\ud800".encode("utf-8", "replace").decode()]
)
def test_strange_values_in_a_hello_are_no_facts(
    value: object, server: UnixChannelServer, place: Path, connect: Callable[[], socket.socket]
) -> None:
    server.listen("vm", place)
    guest = connect()
    guest.sendall(encode(Frame("hello", {"versions": [1], "shim": value, "boot_id": value, "beats": value})))
    assert guest.recv(1000)
    assert server.facts("vm") == NO_FACTS


def test_a_guest_that_opens_many_connections_loses_the_oldest(
    server: UnixChannelServer, place: Path, connect: Callable[[], socket.socket]
) -> None:
    server.listen("vm", place)
    guests = []
    for _ in range(5):
        guests.append(connect())
        guests[-1].sendall(HELLO)
        assert guests[-1].recv(1000)
    assert all(closed(guest) for guest in guests[:3])


def test_a_forgotten_guest_has_no_facts_and_no_socket(
    server: UnixChannelServer, place: Path, connect: Callable[[], socket.socket]
) -> None:
    server.listen("vm", place)
    guest = connect()
    guest.sendall(HELLO)
    until(lambda: server.facts("vm").boot_id == BOOT_ID)
    server.forget("vm")
    server.forget("vm")
    assert server.facts("vm") == NO_FACTS
    assert server.keys() == frozenset()
    with pytest.raises(OSError, match="refused"):
        connect()
