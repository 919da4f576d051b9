"""The channel through XenStore on a real xenstored: agent's rendezvous against the real shim and against bad guests."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import pytest

from dom0_agent.guest.config import BudgetConfig, GuestConfig
from dom0_agent.guest.hub import GuestHub
from dom0_agent.guest.interface import GuestError, GuestEvent, GuestEventKind, GuestRequest
from dom0_agent.guest.rendezvous import XenRendezvous
from dom0_agent.hypervisor.interface import DomainInfo, DomainState, Hypervisor
from dom0_agent.hypervisor.xenstore import SocketConnection, XenStore
from guest_shim.clock import Clock
from guest_shim.dispatch import Answer, Dispatcher, Request
from guest_shim.mailbox import SLOTS
from guest_shim.shim import Shim
from guest_shim.transport import TransportError
from guest_shim.xenbus import XenBus
from guest_shim.xenstore_transport import XenStoreTransport
from tests.integration.conftest import Daemon

pytestmark = pytest.mark.xenstored

BOOT_ID = "0f0e0d0c-0b0a-4908-8706-050403020100"
VMID, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
DOMAINS = {VMID: 7, OTHER: 8}


class Machine:
    """A hypervisor with two domains, and no way to do anything to them."""

    def __init__(self, store: XenStore) -> None:
        self.rendezvous = XenRendezvous(store)

    def channels(self) -> XenRendezvous:
        return self.rendezvous

    def domains(self) -> tuple[DomainInfo, ...]:
        return tuple(DomainInfo(vmid, n, "x", DomainState.RUNNING, 1, 1, 0.0) for vmid, n in DOMAINS.items())

    def subscribe(self, hint: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


class AgentRig:
    """The agent's half."""

    def __init__(self, daemon: Daemon, **config: Any) -> None:
        self.store = XenStore(partial(SocketConnection, str(daemon.socket)), deadline=2.0)
        self.machine = Machine(self.store)
        self.hub = GuestHub(cast(Hypervisor, self.machine), GuestConfig(**config))
        self.events: list[GuestEvent] = []
        self.hub.subscribe(self.events.append)
        self.hub.start()

    def ping(self, vmid: uuid.UUID = VMID, payload: bytes = b"", deadline: float = 30.0) -> bytes:
        return self.hub.request(vmid, GuestRequest("ping", {}, payload), deadline=deadline).payload

    def kinds(self, vmid: uuid.UUID = VMID) -> list[GuestEventKind]:
        return [event.kind for event in list(self.events) if event.vmid == vmid]

    def close(self) -> None:
        self.hub.close()
        self.machine.rendezvous.close()
        self.store.close()


def base(vmid: uuid.UUID) -> str:
    return f"/local/domain/{DOMAINS[vmid]}/data/virmo"


