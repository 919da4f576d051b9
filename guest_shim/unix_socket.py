"""The simulator's way between shim and agent: a stream socket. Guests of Xen do without this module's megabyte.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import contextlib
import socket
import threading

from guest_shim.dispatch import Dispatcher
from guest_shim.link import LinkClosed
from guest_shim.protocol import PAYLOAD_CAP
from guest_shim.session import Identity, ShimSession
from guest_shim.transport import TransportError, new_instance

_RECEIVE = 65536


class SocketLink:
    """A connected stream socket."""

    name = "unix"
    piece = PAYLOAD_CAP
    polls_writing = True
    drained = True  # its descriptor is readable as long as there is something
    full = False

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection

    def fileno(self) -> int:
        """The socket's."""
        return self._socket.fileno()

    def receive(self) -> bytes:
        """One ``recv``."""
        try:
            data = self._socket.recv(_RECEIVE)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            raise LinkClosed(f"the socket failed: {error.strerror}") from None
        if not data:
            raise LinkClosed("the other side closed the socket")
        return data

    def send(self, data: bytes | memoryview) -> int:
        """One ``send``."""
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            raise LinkClosed(f"the socket failed: {error.strerror}") from None
        self.full = sent < len(data)
        return sent

    def close(self) -> None:
        """Close the socket, and wake whoever polls it."""
        with contextlib.suppress(OSError):  # the other side is gone
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class UnixSocketTransport:
    """A stream socket on which the agent listens; one :class:`ShimSession` at a time."""

    def __init__(self, path: str, timeout: float = 2.0, dispatcher: Dispatcher | None = None) -> None:
        """``timeout``: seconds until the agent must have answered hello."""
        self._path = path
        self._timeout = timeout
        self._dispatcher = dispatcher or Dispatcher()
        self._instance = new_instance()
        self._fresh = True
        self._session: ShimSession | None = None
        self._thread: threading.Thread | None = None

    def announce(self, boot_id: str, version: str, beats: int) -> None:
        """Connect and exchange hello; the session goes on in a thread of its own."""
        self.close()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self._timeout)
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise TransportError(f"no agent at {self._path}: {error}") from None
        # a counter that is not at its start in a new process: a saved state went on
        identity = Identity(boot_id, version, self._instance, beats, resumed=self._fresh and beats > 1)
        session = ShimSession(SocketLink(connection), self._dispatcher, identity)
        self._session = session
        self._thread = threading.Thread(target=session.run, name="shim-channel", daemon=True)
        self._thread.start()
        if not session.greeted.wait(self._timeout):
            reason = session.pump.reason or "no answer in time"
            self.close()
            raise TransportError(f"the agent at {self._path} did not answer hello: {reason}")
        self._fresh = False

    def beat(self, beats: int) -> bool:
        """Send a beat; a broken connection is found here."""
        return self._session is not None and self._session.beat(beats)

    def close(self) -> None:
        """End the session."""
        session, thread = self._session, self._thread
        self._session = self._thread = None
        if session is not None and thread is not None:
            session.close("the shim ends it")
            thread.join(self._timeout)
