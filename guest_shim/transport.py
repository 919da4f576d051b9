"""How the shim reaches dom0: the interface of a transport, and the Unix socket that the simulator uses.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import Protocol

from guest_shim.dispatch import Dispatcher
from guest_shim.link import SocketLink
from guest_shim.session import Identity, ShimSession


class TransportError(Exception):
    """dom0 cannot be reached at the moment; try again later."""


class Transport(Protocol):
    """What the shim needs of a way to dom0. Each call may raise :class:`TransportError`."""

    def announce(self, boot_id: str, version: str, beats: int) -> None:
        """Make ourselves known (again): at the start, and whenever :meth:`beat` asks for it."""

    def beat(self, beats: int) -> bool:
        """Say that we live. ``False``: dom0 does not know us any more (it restarted, or we were restored): announce."""

    def close(self) -> None:
        """Let go of everything."""


def new_instance() -> str:
    """A name for this life of the shim."""
    return os.urandom(8).hex()


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
