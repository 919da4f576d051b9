"""``hypervisor.xenstore`` and the guest shim against the real C xenstored."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dom0_agent.guest.facts import parse_facts
from dom0_agent.hypervisor.xenstore import SocketConnection, XenStore, XenStoreDown, XenStoreError
from guest_shim.shim import VERSION, Shim
from guest_shim.transport import TransportError
from guest_shim.xenbus import XenBus
from guest_shim.xenstore_transport import XenStoreTransport
from tests.integration.conftest import Daemon

pytestmark = pytest.mark.xenstored


@pytest.fixture
def store(xenstored: Daemon) -> Iterator[XenStore]:
    """A client with little patience."""
    client = XenStore(partial(SocketConnection, str(xenstored.socket)), deadline=1.0)
    yield client
    client.close()


class Seen:
    """Collects the paths of a watch's events."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._more = threading.Condition()

    def __call__(self, path: str) -> None:
        with self._more:
            self.paths.append(path)
            self._more.notify_all()

    def wait_for(self, count: int, seconds: float = 5.0) -> None:
        """Wait until at least ``count`` events came."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.paths) >= count, seconds), self.paths


@pytest.mark.parametrize("value", [b"plain", b"", b"\x00\xff binary \n", b"x" * 2048])
def test_what_is_written_is_read(store: XenStore, value: bytes) -> None:
    """Also what pyxs' own client refuses: empty and binary values."""
    store.write("/local/domain/7/data/x", value)
    assert store.read("/local/domain/7/data/x") == value


def test_what_is_not_there_is_none_and_empty(store: XenStore) -> None:
    assert store.read("/nothing/here") is None
    assert store.list("/nothing/here") == ()


def test_children_are_listed_and_removed_with_their_parent(store: XenStore) -> None:
    for name in ("a", "b", "c-1_x"):
        store.write(f"/virmo/{name}", b"1")
    assert set(store.list("/virmo")) == {"a", "b", "c-1_x"}
    store.remove("/virmo")
    store.remove("/virmo")
    assert store.list("/virmo") == ()
    assert store.read("/virmo/a") is None


def test_a_value_over_the_cap_is_refused(store: XenStore) -> None:
    store.write("/virmo/long", b"x" * 2049)
    with pytest.raises(XenStoreError, match="2049 bytes"):
        store.read("/virmo/long")


def test_too_long_a_packet_is_an_error_and_the_connection_lives(store: XenStore) -> None:
    with pytest.raises(XenStoreError):
        store.write("/virmo/long", b"x" * 5000)
    store.write("/virmo/short", b"1")
    assert store.read("/virmo/short") == b"1"


@pytest.mark.parametrize("path", ["", "/a//b", "/a/", "a b", "/ä", "/a\0b", "/" + "x" * 2000, "@other"])
def test_a_path_that_is_none_is_refused_before_it_is_sent(store: XenStore, path: str) -> None:
    with pytest.raises(XenStoreError, match="not a XenStore path"):
        store.read(path)


def test_permissions_are_set(store: XenStore) -> None:
    store.write("/virmo/node", b"1")
    store.set_permissions("/virmo/node", "n0", "r7")
    with pytest.raises(XenStoreError, match="is not one"):
        store.set_permissions("/virmo/node", "n0", "everything")


def test_a_watch_fires_at_first_and_at_each_change_below(store: XenStore) -> None:
    seen = Seen()
    unwatch = store.watch("/virmo", seen)
    seen.wait_for(1)
    store.write("/virmo/a/b", b"1")
    seen.wait_for(2)
    assert seen.paths[:2] == ["/virmo", "/virmo/a/b"]
    unwatch()
    count = len(seen.paths)
    store.write("/virmo/a/b", b"2")
    assert store.read("/virmo/a/b") == b"2"
    assert len(seen.paths) == count


def test_the_special_watches_exist(store: XenStore) -> None:
    introduce, release = Seen(), Seen()
    store.watch("@introduceDomain", introduce)
    store.watch("@releaseDomain", release)
    introduce.wait_for(1)
    release.wait_for(1)


def test_a_xenstored_that_hangs_is_a_deadline_not_a_hang(xenstored: Daemon, store: XenStore) -> None:
    store.write("/virmo/a", b"1")
    xenstored.freeze()
    began = time.monotonic()
    with pytest.raises(XenStoreDown, match="within 1 s"):
        store.read("/virmo/a")
    assert time.monotonic() - began < 5
    xenstored.thaw()
    assert store.read("/virmo/a") == b"1"


def fill_queue(path: Path) -> list[socket.socket]:
    """Connections that a frozen xenstored never takes: as many as its queue holds."""
    waiting: list[socket.socket] = []
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(str(path))
        except BlockingIOError:
            connection.close()
            return waiting
        waiting.append(connection)


