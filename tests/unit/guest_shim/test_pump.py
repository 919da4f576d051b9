"""The thread between a link and an endpoint: what others notice of its end."""

from __future__ import annotations

import socket
import threading

from guest_shim.endpoint import AGENT, Endpoint
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
