"""How the shim reaches dom0: the interface of a transport, and the Unix socket that the simulator uses.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol

from guest_shim.protocol import Frame, FrameReader, ProtocolError, encode

_RECEIVE = 65536


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


class UnixSocketTransport:
    """A stream socket on which the agent listens; frames of :mod:`guest_shim.protocol`."""

    def __init__(self, path: str, timeout: float = 2.0) -> None:
        self._path = path
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._reader = FrameReader()

    def announce(self, boot_id: str, version: str, beats: int) -> None:
        """Connect and exchange hello."""
        self.close()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket = connection
        self._reader = FrameReader()
        try:
            connection.settimeout(self._timeout)
            connection.connect(self._path)
        except OSError as error:
            self.close()
            raise TransportError(f"no agent at {self._path}: {error}") from None
        fields = {"versions": [1], "shim": version, "boot_id": boot_id, "beats": beats}
        self._send(Frame("hello", fields))
        answer = self._receive_one()
        if answer.type != "hello" or answer.fields.get("version") != 1:
            self.close()
            raise TransportError(f"the agent answered hello with {answer.type} {answer.fields}")

    def beat(self, beats: int) -> bool:
        """Send a beat; a broken connection is found here."""
        if self._socket is None:
            return False
        try:
            self._send(Frame("beat", {"beats": beats}))
        except TransportError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def _send(self, frame: Frame) -> None:
        assert self._socket is not None
        try:
            self._socket.sendall(encode(frame))
        except OSError as error:
            self.close()
            raise TransportError(f"the agent at {self._path} went away: {error}") from None

    def _receive_one(self) -> Frame:
        assert self._socket is not None
        frames: list[Frame] = []
        while not frames:
            try:
                data = self._socket.recv(_RECEIVE)
            except OSError as error:
                self.close()
                raise TransportError(f"the agent at {self._path} did not answer: {error}") from None
            if not data:
                self.close()
                raise TransportError(f"the agent at {self._path} closed the channel")
            try:
                frames = self._reader.feed(data)
            except ProtocolError as error:
                self.close()
                raise TransportError(f"the agent at {self._path} sent no frame: {error}") from None
        return frames[0]
