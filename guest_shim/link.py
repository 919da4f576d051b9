"""A way for bytes between a shim and the agent: what the channel asks of it, and the one over a stream socket.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol

_RECEIVE = 65536


class LinkClosed(Exception):  # noqa: N818 - it is what happened
    """The other side, or what carries the link, went away. The message says which."""


class Link(Protocol):
    """Never blocks for long. One thread receives, any thread sends; the caller holds a lock around both."""

    #: hello's name for it: vchan, xenstore, unix
    name: str
    #: whether :meth:`fileno` must also be polled for writing when :meth:`send` took nothing
    polls_writing: bool

    def fileno(self) -> int:
        """Readable when something came, or when there is room again."""

    def receive(self) -> bytes:
        """What came; empty when nothing did. :class:`LinkClosed`."""

    def send(self, data: bytes | memoryview) -> int:
        """Send the beginning of ``data``; how many bytes of it, 0 when there is no room. :class:`LinkClosed`."""

    def close(self) -> None:
        """Let go of everything. No error when it is closed already."""


class SocketLink:
    """A connected stream socket."""

    name = "unix"
    polls_writing = True

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
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise LinkClosed(f"the socket failed: {error.strerror}") from None

    def close(self) -> None:
        """Close the socket, and wake whoever polls it."""
        with contextlib.suppress(OSError):  # the other side is gone
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
