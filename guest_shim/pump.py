"""Moves bytes between a link and an endpoint: one thread receives, any thread posts, and silence ends it.

The same on both sides. What a message means is its user's. Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from guest_shim.endpoint import Endpoint, Message
from guest_shim.link import Link, LinkClosed
from guest_shim.protocol import ProtocolError

#: Seconds of silence after which the agent asks whether the shim is there.
KEEP_ALIVE = 5.0
#: Seconds of silence after which a channel is given up. A paused guest's channel ends by this, and comes back.
SILENCE = 30.0
#: Receptions in a row after which the thread looks around: a flood must not keep it from closing.
_BURST = 64


class Pump:
    """One open channel. :meth:`run` is its thread; it ends when the channel does."""

    def __init__(
        self,
        link: Link,
        endpoint: Endpoint,
        handle: Callable[[Message], None],
        *,
        keep_alive: float | None = None,
        silence: float = SILENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``handle`` runs in the pump's thread and may raise :class:`ProtocolError`. With ``keep_alive`` we ask."""
        self.link = link
        self.endpoint = endpoint
        self.reason = ""  #: why it closed
        self.broken = False  #: whether the other side broke the protocol
        self._handle = handle
        self._keep_alive = keep_alive
        self._silence = silence
        self._clock = clock
        self._heard = self._asked = clock()
        self._lock = threading.Lock()
        self._rest: memoryview = memoryview(b"")  # bytes that the link did not take yet
        self._closing = False
        self._stuck = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def post(
        self,
        kind: str,
        number: int = 0,
        header: dict[str, Any] | None = None,
        fields: dict[str, Any] | None = None,
        payload: bytes = b"",
    ) -> bool:
        """Send a message, or what the link takes of it now. ``False`` when the channel is closed.

        :class:`ProtocolError`, :class:`ValueError`, :class:`TypeError`: this message cannot travel; nothing was sent.
        """
        with self._lock:
            if self._closing:
                return False
            self.endpoint.send(kind, number, header, fields, payload)
            self._flush()
            return not self._closing

    def cancel(self, number: int) -> None:
        """Nobody waits for the answer to this request any more."""
        with self._lock:
            if not self._closing:
                self.endpoint.cancel(number)
                self._flush()

    def close(self, reason: str) -> None:
        """End :meth:`run` soon. From any thread."""
        with self._lock:
            self._end(reason)

    def run(self) -> None:
        """Move bytes until the channel closes; then the link is closed and :attr:`reason` says why."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        registered = 0
        try:
            while not self._closing:
                wanted = select.POLLIN | (select.POLLOUT if self._stuck and self.link.polls_writing else 0)
                if wanted != registered:
                    poll.register(self.link.fileno(), wanted)
                    registered = wanted
                ready = poll.poll(self._pause() * 1000)
                if any(descriptor == self._wake_read for descriptor, _ in ready):
                    os.read(self._wake_read, 64)
                if ready:
                    self._receive()
                self._look_at_clock()
        except ProtocolError as error:
            self.broken = True
            self.close(str(error))
        except (LinkClosed, OSError) as error:
            self.close(str(error))
        finally:
            with self._lock:
                self._end("its thread broke")
            # From here on nobody else touches the link. Its end may take long (a vchan's is told to XenStore, which may
            # be dead), and whoever wants to post must hear meanwhile that it is closed.
            self.link.close()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _receive(self) -> None:
        for _ in range(_BURST):
            with self._lock:
                data = self.link.receive()
                messages = self.endpoint.receive(data) if data else []
                self._flush()
            if not data:
                return
            self._heard = self._clock()
            for message in messages:
                self._handle(message)
            if self._closing:
                return
        self._wake()  # there may be more: poll need not tell us of it again

    def _flush(self) -> None:
        """Send what the link takes. The lock is held."""
        self._stuck = False
        try:
            while True:
                if not self._rest:
                    self._rest = memoryview(self.endpoint.take())
                    if not self._rest:
                        return
                sent = self.link.send(self._rest)
                if sent == 0:
                    self._stuck = True
                    if self.link.polls_writing:
                        self._wake()
                    return
                self._rest = self._rest[sent:]
        except LinkClosed as error:
            self._end(str(error))

    def _end(self, reason: str) -> None:
        """The lock is held."""
        if not self._closing:
            self._closing = True
            self.reason = reason
            self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:  # it is awake enough
            return

    def _pause(self) -> float:
        return min(self._keep_alive or self._silence, self._silence) / 2

    def _look_at_clock(self) -> None:
        now = self._clock()
        if now - self._heard > self._silence:
            raise LinkClosed(f"nothing was heard for {now - self._heard:.0f} s")
        # Whatever we hear: the other side ends a channel on which it hears nothing from us.
        if self._keep_alive is not None and now - self._asked >= self._keep_alive:
            self._asked = now
            self.post("ping")
