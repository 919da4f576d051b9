"""Moves bytes between a link and an endpoint: one thread receives, any thread posts, and silence ends it.

Who waits for an answer receives meanwhile, instead of that thread: to hand a message from thread to thread takes a good
part of a round trip. So does each lock, on which Python looks at the clock: there are as few as can be on that way. The
same on both sides. What a message means is its user's.
Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from typing import Any

from guest_shim.endpoint import Endpoint, Message
from guest_shim.link import Link, LinkClosed
from guest_shim.protocol import ProtocolError
from guest_shim.ticks import monotonic

#: Seconds of silence after which the agent asks whether the shim is there.
KEEP_ALIVE = 5.0
#: Seconds of silence after which a channel is given up. A paused guest's channel ends by this, and comes back.
SILENCE = 30.0
#: Receptions in a row after which the thread looks around: a flood must not keep it from closing.
_BURST = 64
#: Seconds that who waits for an answer receives by itself; what takes longer, the thread may as well hand over.
_LEAD = 0.25
_LOOK = 0.05  # seconds between looks at what ends its wait and does not come by the link


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
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """``handle`` runs in the pump's thread and may raise :class:`ProtocolError`. With ``keep_alive`` we ask."""
        self.link = link
        self.endpoint = endpoint
        self.reason = ""  #: why it closed
        self.broken = False  #: whether the other side broke the protocol
        self.led = False  #: whether a caller of :meth:`ask` receives now, and the thread does not
        self._handle = handle
        self._keep_alive = keep_alive
        self._silence = silence
        self._clock = clock
        self._heard = self._asked = clock()
        self._lock = threading.Lock()
        self._busy = False  # the thread receives or handles: messages are handled one after another
        self._rest: bytes | memoryview = b""  # what the link did not take yet
        self._closing = False
        self._stuck = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._descriptor = link.fileno()
        self._watched = 0  # of the link's events
        self._events = select.epoll()  # what the thread wakes for
        self._events.register(self._wake_read, select.EPOLLIN)
        self._events.register(self._descriptor, self._watched)
        self._leaders = select.poll()  # what a leader wakes for
        self._leaders.register(self._descriptor, select.POLLIN)

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
            return self._send(kind, number, header, fields, payload)

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

    def expel(self, reason: str) -> None:
        """As :meth:`close`, for a breach that was not seen on the link; it is the reason also of one that closes."""
        with self._lock:
            self.broken = True
            self._end(reason)
            self.reason = reason

    def run(self) -> None:
        """Move bytes until the channel closes; then the link is closed and :attr:`reason` says why."""
        try:
            while not self._closing:
                if self._wanted() != self._watched:
                    with self._lock:
                        self._watch()
                ready = self._events.poll(self._pause())
                if any(descriptor == self._wake_read for descriptor, _ in ready):
                    os.read(self._wake_read, 64)
                if ready:
                    self._attempt(self._receive)
                self._attempt(self._look_at_clock)
        finally:
            with self._lock:
                self._end("its thread broke")
            # From here on nobody else touches the link. Its end may take long (a vchan's is told to XenStore, which may
            # be dead), and whoever wants to post must hear meanwhile that it is closed.
            self.link.close()
            self._events.close()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def ask(
        self,
        number: int,
        header: dict[str, Any],
        fields: dict[str, Any],
        payload: bytes,
        *,
        is_over: Callable[[], bool],
        seconds: float,
    ) -> bool:
        """Send a request and receive in the calling thread for at most ``seconds`` and a moment, until ``is_over()``.

        As :meth:`post`, and may return long before: at once while somebody else receives, who hands over what comes.
        """
        with self._lock:
            if not self._send("request", number, header, fields, payload):
                return False
            if self.led or self._busy:
                return True
            self.led = True
            self._watch()
        try:
            self._lead(is_over, min(seconds, _LEAD))
        finally:
            with self._lock:
                self.led = False
                self._watch()
        return True

    def _lead(self, is_over: Callable[[], bool], seconds: float) -> None:
        end = self._clock() + seconds
        while not (is_over() or self._closing or self._clock() >= end):
            if self._leaders.poll(_LOOK * 1000):
                self._attempt(self._take_turn)

    def _wanted(self) -> int:
        """The link's events for which the thread is to wake: those at which nobody else looks."""
        receives = 0 if self.led else select.EPOLLIN
        return receives | (select.EPOLLOUT if self._stuck and self.link.polls_writing else 0)

    def _watch(self) -> None:
        """Have the thread wake for them, also while it sleeps. The lock is held."""
        wanted = self._wanted()
        if wanted != self._watched and not self._closing:
            self._watched = wanted
            self._events.modify(self._descriptor, wanted)

    def _attempt(self, step: Callable[[], None]) -> None:
        """Whatever goes wrong in it ends the channel."""
        reason: str | None = "its thread broke"
        try:
            step()
            reason = None
        except ProtocolError as error:
            self.broken = True
            reason = str(error)
        except (LinkClosed, OSError) as error:
            reason = str(error)
        finally:
            if reason is not None:
                self.close(reason)

    def _receive(self) -> None:
        """The thread's turn, unless somebody leads."""
        try:
            self._take_turn(led=False)
        finally:
            self._busy = False

    def _take_turn(self, *, led: bool = True) -> None:
        """Receive and handle what came. Whoever does it is alone: nobody begins to lead while the thread is busy.

        The thread only sends, when there is room again, while somebody else leads.
        """
        for _ in range(_BURST):
            with self._lock:
                if self._closing:
                    return
                data: bytes | memoryview = b""
                if self.led is led:
                    self._busy = not led
                    data = self.link.receive()
                messages = self.endpoint.receive(data) if data else []
                if self._rest or self.endpoint.has_more():
                    self._flush()
            if not data:
                return
            self._heard = self._clock()
            for message in messages:
                self._handle(message)
            if self._closing or self.link.drained:
                return
        with self._lock:
            if not self._closing:
                self._wake()  # there may be more: poll need not tell us of it again

    def _send(
        self, kind: str, number: int, header: dict[str, Any] | None, fields: dict[str, Any] | None, payload: bytes
    ) -> bool:
        """Whether the channel was open and still is. The lock is held."""
        if self._closing:
            return False
        self.endpoint.send(kind, number, header, fields, payload)
        self._flush()
        return not self._closing

    def _flush(self) -> None:
        """Send what the link takes. The lock is held."""
        self._stuck = False
        try:
            while True:
                if not self._rest:
                    taken = self.endpoint.take()
                    # of a piece of a long message the rest is not copied when the link takes a part of it
                    self._rest = memoryview(taken) if isinstance(taken, bytearray) else taken
                    if not self._rest:
                        return
                sent = self.link.send(self._rest)
                self._rest = self._rest[sent:]
                if self.link.full:
                    self._stuck = True
                    if self.link.polls_writing:
                        self._wake()
                    return
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
