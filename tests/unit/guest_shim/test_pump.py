"""The thread between a link and an endpoint: what others notice of its end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from guest_shim.endpoint import AGENT, Endpoint, Message
from guest_shim.protocol import Frame, encode
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
    pump = Pump(link, Endpoint(AGENT), lambda _message: None)
    thread = threading.Thread(target=pump.run, daemon=True)
    thread.start()
    theirs.close()
    assert link.closing.wait(10)
    posted: list[bool] = []
    other = threading.Thread(target=lambda: posted.append(pump.post("bye", 0, {"reason": "the VM is being suspended"})))
    other.start()
    other.join(5)
    assert posted == [False], "it is closed, and says so at once"
    link.may_close.set()
    thread.join(10)
    assert not thread.is_alive()


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

    def ask(self, number: int) -> None:
        self.handled[number] = threading.Event()
        assert self.pump.post("request", number, {"verb": "ping"})

    def lead(self, number: int, seconds: float = 10.0) -> None:
        self.pump.lead(self.handled[number].is_set, seconds)


@pytest.fixture
def asker() -> Iterator[Asker]:
    """Connected, hello behind it."""
    ours, theirs = socket.socketpair()
    handled: dict[int, threading.Event] = {0: threading.Event()}
    handlers: dict[int, threading.Thread] = {}

    def handle(message: Message) -> None:
        handlers[message.number] = threading.current_thread()
        handled[message.number].set()

    pump = Pump(SocketLink(ours), Endpoint(AGENT), handle)
    thread = threading.Thread(target=pump.run, daemon=True)
    thread.start()
    made = Asker(Shim(theirs), pump, thread, handled, handlers)
    assert handled[0].wait(10)
    yield made
    pump.close("the test ends")
    thread.join(10)
    theirs.close()
    assert not thread.is_alive()


def test_who_leads_handles_its_answer_by_itself(asker: Asker) -> None:
    """No hand-over between threads; afterwards the pump's own receives again."""
    threading.Timer(0.05, asker.shim.answer, [1]).start()
    asker.ask(1)
    asker.lead(1)
    assert asker.handlers[1] is threading.current_thread()
    asker.ask(2)
    asker.shim.answer(2)
    assert asker.handled[2].wait(10)
    assert asker.handlers[2] is asker.thread


def test_a_leader_handles_what_comes_for_others(asker: Asker) -> None:
    """Only one leads: the other waits for it."""
    asker.ask(1)
    asker.ask(2)
    leader = threading.Thread(target=asker.lead, args=[1])
    leader.start()
    while not asker.pump.led:
        time.sleep(0.001)
    asker.lead(2)  # returns at once
    assert not asker.handled[2].is_set()
    asker.shim.answer(2)
    assert asker.handled[2].wait(10)
    assert asker.handlers[2] is leader
    asker.shim.answer(1)
    leader.join(10)
    assert asker.handlers[1] is leader


def test_what_takes_longer_is_handed_over(asker: Asker) -> None:
    """Nobody leads for ever."""
    asker.ask(1)
    asker.lead(1)
    assert not asker.handled[1].is_set()
    asker.shim.answer(1)
    assert asker.handled[1].wait(10)
    assert asker.handlers[1] is asker.thread


@pytest.mark.parametrize(("worst", "broken"), [(Shim.garbage, True), (Shim.end, False)])
def test_a_channel_ends_under_its_leader(worst: Callable[[Shim], None], broken: bool, asker: Asker) -> None:
    """Whoever sees it: the channel is closed, with a reason, and nobody hangs or raises."""
    asker.ask(1)
    threading.Timer(0.05, worst, [asker.shim]).start()
    asker.lead(1)
    asker.thread.join(10)
    assert not asker.thread.is_alive()
    assert (asker.pump.broken, bool(asker.pump.reason)) == (broken, True)
    asker.lead(1)  # of a channel that is closed
    assert not asker.pump.post("request", 2, {"verb": "ping"})
