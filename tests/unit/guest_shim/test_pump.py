"""The thread between a link and an endpoint: what others notice of its end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from guest_shim import pump
from guest_shim.endpoint import AGENT, Endpoint, Message
from guest_shim.protocol import WINDOW, Frame, FrameReader, encode
from guest_shim.pump import Pump
from guest_shim.unix_socket import SocketLink


class SlowToClose(SocketLink):
    """As a vchan whose xenstored is dead: the library waits for it, perhaps for ever."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.closing = threading.Event()
        self.may_close = threading.Event()

    def close(self) -> None:
        self.closing.set()
        self.may_close.wait(30)
        super().close()


def test_a_link_that_does_not_close_holds_nobody_up() -> None:
    """Suspend closes a guest's channel first, and must not wait for ever for one that is at its end already."""
    ours, theirs = socket.socketpair()
    link = SlowToClose(ours)
    ended = Pump(link, Endpoint(AGENT), lambda _message: None)
    thread = threading.Thread(target=ended.run, daemon=True)
    thread.start()
    theirs.close()
    assert link.closing.wait(10)
    posted: list[bool] = []
    other = threading.Thread(
        target=lambda: posted.append(ended.post("bye", 0, {"reason": "the VM is being suspended"}))
    )
    other.start()
    other.join(5)
    assert posted == [False], "it is closed, and says so at once"
    link.may_close.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_breach_is_the_reason_of_a_channel_that_closes_by_itself() -> None:
    """A guest floods XenStore and closes its channel: it is told that it was cut off for the flood."""
    ours, theirs = socket.socketpair()
    gone = Pump(SocketLink(ours), Endpoint(AGENT), lambda _message: None)
    theirs.close()
    gone.run()
    assert not gone.broken
    gone.expel("its XenStore nodes: over its budget")
    assert (gone.broken, gone.reason) == (True, "its XenStore nodes: over its budget")


class Shim:
    """What is at the other end: greets, and then says what it is told to say."""

    def __init__(self, theirs: socket.socket) -> None:
        self._socket = theirs
        self._send("hello", {"versions": [1]})

    def answer(self, number: int) -> None:
        self._send("answer", {"id": number, "status": 200})

    def garbage(self) -> None:
        self._socket.sendall(b"\xff" * 64)

    def end(self) -> None:
        self._socket.close()

    def takes(self, size: int, seconds: float) -> bool:
        """So many bytes of payload come in that time."""
        self._socket.settimeout(seconds)
        reader, came = FrameReader(), 0
        while came < size:
            came += sum(frame.size() for frame in reader.feed(self._socket.recv(65536)))
        return came == size

    def _send(self, kind: str, fields: dict[str, Any]) -> None:
        self._socket.sendall(encode(Frame(kind, fields)))


@dataclass
class Asker:
    """A pump with a thread, and in which thread each answer was handled."""

    shim: Shim
    pump: Pump
    thread: threading.Thread
    handled: dict[int, threading.Event]
    handlers: dict[int, threading.Thread]
    before: dict[int, Callable[[], object]]  #: what is done before an answer counts as handled

    def ask(self, number: int) -> bool:
        over = self.handled[number] = threading.Event()
        return self.pump.ask(number, {"verb": "ping"}, {}, b"", is_over=over.is_set, seconds=10.0)


@pytest.fixture
def asker() -> Iterator[Asker]:
    """Connected, hello behind it."""
    ours, theirs = socket.socketpair()
    handled: dict[int, threading.Event] = {0: threading.Event()}
    handlers: dict[int, threading.Thread] = {}
    before: dict[int, Callable[[], object]] = {}

    def handle(message: Message) -> None:
        before.get(message.number, bool)()
        handlers[message.number] = threading.current_thread()
        handled[message.number].set()

    asking = Pump(SocketLink(ours), Endpoint(AGENT), handle)
    thread = threading.Thread(target=asking.run, daemon=True)
    thread.start()
    made = Asker(Shim(theirs), asking, thread, handled, handlers, before)
    assert handled[0].wait(10)
    yield made
    asking.close("the test ends")
    thread.join(10)
    theirs.close()
    assert not thread.is_alive()


def test_who_asks_handles_its_answer_by_itself(asker: Asker) -> None:
    """No hand-over between threads; afterwards the pump's own receives again."""
    threading.Timer(0.05, asker.shim.answer, [1]).start()
    assert asker.ask(1)
    assert asker.handlers[1] is threading.current_thread()
    asker.handled[2] = threading.Event()
    assert asker.pump.post("request", 2, {"verb": "ping"})
    asker.shim.answer(2)
    assert asker.handled[2].wait(10)
    assert asker.handlers[2] is asker.thread


def test_a_leader_handles_what_comes_for_others(asker: Asker) -> None:
    """Only one leads: the other waits for it."""
    leader = threading.Thread(target=asker.ask, args=[1])
    leader.start()
    while not asker.pump.led:
        time.sleep(0.001)
    assert asker.ask(2)  # returns at once
    assert not asker.handled[2].is_set()
    asker.shim.answer(2)
    assert asker.handled[2].wait(10)
    assert asker.handlers[2] is leader
    asker.shim.answer(1)
    leader.join(10)
    assert asker.handlers[1] is leader


def test_what_takes_longer_is_handed_over(asker: Asker) -> None:
    """Nobody leads for ever."""
    assert asker.ask(1)
    assert not asker.handled[1].is_set()
    asker.shim.answer(1)
    assert asker.handled[1].wait(10)
    assert asker.handlers[1] is asker.thread


def test_a_long_request_goes_out_while_it_waits(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who leads looks for what comes; room for the rest of what is sent is the thread's to see."""
    monkeypatch.setattr(pump, "_LEAD", 20.0)
    monkeypatch.setattr(pump, "_LOOK", 20.0)
    over = asker.handled[1] = threading.Event()
    payload = bytes(WINDOW)

    def ask() -> None:
        asker.pump.ask(1, {"verb": "ping"}, {}, payload, is_over=over.is_set, seconds=20.0)

    leader = threading.Thread(target=ask)
    leader.start()
    assert asker.shim.takes(len(payload), 10)
    asker.shim.answer(1)
    leader.join(10)
    assert not leader.is_alive()


def test_nobody_leads_while_the_thread_handles(asker: Asker) -> None:
    """Messages are handled one after another: who asks meanwhile waits for the thread, which goes on receiving."""
    begun, may_end = threading.Event(), threading.Event()

    def busy() -> bool:
        begun.set()
        return may_end.wait(10)

    asker.before[1] = busy
    asker.handled[1] = threading.Event()
    assert asker.pump.post("request", 1, {"verb": "ping"})
    asker.shim.answer(1)
    assert begun.wait(10)
    assert asker.ask(2)  # returns at once
    asker.shim.answer(2)
    assert not asker.handled[2].wait(0.05)
    may_end.set()
    assert asker.handled[2].wait(10)
    assert asker.handlers[2] is asker.thread


@pytest.mark.parametrize(("worst", "broken"), [(Shim.garbage, True), (Shim.end, False)])
def test_a_channel_ends_under_its_leader(worst: Callable[[Shim], None], broken: bool, asker: Asker) -> None:
    """Whoever sees it: the channel is closed, with a reason, and nobody hangs or raises."""
    threading.Timer(0.05, worst, [asker.shim]).start()
    assert asker.ask(1), "it was sent"
    asker.thread.join(10)
    assert not asker.thread.is_alive()
    assert (asker.pump.broken, bool(asker.pump.reason)) == (broken, True)
    assert not asker.ask(2)
    assert not asker.pump.post("request", 3, {"verb": "ping"})