def device(daemon: Daemon) -> int:
    """What the shim would get from /dev/xen/xenbus: here a socket to xenstored, which speaks the same protocol."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(daemon.socket))
        except OSError as error:
            raise TransportError(str(error)) from None
        return os.dup(connection.fileno())


class ShimRig:
    """A shim that beats in a thread."""

    def __init__(self, daemon: Daemon, vmid: uuid.UUID = VMID, dispatcher: Dispatcher | None = None) -> None:
        transport = XenStoreTransport(partial(device, daemon), dispatcher, ("xenstore",), base(vmid))
        self.shim = Shim(transport, BOOT_ID)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self.shim.run, args=(lambda _: self._end.wait(0.1),))
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        self._thread.join(10)


@pytest.fixture
def make(xenstored: Daemon) -> Iterator[Callable[..., Any]]:
    """Makes agents and shims, and ends them."""
    made: list[Any] = []

    def build(kind: Any, *arguments: Any, **more: Any) -> Any:
        made.append(kind(xenstored, *arguments, **more))
        return made[-1]

    yield build
    for thing in reversed(made):
        thing.close()


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_shim_first_then_the_agent_and_another_agent(make: Callable[..., Any]) -> None:
    shim = make(ShimRig)
    time.sleep(0.3)
    agent = make(AgentRig)
    until(lambda: agent.hub.hello(VMID) is not None)
    assert agent.hub.hello(VMID).transport == "xenstore"
    payload = os.urandom(300_000)
    assert agent.ping(payload=payload) == payload
    agent.close()
    second = make(AgentRig)
    until(lambda: second.hub.hello(VMID) is not None)
    assert second.ping(payload=b"x") == b"x"
    shim.close()
    until(lambda: second.kinds()[-1] is GuestEventKind.LOST)


def test_the_agent_first_then_the_shim_and_another_shim(make: Callable[..., Any], xenstored: Daemon) -> None:
    agent = make(AgentRig)
    first = make(ShimRig)
    until(lambda: agent.hub.hello(VMID) is not None)
    first.close()
    make(ShimRig, VMID, Dispatcher([], {"second"}))
    until(lambda: agent.hub.hello(VMID) is not None and "second" in agent.hub.hello(VMID).capabilities)
    assert agent.ping(payload=b"x") == b"x"
    names = agent.store.list(base(VMID))
    nodes = len(names) + sum(len(agent.store.list(f"{base(VMID)}/{name}")) for name in names)
    assert nodes < 60, "a guest has 1000"


def test_after_a_restore_the_shim_comes_back_and_its_clock_is_set(make: Callable[..., Any]) -> None:
    agent = make(AgentRig)
    dispatcher, resumed = Dispatcher(), list[bool]()

    def clock(request: Request) -> Answer:
        resumed.append(request.fields["resumed"])
        return Clock(hooks="/nonexistent", set_time=lambda _: None).handle(request)

    dispatcher.add("clock", clock)
    dispatcher.capabilities.add("clock")
    make(ShimRig, VMID, dispatcher)
    until(lambda: resumed == [False])
    with agent.machine.rendezvous.quiet(VMID):  # what a save does
        assert agent.hub.hello(VMID) is None
        time.sleep(1.5)
        assert agent.hub.hello(VMID) is None, "none is opened meanwhile"
        agent.store.remove(base(VMID))
    until(lambda: agent.hub.hello(VMID) is not None)
    until(lambda: resumed == [False, True])
    assert agent.ping(payload=b"x") == b"x"


def test_a_guest_without_a_common_transport_is_told_so(make: Callable[..., Any]) -> None:
    agent = make(AgentRig, transport="vchan")
    make(ShimRig)
    until(lambda: b'"none"' in (agent.store.read(f"{base(VMID)}/down/grant") or b""))
    assert agent.hub.hello(VMID) is None


def test_xenstored_dies_in_the_middle_of_a_transfer(make: Callable[..., Any], xenstored: Daemon) -> None:
    agent = make(AgentRig)
    make(ShimRig)
    until(lambda: agent.hub.hello(VMID) is not None)

    def restart() -> None:
        xenstored.stop()
        time.sleep(0.5)
        xenstored.start()

    threading.Timer(0.3, restart).start()
    began = time.monotonic()
    with pytest.raises(GuestError):
        agent.ping(payload=bytes(10_000_000), deadline=40)
    assert time.monotonic() - began < 35
    until(lambda: agent.hub.hello(VMID) is not None, 30)
    assert agent.ping(payload=b"x") == b"x"


def want(bus: XenBus, vmid: uuid.UUID, nonce: str) -> str:
    """Ask for a mailbox as a shim does; the session."""
    bus.write(f"{base(vmid)}/up/want", json.dumps({"nonce": nonce, "transports": ["xenstore"]}).encode())
    grant: dict[str, str] = {}

    def granted() -> bool:
        grant.update(json.loads(bus.read(f"{base(vmid)}/down/grant") or b"{}"))
        return grant.get("nonce") == nonce

    until(granted)
    return grant["session"]


BAD = {
    "rubbish in a slot": lambda session, number: f"{session}{number:08x}".encode() + b"\xff" * 100,
    "half a frame, then another": lambda session, number: f"{session}{number:08x}".encode() + b"\0\0\0\x20{",
    "an answer nobody wants": lambda session, number: (
        f"{session}{number:08x}".encode() + b'\0\0\0\x12{"type":"answer"}'
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_guest_is_cut_off_and_others_are_served(kind: str, make: Callable[..., Any], xenstored: Daemon) -> None:
    agent = make(AgentRig, penalty_first=1.0, penalty_max=1.0)
    make(ShimRig, OTHER)
    bus = XenBus(device(xenstored))
    session = want(bus, VMID, "abcd1234")
    for number in range(1, SLOTS):
        bus.write(f"{base(VMID)}/up/{number % SLOTS}", BAD[kind](session, number))
    until(lambda: GuestEventKind.EXPELLED in agent.kinds())
    until(lambda: agent.hub.hello(OTHER) is not None)
    assert agent.ping(OTHER, b"x") == b"x"
    bus.close()
    make(ShimRig)
    until(lambda: agent.hub.hello(VMID) is not None, 20)


def test_old_slots_wrong_numbers_and_strange_acks_move_nothing(make: Callable[..., Any], xenstored: Daemon) -> None:
    agent = make(AgentRig)
    bus = XenBus(device(xenstored))
    session = want(bus, VMID, "abcd1234")
    for value in (
        b"",
        b"x",
        b"0000" + b"00000001hello",
        session.encode() + b"00000002hello",
        session.encode(),
        b"\xff" * 2048,
    ):
        for name in [str(slot) for slot in range(SLOTS)] + ["ack"]:
            bus.write(f"{base(VMID)}/up/{name}", value)
    bus.write(f"{base(VMID)}/up/ack", f"{session}{2**32 - 1:08x}".encode())
    for strange in (b"", b"{", b"[]", b'{"nonce": 1}', b'{"nonce": "../../1", "transports": []}', b"[" * 2000, b"\xff"):
        bus.write(f"{base(VMID)}/up/want", strange)
    make(ShimRig)
    until(lambda: agent.hub.hello(VMID) is not None)
    assert agent.kinds() in ([GuestEventKind.CONNECTED], [GuestEventKind.CONNECTED, GuestEventKind.CONNECTED])
    bus.close()


def test_a_guest_that_asks_for_channels_without_end(make: Callable[..., Any], xenstored: Daemon) -> None:
    """Each opening costs it as much as a hundred messages."""
    agent = make(AgentRig, budget=BudgetConfig(messages=1000), penalty_first=1.0, penalty_max=1.0)
    make(ShimRig, OTHER)
    bus = XenBus(device(xenstored))
    number = 0
    while GuestEventKind.EXPELLED not in agent.kinds():
        number += 1
        assert number < 200
        asked = {"nonce": f"{number:08x}", "transports": ["xenstore"]}
        bus.write(f"{base(VMID)}/up/want", json.dumps(asked).encode())
        time.sleep(0.02)
    until(lambda: agent.hub.hello(OTHER) is not None)
    assert agent.ping(OTHER, b"x") == b"x"
    bus.close()


def test_a_guest_that_writes_without_end_loses_its_watch(
    make: Callable[..., Any], xenstored: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    agent = make(AgentRig, budget=BudgetConfig(messages=200), penalty_first=2.0, penalty_max=2.0)
    make(ShimRig, OTHER)
    until(lambda: agent.hub.hello(OTHER) is not None)
    bus, ending = XenBus(device(xenstored)), threading.Event()

    def flood() -> None:
        number = 0
        while not ending.is_set():
            number += 1
            bus.write(f"{base(VMID)}/up/{number % 50}/{number % 7}", b"x" * 1000)

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        until(lambda: "guest_expelled" in caplog.text)
        times = []
        for _ in range(20):
            began = time.monotonic()
            assert agent.ping(OTHER, b"x") == b"x"
            times.append(time.monotonic() - began)
        assert sorted(times)[10] < 0.5
        assert GuestEventKind.EXPELLED in agent.kinds()
    finally:
        ending.set()
        flooding.join(10)
        bus.close()
    assert caplog.text.count("guest_expelled") <= 3
    make(ShimRig)
    until(lambda: agent.hub.hello(VMID) is not None, 20)
