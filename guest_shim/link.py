"""A way for bytes between a shim and the agent: what the channel asks of it.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

from typing import Protocol


class LinkClosed(Exception):  # noqa: N818 - it is what happened
    """The other side, or what carries the link, went away. The message says which."""


class Link(Protocol):
    """Never blocks for long. One thread receives, any thread sends; the caller holds a lock around both."""

    #: hello's name for it: vchan, xenstore, unix
    name: str
    #: bytes of a long payload that are best sent in one frame
    piece: int
    #: whether :meth:`fileno` must also be polled for writing when :meth:`send` took nothing
    polls_writing: bool
    #: after :meth:`receive`: all that had come was taken, and :meth:`fileno` will tell of what comes next
    drained: bool
    #: after :meth:`send`: it takes no more, and :meth:`fileno` will tell of room
    full: bool

    def fileno(self) -> int:
        """Readable when something came, or when there is room again."""

    def receive(self) -> bytes | memoryview:
        """What came, good until the next call; empty when nothing did. :class:`LinkClosed`."""

    def send(self, data: bytes | memoryview) -> int:
        """Send the beginning of ``data``; how many bytes of it, 0 when there is no room. :class:`LinkClosed`.

        A view is of what can be written to (a bytearray): C libraries are given its address.
        """

    def close(self) -> None:
        """Let go of everything. No error when it is closed already."""