def test_a_xenstored_that_takes_no_connections_is_a_deadline_too(
    xenstored: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dom0_agent.hypervisor.xenstore.TRANSPORT_DEADLINE", 0.5)
    xenstored.freeze()
    waiting = fill_queue(xenstored.socket)
    client = XenStore(partial(SocketConnection, str(xenstored.socket)))
    began = time.monotonic()
    try:
        with pytest.raises(XenStoreDown, match=r"no connection within 0\.5 s"):
            client.read("/virmo/a")
        assert 0.4 < time.monotonic() - began < 5
        xenstored.thaw()
    finally:
        client.close()
        for connection in waiting:
            connection.close()


def test_a_connection_waits_for_its_place_in_a_full_queue(xenstored: Daemon) -> None:
    """A xenstored that comes back while others wait for it too is no failure."""
    xenstored.freeze()
    waiting = fill_queue(xenstored.socket)
    client = XenStore(partial(SocketConnection, str(xenstored.socket)))
    thaw = threading.Timer(0.3, xenstored.thaw)
    thaw.start()
    try:
        assert client.list("/") != ()
    finally:
        thaw.join()
        client.close()
        for connection in waiting:
            connection.close()


def test_a_xenstored_that_dies_is_an_error_and_comes_back_with_all_watches(xenstored: Daemon, store: XenStore) -> None:
    """Issue: xenstored restart. The database is lost with it, as it is on a real machine."""
    first, second = Seen(), Seen()
    store.watch("/virmo", first)
    store.watch("@releaseDomain", second)
    first.wait_for(1)
    second.wait_for(1)
    xenstored.stop()
    with pytest.raises(XenStoreDown):
        store.write("/virmo/a", b"1")
    xenstored.start()
    first.wait_for(2)  # it was set again, and fires because something may have changed unseen
    second.wait_for(2)
    store.write("/virmo/a", b"1")
    first.wait_for(3)
    assert first.paths[-1] == "/virmo/a"


def test_a_watch_waits_for_a_xenstored_that_is_not_up_yet(xenstored: Daemon) -> None:
    xenstored.stop()
    client = XenStore(partial(SocketConnection, str(xenstored.socket)), deadline=1.0)
    seen = Seen()
    try:
        client.watch("/virmo", seen)
        assert seen.paths == []
        xenstored.start()
        seen.wait_for(1)
    finally:
        client.close()


def test_many_threads_share_one_connection(store: XenStore) -> None:
    errors: list[str] = []

    def work(number: int) -> None:
        for step in range(50):
            value = f"{number}-{step}".encode()
            store.write(f"/virmo/t{number}", value)
            if store.read(f"/virmo/t{number}") != value:
                errors.append(f"{number}-{step}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []


def test_a_closed_client_says_so(store: XenStore) -> None:
    store.write("/virmo/a", b"1")
    store.close()
    store.close()
    with pytest.raises(XenStoreError, match="closed"):
        store.read("/virmo/a")


def device(path: Path) -> int:
    """What the shim would get from /dev/xen/xenbus: here a socket to xenstored, which speaks the same protocol."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(path))
        except OSError as error:
            raise TransportError(str(error)) from None
        return os.dup(connection.fileno())


def test_the_shims_own_client_reads_writes_and_removes(xenstored: Daemon, store: XenStore) -> None:
    bus = XenBus(device(xenstored.socket))
    try:
        bus.write("/virmo/guest", b"hello")
        assert store.read("/virmo/guest") == b"hello"
        assert bus.read("/virmo/guest") == b"hello"
        assert bus.read("/virmo/nothing") is None
        bus.remove("/virmo/guest")
        bus.remove("/virmo/guest")
        assert store.read("/virmo/guest") is None
        with pytest.raises(ValueError, match="over"):
            bus.write("/virmo/guest", bytes(5000))
    finally:
        bus.close()


def test_the_shims_beats_arrive_as_facts(xenstored: Daemon, store: XenStore) -> None:
    base = "/local/domain/7/data/virmo"  # a guest's relative path means its own domain
    transport = XenStoreTransport(partial(device, xenstored.socket), base=base)
    boot_id = "0f0e0d0c-0b0a-4908-8706-050403020100"
    shim = Shim(transport, boot_id)
    shim.step()
    shim.step()

    def facts() -> object:
        nodes = (store.read(f"/local/domain/7/data/virmo/{name}") for name in ("boot-id", "beats", "version"))
        return parse_facts(*nodes)

    assert facts() == parse_facts(boot_id.encode(), b"2", VERSION.encode())
    store.remove("/local/domain/7/data/virmo")  # what a restore leaves of it: an empty directory
    shim.step()
    assert facts() == parse_facts(boot_id.encode(), b"3", VERSION.encode())
    xenstored.stop()
    shim.step()  # nobody there: no crash
    xenstored.start()
    shim.step()
    assert facts() == parse_facts(boot_id.encode(), b"5", VERSION.encode())
    shim.close()
