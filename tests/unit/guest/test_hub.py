"""The hub over the simulator's sockets: asking guests, what they say, how channels end, and who is cut off."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from dom0_agent.guest.config import BudgetConfig, GuestConfig
from dom0_agent.guest.hub import GuestHub
from dom0_agent.guest.interface import (
    GuestAbsent,
    GuestError,
    GuestEvent,
    GuestEventKind,
    GuestRequest,
    Guests,
    GuestTimeout,
)
from dom0_agent.guest.unix_channel import UnixChannelServer
from dom0_agent.hypervisor.interface import DomainInfo, Hypervisor
from guest_shim.clock import Clock
from guest_shim.dispatch import Answer, Dispatcher, Request, ServedObject
from guest_shim.protocol import Frame, encode
from guest_shim.session import ShimSession
from guest_shim.shim import Shim
from guest_shim.unix_socket import UnixSocketTransport

BOOT_ID = "0f0e0d0c-0b0a-4908-8706-050403020100"
VMID, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
BEAT = 0.5  #: seconds


class Machine:
    """A hypervisor with nothing but channels."""

    def __init__(self) -> None:
        self.server = UnixChannelServer()

    def channels(self) -> UnixChannelServer:
        return self.server

    def domains(self) -> tuple[DomainInfo, ...]:
        return ()

    def subscribe(self, hint: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


class Rig:
    """A hub and the events it told."""

    def __init__(self, directory: Path, config: GuestConfig) -> None:
        self.directory = directory
        self.machine = Machine()
        self.hub = GuestHub(cast(Hypervisor, self.machine), config, wall_clock=lambda: 1_800_000_000.0)
        self.guests: Guests = self.hub
        self.events: list[GuestEvent] = []
        self.hub.subscribe(self.events.append)
        self.hub.start()
        self.shims: list[Shim] = []
        for vmid in (VMID, OTHER):
            (directory / str(vmid.int)).mkdir(exist_ok=True)
            self.machine.server.listen((vmid, 1), directory / str(vmid.int))

    def shim(self, vmid: uuid.UUID, dispatcher: Dispatcher, beats: int = 0) -> Shim:
        """A connected shim."""
        path = str(self.directory / str(vmid.int) / "channel.sock")
        made = Shim(UnixSocketTransport(path, dispatcher=dispatcher), BOOT_ID, beats)
        self.shims.append(made)
        made.step()
        beat_at = time.monotonic() + BEAT

        def connected() -> bool:
            nonlocal beat_at
            # As its loop does: a connection that was closed for the sake of an earlier one is only noticed by a beat.
            if not made.announced or time.monotonic() > beat_at:
                made.step()
                beat_at = time.monotonic() + BEAT
            return self.hub.hello(vmid) is not None

        until(connected)
        return made

    def kinds(self, vmid: uuid.UUID = VMID) -> list[GuestEventKind]:
        return [event.kind for event in self.events if event.vmid == vmid]

    def raw(self, vmid: uuid.UUID) -> socket.socket:
        """A guest that speaks for itself."""
        guest = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        guest.settimeout(10)
        path = str(self.directory / str(vmid.int) / "channel.sock")
        until(lambda: guest.connect_ex(path) == 0)  # the queue of connections is short
        return guest

    def close(self) -> None:
        for shim in self.shims:
            shim.close()
        self.hub.close()
        self.machine.server.close()


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**config: Any) -> Rig:
        rigs.append(Rig(tmp_path, GuestConfig(**config)))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def hello(**more: object) -> bytes:
    return encode(Frame("hello", {"versions": [1], "boot_id": BOOT_ID, "beats": 1, "shim": "9", **more}))


def closed(guest: socket.socket) -> bool:
    try:
        while guest.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return True


def test_a_request_is_answered(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    served = Dispatcher([ServedObject("urn:oma:mo:oma-scomo:1.0", ("Inventory/*/State",), ("Go",))], {"ui"})
    with pytest.raises(GuestAbsent, match="virmo-guest-shim"):
        rig.guests.request(VMID, GuestRequest("ping"), deadline=1)
    rig.shim(VMID, served)
    told = rig.guests.hello(VMID)
    assert told is not None
    assert (told.boot_id, told.transport, told.capabilities) == (BOOT_ID, "unix", frozenset({"ui"}))
    assert told.objects[0].live == ("Inventory/*/State",)
    payload = os.urandom(10_000_000)
    answer = rig.guests.request(VMID, GuestRequest("ping", {"a": ["ä"]}, payload), deadline=30)
    assert (answer.status, answer.fields, answer.payload == payload) == (200, {"a": ["ä"]}, True)
    assert rig.guests.request(VMID, GuestRequest("nonsense"), deadline=5).status == 406
    assert [line.status for line in rig.hub.trace(VMID) if line.what == "request"] == [200, 406]
    assert rig.guests.hello(OTHER) is None


def test_deadline_cancel_and_many_at_once(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    dispatcher = Dispatcher()
    cancelled = threading.Semaphore(0)

    def hang(request: Request) -> Answer:
        assert request.cancelled.wait(20)
        cancelled.release()
        return Answer()

    dispatcher.add("hang", hang)
    rig.shim(VMID, dispatcher)
    with pytest.raises(GuestTimeout, match="within"):
        rig.guests.request(VMID, GuestRequest("hang"), deadline=0.1)
    assert cancelled.acquire(timeout=5), "the handler is told"
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(GuestTimeout, match="cancelled"):
        rig.guests.request(VMID, GuestRequest("hang"), deadline=20, cancelled=stop)
    assert cancelled.acquire(timeout=5)
    with pytest.raises(GuestError, match="cannot be sent"):
        rig.guests.request(VMID, GuestRequest("ping", {"x": object()}), deadline=5)
    results: list[bytes] = []

    def ask(number: int) -> None:
        results.append(
            rig.guests.request(VMID, GuestRequest("ping", {}, bytes([number]) * 99_999), deadline=20).payload
        )

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(results) == [bytes([number]) * 99_999 for number in range(6)]


def test_what_a_shim_says_is_told_once(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    dispatcher = Dispatcher()
    dispatcher.say("result", {"n": 0})  # before there is a channel
    shim = rig.shim(VMID, dispatcher)
    dispatcher.say("result", {"n": 1}, b"data")
    until(lambda: rig.kinds().count(GuestEventKind.SAID) == 2)
    shim.close()
    until(lambda: rig.hub.hello(VMID) is None)
    dispatcher.say("result", {"n": 2})
    shim.step()
    until(lambda: rig.kinds().count(GuestEventKind.SAID) == 3)
    said = [event for event in rig.events if event.kind is GuestEventKind.SAID]
    assert [event.fields["n"] for event in said] == [0, 1, 2]
    assert said[1].payload == b"data"
    until(lambda: not dispatcher._said)


def test_the_shim_comes_back_to_the_next_agent(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    shim = rig.shim(VMID, Dispatcher())
    rig.hub.close()
    rig.machine.server.close()
    second = make_rig()
    end = time.monotonic() + 10
    while second.hub.hello(VMID) is None:
        shim.step()
        assert time.monotonic() < end
    assert second.guests.request(VMID, GuestRequest("ping"), deadline=5).status == 200


def test_a_request_ends_when_the_channel_does(make_rig: Callable[..., Rig]) -> None:
    """SIGKILL of the shim in the middle of a transfer looks like this from dom0."""
    rig = make_rig()
    dispatcher = Dispatcher()
    dispatcher.add("hang", lambda request: Answer(200 + request.cancelled.wait(20)))
    shim = rig.shim(VMID, dispatcher)
    threading.Timer(0.2, shim.close).start()
    began = time.monotonic()
    with pytest.raises(GuestAbsent, match="closed"):
        rig.guests.request(VMID, GuestRequest("hang", {}, bytes(10_000_000)), deadline=30)
    assert time.monotonic() - began < 10
    until(lambda: rig.kinds()[-1] is GuestEventKind.LOST)


def test_after_a_resume_the_clock_is_set(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    dispatcher, times = Dispatcher(), list[float]()
    Clock(hooks="/nonexistent", now=lambda: 0.0, set_time=times.append).register(dispatcher)
    rig.shim(VMID, dispatcher, beats=41)
    until(lambda: times == [1_800_000_000.0])


def test_a_guest_is_replaced_by_its_next_channel(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.shim(VMID, Dispatcher())
    rig.shim(VMID, Dispatcher([], {"second"}))
    until(lambda: "second" in (rig.hub.hello(VMID) or pytest.fail("lost")).capabilities)
    until(lambda: rig.kinds() == [GuestEventKind.CONNECTED] * 2)


OBJECT = {"moid": "urn:oma:mo:oma-lawmo:1.0"}


@pytest.mark.parametrize(
    "claim",
    [
        {"objects": [{"moid": "urn:oma:mo:oma-virmo:1.0"}]},
        {"objects": [{"moid": "URN:OMA:MO:OMA-VMIMGMO:1.0"}]},
        {"objects": [OBJECT, OBJECT]},
        {"objects": [{**OBJECT, "live": ["../../x"]}]},
        {"objects": [{**OBJECT, "live": ["/etc/passwd"]}]},
        {"objects": [{**OBJECT, "operations": ["a//b"]}]},
        {"objects": [{**OBJECT, "operations": ["a\u0000"]}]},
        {"objects": [{**OBJECT, "live": ["x" * 300]}]},
        {"objects": [{**OBJECT, "live": ["x"] * 300}]},
        {"objects": [{"moid": "urn:" + "x" * 300}]},
        {"objects": [{"moid": 1}]},
        {"objects": [1]},
        {"objects": [OBJECT] * 100},
        {"objects": {}},
        {"capabilities": ["A B"]},
        {"capabilities": "ui"},
        {"versions": [2]},
    ],
)
def test_a_hello_that_claims_what_it_must_not(claim: dict[str, object], make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    guest = rig.raw(VMID)
    guest.sendall(hello(**claim))
    assert closed(guest)
    guest.close()
    until(lambda: rig.kinds() == [GuestEventKind.EXPELLED])
    assert rig.hub.hello(VMID) is None


def spent(times: int, **fields: object) -> bytes:
    return b"".join(encode(Frame("say", {"id": n, "verb": "x", **fields})) for n in range(1, times))


@pytest.mark.parametrize(
    ("flood", "what"),
    [
        (spent(3000), "messages"),
        (b"".join(encode(Frame("pong", {})) for _ in range(3000)), "messages"),
        (b"".join(encode(Frame("novelty", {}, bytes(60_000))) for _ in range(90)), "bytes"),
        (spent(200, fields={"x": [0] * 1000}), "nodes"),
        (encode(Frame("answer", {"id": 1, "status": 200})), "not made"),
        (b"\xff\xff\xff\xff", "announced"),
    ],
)
def test_a_flooding_guest_is_cut_off_and_waits_while_others_are_served(
    flood: bytes, what: str, make_rig: Callable[..., Rig]
) -> None:
    rig = make_rig(budget=BudgetConfig(nodes=50_000), penalty_first=0.6, penalty_max=0.6)
    rig.shim(OTHER, Dispatcher())
    guest = rig.raw(VMID)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # cut off before it had said all
        guest.sendall(hello() + flood)
    assert closed(guest)
    guest.close()
    until(lambda: rig.kinds()[-1:] == [GuestEventKind.EXPELLED])
    assert what in rig.events[-1].reason
    again = rig.raw(VMID)
    assert closed(again), "not before its time"
    again.close()
    assert rig.guests.request(OTHER, GuestRequest("ping"), deadline=5).status == 200
    time.sleep(0.7)
    rig.shim(VMID, Dispatcher())
    assert rig.kinds(OTHER) == [GuestEventKind.CONNECTED]


def test_a_guest_that_closes_at_every_byte(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    stream = hello() + encode(Frame("say", {"id": 1, "verb": "x", "size": 3}, b"abc"))
    for length in range(0, len(stream), 7):
        guest = rig.raw(VMID)
        guest.sendall(stream[:length])
        guest.close()
    shim = rig.shim(VMID, Dispatcher())
    end = time.monotonic() + 5
    while True:  # the hello that was seen may be one of those that are gone: the shim announces itself once they are
        try:
            assert rig.guests.request(VMID, GuestRequest("ping"), deadline=5).status == 200
            break
        except GuestAbsent:
            assert time.monotonic() < end, "the shim is not served"
            shim.step()
            time.sleep(0.05)
    assert GuestEventKind.EXPELLED not in rig.kinds()


def test_a_shim_that_talks_all_the_time_is_still_spoken_to(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beats keep the guest's side of the channel alive for us; the shim, too, must hear that we are there."""
    monkeypatch.setattr("dom0_agent.guest.channel.KEEP_ALIVE", 0.2)
    monkeypatch.setattr(ShimSession.__init__, "__defaults__", (1.0,))
    rig = make_rig()
    shim = rig.shim(VMID, Dispatcher())
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        shim.step()
        time.sleep(0.05)
    assert [event.kind for event in rig.events] == [GuestEventKind.CONNECTED]
